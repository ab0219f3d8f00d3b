"""The wall-clock of a run: never the same twice, so nothing depends on it and damage reads as nothing.

    FOLDER/speeds.json      {"seconds", "step_seconds", "tokens"} of all processes, as far as they came to a checkpoint
    FOLDER/speeds.jsonl     about a row a second: {"step", "steps", "seconds", "waited", "tokens"}

A row tells of the `steps` steps up to `step`. `seconds` are those in which they were made, evaluations and checkpoints
left out; `waited` is the part of them that passed until the next batch was there.
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
_EMPTY: dict[str, Any] = {"steps": 0, "seconds": 0.0, "waited": 0.0, "tokens": 0}


class Clock:
    """Told when a step begins, when its batch is there and when it is done."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.perf_counter):
        self.folder, self.found, self.clock = folder, read_speeds(folder), clock
        self.began = self.started = clock()
        self.step_seconds, self.tokens = 0.0, 0
        self._row = dict(_EMPTY)
        self._rows = open(folder / SPEED_ROWS, "ab", buffering=0)

    def start(self) -> None:
        self.started = self.clock()

    def got(self) -> None:
        self._row["waited"] += self.clock() - self.started

    def stop(self, step: int, tokens: int) -> None:
        passed = self.clock() - self.started
        self.step_seconds += passed
        self.tokens += tokens
        self._row["seconds"] += passed
        self._row["tokens"] += tokens
        self._row["steps"] += 1
        if self._row["seconds"] >= _EVERY_S:
            self._flush(step)

    def write(self, step: int) -> None:
        """At a checkpoint. Not synced."""
        self._flush(step)
        passed = {"seconds": self.clock() - self.began, "step_seconds": self.step_seconds, "tokens": self.tokens}
        (self.folder / SPEEDS).write_text(
            json.dumps({name: self.found[name] + value for name, value in passed.items()})
        )

    def _flush(self, step: int) -> None:
        if self._row["steps"]:
            self._rows.write(json.dumps({"step": step, **self._row}).encode() + b"\n")
            self._row = dict(_EMPTY)

    def close(self) -> None:
        self._rows.close()


def read_speeds(folder: Path) -> dict[str, float]:
    """Seconds and tokens so far; zeros if the file is missing or damaged."""
    zero = {"seconds": 0.0, "step_seconds": 0.0, "tokens": 0}
    try:
        found = json.loads((folder / SPEEDS).read_text(encoding="utf-8"))
        return {name: type(value)(found[name]) for name, value in zero.items()}
    except (OSError, ValueError, KeyError, TypeError):
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
            row = json.loads(line)
            rows.append({name: type(zero)(row[name]) for name, zero in {"step": 0, **_EMPTY}.items()})
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def speed(speeds: dict[str, float]) -> dict[str, float]:
    """seconds: all of the run's. tokens_per_second: while steps were made, evaluations and checkpoints left out."""
    return {
        "seconds": speeds["seconds"],
        "tokens_per_second": speeds["tokens"] / speeds["step_seconds"] if speeds["step_seconds"] else 0.0,
    }
