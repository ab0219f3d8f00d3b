"""Evaluations kept: real processes, really killed, end in the same bytes; what is done is not done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_run import __file__ as RUNNER
from evaluation_run import prepare

from t5study.__main__ import main
from t5study.evaluate import cache
from t5study.evaluate.predictions import read_predictions
from t5study.ground.errors import UserError
from t5study.model import released
from t5study.tasks.task import Row, Rows, make_task


class _Runs:
    """Runs of evaluation_run.py, one after another."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, *arguments: Any) -> dict[str, int]:
        words = [str(word) for word in arguments]
        if self.process is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                [sys.executable, RUNNER, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        else:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(words) + "\n")
            self.process.stdin.flush()
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return prepare(tmp_path_factory.mktemp("made"))


def _outcome(out: Path) -> tuple[bytes, bytes]:
    return (out / "scores.json").read_bytes(), (out / "toy.parquet").read_bytes()


def test_killed_evaluations_go_on_and_end_in_the_same_bytes(made: tuple[Path, Path], tmp_path: Path):
    runs = _Runs()
    whole = runs(*made, tmp_path / "whole")
    assert whole["ended"] == 0
    assert whole["batches"] > 12
    wanted = _outcome(tmp_path / "whole")
    broken = tmp_path / "broken"
    done = 0
    for batches, how in ((1, ()), (3, ("torn",)), (5, ())):
        killed = runs(*made, broken, batches, *how)
        assert killed == {"ended": -signal.SIGKILL, "batches": batches}
        assert not (broken / "scores.json").exists(), "nothing half-done has a name"
        done += batches - bool(how)
    last = runs(*made, broken)
    assert last == {"ended": 0, "batches": whole["batches"] - done}, "only what was not kept is made"
    assert _outcome(broken) == wanted
    assert runs(*made, broken) == {"ended": 0, "batches": 0}
    assert not list(broken.rglob("parts-*"))
    assert runs.process is not None
    assert runs.process.stdin is not None
    runs.process.stdin.close()
    runs.process.wait()


def _evaluate(made: tuple[Path, Path], *more: Any) -> int:
    model, task = made
    return main([str(word) for word in ("evaluate", "--checkpoint", model, "--task", task, *more)])


def test_what_decides_an_evaluation_is_done_again_if_it_changes(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    loads: list[Path] = []
    real = released.load_released
    monkeypatch.setattr(released, "load_released", lambda folder: loads.append(folder) or real(folder))
    kept = ["--cache", tmp_path / "kept"]
    assert _evaluate(made, *kept) == 0
    said = capsys.readouterr().out
    assert _evaluate(made, *kept, "--batch-rows", "5") == 0
    assert capsys.readouterr().out == said
    assert len(loads) == 1, "the model is not even read where nothing is left to do"
    for changed in (
        ["--source-length", "20"],
        ["--limit", "7"],
        ["--method", "beam"],
        ["--method", "beam", "--beams", "2"],
    ):
        assert _evaluate(made, *kept, *changed) == 0
    assert len(loads) == 5
    task = tmp_path / "toy.jsonl"
    shutil.copy(made[1], task)
    assert _evaluate((made[0], task), *kept) == 0
    assert len(loads) == 5, "a file's place says nothing"
    task.write_text(task.read_text().replace("cup 3", "cup 4"))
    assert _evaluate((made[0], task), *kept) == 0
    assert len(loads) == 6


def test_an_evaluation_that_was_tampered_with_is_refused(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert _evaluate(made, "--out", tmp_path / "out") == 0
    (summary,) = (tmp_path / "out").rglob(cache.SUMMARY)
    summary.write_text(summary.read_text().replace("30", "31"))
    capsys.readouterr()
    assert _evaluate(made, "--out", tmp_path / "out") == 2
    assert "its digest differs from the manifest" in capsys.readouterr().err


def test_a_folder_takes_further_tasks_and_no_other_request(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, task = made
    other = tmp_path / "other,task.jsonl"
    shutil.copy(task, other)
    out = tmp_path / "out"
    assert _evaluate(made, "--out", out) == 0
    assert main([str(x) for x in ("evaluate", "--checkpoint", model, "--task", other, "--out", out)]) == 0
    assert set(json.loads((out / "scores.json").read_text())["tasks"]) == {"toy", "other,task"}
    kept = read_predictions(out / "toy.parquet")
    assert (kept.about.task, kept.about.metric, len(kept.predictions)) == ("toy", "squad", 30)
    capsys.readouterr()
    assert _evaluate(made, "--out", out, "--limit", 3) == 2
    assert "holds an evaluation of another limit" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert _evaluate(made, "--out", tmp_path / "mine") == 2
    assert "holds no evaluation" in capsys.readouterr().err
    assert _evaluate(made, "--out", tmp_path / "mine" / "thesis.txt") == 2
    assert "found a file; give --out a folder" in capsys.readouterr().err
    assert _evaluate(made, "--beams", 3) == 2
    assert "--beams is for --method beam" in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", str(model), "--task", ",,"]) == 2
    assert "found no task" in capsys.readouterr().err


def test_rows_with_the_same_id_are_refused():
    """RELIABILITY.md, section 3, item 49. (Task files refuse them line by line; this is for tasks from anywhere.)"""
    rows = (Row("x", "say: a", "a"), Row("y", "say: b", "b"), Row("x", "say: c", "c"))
    task = make_task("toy", Rows({"train": (), "validation": rows}), metric="squad")
    with pytest.raises(UserError, match="task toy: found id 'x' twice; give every row an id of its own"):
        cache.rows_of(task, "validation")
    assert cache.rows_of(task, "validation", 2) == list(rows[:2])
    with pytest.raises(UserError, match="task toy: found no test rows"):
        cache.rows_of(task, "test")
