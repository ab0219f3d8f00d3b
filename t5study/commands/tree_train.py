"""Commands about a run from outside, or before there is one: train memory, train watch, checkpoint verify
and reshard."""

from __future__ import annotations

from typing import Any

from t5study.commands import flags
from t5study.commands.flags import Real, Whole, folder
from t5study.commands.leaves import group, leaf


def add(commands: Any, train: Any) -> None:
    """Adds them to the command line. train: the group of the training commands."""
    watch = leaf(
        train,
        "watch",
        "checkpoint.watch",
        "Show how a run is getting on, live, until it is done. Reads the run's folder and changes nothing that the run "
        "has in it.",
        "my-run\n  t5study train watch my-run --page\n  t5study train watch my-run --tensorboard",
    )
    watch.add_argument("folder", type=folder, help="--out of a `train` command")
    watch.add_argument("--once", action="store_true", help="say it once and leave")
    watch.add_argument("--page", action="store_true", help="write its loss and speed as page.html, and leave")
    watch.add_argument(
        "--tensorboard", action="store_true", help="keep my-run/tensorboard up to date meanwhile; with --once: write it"
    )
    _memory(train)
    checkpoint = group(commands, "checkpoint", "the checkpoints of a run")
    verify = leaf(
        checkpoint,
        "verify",
        "checkpoint.verify",
        "Check every byte of a run's checkpoints: digests, journals, numbers that are finite. Exit code 2 if one is "
        "damaged.",
        "my-run",
    )
    verify.add_argument("folder", type=folder, help="--out of a `train` command")
    reshard = leaf(
        checkpoint,
        "reshard",
        "checkpoint.reshard",
        "Write a run's folder again, its checkpoints in a file for each of so many ranks. Not a bit of a number "
        "changes, and the same `train` command goes on in it on any number of ranks. The new folder is there whole or "
        "not at all; the old one is only read, its damaged checkpoints are left behind.",
        "my-run --ranks 8 --out my-run-8",
    )
    reshard.add_argument("folder", type=folder, help="--out of a `train` command")
    reshard.add_argument("--ranks", type=Whole(1, 65_536), required=True, help="1: one file of all weights")
    reshard.add_argument("--out", type=folder, required=True, help="folder to write; must not exist")


def _memory(train: Any) -> None:
    memory = leaf(
        train,
        "memory",
        "scale.memory",
        "Say what a step takes of each of many GPUs: memory, traffic and an assumed speed, by arithmetic. Nothing is "
        "made and no GPU is needed.",
        "--size 11b --gpus 8 64 512 --micro-batch 4 --recompute\n"
        "  t5study train memory --size 11b --gpus 1 --micro-batch 8 --recompute --weights bf16 --update-in-backward",
    )
    memory.add_argument("--size", default="11b", help="`t5study model describe` knows them")
    flags.architecture(memory)
    memory.add_argument("--gpus", type=Whole(1, 65_536), nargs="+", default=[8, 64, 512], help="one line for each")
    memory.add_argument(
        "--shard", type=Whole(2, 65_536), metavar="RANKS", help="cut each weight among so many (default: among all)"
    )
    memory.add_argument(
        "--tensor",
        type=Whole(2, 65_536),
        metavar="RANKS",
        help="so many keep one model between them, by heads and hidden columns, and work on the same rows",
    )
    memory.add_argument("--whole", action="store_true", help="cut nothing: all weights on each")
    memory.add_argument("--micro-batch", type=Whole(1), default=4, help="rows of a pass on one GPU")
    memory.add_argument("--passes", type=Whole(1), default=1, help="micro-batches a step")
    memory.add_argument("--source-length", type=Whole(1, 65_536), default=512, help="source tokens a row")
    memory.add_argument("--target-length", type=Whole(1, 65_536), default=114, help="target tokens a row")
    memory.add_argument("--optimizer", choices=["adafactor", "adamw"], default="adafactor", help="whose state is held")
    memory.add_argument("--recompute", action="store_true", help="layers are run again in the backward pass")
    memory.add_argument(
        "--weights", choices=["fp32", "bf16"], default="fp32", help="how matrices are kept: bf16 on one"
    )
    memory.add_argument("--update-in-backward", action="store_true", help="each weight moves at once: on one GPU")
    memory.add_argument("--device-memory", type=Real(0, 1e5, open=True), default=141.0, help="GB of one GPU")
    memory.add_argument("--peak-tflops", type=Real(0, 1e6, open=True), default=790.0, help="of one GPU, in bf16")
    memory.add_argument("--utilisation", type=Real(0, 1, open=True), default=0.4, help="share of the peak, assumed")
    memory.add_argument("--json", action="store_true", help="as JSON")
