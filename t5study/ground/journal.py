"""Losses as JSON lines; progress for people.

The journal is the truth: one row a step, ascending, the same bytes whether or not the run was interrupted. So no
wall-clock value enters it; speeds belong to Progress and to a file beside it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from t5study.ground.errors import UserError


class Journal:
    """An append-only file of JSON lines, each with a "step".

    A row is flushed to the kernel as it is written, so a killed process loses no finished row; a row that was cut
    by the kill, and rows after the checkpoint a run resumes from, are dropped by `rewind`.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab")

    def append(self, row: dict[str, Any]) -> None:
        """Writes one row. Floats are written in full, so equal runs give equal bytes."""
        self._file.write(json.dumps(row, allow_nan=True).encode() + b"\n")
        self._file.flush()

    def rewind(self, step: int) -> None:
        """Keeps only the rows up to and including `step`: what the checkpoint of that step has seen."""
        self._file.close()
        content = self.path.read_bytes()
        kept, position = 0, 0
        while (end := content.find(b"\n", position)) >= 0:
            if json.loads(content[position:end])["step"] > step:
                break
            position = kept = end + 1
        os.truncate(self.path, kept)
        self._file = open(self.path, "ab")

    def sync(self) -> None:
        """Makes the rows so far durable: called before a checkpoint that relies on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The rows of a journal; a last row that is still being written is left out. UserError if the file is missing."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such journal; has the run started?") from None
    lines = content.split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: found a damaged row ({error}); delete the run and start it again") from None


class Progress:
    """Shows how a run is getting on: a bar on a terminal, otherwise a plain line every `every` seconds.

    Tokens per second are a moving average over the last lines shown; time left is what the mean step time so far
    (of this process, not of an interrupted one before it) leads to.
    """

    def __init__(
        self,
        total: int,
        label: str,
        *,
        unit: str = "step",
        start: int = 0,
        every: float = 5.0,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        more: Callable[[], list[str]] = list,
    ):
        self.total, self.label, self.unit, self.every = total, label, unit, every
        self.out = out or sys.stderr
        self.clock, self.more = clock, more
        self.first = start
        self.began = self.shown = clock()
        self.tokens = self.tokens_shown = 0
        self.bar = _bar(self.out, total, label, start)

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None:
        """`step` is done; it took in `tokens` tokens and had this loss."""
        self.tokens += tokens
        now = self.clock()
        if now - self.shown < (0.2 if self.bar else self.every) and step < self.total:
            return
        text = self._text(step, loss, now)
        if self.bar:
            self.bar[0].update(self.bar[1], completed=step, status=text)
        else:
            print(f"{self.label}: {self.unit} {step:,}/{self.total:,}{text}", file=self.out, flush=True)
        self.shown, self.tokens_shown = now, self.tokens

    def _text(self, step: int, loss: float | None, now: float) -> str:
        seconds = max(now - self.shown, 1e-9)
        parts = []
        if loss is not None:
            parts.append(f"loss {loss:.3f}")
        if self.tokens:
            parts.append(f"{(self.tokens - self.tokens_shown) / seconds:,.0f} tokens/s")
        parts += self.more()
        if step > self.first:
            left = (now - self.began) / (step - self.first) * (self.total - step)
            parts.append(f"{duration(left)} left")
        return "".join(f" · {part}" for part in parts)

    def close(self) -> None:
        """Takes the bar down. A closed stderr is no reason to fail a run that is done."""
        if self.bar:
            self.bar[0].stop()


def _bar(out: TextIO, total: int, label: str, start: int) -> Any:
    if not out.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        console=Console(file=out),
        transient=True,
    )
    task = bar.add_task(label, total=total, completed=start, status="")
    bar.start()
    return bar, task


def duration(seconds: float) -> str:
    """
    >>> duration(7), duration(95), duration(7300)
    ('7 s', '1 min 35 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
