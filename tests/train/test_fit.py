"""Micro-batches for the memory at hand: computed, tried, written down, and found again."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny_run import RUN, go, make, outcome

from t5study.__main__ import parse
from t5study.ground.errors import UserError
from t5study.ground.journal import read_journal
from t5study.ground.machine import AUTO, Machine, release
from t5study.model.architectures import build
from t5study.model.shapes import Shape
from t5study.train import fit, streamed
from t5study.train.fit import Choice, choose, computed, full
from t5study.train.optim import Adafactor
from t5study.train.parallel import ALONE
from t5study.train.run import TrainRun
from t5study.train.site import Site
from t5study.train.tuning import Movement

WIDE = replace(RUN, shape=Shape(128, 256, 32, 4, 2, 1, 1_000), rows=24, source_length=48, target_length=16)


def site(run: TrainRun, folder: Path, stream: bool = False) -> Site:
    model = build(run.shape, run.seed)
    movement = Movement(run.tuning, model, run.steps)
    settings: Any = streamed.Settings(Adafactor()) if stream else run.optimizer
    return Site(run, model, movement, movement.optimizer(settings, 0), folder)


def needs(run: TrainRun, rows: int, again: bool = False) -> int:
    return computed(run, Machine(), ALONE, rows, run.rows // rows, again)


def grown(at: Site, more: int) -> Machine:
    """As much memory as there is taken beside the run, and so much more."""
    release()
    own = sum(t.nbytes for group in (at.weights, at.optimizer.state_tensors()) for t in group.values())
    return Machine(micro_batch=AUTO, memory=psutil.Process().memory_info().rss - own + more)


def test_arithmetic_says_less_for_fewer_rows_and_for_layers_run_again():
    found = [needs(WIDE, rows) for rows in (24, 12, 8, 1)]
    assert found == sorted(found, reverse=True)
    assert needs(WIDE, 24, again=True) < found[0] / 1.3
    assert needs(replace(WIDE, weights="bf16", optimizer=Adafactor()), 1) < found[-1]


def test_the_largest_that_has_room_is_taken(tmp_path: Path):
    """Measured by what the process holds: near what is computed, which is exact to the byte in test_scale.py."""
    at = site(WIDE, tmp_path)
    found = choose(at, plenty := grown(at, 6 * needs(WIDE, 24)), 24)
    assert (found.micro_batch, found.recompute) == (24, False)
    assert found.measured is not None
    assert plenty.memory - 6 * needs(WIDE, 24) < found.measured < found.needs + 2**27
    assert found.seconds is not None
    assert all(p.grad is None for p in at.model.parameters())
    close = grown(at, 2**26 + needs(WIDE, 8)).memory  # of which a choice that is tried may ask for NEAR
    found = choose(at, tight := Machine(micro_batch=AUTO, memory=int(close / fit.NEAR)), 24)
    assert found.needs <= tight.memory == found.room
    assert found.measured is not None
    assert found.measured <= found.room
    assert found.told.startswith(f"micro-batch of {found.micro_batch} of 24 rows, layers ")


def test_what_fails_gives_way_to_the_next_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An out-of-memory error, as a GPU raises it, of more than 4 rows, or of more than 8 with layers run again."""
    at, sizes = site(replace(WIDE, source_length=16, target_length=16), tmp_path), []
    arrange = at.model.arrange

    def short(batch: Any, device: str) -> Any:
        sizes.append(len(batch))
        if len(batch) > (8 if at.model.late else 4):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return arrange(batch, device)

    monkeypatch.setattr(at.model, "arrange", short)
    found = choose(at, Machine(micro_batch=AUTO), 24)
    assert (found.micro_batch, found.recompute) in ((4, False), (8, True))
    assert list(dict.fromkeys(sizes)) == [1, 24, 12, 8, 6, 4]
    assert all(p.grad is None for p in at.model.parameters())


def test_when_the_minute_is_over_arithmetic_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fit, "BUDGET_S", -1.0)
    at = site(WIDE, tmp_path)
    room = grown(at, 4 * needs(WIDE, 24)).memory * 2  # of which it takes four fifths, untried
    found = choose(at, Machine(micro_batch=AUTO, memory=room), 24)
    assert (found.micro_batch, found.measured, found.seconds) == (24, None, None)


def test_no_room_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"machine: memory: found 0\.00 GB, and 1 rows a pass take about .*; give sh"):
        choose(site(WIDE, tmp_path), Machine(micro_batch=AUTO, memory=1000), 24)


def test_updates_in_the_backward_pass_move_nothing_while_it_is_tried(tmp_path: Path):
    run = replace(WIDE, source_length=16, target_length=16, optimizer=Adafactor())
    at = site(run, tmp_path, stream=True)
    before = {name: p.detach().clone() for name, p in at.model.named_parameters()}
    assert choose(at, Machine(micro_batch=AUTO, streamed=True), 24).micro_batch == 24
    assert all(torch.equal(p, before[name]) for name, p in at.model.named_parameters())
    assert at.optimizer.inner.count == 0  # type: ignore[attr-defined]


def test_a_run_keeps_its_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Made once, told, and made again by a run that goes on; the run is that of the same micro-batch, asked for. A file
    that is damaged, or of another number of rows, is made anew."""
    run = replace(RUN, steps=4, evaluate_every=0, save_every=2)
    limits: list[int] = []

    def chosen(at: Site, machine: Machine, rows: int) -> fit.Choice:
        limits.append(machine.memory)
        return fit.Choice("cpu", rows, 2, True, 10**9, None, 2 * 10**9, None)

    monkeypatch.setattr(fit, "choose", chosen)
    go(tmp_path / "auto", run, Machine(micro_batch=AUTO, memory=7))
    assert "micro-batch of 2 of 4 rows, layers run again: computed 1.00 GB, of 2.00 GB" in capsys.readouterr().err
    go(tmp_path / "auto", run, Machine(micro_batch=AUTO, memory=8))  # done: nothing to choose
    (tmp_path / "auto" / "summary.json").unlink()
    go(tmp_path / "auto", run, Machine(micro_batch=AUTO, memory=9))
    assert limits == [7]
    go(tmp_path / "asked", run, Machine(micro_batch=2, recompute=True))
    (tmp_path / "asked" / "machine.json").write_bytes((tmp_path / "auto" / "machine.json").read_bytes())
    assert outcome(tmp_path / "auto") == outcome(tmp_path / "asked")
    for text in ("{", "[]", json.dumps({**json.loads((tmp_path / "auto" / "machine.json").read_text()), "rows": 8})):
        (tmp_path / "auto" / "machine.json").write_text(text)
        (tmp_path / "auto" / "summary.json").unlink()
        go(tmp_path / "auto", run, Machine(micro_batch=AUTO, memory=10))
    assert limits == [7, 10, 10, 10]


def test_a_choice_that_the_way_cannot_have_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Updates inside the backward pass have no micro-batches; what was asked for beside it is kept."""
    at = site(replace(RUN, rows=8), tmp_path)
    monkeypatch.setattr(fit, "choose", lambda at, machine, rows: Choice("cpu", rows, rows, False, 1, None, 2, None))
    (tmp_path / "machine.json").write_text(json.dumps(asdict(Choice("cpu", 8, 2, False, 1, None, 2, None))))
    assert fit.fitted(at, Machine(micro_batch=AUTO, recompute=True)) == Machine(micro_batch=2, recompute=True)
    assert fit.fitted(at, Machine(micro_batch=AUTO, streamed=True)) == Machine(streamed=True)


def test_a_real_run_by_itself(tmp_path: Path):
    run = replace(RUN, steps=3, evaluate_every=0)
    go(tmp_path / "auto", run, Machine(micro_batch=AUTO))
    found = json.loads((tmp_path / "auto" / "machine.json").read_text())
    assert (found["micro_batch"], found["recompute"], found["rows"]) == (4, False, 4)
    go(tmp_path / "plain", run, Machine())
    assert read_journal(tmp_path / "auto" / "journal.jsonl") == read_journal(tmp_path / "plain" / "journal.jsonl")


def test_full_rows_are_full():
    batch = full(RUN, 3)
    assert batch.tokens == 3 * (RUN.source_length + RUN.target_length)
    assert make()[0].labels(batch) == 3 * RUN.target_length


def test_it_is_asked_for_on_the_command_line(tmp_path: Path):
    words = ["train", "pretrain", "--micro-batch"]
    assert parse([*words, "auto", "--memory", "20GB"]).micro_batch == AUTO
    (tmp_path / "run.toml").write_text('micro-batch = "auto"')
    assert parse(["train", "pretrain", "--config", str(tmp_path / "run.toml")]).micro_batch == AUTO
    (tmp_path / "run.toml").write_text("micro-batch = 4")
    assert parse(["train", "pretrain", "--config", str(tmp_path / "run.toml")]).micro_batch == 4
    for text, told in (("many", "found 'many', give a whole number, or auto"), ("-1", "found -1")):
        with pytest.raises(UserError, match=re.escape(told)):
            parse([*words, text])
