"""What people see while a study runs: how much is done, how long it will take, and what every worker is at.

On a terminal a live table, a row a worker; elsewhere one plain line every ten seconds. All of it on stderr: stdout is
for results. Time left goes by what stages of the same kind have taken, in this session and before it (pace.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from t5study.ground.journal import duration
from t5study.study.pace import Left, Pace
from t5study.study.stages import Stage, stage_id
from t5study.study.workers import Done, Step

_SHOWN = 16  # workers that get a live row of their own


class _Seat:
    """A worker's stage and how far it is."""

    def __init__(self, stage: Stage, now: float):
        self.stage, self.began = stage, now
        self.first: int | None = None
        self.last = Step()

    @property
    def share(self) -> float:
        """Part of the stage that is done, 0 where nobody can tell."""
        return min(1.0, self.last.step / self.stage.steps_of_training) if self.stage.steps_of_training else 0.0

    @property
    def share_here(self) -> float:
        """Part of the stage that this worker has done: all but what a killed one had done before it."""
        return self.share - (self.first or 0) / max(1, self.stage.steps_of_training)

    def text(self, now: float) -> str:
        total = self.stage.steps_of_training
        if not total:
            return f"{self.stage.label} · {duration(now - self.began)}"
        parts = [f"{self.stage.label} · step {self.last.step:,}/{total:,}"]
        if self.last.text:
            parts.append(self.last.text)
        elif self.last.loss is not None:
            parts.append(f"loss {self.last.loss:.3f}")
            parts += [f"{self.last.tokens_per_second:,.0f} tokens/s"] if self.last.tokens_per_second else []
        return " · ".join(parts)

    def cells(self, now: float) -> tuple[str, str, str, str, str]:
        """The same as columns: stage, step, loss, tokens a second or what else goes on, and for how long."""
        last, total = self.last, self.stage.steps_of_training
        return (
            self.stage.label,
            f"{last.step:,}/{total:,}" if total else "",
            "" if last.loss is None else f"{last.loss:.3f}",
            last.text or (f"{last.tokens_per_second:,.0f}" if last.tokens_per_second else ""),
            duration(now - self.began),
        )


class Watch:
    """Told by the conductor what begins, goes on and ends; shows it."""

    def __init__(
        self,
        workers: int,
        *,
        every: float = 10.0,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.workers, self.every, self.clock = workers, every, clock
        self.out = out or sys.stderr
        self._expected: dict[str, Stage] = {}
        self._there: set[str] = set()
        self._seats: dict[int, _Seat] = {}
        self._lost: set[str] = set()
        self.others = 0  # stages that could be begun, were they not in the hands of another study
        self._pace = Pace()
        self._began: float | None = None
        self._shown = clock()
        self._live: Any = None

    # --- what the conductor tells -------------------------------------------------------------------------------

    def expect(self, stages: dict[str, Stage], there: Iterable[str], pace: Pace | None = None) -> None:
        """All stages that the study will come to, parents first, as far as is known, and those that are done. pace: of
        what was done before this session; it is asked for once."""
        self._expected, self._there = dict(stages), set(there) & stages.keys()
        if self._began is None:
            self._began, self._pace = self.clock(), pace or Pace()
            self.say(f"{len(self._there)} of {len(stages)} stages are there; {self.workers} workers")
            self._live = _live(self.out)

    def begin(self, k: int, stage: Stage) -> None:
        self._seats[k] = _Seat(stage, self.clock())

    def step(self, k: int, step: Step) -> None:
        seat = self._seats[k]
        if step.text:
            step = Step(seat.last.step, seat.last.loss, 0.0, step.text)
        elif seat.first is None:
            seat.first = max(0, step.step - 1)
        seat.last = step

    def end(self, k: int, done: Done | None) -> None:
        """None: it was not brought to its end."""
        seat = self._seats.pop(k)
        if done is None:
            return
        seconds = self.clock() - seat.began
        self._there.add(stage_id(seat.stage))
        share = 1 - (seat.first or 0) / max(1, seat.stage.steps_of_training)
        self._pace.saw(seat.stage.kind, seconds, share * seat.stage.work)
        if seat.stage.steps_of_training:
            loss = "" if done.loss is None else f" · loss {done.loss:.3f}"
            self.say(f"done: {seat.stage.label} · {duration(seconds)}{loss}")

    def arrived(self, name: str) -> None:
        """A stage is in the store, whoever built it."""
        self._there.add(name)

    def lost(self, name: str) -> None:
        """A stage has been given up."""
        self._lost.add(name)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(f"study: {text}", file=self.out, flush=True)

    def show(self) -> None:
        """Draws the lines anew, if it is time."""
        now = self.clock()
        if self._live:
            self._live.update(self._block(now))
        elif now - self._shown >= self.every:
            seats = [f"[{k + 1}] {seat.text(now)}" for k, seat in sorted(self._seats.items())]
            print(f"study: {self._head(now)} | {' | '.join(seats)}", file=self.out, flush=True)
            self._shown = now

    def close(self) -> None:
        """Takes the live lines down."""
        if self._live:
            self._live.stop()
            self._live = None

    # --- how much is done -----------------------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """Part of the expected work that is done."""
        done = sum(self._expected[name].work for name in self._there if name in self._expected)
        done += sum(seat.share * seat.stage.work for seat in self._seats.values())
        whole = sum(stage.work for stage in self._expected.values())
        return min(1.0, done / whole) if whole else 1.0

    def seconds_left(self) -> float | None:
        """None until anything has been timed."""
        now = self.clock()
        pace, begun = Pace(dict(self._pace.took)), dict[str, float]()
        for seat in self._seats.values():
            begun[stage_id(seat.stage)] = seat.share
            if seat.share_here > 0.1:
                pace.saw(seat.stage.kind, now - seat.began, seat.share_here * seat.stage.work)
        left = {
            name: Left(stage.kind, stage.work, begun.get(name, 0.0), tuple(map(stage_id, stage.parents)))
            for name, stage in self._expected.items()
            if name not in self._there and name not in self._lost
        }
        return pace.left(left, self.workers)

    def _head(self, now: float) -> str:
        left = self.seconds_left()
        parts = [f"{self.share:.0%} done", f"{duration(0.0 if self._began is None else now - self._began)} so far"]
        parts += [f"{len(self._lost)} failed"] if self._lost else []
        parts += [f"{self.others} in other hands"] if self.others else []
        parts += [] if left is None else [f"about {duration(left)} left"]
        return " · ".join(parts)

    def _block(self, now: float) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(ratio=1)
        head.add_column(no_wrap=True)
        told = f"{len(self._there)} of {len(self._expected)} stages · {self._head(now)}"
        head.add_row(ProgressBar(total=1.0, completed=self.share), Text(told))
        table = Table(box=None, padding=(0, 1), header_style="dim")
        table.add_column("", justify="right")
        table.add_column("stage", no_wrap=True, overflow="ellipsis")
        for name in ("step", "loss", "tokens/s", "for"):
            table.add_column(name, justify="right", no_wrap=True)
        seats = sorted(self._seats.items())
        for k, seat in seats[:_SHOWN]:
            table.add_row(str(k + 1), *map(Text, seat.cells(now)))
        more = [Text(f"     and {len(seats) - _SHOWN} more")] if len(seats) > _SHOWN else []
        return Group(head, table, *more)


def _live(out: TextIO) -> Any:
    if not out.isatty():
        return None
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(file=out), refresh_per_second=4, transient=True)
    live.start()
    return live
