"""What goes wrong on one rank of several, in the thread that makes batches, or in a save while steps go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rank_runs import RankRuns
from tiny_run import RUN, Runs, go, outcome

from t5study.ground.errors import NoRoom
from t5study.ground.journal import read_journal
from t5study.train import checkpoint
from t5study.train.checkpoint import steps, verify

SHORT = {"steps": 12, "save_every": 5, "evaluate_every": 0}


@pytest.fixture(scope="module")
def ranks() -> Iterator[RankRuns]:
    with RankRuns() as runs:
        yield runs


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    server = Runs()
    yield server
    server.close()


def told(folder: Path, rank: int = 0) -> str:
    return folder.with_name(f"{folder.name}.{rank}.txt").read_text()


# --- bad steps on several ranks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guard", "bad", "world", "shard"),
    [
        (["skip"], {"where": "gradient", "value": "nan", "steps": [3, 7, 8]}, 2, False),
        (["skip"], {"where": "loss", "value": "inf", "steps": [7]}, 4, True),
        (["rewind", 0.0, 5], {"where": "batch", "value": "nan", "steps": [7]}, 2, False),
        (["rewind", 0.0, 5], {"where": "batch", "value": "inf", "steps": [4, 9]}, 2, True),
    ],
)
def test_ranks_decide_as_one_does_though_one_of_them_alone_saw_it(
    ranks: RankRuns, tmp_path: Path, guard: list[Any], bad: dict[str, Any], world: int, shard: bool
):
    how = {**SHORT, "guard": guard}
    assert ranks.go(1, tmp_path / "one", wrong={"bad": bad}, **how) == [0]
    wrong = {"bad": {**bad, "rank": world - 1}}
    assert ranks.go(world, tmp_path / "many", wrong=wrong, shard=shard, **how) == [0] * world
    one, many = (read_journal(tmp_path / name / "journal.jsonl") for name in ("one", "many"))
    for name in ("skipped", "rewound"):
        assert [row.get(name) for row in many] == [row.get(name) for row in one]
        assert any(name in row for row in one) == (name == {"skip": "skipped", "rewind": "rewound"}[guard[0]])
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in (one, many)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert len({(tmp_path / f"many.weights.{rank}").read_text() for rank in range(world)}) == 1
    if not shard or bad["where"] != "gradient":
        assert f"on rank {world - 1} in examples" in told(tmp_path / "many")
    assert told(tmp_path / "many", 1) == ""


def test_all_ranks_stop_at_a_bad_step_in_the_same_words(ranks: RankRuns, tmp_path: Path):
    wrong = {"bad": {"where": "gradient", "value": "nan", "steps": [7], "rank": 1}}
    assert ranks.go(2, tmp_path / "run", wrong=wrong, **SHORT) == [2, 2]
    assert "step 7: found a gradient of norm nan (first in " in told(tmp_path / "run")
    assert " on rank 1 in examples " in told(tmp_path / "run")
    assert told(tmp_path / "run", 1) == told(tmp_path / "run")
    assert steps(tmp_path / "run") == [5]


# --- a rank that cannot write, or is gone -------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "wrong", [{"limit": 100_000, "limit_at": 8}, {"limit": 1_700, "limit_at": 8}, {"errno": 122, "at": 2}]
)
def test_a_full_disk_of_the_first_rank_ends_all_with_74(
    ranks: RankRuns, tmp_path: Path, wrong: dict[str, Any], asynchronous: bool
):
    """In a save, in the journal (which the first rank alone writes), and by a quota that is told at the sync."""
    folder = tmp_path / "run"
    assert ranks.go(2, folder, wrong=wrong, async_save=asynchronous, **SHORT) == [74, 74]
    assert "could not be written to" in told(folder)
    assert told(folder, 1) == told(folder)
    kept = steps(folder)
    assert kept == [5] or (asynchronous and kept == [])  # step 5 may still be under way when the disk is full
    for step in kept:
        verify(folder, step)
    assert ranks.go(2, folder, **SHORT) == [0, 0]
    assert ranks.go(2, tmp_path / "unbroken", **SHORT) == [0, 0]
    assert outcome(folder) == outcome(tmp_path / "unbroken")


@pytest.mark.parametrize(("rank", "shard"), [(0, False), (1, True)])
def test_a_rank_that_is_killed_ends_the_others_at_once(ranks: RankRuns, tmp_path: Path, rank: int, shard: bool):
    """To be run again; the folder is free, and nothing but the steps since the last checkpoint is lost."""
    folder = tmp_path / "run"
    codes = ranks.go(2, folder, wrong={"kill": 7, "rank": rank}, shard=shard, **SHORT)
    assert codes == ([-9, 75] if rank == 0 else [75, -9])
    assert "another rank is gone" in told(folder, 1 - rank)
    assert steps(folder) == [5]
    assert ranks.go(2, folder, shard=shard, **SHORT) == [0, 0]
    assert ranks.go(1, tmp_path / "one", **SHORT) == [0]
    losses = [[row["loss"] for row in read_journal(one / "journal.jsonl")] for one in (folder, tmp_path / "one")]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_torchrun_starts_the_ranks_again_and_they_go_on_from_the_last_checkpoint(ranks: RankRuns, tmp_path: Path):
    """The real torchrun, with gloo: the second rank dies by kill -9 after step 7, and one restart is enough."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    how = {**SHORT, "wrong": {"kill": 7, "rank": 1}}
    script = Path(__file__).parents[1] / "rank_runs.py"
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "run"), json.dumps(how)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run.killed").exists()
    assert ranks.go(2, tmp_path / "unbroken", **SHORT) == [0, 0]
    assert outcome(tmp_path / "run") == outcome(tmp_path / "unbroken")


# --- the thread that makes batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("raise", 1, "shard-00003"),
        ("hang", 75, r"no batch from example"),
        ("die", 75, "the thread that makes batches ended"),
    ],
)
def test_a_lost_loader_ends_the_run_with_its_cause(
    runs: Runs, tmp_path: Path, how: str, code: int, said: str, batch: int
):
    folder = tmp_path / "run"
    runs.start(folder, faults={"stream": how, "batch": batch}, **SHORT)
    found = runs.wait()
    assert said in (folder / "err.txt").read_text()
    assert found == code
    runs.start(folder, **SHORT)
    assert runs.wait() == 0
    go(tmp_path / "unbroken", replace(RUN, **SHORT))
    assert outcome(folder) == outcome(tmp_path / "unbroken")


# --- saves while steps go on --------------------------------------------------------------------------------------


def test_a_run_that_saves_while_steps_go_on_leaves_the_same_bytes(runs: Runs, tmp_path: Path):
    """Also where writing takes longer than the steps between two saves, and where it is stopped."""
    go(tmp_path / "unbroken", replace(RUN, steps=40))
    for name, wrong in (("plain", {}), ("slow", {"slow": 0.4})):
        folder = tmp_path / name
        runs.start(folder, async_save=True, faults=wrong, steps=40)
        assert runs.wait() == 0, (folder / "err.txt").read_text()
        assert outcome(folder) == outcome(tmp_path / "unbroken")
    folder = tmp_path / "stopped"
    pid = runs.start(folder, async_save=True, faults={"slow": 0.3}, steps=40)
    while not (folder / "journal.jsonl").exists() or (folder / "journal.jsonl").read_bytes().count(b"\n") < 12:
        pass
    os.kill(pid, signal.SIGTERM)
    assert runs.wait() == 75
    assert steps(folder)[0] == len(read_journal(folder / "journal.jsonl"))
    runs.start(folder, steps=40)
    assert runs.wait() == 0
    assert outcome(folder) == outcome(tmp_path / "unbroken")


def test_weights_that_move_while_they_are_written_are_written_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each checkpoint is compared, when it appears, with that of a run which waited; the one before is still there."""
    seen: dict[str, list[tuple[int, bytes, list[int]]]] = {"waits": [], "goes on": []}
    original = checkpoint.save

    def noting(folder: Path, made: Any, *args: Any, **kwargs: Any) -> Path:
        before = steps(folder)
        path = original(folder, made, *args, **kwargs)
        seen[folder.name].append((made.step, (path / "manifest.json").read_bytes(), before))
        return path

    monkeypatch.setattr("t5study.train.site.save", noting)
    for name in seen:
        go(tmp_path / name, replace(RUN, steps=30, save_every=3), async_save=name == "goes on")
    assert [step for step, _, _ in seen["waits"]] == list(range(3, 31, 3))
    assert seen["goes on"] == seen["waits"]
    assert all(before[0] == step - 3 for step, _, before in seen["goes on"][1:])
    assert len({manifest for _, manifest, _ in seen["goes on"]}) == 10


def test_a_write_that_fails_is_told_at_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from t5study.train import site

    def full(self: Any, step: int, *args: Any) -> None:
        if step == 10:
            raise NoRoom(f"{tmp_path}: no room for step {step}")
        original(self, step, *args)

    original = site.Site.save
    monkeypatch.setattr(site.Site, "save", full)
    with pytest.raises(NoRoom, match="no room for step 10"):
        go(tmp_path / "run", replace(RUN, steps=30, save_every=5), async_save=True)
    assert steps(tmp_path / "run") == [5]
    assert len(read_journal(tmp_path / "run" / "journal.jsonl")) <= 15  # the next save waits for the one before
    monkeypatch.undo()
    go(tmp_path / "run", replace(RUN, steps=30))
    go(tmp_path / "unbroken", replace(RUN, steps=30))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "unbroken")
