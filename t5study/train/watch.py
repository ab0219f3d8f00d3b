"""Watch: how a run is getting on, from its folder alone; nothing of it is locked, written or waited for.

The journal says what was learnt, speeds.jsonl how fast, .lock who is at work, summary.json that it is done. On a
terminal a live view, elsewhere a plain line now and then.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from t5study.ground.errors import UserError
from t5study.ground.journal import duration
from t5study.train.folder import JOURNAL, LOCK, SUMMARY, run_of, steps
from t5study.train.speeds import read_speed_rows, told

_RECENT_S = 30.0  # seconds of steps that the speed shown is taken over
_RECENT = 1 << 16  # bytes that their rows, about one a second, lie well within
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class State:
    """A run at one moment. losses: (step, loss) of its good steps. holder: who is at work, None for nobody. saved: the
    step of the newest checkpoint. tokens_per_second, waited, utilisation (0 to 1): of the last half a minute, None if
    not known."""

    name: str
    step: int
    steps: int
    losses: list[tuple[int, float]]
    skipped: int
    rewound: int
    saved: int | None
    holder: str | None
    done: bool
    tokens_per_second: float | None
    waited: float | None
    utilisation: float | None
    seconds_a_step: float | None

    @property
    def parts(self) -> list[str]:
        """What there is to say of it, for people."""
        parts = [f"step {self.step:,}/{self.steps:,}"]
        if self.losses:
            parts.append(f"loss {self.losses[-1][1]:.3f}")
        if self.tokens_per_second is not None and self.waited is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s, {100 * self.waited:.1f} % of it waiting for data")
        parts += told(None, self.utilisation)
        if self.skipped:
            parts.append(f"{self.skipped:,} steps left out")
        if self.rewound:
            parts.append(f"{self.rewound:,} times gone back")
        if self.saved is not None:
            parts.append(f"checkpoint of step {self.saved:,}")
        if self.done:
            parts.append("done")
        elif self.holder is None:
            parts.append("nobody is at work here")
        elif self.seconds_a_step:
            parts.append(f"{duration(self.seconds_a_step * (self.steps - self.step))} left")
        return parts


class Follower:
    """Reads what came since it looked last; a journal that was cut back (a run that went on from a checkpoint) is read
    again."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.steps = _steps_asked(self.folder)
        self._read, self._rows, self._tail = 0, [], b""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The journal's rows as they are now, but for one that is still being written."""
        path = self.folder / JOURNAL
        size = path.stat().st_size if path.exists() else 0
        if size < self._read:
            self._read, self._rows, self._tail = 0, [], b""
        if size > self._read:
            with open(path, "rb") as file:
                file.seek(self._read)
                content = self._tail + file.read(size - self._read)
            self._read = size
            *lines, self._tail = content.split(b"\n")
            try:
                self._rows += [json.loads(line) for line in lines]
            except ValueError as error:
                raise UserError(f"{path}: found a damaged row ({error}); see `checkpoint verify`") from None
        return self._rows

    def state(self) -> State:
        rows = self.rows
        seconds = waited = tokens = made = used = known = 0
        for row in reversed(read_speed_rows(self.folder, _RECENT)):
            seconds, waited = seconds + row["seconds"], waited + row["waited"]
            tokens, made = tokens + row["tokens"], made + row["steps"]
            if row["utilisation"] is not None:
                used, known = used + row["utilisation"] * row["seconds"], known + row["seconds"]
            if seconds >= _RECENT_S:
                break
        return State(
            name=self.folder.name,
            step=rows[-1]["step"] if rows else 0,
            steps=self.steps,
            losses=[(row["step"], row["loss"]) for row in rows if "loss" in row],
            skipped=sum("skipped" in row for row in rows),
            rewound=sum(len(row.get("rewound", ())) for row in rows),
            saved=next(iter(steps(self.folder)), None),
            holder=_holder(self.folder),
            done=(self.folder / SUMMARY).exists(),
            tokens_per_second=tokens / seconds if seconds else None,
            waited=waited / seconds if seconds else None,
            utilisation=used / known if known else None,
            seconds_a_step=seconds / made if made else None,
        )


def watch(
    folder: Path,
    *,
    once: bool = False,
    every: float = 10.0,
    out: TextIO | None = None,
    sleep: Callable[[float], None] = time.sleep,
    also: Callable[[Follower], None] = lambda follower: None,
) -> None:
    """Shows a run until it is done, or only once. also: told at every look (board.py). UserError if the folder is no
    run's."""
    out = sys.stdout if out is None else out
    follower = Follower(folder)
    if once or out is None or not out.isatty():
        while True:
            state = follower.state()
            also(follower)
            print(f"{state.name}: {' · '.join(state.parts)}", file=out, flush=True)
            if once or state.done:
                return
            sleep(every)
    from rich.console import Console
    from rich.live import Live

    console = Console(file=out)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            state = follower.state()
            also(follower)
            live.update(_view(state, console.width), refresh=True)
            if state.done:
                return
            sleep(1.0)


def _view(state: State, width: int) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    lines = [Text(state.name, style="bold"), ProgressBar(state.steps, state.step), Text(" · ".join(state.parts))]
    if len(state.losses) > 1:
        low, high = (f"{one(loss for _, loss in state.losses):.3f}" for one in (min, max))
        lines.append(Text(f"loss {sparks([loss for _, loss in state.losses], max(8, width - 24))} {low} to {high}"))
    return Group(*lines)


def sparks(values: list[float], width: int) -> str:
    """Numbers as a row of little bars, each the mean of as many as come to one.

    >>> sparks([8.0, 7.0, 5.0, 1.0], 4)
    '█▇▅▁'
    """
    n = min(width, len(values))
    parts = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return "".join(_BARS[round((mean - low) / (high - low) * 7) if high > low else 0] for mean in means)


def _steps_asked(folder: Path) -> int:
    """How many steps the run of a folder has."""
    found = run_of(folder)
    try:
        return int(found["run"]["fields"]["steps"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{folder / 'run.json'}: says nothing of steps; give the --out of a `train` command") from None


def _holder(folder: Path) -> str | None:
    """Who is at work, as its lock says. A process of this machine is looked for; the lock itself is not touched, lest a
    run that begins at this moment be refused."""
    try:
        told = (folder / LOCK).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    found = re.fullmatch(r"process (\d+) on (.+)", told)
    if found and found[2] == socket.gethostname():
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            return None
        except (PermissionError, OverflowError):
            pass
    return told or None
