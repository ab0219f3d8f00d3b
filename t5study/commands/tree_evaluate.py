"""The commands that judge: evaluate, compare, submission, contamination."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t5study.commands import flags, train_flags
from t5study.commands.flags import Real, Whole, folder, place
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
    flags.tasks(evaluate, benchmarks=True)
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
    train_flags.machine(evaluate)

    compare = leaf(
        commands,
        "compare",
        "judge.compare",
        "Say whether one of two checkpoints is better on the same rows, or whether it may be chance: paired bootstrap, "
        "exact McNemar, sacreBLEU's own test for BLEU and chrF, corrected for several tasks (Holm).",
        "scores-of-one scores-of-another",
    )
    for name in ("first", "second"):
        compare.add_argument(name, type=folder, help="what `evaluate --out` wrote: the folder, or one .parquet of it")
    compare.add_argument("--resamples", type=Whole(100, 1_000_000), default=2000, help="of the bootstrap")
    compare.add_argument("--out", type=folder, help="JSON file to write as well")

    submission = leaf(
        commands,
        "submission",
        "judge.submission",
        "Write the archive that the GLUE or the SuperGLUE site takes, from answers to test rows.",
        "my-answers --site glue --out glue.zip",
    )
    submission.add_argument(
        "predictions",
        nargs="+",
        type=folder,
        help="what `evaluate --split test --out` wrote: folders, or .parquet files",
    )
    submission.add_argument("--site", choices=["glue", "superglue"], required=True, help="whose format")
    submission.add_argument("--out", type=folder, default=Path("submission.zip"), help="archive; must not exist")
    submission.add_argument("--partial", action="store_true", help="leave out tasks and rows that are not there")

    contamination = leaf(
        commands,
        "contamination",
        "judge.contamination",
        "Say which rows of tasks a corpus holds already, by the runs of words that they share, as GPT-3's and PaLM's "
        "authors did. The corpus is read once and never held.",
        "--task glue/sst2,my_task.jsonl --data my-data --corpus my-corpus --out report.json",
    )
    flags.tasks(contamination, benchmarks=True)
    flags.data(contamination)
    contamination.add_argument("--text", nargs="+", type=place, metavar="PATTERN", help="files or quoted patterns")
    contamination.add_argument("--corpus", type=folder, help="or a folder that `corpus build` wrote")
    contamination.add_argument(
        "--split", choices=["validation", "test", "train"], default="validation", help="rows of it"
    )
    contamination.add_argument(
        "--rule",
        choices=["gpt3", "palm"],
        default="gpt3",
        help="gpt3: any run of 8 to 13 words; palm: 70 %% of the runs of 8 words",
    )
    contamination.add_argument("--n", type=Whole(1, 1000), help="words of a run")
    contamination.add_argument("--share", type=Real(0, 1), help="least part of a row's runs, 0 for any one")
    contamination.add_argument("--common", type=Whole(0), help="leave out runs found more often, 0 for none")
    contamination.add_argument("--scores", type=folder, help="what `evaluate --out` wrote: score clean rows apart")
    contamination.add_argument("--out", type=folder, help="JSON report to write, row by row")
