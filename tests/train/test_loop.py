"""The loop: what a run writes and says, and every reason to stop before its end."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import RUN, SHAPE, Watched, evaluate, go, losses, make, outcome

from t5study.ground.errors import NoRoom, Stopped, UserError
from t5study.ground.fingerprint import fingerprint
from t5study.ground.journal import read_journal
from t5study.ground.machine import Machine
from t5study.ground.pairs import Batch
from t5study.model import gpu
from t5study.train.checkpoint import steps
from t5study.train.loop import train
from t5study.train.optim import Adafactor, AdamW, Constant, InverseSquareRoot
from t5study.train.stop import SIGNALS
from t5study.train.summary import first_loss_warning

SHORT = replace(RUN, steps=12, save_every=5, evaluate_every=4)
GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_pretraining.txt"


def run_with(progress: Watched, folder: Path, run: Any = SHORT, evaluate: Any = evaluate) -> dict[str, Any]:
    model, stream = make(run)
    return train(run, model, stream, folder, Machine(), evaluate=evaluate, progress=progress)


# --- what a run leaves --------------------------------------------------------------------------------------------


def test_a_run_leaves_one_row_a_step_its_evaluations_and_one_checkpoint(tmp_path: Path):
    watched = Watched()
    summary = run_with(watched, tmp_path)
    rows = read_journal(tmp_path / "journal.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert list(rows[0]) == ["step", "loss", "z", "tokens", "target_tokens", "grad_norm", "rate", "trainable"]
    assert [row["rate"] for row in rows] == [0.02] * 12
    assert [row["step"] for row in read_journal(tmp_path / "evaluations.jsonl")] == [4, 8, 12]
    assert steps(tmp_path) == [12]
    assert watched.seen == [(row["step"], row["tokens"], row["loss"]) for row in rows]
    assert watched.closed == 1
    assert summary["steps"] == 12
    assert summary["first_loss"] == rows[0]["loss"]
    assert summary["last_loss"] == rows[-1]["loss"]
    assert summary["tokens"] == sum(row["tokens"] for row in rows)
    assert summary["target_tokens"] == sum(row["target_tokens"] for row in rows)
    assert summary["seconds"] > 0
    assert summary["tokens_per_second"] > 0
    kept = json.loads((tmp_path / "summary.json").read_text())
    clock = ("seconds", "tokens_per_second", "waiting", "utilisation", "peak")
    assert kept == {name: value for name, value in summary.items() if name not in clock}
    assert 0 <= summary["waiting"] < 1
    assert not (tmp_path / ".lock").exists()


def test_the_rate_follows_the_schedule_from_its_first_step(tmp_path: Path):
    run = replace(SHORT, steps=4, schedule=InverseSquareRoot(scale=0.02, warmup=2))
    run_with(Watched(), tmp_path, run)
    assert [row["rate"] for row in read_journal(tmp_path / "journal.jsonl")] == [
        0.02 / math.sqrt(max(step, 2)) for step in range(4)
    ]


def test_a_finished_run_only_loads_its_weights(tmp_path: Path):
    model, stream = make(SHORT)
    first = train(SHORT, model, stream, tmp_path, Machine(), evaluate=evaluate, progress=Watched())
    before = outcome(tmp_path)
    again, _ = make(SHORT)
    second = train(SHORT, again, Idle(), tmp_path, Machine(), evaluate=None, progress=Watched())  # type: ignore[arg-type]
    assert second == first
    assert outcome(tmp_path) == before
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


class Idle:
    """A stream that must not be asked."""


def test_losses_are_the_golden_ones():
    """The first steps of the tiny run, as they were when last looked at (`python tests/tiny_run.py losses`)."""
    ours = np.array([line.split() for line in losses().splitlines()], float)
    golden = np.array([line.split() for line in GOLDEN.read_text().splitlines()], float)
    np.testing.assert_allclose(ours, golden, rtol=2e-4)


@pytest.mark.parametrize(("optimizer", "rate"), [(Adafactor(), 0.02), (AdamW(), 0.005)], ids=["adafactor", "adamw"])
def test_losses_fall(tmp_path: Path, optimizer: Any, rate: float):
    summary = run_with(Watched(), tmp_path, replace(RUN, steps=60, optimizer=optimizer, schedule=Constant(rate)))
    assert summary["last_loss"] < summary["first_loss"] - 1


def test_bf16_is_close_to_fp32(tmp_path: Path):
    run = replace(RUN, steps=3, rows=2, save_every=3)
    found = {}
    for precision in ("fp32", "bf16"):
        go(tmp_path / precision, run, Machine(precision=precision))
        rows = read_journal(tmp_path / precision / "journal.jsonl")
        found[precision] = np.array([row["loss"] for row in rows])
    assert (found["bf16"] != found["fp32"]).all()
    np.testing.assert_allclose(found["bf16"], found["fp32"], rtol=0.02)


# --- the first loss -----------------------------------------------------------------------------------------------


def test_the_first_loss_is_near_the_logarithm_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    summary = run_with(Watched(), tmp_path, replace(SHORT, steps=1))
    assert summary["first_loss_expected"] == math.log(SHAPE.table_rows)
    assert summary["first_loss_warning"] is None
    assert "warning" not in capsys.readouterr().err


def test_an_odd_first_loss_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, stream = make(SHORT)
    with torch.no_grad():
        model.decoder.norm.mul_(40)  # the softmax is off scale
    train(replace(SHORT, steps=1), model, stream, tmp_path, Machine(), progress=Watched())
    assert "warning: first loss" in capsys.readouterr().err
    assert "off scale" in json.loads((tmp_path / "summary.json").read_text())["first_loss_warning"]


def test_a_run_on_a_gpu_says_what_does_its_arithmetic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run = replace(SHORT, steps=1, evaluate_every=0)
    train(run, *make(run), tmp_path / "cpu", Machine())
    assert "arithmetic" not in capsys.readouterr().err
    monkeypatch.setattr(gpu, "told", lambda device: f"arithmetic: Triton kernels on {device}")
    train(run, *make(run), tmp_path / "gpu", Machine())
    assert capsys.readouterr().err.count("t5study: arithmetic: Triton kernels on cpu\n") == 1


def test_only_fresh_weights_are_held_to_it():
    assert first_loss_warning(SHORT, 2.0) is not None
    assert first_loss_warning(replace(SHORT, init="1234"), 2.0) is None


# --- not finite ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("optimizer", [Adafactor(), AdamW()], ids=["adafactor", "adamw"])
def test_what_is_not_finite_stops_before_weights_move(
    tmp_path: Path, poison: float, where: str, optimizer: Any, monkeypatch: pytest.MonkeyPatch
):
    run = replace(SHORT, optimizer=optimizer)
    model, stream = make(run)
    kept: dict[str, Any] = {}
    built = {}

    def build(self: Any, of: Any) -> Any:
        built["optimizer"] = original(self, of)
        return built["optimizer"]

    original = type(optimizer).build
    monkeypatch.setattr(type(optimizer), "build", build)

    def spoil() -> None:
        kept["weights"] = [p.detach().clone() for p in model.parameters()]
        kept["state"] = {name: t.clone() for name, t in built["optimizer"].state_tensors().items()}
        if where == "loss":
            monkeypatch.setattr(model, "loss_sum", spoiled(model.loss_sum, poison))
        else:
            weight = model.encoder.layers[1].feed.wo
            weight.register_hook(lambda grad: grad.index_fill(0, torch.tensor([1]), poison))

    with pytest.raises(UserError, match=r"step 7: found a (loss|gradient)") as error:
        train(run, model, stream, tmp_path, Machine(), progress=Watched({6: spoil}))
    assert "\n" not in str(error.value)
    if where == "gradient":
        assert "encoder.layers.1.feed.wo" in str(error.value)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), kept["weights"], strict=True))
    assert all(torch.equal(t, kept["state"][name]) for name, t in built["optimizer"].state_tensors().items())
    assert [row["step"] for row in read_journal(tmp_path / "journal.jsonl")] == list(range(1, 7))
    assert steps(tmp_path) == [5]


def spoiled(loss_sum: Any, poison: float) -> Any:
    def bad(*args: Any, **kwargs: Any) -> Any:
        found = loss_sum(*args, **kwargs)
        return replace(found, total=found.total * poison, nats=found.nats * poison)

    return bad


def test_a_batch_without_targets_is_named(tmp_path: Path):
    model, stream = make(SHORT)
    batch, _ = stream.batch(0)

    class Empty:
        def prefetch(self, position: int) -> Any:
            zeros = np.zeros_like(batch.target_BT)
            yield Batch(batch.source_BS, batch.source_segment_BS, batch.source_position_BS, zeros, zeros, zeros), 1

    with pytest.raises(UserError, match="step 1: found a batch without a target"):
        train(SHORT, model, Empty(), tmp_path, Machine(), progress=Watched())  # type: ignore[arg-type]


# --- signals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "code"), [(one, 130 if one == signal.SIGINT else 75) for one in SIGNALS])
def test_a_signal_saves_after_the_step_and_the_next_run_goes_on(
    tmp_path: Path, request: pytest.FixtureRequest, signum: int, code: int
):
    go(tmp_path / "unbroken", SHORT)
    if signal.getsignal(signum) is signal.SIG_IGN:  # the tests run under nohup, which a run would honour
        request.addfinalizer(lambda: signal.signal(signum, signal.SIG_IGN))
        signal.signal(signum, signal.SIG_DFL)
    before = signal.getsignal(signum)
    watched = Watched({7: lambda: os.kill(os.getpid(), signum)})
    with pytest.raises(Stopped) as stopped:
        run_with(watched, tmp_path / "stopped")
    assert stopped.value.code == code
    assert signal.getsignal(signum) is before
    assert steps(tmp_path / "stopped") == [7, 5]
    assert watched.closed == 1
    go(tmp_path / "stopped", SHORT)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "unbroken")


@pytest.mark.parametrize("step", [4, 12])
def test_a_signal_during_an_evaluation_is_not_lost(tmp_path: Path, step: int):
    """At step 4 the next step is made and saved; at the end all is done, but whoever called has more to do."""
    go(tmp_path / "unbroken", SHORT)

    def interrupted(at: int, model: Any) -> dict[str, Any]:
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(at, model)

    with pytest.raises(Stopped):
        run_with(Watched(), tmp_path / "stopped", evaluate=interrupted)
    assert steps(tmp_path / "stopped")[0] == min(step + 1, 12)
    go(tmp_path / "stopped", SHORT)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "unbroken")


def test_a_second_ctrl_c_stops_at_once_and_damages_nothing(tmp_path: Path):
    go(tmp_path / "unbroken", SHORT)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_with(Watched({7: twice}), tmp_path / "stopped")
    assert steps(tmp_path / "stopped") == [5]
    go(tmp_path / "stopped", SHORT)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "unbroken")


def test_ignored_signals_stay_ignored(tmp_path: Path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run_with(Watched({2: lambda: os.kill(os.getpid(), signal.SIGINT)}), tmp_path)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_runs_in_a_thread_too(tmp_path: Path):
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.append(go(tmp_path / "thread", SHORT)))
    thread.start()
    thread.join()
    assert found[0]["steps"] == 12
    go(tmp_path / "main", SHORT)
    assert outcome(tmp_path / "thread") == outcome(tmp_path / "main")


# --- whose folder -------------------------------------------------------------------------------------------------


def test_another_run_is_refused_and_the_difference_named(tmp_path: Path):
    run_with(Watched(), tmp_path, replace(SHORT, steps=2))
    before = outcome(tmp_path)
    for change, said in (
        ({"seed": 4}, "seed: 3 there, 4 asked for"),
        ({"dropout": 0.0}, "dropout: 0.1 there, 0 asked"),
    ):
        with pytest.raises(UserError, match=said):
            run_with(Watched(), tmp_path, replace(SHORT, steps=2, **change))
    assert outcome(tmp_path) == before
    run_with(Watched(), tmp_path, replace(SHORT, steps=2, save_every=1))


def test_how_often_it_saves_does_not_name_a_run():
    assert fingerprint(SHORT) == fingerprint(replace(SHORT, save_every=1))
    assert fingerprint(SHORT) != fingerprint(replace(SHORT, z_loss=0.0))


def test_a_folder_with_somebody_elses_journal_is_left_alone(tmp_path: Path):
    (tmp_path / "journal.jsonl").write_text("precious\n")
    with pytest.raises(UserError, match=r"no run\.json"):
        run_with(Watched(), tmp_path)
    assert (tmp_path / "journal.jsonl").read_text() == "precious\n"


def test_a_file_where_the_folder_belongs_is_one_line(tmp_path: Path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="choose another folder"):
        run_with(Watched(), tmp_path / "out")


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path):
    """The second is refused at once and told who is there; a lock whose holder was killed holds nobody up."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom t5study.train.folder import alone\n"
        "with alone(Path(sys.argv[1])):\n    print('in', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "in\n"
    with pytest.raises(UserError, match=f"process {holder.pid} on "):
        run_with(Watched(), tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert (tmp_path / ".lock").exists()
    run_with(Watched(), tmp_path, replace(SHORT, steps=1))


# --- disks --------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go(tmp_path / "unbroken", SHORT)
    usage = shutil.disk_usage(tmp_path)

    def fill() -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))

    with pytest.raises(NoRoom, match="make room"):
        run_with(Watched({8: fill}), tmp_path / "full")
    assert steps(tmp_path / "full") == [5]
    with pytest.raises(UserError, match="make room"):
        go(tmp_path / "full", SHORT)
    monkeypatch.undo()
    go(tmp_path / "full", SHORT)
    assert outcome(tmp_path / "full") == outcome(tmp_path / "unbroken")


def test_a_journal_that_cannot_grow_is_one_line_and_the_run_goes_on_later(tmp_path: Path):
    """A real write limit, hit in the midst of a row: the cut row is dropped when the run goes on."""
    run = replace(SHORT, evaluate_every=0)
    go(tmp_path / "unbroken", run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 0

    def fill() -> None:
        nonlocal size
        size = (tmp_path / "full" / "journal.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))

    try:
        with pytest.raises(NoRoom, match="could not be written to") as error:
            run_with(Watched({8: fill}), tmp_path / "full", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert (tmp_path / "full" / "journal.jsonl").stat().st_size == size + 20
    assert steps(tmp_path / "full") == [5]
    go(tmp_path / "full", run)
    assert outcome(tmp_path / "full") == outcome(tmp_path / "unbroken")


def test_a_machine_that_compiles_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="compile"):
        go(tmp_path, SHORT, Machine(compile=True))


def test_a_damaged_checkpoint_costs_some_steps_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    go(tmp_path / "unbroken", SHORT)
    with pytest.raises(Stopped):
        run_with(Watched({11: lambda: os.kill(os.getpid(), signal.SIGTERM)}), tmp_path / "damaged")
    assert steps(tmp_path / "damaged") == [11, 10]
    path = tmp_path / "damaged" / "checkpoints" / "step-000011" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    go(tmp_path / "damaged", SHORT)
    assert "optimizer.safetensors: its digest differs" in capsys.readouterr().err
    assert outcome(tmp_path / "damaged") == outcome(tmp_path / "unbroken")


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"rows": 0}, {"save_every": 0}, {"dropout": 1.0}, {"dropout": math.nan}, {"seed": -1}]
)
def test_runs_that_make_no_sense_are_refused(change: dict[str, Any]):
    with pytest.raises(UserError, match="give"):
        replace(RUN, **change)
