"""How a build is getting on: documents and megabytes a second, and the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from t5study.ground.journal import duration


class Pace:
    """A line on standard error at the end of a stage, and in between every `every` seconds."""

    def __init__(self, out: TextIO | None = None, every: float = 10.0, clock: Callable[[], float] = time.monotonic):
        self.out, self.every, self.clock = out, every, clock
        self.stage = ""

    def begin(self, stage: str, tasks: int, missing: int, size: int) -> None:
        """A stage of so many tasks, of which some are missing; size: bytes of input these read, 0 where none."""
        self.close()
        self.stage, self.tasks, self.missing, self.size = stage, tasks, missing, size
        self.ended = self.pages = self.bytes = 0
        self.began = self.shown = self.clock()

    def done(self, pages: int, size: int) -> None:
        """A task is done; it took in so many pages and bytes."""
        self.ended += 1
        self.pages, self.bytes = self.pages + pages, self.bytes + size
        if self.clock() - self.shown >= self.every and self.ended < self.missing:
            self._show()

    def close(self) -> None:
        """The stage's last line."""
        if self.stage and self.missing:
            self._show()
        self.stage = ""

    def _show(self) -> None:
        now = self.clock()
        seconds = max(now - self.began, 1e-9)
        told = f"{self.stage}: {self.tasks - self.missing + self.ended:,} of {self.tasks:,} tasks"
        if self.stage == "read":
            told += f" · {self.pages / seconds:,.0f} documents/s · {self.bytes / seconds / 1e6:,.1f} MB/s"
        if 0 < self.ended < self.missing:
            part = self.bytes / self.size if self.size else self.ended / self.missing
            told += f" · {duration(seconds * (1 / max(part, 1e-9) - 1))} left"
        else:
            told += f" · {duration(seconds)}"
        print(told, file=self.out or sys.stderr, flush=True)
        self.shown = now
