"""One stage by two processes: torchrun's launcher inside a worker, gloo between them."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from toy_study import build_all, real_setting

from t5study.ground.journal import read_journal
from t5study.ground.machine import Machine
from t5study.ground.store import Store, verify
from t5study.study.baseline import BASELINE
from t5study.study.builds import events
from t5study.study.conductor import Conductor
from t5study.study.gpus import turns
from t5study.study.plans import stages_of
from t5study.study.ranked import ranks_of
from t5study.study.stages import folder, needed, stage_id
from t5study.study.training import Finetune, Pretrain
from t5study.study.watch import Watch
from t5study.study.workers import Pool


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pretrain, Finetune]:
    """A folder whose store holds text and tasks; a pre-training and a fine-tuning that are not there yet."""
    out = tmp_path_factory.mktemp("ranked")
    (last,) = stages_of(BASELINE, real_setting(out))
    assert isinstance(last, Finetune)
    assert isinstance(last.start, Pretrain)
    build_all(Store(out / "store"), [one for one in needed([last]).values() if not one.steps_of_training])
    return out, last.start, last


def conducted(out: Path, ranks: int, last: Finetune) -> str:
    said, store = io.StringIO(), Store(out / "store")
    with Conductor(store, Pool(store.root, 1, Machine(), ranks), Watch(1, out=said)) as conductor:
        conductor.run([last])
        assert conductor.failed == {}
    return said.getvalue()


def test_only_training_is_shared_and_only_as_its_rows_allow(staged):
    _, pretrain, last = staged
    assert [ranks_of(one, 2) for one in needed([last]).values()] == [1, 1, 1, 1, 2, 2]
    assert [ranks_of(pretrain, asked) for asked in (1, 3, 6, 8)] == [1, 1, 2, 4]  # it has four rows
    assert turns(["0", "1", "2"], workers=2, ranks=2) == ("0,1", "2,0")


@pytest.mark.slow
def test_two_ranks_come_to_the_numbers_of_one(staged, tmp_path: Path):
    out, pretrain, last = staged
    conducted(out, 2, last)
    store, alone = Store(out / "store"), Store(tmp_path / "store")
    build_all(alone, [last])
    for stage in (pretrain, last):
        verify(folder(store, stage))
        ours, theirs = (
            [row["loss"] for row in read_journal(folder(one, stage) / "journal.jsonl")] for one in (store, alone)
        )
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert [event.what for event in events(store) if event.stage == stage_id(stage)] == ["begun", "done"]


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_attempt_and_the_stage_goes_on(staged, tmp_path: Path):
    _, _, last = staged
    store = Store(tmp_path / "store")
    build_all(store, [one for one in needed([last]).values() if not one.steps_of_training])
    killed = threading.Event()

    def kill() -> None:
        """A rank, once there are two: children of the worker, which is a child of this process."""
        while not killed.is_set():
            ranks = [
                rank
                for worker in psutil.Process().children()
                for rank in worker.children()
                if "spawn_main" in " ".join(rank.cmdline())
            ]
            if len(ranks) == 2:
                os.kill(ranks[1].pid, signal.SIGKILL)
                killed.set()
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    said = conducted(tmp_path, 2, last)
    killer.join()
    assert "of 2 was killed by SIGKILL; trying again" in said
    assert sorted(event.what for event in events(store) if event.stage == stage_id(last.start)) == [
        "begun",
        "begun",
        "done",
    ]
