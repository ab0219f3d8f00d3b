"""Board: a run as TensorBoard shows it, RUN/tensorboard/, written from the run's journals and from nothing else.

    learning/loss, .../grad_norm, ...      every number of the journal's rows, by step
    evaluation/...                         every number of evaluations.jsonl
    speed/tokens_per_second, speed/waited  of speeds.jsonl

The journals stay the truth: this is made anew each time, and no run knows of it. TensorBoard's own time axis is when
it was written; by step is what there is to look at.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.train.folder import EVALUATIONS, run_of
from t5study.train.speeds import read_speed_rows
from t5study.train.watch import Follower

BOARD = "tensorboard"


class Board:
    """Told of a run again and again: writes what came since. A journal that was cut back begins it anew."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._writer: Any = None
        self._done: dict[str, list[Any]] = {}

    def update(self, follower: Follower) -> None:
        """Writes what the journals have and it has not. UserError without TensorBoard, or for no run's folder."""
        rows = {
            "learning": follower.rows,
            "evaluation": _rows(self.folder / EVALUATIONS),
            "speed": _speeds(self.folder),
        }
        if self._writer is None or any(rows[kind][: len(done)] != done for kind, done in self._done.items()):
            self._begin()
        writer: Any = self._writer
        for kind, found in rows.items():
            for row in found[len(self._done[kind]) :]:
                for name, value in numbers(row):
                    writer.add_scalar(f"{kind}/{name}", value, row["step"])
            self._done[kind] = list(found)
        writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _begin(self) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise UserError(
                "command line: found --tensorboard without TensorBoard; pip install 't5study[tensorboard]'"
            ) from None
        run = run_of(self.folder)
        self.close()
        shutil.rmtree(self.folder / BOARD, ignore_errors=True)
        self._writer = SummaryWriter(str(self.folder / BOARD))
        self._done = {"learning": [], "evaluation": [], "speed": []}
        self._writer.add_text("run", f"```\n{json.dumps(run, indent=1)}\n```", 0)


def numbers(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a row but its step, by their path.

    >>> list(numbers({"step": 5, "loss": 2.5, "skipped": {"found": "nan"}, "cola": {"f1": 0.5}}))
    [('loss', 2.5), ('cola/f1', 0.5)]
    """
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and (prefix or name != "step"):
            yield f"{prefix}{name}", float(value)


def _speeds(folder: Path) -> list[dict[str, float]]:
    """By step; of steps that were made again after a kill, the last time."""
    rows = {row["step"]: row for row in read_speed_rows(folder) if row["seconds"] > 0}
    return [
        {
            "step": step,
            "tokens_per_second": row["tokens"] / row["seconds"],
            "waited": row["waited"] / row["seconds"],
        }
        for step, row in sorted(rows.items())
    ]


def _rows(path: Path) -> list[dict[str, Any]]:
    """A journal's rows but for one that is still being written."""
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        return [json.loads(line) for line in content.split("\n")[:-1]]
    except ValueError as error:
        raise UserError(f"{path}: found a damaged row ({error}); see `checkpoint verify`") from None
