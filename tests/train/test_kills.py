"""A run that is killed ends in the same bytes as one that is not: weights, optimiser state, journal, summary.

Real processes, SIGKILL, at moments drawn from a seed: between two steps (the journal's length says which), and in the
midst of a save (the folder it writes beside is there).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import RUN, Runs, go, outcome

from t5study.train.checkpoint import steps

DEADLINE_S = 120
CODES = {"SIGTERM": 75, "SIGINT": 130}


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    server = Runs()
    yield server
    server.close()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    go(folder)
    return outcome(folder)


def rows(folder: Path) -> int:
    try:
        return (folder / "journal.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def saving(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".step-*.tmp"))


def end_at(runs: Runs, folder: Path, step: int, how: str, **changes: Any) -> bool:
    """Starts the run and ends it once so many steps are in its journal: "kill" at once, "save" kill in the next save,
    or by a signal's name. False if it came to its end before."""
    pid = runs.start(folder, **changes)
    limit = time.monotonic() + DEADLINE_S
    while time.monotonic() < limit and not (folder / "summary.json").exists():
        if rows(folder) >= step and (how != "save" or saving(folder)):
            os.kill(pid, signal.SIGKILL if how in ("kill", "save") else signal.Signals[how])
            break
    assert time.monotonic() < limit, f"the run did not come to step {step}"
    code = runs.wait()
    if how in CODES and code != 0:
        assert code == CODES[how]
        assert "finishing this step" in (folder / "err.txt").read_text()
        assert steps(folder)[0] == rows(folder)  # no step is lost
    return code != 0


def chain(runs: Runs, folder: Path, ends: list[tuple[int, str]], **changes: Any) -> int:
    """Ends one run again and again, then lets it come to its own. Returns how many of the ends hit."""
    hits = sum(end_at(runs, folder, step, how, **changes) for step, how in ends)
    runs.start(folder, **changes)
    assert runs.wait() == 0, (folder / "err.txt").read_text()
    return hits


def test_a_run_killed_and_stopped_six_times_ends_in_the_same_bytes(
    runs: Runs, unbroken: dict[str, bytes], tmp_path: Path
):
    """Killed before the first checkpoint, twice in a save, once between two; stopped by a scheduler and by Ctrl-C."""
    draw = random.Random(1)
    ends = [
        (draw.randrange(1, 10), "kill"),
        (draw.randrange(15, 30), "save"),
        (draw.randrange(45, 60), "SIGTERM"),
        (draw.randrange(80, 100), "kill"),
        (draw.randrange(115, 135), "SIGINT"),
        (draw.randrange(150, 175), "save"),
    ]
    assert chain(runs, tmp_path / "run", ends) == 6
    assert outcome(tmp_path / "run") == unbroken


def test_a_run_killed_before_and_after_a_layer_unfreezes_ends_in_the_same_bytes(runs: Runs, tmp_path: Path):
    """80 steps of two episodes: the lower layers begin to move, and the optimiser to know them, at step 41."""
    changes = {"steps": 80, "tuning": "unfreezing(2)"}
    runs.start(tmp_path / "unbroken", **changes)
    assert runs.wait() == 0
    ends = [(33, "kill"), (41, "SIGTERM"), (45, "kill"), (55, "save")]
    assert chain(runs, tmp_path / "run", ends, **changes) == 4
    assert outcome(tmp_path / "run") == outcome(tmp_path / "unbroken")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_twenty_kills_end_in_the_same_bytes(runs: Runs, unbroken: dict[str, bytes], tmp_path: Path, seed: int):
    """Ten kills in a chain with gaps of 1 to 40 steps, and ten runs killed once anywhere, half of them in a save."""
    draw = random.Random(seed)
    step, ends = 0, []
    for _ in range(10):
        step = min(step + draw.randrange(1, 40), RUN.steps - RUN.save_every - 1)
        ends.append((step, draw.choice(("kill", "save"))))
    assert chain(runs, tmp_path / "chain", ends) == 10
    assert outcome(tmp_path / "chain") == unbroken
    for i in range(10):
        folder = tmp_path / f"once-{i}"
        assert chain(runs, folder, [(draw.randrange(0, RUN.steps - RUN.save_every), ("kill", "save")[i % 2])]) == 1
        assert outcome(folder) == unbroken
