"""Looking at a run from outside: what is told of it, its page, its speeds, and a check of its checkpoints."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import RUN, Watched, evaluate, go, make, outcome

from t5study.__main__ import main, parse
from t5study.ground.errors import UserError
from t5study.ground.machine import Machine
from t5study.train.board import Board
from t5study.train.loop import train
from t5study.train.page import write_page
from t5study.train.speeds import Clock, read_speed_rows, read_speeds, speed
from t5study.train.watch import Follower, watch

SHORT = replace(RUN, steps=12, save_every=5, evaluate_every=0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched") / "my-run"
    go(folder, SHORT)
    return folder


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy of a run that is done, to be damaged."""
    return shutil.copytree(done, tmp_path / "my-run")


def journal(folder: Path, *rows: dict[str, object]) -> None:
    (folder / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Moments:
    """Time that passes when somebody sleeps; then something happens."""

    def __init__(self, *happenings) -> None:
        self.happenings = list(happenings)

    def __call__(self, seconds: float) -> None:
        self.happenings.pop(0)()


# --- watch --------------------------------------------------------------------------------------------------------


def test_a_run_that_is_done_is_told_in_one_line(done: Path):
    before, out = outcome(done), io.StringIO()
    watch(done, out=out, sleep=Moments())
    line = out.getvalue()
    assert line.startswith("my-run: step 12/12 · loss ")
    assert line.endswith(" · checkpoint of step 12 · done\n")
    assert " tokens/s, " in line
    assert outcome(done) == before


def test_a_run_is_followed_until_it_is_done_also_when_it_goes_back(run: Path):
    (run / "summary.json").rename(run / "kept")
    (run / ".lock").write_text(f"process {os.getpid()} on {socket.gethostname()}")
    (run / "speeds.jsonl").write_text('{"step": 2, "steps": 2, "seconds": 4.0, "waited": 0.4, "tokens": 600}\n{"cut')
    journal(run, {"step": 1, "loss": 9.0}, {"step": 2, "loss": 8.0})
    cut = (run / "journal.jsonl").read_bytes()
    out = io.StringIO()
    watch(
        run,
        out=out,
        sleep=Moments(
            lambda: (run / "journal.jsonl").write_bytes(cut + b'{"step": 3, "skipped": {}}\n{"step": 4, "lo'),
            lambda: (run / "journal.jsonl").write_bytes(cut[: cut.index(b"\n") + 1]),
            lambda: (run / ".lock").unlink(),
            lambda: (run / "kept").rename(run / "summary.json"),
        ),
    )
    lines = [line.removeprefix("my-run: ") for line in out.getvalue().splitlines()]
    fast = "150 tokens/s, 10.0 % of it waiting for data"
    assert lines == [
        f"step 2/12 · loss 8.000 · {fast} · checkpoint of step 12 · 20 s left",
        f"step 3/12 · loss 8.000 · {fast} · 1 steps left out · checkpoint of step 12 · 18 s left",
        f"step 1/12 · loss 9.000 · {fast} · checkpoint of step 12 · 22 s left",
        f"step 1/12 · loss 9.000 · {fast} · checkpoint of step 12 · nobody is at work here",
        f"step 1/12 · loss 9.000 · {fast} · checkpoint of step 12 · done",
    ]


def test_a_lock_of_a_process_that_died_is_nobodys(run: Path):
    (run / "summary.json").unlink()
    (run / ".lock").write_text(f"process {2**22 + 1} on {socket.gethostname()}")
    assert Follower(run).state().holder is None
    (run / ".lock").write_text("process 1 on elsewhere.invalid")
    assert Follower(run).state().holder == "process 1 on elsewhere.invalid"


def test_a_terminal_gets_a_live_view(done: Path):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    watch(done, out=out, sleep=Moments())
    assert "my-run" in out.getvalue()
    assert "█" in out.getvalue()


def test_what_is_no_run_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match=r"has no run\.json"):
        watch(tmp_path)
    (run / "journal.jsonl").write_text("{}\n!!\n")
    assert main(["train", "watch", str(run), "--once"]) == 2
    err = capsys.readouterr().err
    assert "damaged row" in err
    assert err.count("\n") == 1


# --- speeds and the page ------------------------------------------------------------------------------------------


def test_a_row_of_speeds_comes_about_every_second(tmp_path: Path):
    now = 0.0

    def clock() -> float:
        return now

    speeds = Clock(tmp_path, clock)
    for step in range(1, 6):
        speeds.start()
        now += 0.1
        speeds.got()
        now += 0.4
        speeds.stop(step, 10)
        now += 7.0  # a checkpoint, an evaluation
    speeds.write(5)
    speeds.close()
    assert [(row["step"], row["steps"], row["tokens"]) for row in read_speed_rows(tmp_path)] == [
        (3, 3, 30),
        (5, 2, 20),
    ]
    # Until the first batch is there a process starts up: 0.1 s less of either.
    assert sum(row["waited"] for row in read_speed_rows(tmp_path)) == pytest.approx(0.4)
    assert read_speeds(tmp_path)["step_seconds"] == pytest.approx(2.4)


def test_waiting_and_utilisation_are_told(tmp_path: Path):
    """Steps of a second, 0.1 of it waiting but for a process's first, at 3 GFLOP; the peak, 6 GFLOP/s, is asked for
    once and only when 3 seconds are full. A second process goes on counting."""
    now, asked = [0.0], []

    def ask() -> float:
        asked.append(now[0])
        return 6e9

    def steps(first: int, last: int) -> Clock:
        clock = Clock(tmp_path, lambda: now[0], ask)
        for step in range(first, last + 1):
            clock.start()
            now[0] += 7.0 if step == first else 0.1
            clock.got()
            now[0] += 1.0 if step == first else 0.9
            clock.stop(step, 10, 3 * 10**9)
        clock.write(last)
        clock.close()
        return clock

    assert steps(1, 2).told() == ["10.0 % waiting for data"]
    assert (asked, speed(read_speeds(tmp_path))["utilisation"]) == ([], None)
    assert steps(3, 6).told() == ["50 % of the peak", "10.0 % waiting for data"]
    assert len(asked) == 1
    assert [row["utilisation"] for row in read_speed_rows(tmp_path)] == [None] * 4 + [0.5, 0.5]
    found = speed(read_speeds(tmp_path))
    assert (found["waiting"], found["utilisation"], found["peak"]) == (pytest.approx(0.4 / 6), pytest.approx(0.5), 6e9)


def test_speeds_from_before_are_read(tmp_path: Path):
    (tmp_path / "speeds.json").write_text('{"seconds": 9.5, "step_seconds": 4.0, "tokens": 100}')
    (tmp_path / "speeds.jsonl").write_text('{"step": 1, "steps": 1, "seconds": 1.0, "waited": 0.0, "tokens": 7}\n')
    assert read_speeds(tmp_path) == {
        **dict.fromkeys(("step_seconds", "waited", "peak"), 0.0),
        "seconds": 9.5,
        "tokens": 0,
        "flops": 0,
    }
    assert [row["utilisation"] for row in read_speed_rows(tmp_path)] == [None]
    (tmp_path / "speeds.json").write_text("[1]")
    assert read_speeds(tmp_path)["seconds"] == 0.0


def test_the_page_has_its_plots_and_the_steps_left_out(run: Path):
    rows = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    rows[6] = {"step": 7, "skipped": {"step": 7, "found": "a loss of <nan>", "weight": None, "examples": [120, 141]}}
    journal(run, *rows)
    row = {"steps": 1, "seconds": 1.0, "waited": 0.1, "tokens": 10, "flops": 3 * 10**9, "utilisation": 0.5}
    (run / "speeds.jsonl").write_text("".join(json.dumps({"step": step, **row}) + "\n" for step in (1, 2)))
    totals = {"seconds": 3.0, "step_seconds": 2.0, "waited": 0.2, "tokens": 20, "flops": 6 * 10**9, "peak": 6e9}
    (run / "speeds.json").write_text(json.dumps(totals))
    page = write_page(run).read_text()
    assert page.count("<svg") == page.count("<figure") == 5
    assert "tokens/s in all · 50 % of the peak · 10.0 % waiting for data · peak 6 GFLOP/s" in page
    assert "step 7: a loss of &lt;nan&gt;, examples 120 to 140" in page
    assert "src=" not in page


# --- TensorBoard --------------------------------------------------------------------------------------------------


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), as TensorBoard itself reads it."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "tensors": 0})
    found.Reload()
    assert "run/text_summary" in found.Tags()["tensors"]
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_shows_what_the_journals_say(run: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("tensorboard")
    before = outcome(run)
    assert main(["train", "watch", str(run), "--once", "--tensorboard"]) == 0
    assert capsys.readouterr().out.endswith("done\n")
    rows = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    found = shown(run)
    for name in ("loss", "grad_norm", "rate", "tokens"):
        assert found[f"learning/{name}"] == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    (row,) = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert found["evaluation/sum"] == [(12, pytest.approx(row["sum"], rel=1e-6))]
    assert found["speed/tokens_per_second"][-1][0] == 12
    assert {name: content for name, content in outcome(run).items() if "tensorboard" not in name} == before


def test_tensorboard_follows_and_begins_anew_where_the_run_goes_another_way(run: Path):
    pytest.importorskip("tensorboard")
    journal(run, {"step": 1, "loss": 9.0}, {"step": 2, "loss": 8.0})
    follower = Follower(run)
    with closing(Board(run)) as board:
        board.update(follower)
        (files,) = (run / "tensorboard").iterdir()
        with open(run / "journal.jsonl", "a") as file:
            file.write('{"step": 3, "loss": 7.0}\n{"step": 4, "lo')
        board.update(follower)
        assert list((run / "tensorboard").iterdir()) == [files]
        assert shown(run)["learning/loss"] == [(1, 9.0), (2, 8.0), (3, 7.0)]
        journal(run, {"step": 1, "loss": 9.0}, {"step": 2, "loss": 5.0})
        board.update(follower)
        assert shown(run)["learning/loss"] == [(1, 9.0), (2, 5.0)]


def test_without_tensorboard_it_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    assert main(["train", "watch", str(run), "--once", "--tensorboard"]) == 2
    assert "pip install 't5study[tensorboard]'" in capsys.readouterr().err
    assert not (run / "tensorboard").exists()


# --- checkpoint verify --------------------------------------------------------------------------------------------


def test_verify_tells_good_from_damaged(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["checkpoint", "verify", str(run)]) == 0
    assert "step-000012: good, " in capsys.readouterr().out
    shutil.copytree(run / "checkpoints" / "step-000012", run / "checkpoints" / "step-000011")
    assert main(["checkpoint", "verify", str(run)]) == 2
    out, err = capsys.readouterr()
    assert "step-000011: damaged: " in out
    assert "1 of 2 checkpoints damaged; the run would go on from step 12" in err
    shutil.rmtree(run / "checkpoints" / "step-000011")
    weights = run / "checkpoints" / "step-000012" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 4
    weights.write_bytes(content)
    assert main(["checkpoint", "verify", str(run)]) == 2
    out, err = capsys.readouterr()
    assert "model.safetensors: its digest differs" in out
    assert "none is good" in err
    assert err.count("\n") == 1


def test_strict_takes_no_checkpoint_before_a_damaged_one(run: Path):
    (run / "checkpoints" / "step-000012" / "state.json").write_text("{")
    model, stream = make(SHORT)
    with pytest.raises(UserError, match=r"state\.json: .*leave --strict out"):
        train(SHORT, model, stream, run, Machine(), progress=Watched(), strict=True)


# --- profile ------------------------------------------------------------------------------------------------------


def test_profiled_steps_leave_a_trace_and_change_nothing(done: Path, tmp_path: Path):
    model, stream = make(SHORT)
    train(SHORT, model, stream, tmp_path, Machine(), evaluate=evaluate, progress=Watched(), profile=(3, 4))
    assert (tmp_path / "profile-3-4.json.gz").stat().st_size > 1000
    assert "aten::" in (tmp_path / "profile-3-4.txt").read_text()
    journals = [(folder / "journal.jsonl").read_bytes() for folder in (done, tmp_path)]
    assert journals[0] == journals[1]


def test_steps_to_profile_are_asked_for_as_first_and_last(capsys: pytest.CaptureFixture[str]):
    words = ["train", "pretrain", "--tokens", "t", "--vocab", "bytes", "--out", "o", "--profile"]
    assert parse([*words, "20:25"]).profile == (20, 25)
    for wrong in ("25:20", "0:3", "20", "a:b", "1:2:3"):
        assert main([*words, wrong]) == 2
        assert "--profile: found" in capsys.readouterr().err
