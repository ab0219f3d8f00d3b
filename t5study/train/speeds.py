"""The wall-clock of a run: never the same twice, so nothing depends on it and damage reads as nothing.

    FOLDER/speeds.json      {"seconds", "step_seconds", "waited", "tokens", "flops", "peak"} of all processes, as far as
                            they came to a checkpoint
    FOLDER/speeds.jsonl     about a row a second: {"step", "steps", "seconds", "waited", "tokens", "flops",
                            "utilisation"}

A row tells of the `steps` steps up to `step`. `seconds` are those in which they were made, evaluations and checkpoints
left out; `waited` is the part of them that passed until the next batch was there. (Until the first batch of a process
compiled loops are loaded; that is start-up and in neither.) `flops` are those of real tokens
(work.py), and `utilisation` the part that they are of the peak's; null as long as no peak is known, and where the work
is not counted because not all weights move.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPEEDS, SPEED_ROWS = "speeds.json", "speeds.jsonl"
_EVERY_S = 1.0
_PEAK_AFTER_S = 3.0  # of steps: what is shorter is not worth the eighth of a second that measuring a peak takes
_EMPTY: dict[str, Any] = {"steps": 0, "seconds": 0.0, "waited": 0.0, "tokens": 0, "flops": 0}
_TOTALS: dict[str, Any] = {"step_seconds": 0.0, "waited": 0.0, "tokens": 0, "flops": 0, "peak": 0.0}


class Clock:
    """Told when a step begins, when its batch is there and when it is done. peak(): FLOP/s of all devices, asked once
    and only by a run that takes long enough; 0.0 if it is not known."""

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.perf_counter, peak: Callable[[], float] = lambda: 0.0
    ):
        self.folder, self.found, self.clock, self._ask = folder, read_speeds(folder), clock, peak
        self.began = self.started = clock()
        self.made, self.last = dict(_EMPTY), dict(_EMPTY)
        self.peak: float | None = None
        self._begun = False
        self._row = dict(_EMPTY)
        self._rows = open(folder / SPEED_ROWS, "ab", buffering=0)

    def start(self) -> None:
        self.started = self.clock()

    def got(self) -> None:
        if self._begun:
            self._row["waited"] += self.clock() - self.started
        else:
            self._begun, self.started = True, self.clock()

    def stop(self, step: int, tokens: int, flops: int = 0) -> None:
        row = self._row
        row["seconds"] += self.clock() - self.started
        row["tokens"] += tokens
        row["flops"] += flops
        row["steps"] += 1
        if row["seconds"] >= _EVERY_S:
            self._flush(step)

    def write(self, step: int) -> None:
        """At a checkpoint. Not synced."""
        self._flush(step)
        made = {
            "step_seconds": self.made["seconds"],
            **{name: self.made[name] for name in ("waited", "tokens", "flops")},
        }
        passed = {"seconds": self.clock() - self.began, **made}
        totals = {name: self.found[name] + value for name, value in passed.items()}
        (self.folder / SPEEDS).write_text(json.dumps({**totals, "peak": self.peak or self.found["peak"]}))

    def told(self) -> list[str]:
        """What the last row says for people, beside tokens a second."""
        return told(share(self.last["waited"], self.last["seconds"]), self._utilisation(self.last))

    def _utilisation(self, row: dict[str, Any]) -> float | None:
        return share(row["flops"], row["seconds"] * (self.peak or 0.0)) if row["flops"] else None

    def _flush(self, step: int) -> None:
        if not self._row["steps"]:
            return
        self.last, self._row = self._row, dict(_EMPTY)
        self.made = {name: value + self.last[name] for name, value in self.made.items()}
        if self.peak is None and self.made["flops"] and self.made["seconds"] >= _PEAK_AFTER_S:
            self.peak = self._ask()
        used = self._utilisation(self.last)
        row = {"step": step, **self.last, "utilisation": None if used is None else round(used, 4)}
        self._rows.write(json.dumps(row).encode() + b"\n")

    def close(self) -> None:
        self._rows.close()


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def told(waiting: float | None, utilisation: float | None) -> list[str]:
    """
    >>> told(0.0012, 0.614)
    ['61 % of the peak', '0.1 % waiting for data']
    """
    parts = [] if utilisation is None else [f"{100 * utilisation:.0f} % of the peak"]
    return parts + ([] if waiting is None else [f"{100 * waiting:.1f} % waiting for data"])


def read_speeds(folder: Path) -> dict[str, Any]:
    """Seconds, tokens and FLOPs so far; zeros if the file is missing or damaged. Of a file from before waiting and work
    were noted, the seconds alone: the rest is counted from here on."""
    zero = {"seconds": 0.0, **_TOTALS}
    try:
        found = json.loads((folder / SPEEDS).read_text(encoding="utf-8"))
        totals = _TOTALS if not _TOTALS.keys() <= found.keys() else found
        return {
            "seconds": float(found["seconds"]),
            **{name: type(value)(totals[name]) for name, value in _TOTALS.items()},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return zero


def read_speed_rows(folder: Path, most: int = 0) -> list[dict[str, Any]]:
    """The rows of speeds.jsonl that can be read, of its last `most` bytes alone if that is given. Steps that were made
    again after a kill are there twice."""
    try:
        with open(folder / SPEED_ROWS, "rb") as file:
            if most:
                file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = {"flops": 0, "utilisation": None, **json.loads(line)}  # rows from before have neither
            used = row["utilisation"]
            numbers = {name: type(zero)(row[name]) for name, zero in {"step": 0, **_EMPTY}.items()}
            rows.append({**numbers, "utilisation": None if used is None else float(used)})
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def speed(speeds: dict[str, Any]) -> dict[str, Any]:
    """seconds: all of the run's. tokens_per_second: while steps were made, evaluations and checkpoints left out.
    waiting: the share of that time in which there was no batch yet. utilisation: the share of the peak's FLOPs that
    were made, None if no peak is known; peak: FLOP/s of all devices."""
    seconds = speeds["step_seconds"]
    return {
        "seconds": speeds["seconds"],
        "tokens_per_second": share(speeds["tokens"], seconds) or 0.0,
        "waiting": share(speeds["waited"], seconds) or 0.0,
        "utilisation": share(speeds["flops"], seconds * speeds["peak"]) if speeds["flops"] else None,
        "peak": speeds["peak"] or None,
    }
