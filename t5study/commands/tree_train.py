"""The commands that look at a run from outside: train watch, checkpoint verify."""

from __future__ import annotations

from typing import Any

from t5study.commands.flags import folder
from t5study.commands.leaves import group, leaf


def add(commands: Any, train: Any) -> None:
    """Adds them to the command line. train: the group of the training commands."""
    watch = leaf(
        train,
        "watch",
        "checkpoint.watch",
        "Show how a run is getting on, live, until it is done. Reads the run's folder and changes nothing in it.",
        "my-run\n  t5study train watch my-run --page",
    )
    watch.add_argument("folder", type=folder, help="--out of a `train` command")
    watch.add_argument("--once", action="store_true", help="say it once and leave")
    watch.add_argument("--page", action="store_true", help="write its loss and speed as page.html, and leave")
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
