"""The commands that judge: evaluate, compare, submission, contamination."""

from __future__ import annotations

from typing import Any

from t5study.commands import flags
from t5study.commands.flags import Real, Whole, folder
from t5study.commands.leaves import leaf


def add(commands: Any) -> None:
    """Adds them to the command line."""
    evaluate = leaf(
        commands,
        "evaluate",
        "evaluate.evaluate",
        "Score a model on tasks: by each task's metric on its answers, and by the likelihood of its targets. Takes "
        "what `train` wrote and any T5 folder of Hugging Face (safetensors). Interrupted, the same command goes on.",
        "--checkpoint my-tuned/model --task my_task.jsonl pydocs/package --out my-scores\n"
        "  t5study evaluate --checkpoint my-tuned/model --task glue --data my-data --out my-scores",
    )
    flags.checkpoint(evaluate)
    flags.tasks(evaluate)
    flags.data(evaluate)
    evaluate.add_argument(
        "--out",
        type=folder,
        help="folder for scores.json and every prediction; an interrupted evaluation goes on in it",
    )
    evaluate.add_argument(
        "--cache", type=folder, help="folder of evaluations done, by weights, rows and settings (default: in --out)"
    )
    evaluate.add_argument(
        "--split",
        choices=["validation", "test"],
        default="validation",
        help="test: answers without scores, for `t5study submission`",
    )
    evaluate.add_argument(
        "--method",
        choices=["greedy", "beam", "rank"],
        default="greedy",
        help="how answers are found; rank: the likeliest of a task's labels",
    )
    evaluate.add_argument("--beams", type=Whole(1, 512), help="of --method beam (default: 4, T5's)")
    evaluate.add_argument("--alpha", type=Real(0, 100), help="weight of the length of beams (default: 0.6)")
    evaluate.add_argument("--limit", type=Whole(1), help="take only the first so many rows of a task")
    evaluate.add_argument("--source-length", type=Whole(1, 8192), help="source tokens (default: the task's)")
    evaluate.add_argument("--target-length", type=Whole(1, 8192), help="target tokens (default: the task's)")
    evaluate.add_argument("--batch-rows", type=Whole(1, 65_536), default=64, help="rows a batch")
    flags.machine(evaluate)
