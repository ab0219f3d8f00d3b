"""Signals that come to a rank at a moment of a run: as the first rank loads, begins a step, saves or evaluates.

    Strike("save", 10, rank=1, signal="SIGKILL", after_s=0.01)    so long after the first begins to save step 10

"load": at the next start, whatever the step. "step": before its gradients. "save": all is written and not yet synced.
"published": the checkpoint has its name, and the oldest is not removed yet. "evaluation": before it begins. Strikes
come one after another, each once, however often the run begins again. When they came, and when steps began, stands
beside the run's folder, by the clock that all processes of a machine share. One start of a run meets one strike.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed as dist

from t5study.ground import store
from t5study.train import checkpoint, loop, site


@dataclass(frozen=True)
class Strike:
    moment: str
    step: int
    rank: int
    signal: str
    after_s: float = 0.0


def mark(folder: Path, number: int) -> Path:
    """The file that tells when a strike came."""
    return folder.with_name(f"{folder.name}.strike.{number}")


def begun(folder: Path) -> list[tuple[int, float]]:
    """Every step that was begun, and when; 0 is the beginning of a process's work."""
    lines = folder.with_name(f"{folder.name}.steps").read_text().splitlines()
    return [(int(step), float(at)) for step, at in (line.split() for line in lines)]


def came(folder: Path, number: int) -> float | None:
    """When a strike came."""
    path = mark(folder, number)
    return float(path.read_text()) if path.exists() else None


class _Armed:
    """Of the first rank, from the moment on at which it knows the others' processes."""

    def __init__(self, strikes: Sequence[Strike]):
        self.strikes, self.folder, self.pids, self.done = strikes, Path(), list[int](), True

    def at(self, moment: str, step: int) -> None:
        """Where the run has come to."""
        due = ((i, one) for i, one in enumerate(self.strikes) if not mark(self.folder, i).exists())
        number, strike = next(due, (0, None))
        if strike and not self.done and strike.moment == moment and (strike.step == step or moment == "load"):
            self.done = True
            if strike.after_s:
                threading.Timer(strike.after_s, self._send, (number, strike)).start()
            else:
                self._send(number, strike)

    def note(self, step: int) -> None:
        """Told by `begun`."""
        with open(self.folder.with_name(f"{self.folder.name}.steps"), "a") as file:
            file.write(f"{step} {time.monotonic()!r}\n")

    def _send(self, number: int, strike: Strike) -> None:
        mark(self.folder, number).write_text(repr(time.monotonic()))
        os.kill(self.pids[strike.rank], signal.Signals[strike.signal])


def arm(strikes: Sequence[Strike]) -> None:
    """For as long as the process makes its run; it ends with it."""
    armed = _Armed(strikes)
    resume, load, whole = site.Site.resume, site.load_latest, site.Site.whole
    gradients, sync, keep = loop.gradients, store._sync_tree, checkpoint.keep

    def resumed(self: site.Site) -> Any:
        pids = [os.getpid()] * self.ranks.world
        if self.ranks.world > 1:
            dist.all_gather_object(pids, os.getpid())
        if self.ranks.first:
            armed.folder, armed.pids, armed.done = self.folder, pids, False
            armed.note(0)
        return resume(self)

    def loaded(*args: Any, **how: Any) -> Any:
        armed.at("load", 0)
        return load(*args, **how)

    def step_of(model: Any, weights: Any, batch: Any, step: int, **how: Any) -> Any:
        if armed.pids:
            armed.note(step)
            armed.at("step", step)
        return gradients(model, weights, batch, step, **how)

    def synced(folder: Path) -> None:
        if found := re.search(r"\.step-(\d+)\.", folder.name):
            armed.at("save", int(found[1]))
        sync(folder)

    def kept(folder: Path, newest: int, up_to: int, **how: Any) -> None:
        armed.at("published", up_to)
        keep(folder, newest, up_to, **how)

    @contextmanager
    def evaluated(self: site.Site) -> Iterator[Any]:
        with whole(self) as model:
            if armed.pids:
                armed.at("evaluation", (self.folder / "journal.jsonl").read_bytes().count(b"\n"))
            yield model

    site.Site.resume, site.load_latest, site.Site.whole = resumed, loaded, evaluated  # type: ignore[method-assign]
    loop.gradients, store._sync_tree, checkpoint.keep = step_of, synced, kept
