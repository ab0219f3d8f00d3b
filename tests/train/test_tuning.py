"""Tuning: which weights move when, and that nothing else does: not a bit of them, no gradient, no optimiser state."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import RUN, SHAPE, Watched, evaluate, go, make, outcome
from torch import nn

from t5study.ground.errors import Stopped, UserError
from t5study.ground.fingerprint import fingerprint
from t5study.ground.journal import read_journal
from t5study.ground.machine import Machine
from t5study.ground.store import read_json
from t5study.model import architectures
from t5study.train.checkpoint import Checkpoint, save, steps
from t5study.train.loop import train
from t5study.train.optim import Adafactor, AdamW, Constant
from t5study.train.tuning import Adapters, AllParameters, GradualUnfreezing, Movement, begin, parse

OPTIMIZERS = pytest.mark.parametrize(
    ("optimizer", "rate"), [(Adafactor(), 0.02), (AdamW(), 0.005)], ids=["adafactor", "adamw"]
)
UNFREEZING = replace(RUN, steps=12, save_every=5, evaluate_every=4, tuning=GradualUnfreezing(2))  # the rest from 7 on


def names_of(encoder: int, decoder: int) -> list[str]:
    """A weight or two of every kind, for stacks of such depths."""
    names = ["embedding", "head"]
    for stack, depth in (("encoder", encoder), ("decoder", decoder)):
        kinds = ["attention.norm", "attention.q", "feed.norm", "feed.wo", "adapter.norm", "adapter.wi"]
        kinds += ["cross.k"] if stack == "decoder" else []
        names += [f"{stack}.layers.{i}.{kind}" for i in range(depth) for kind in kinds]
        names += [f"{stack}.norm", f"{stack}.bias"] if depth else []
    return names


def lowest(names: Any, stack: str) -> int:
    return min(int(name.split(".")[2]) for name in names if name.startswith(f"{stack}.layers"))


# --- which --------------------------------------------------------------------------------------------------------


def test_the_papers_twelve_episodes():
    """A layer of each stack more every 2^18 / 12 steps, from the top."""
    names, tuning, last = names_of(12, 12), GradualUnfreezing(), 2**18
    starts = tuning.changes(last)
    assert len(starts) == 12
    assert [round(12 * (start - 1) / last, 3) for start in starts] == list(range(12))
    for episode, start in enumerate(starts, 1):
        moving = tuning.moving(names, start, last)
        assert lowest(moving, "encoder") == lowest(moving, "decoder") == 12 - episode
        if start > 1:
            assert lowest(tuning.moving(names, start - 1, last), "encoder") == 13 - episode
    assert tuning.moving(names, last, last) == set(names)


@pytest.mark.parametrize("episodes", [1, 2, 5, 12])
@pytest.mark.parametrize("depths", [(1, 1), (2, 2), (12, 4), (24, 24), (0, 6)])
def test_stacks_of_any_depth(depths: tuple[int, int], episodes: int):
    """The top layers from the first step, all in the last episode, none frozen again, for runs of any length."""
    names, tuning = names_of(*depths), GradualUnfreezing(episodes)
    for last in (1, 3, 12, 100):
        before: frozenset[str] = frozenset()
        for step in range(1, last + 1):
            moving = tuning.moving(names, step, last)
            assert moving >= before
            assert moving == before or step in tuning.changes(last)
            assert {
                f"{s}.layers.{d - 1}.feed.wo" for s, d in zip(("encoder", "decoder"), depths, strict=True) if d
            } <= (moving)
            before = moving
        assert before == set(names)


def test_what_belongs_to_no_layer():
    first = GradualUnfreezing(12).moving(names_of(12, 12), 1, 12)
    assert {"embedding", "head", "encoder.norm", "decoder.norm", "decoder.layers.11.cross.k"} <= first
    assert not {"encoder.bias", "decoder.bias", "decoder.layers.10.cross.k"} & first
    assert not {"encoder.bias", "decoder.bias"} & GradualUnfreezing(12).moving(names_of(12, 12), 11, 12)


def test_adapters_and_norms_and_nothing_else():
    moving = Adapters(32).moving(names_of(2, 2), 1, 10)
    assert {name.split(".")[-2] for name in moving} == {"adapter", "attention", "feed", "encoder", "decoder"}
    assert {name for name in moving if not name.endswith(".norm")} == {
        f"{stack}.layers.{i}.adapter.wi" for stack in ("encoder", "decoder") for i in range(2)
    }


def test_as_they_are_typed():
    assert [parse(text) for text in ("all", "Adapters(512)", "unfreezing", "unfreezing(3)")] == [
        AllParameters(), Adapters(512), GradualUnfreezing(12), GradualUnfreezing(3)
    ]  # fmt: skip
    for text in ("adapters", "all(3)", "unfreezing(x)", "gradual", "adapters(0)", "unfreezing(0)"):
        with pytest.raises(UserError, match="give"):
            parse(text)


def test_a_run_names_its_tuning_unless_everything_moves():
    assert fingerprint(replace(RUN, tuning=AllParameters())) == fingerprint(RUN)
    assert len({fingerprint(replace(RUN, tuning=t)) for t in map(parse, ("all", "unfreezing", "unfreezing(3)"))}) == 3
    with pytest.raises(UserError, match="found no adapters for adapters, d=32"):
        replace(RUN, tuning=Adapters(32))


# --- that nothing else moves --------------------------------------------------------------------------------------


@OPTIMIZERS
def test_what_is_frozen_keeps_its_bytes_and_has_no_gradient_and_no_state(tmp_path: Path, optimizer: Any, rate: float):
    run = replace(UNFREEZING, optimizer=optimizer, schedule=Constant(rate), save_every=6, evaluate_every=6)
    model, stream = make(run)
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    moving = {step: run.tuning.moving(first, step, run.steps) for step in (6, 12)}
    moved = {}

    def look(step: int, _: Any) -> dict[str, Any]:
        """Called when the step is done and saved."""
        for name, p in model.named_parameters():
            assert p.requires_grad == (p.grad is not None) == (name in moving[step]), name
        moved[step] = {name for name, p in model.named_parameters() if not torch.equal(p, first[name])}
        state = load_file(tmp_path / "checkpoints" / f"step-{step:06d}" / "optimizer.safetensors")
        assert {name.rpartition("/")[0] for name in state} - {""} == moving[step]
        return {}

    train(run, model, stream, tmp_path, Machine(), progress=Watched(), evaluate=look)
    assert moved[6] == moving[6] < moved[12] == moving[12] == set(first)
    numbers = sum(p.numel() for p in first.values())
    counts = [row["trainable"] for row in read_journal(tmp_path / "journal.jsonl")]
    assert counts == [sum(first[name].numel() for name in moving[6])] * 6 + [numbers] * 6
    summary = read_json(tmp_path / "summary.json")
    assert (summary["parameters"], summary["trainable"]) == (numbers, numbers)
    assert all(p.requires_grad for p in model.parameters())


def test_people_are_told_how_much_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, stream = make(UNFREEZING)
    train(UNFREEZING, model, stream, tmp_path, Machine())
    told = [line for line in capsys.readouterr().err.splitlines() if "parameters move" in line]
    numbers = sum(p.numel() for p in model.parameters())
    assert len(told) == 2
    assert told[1] == f"t5study: {numbers:,} of {numbers:,} parameters move from step 7 on"


@OPTIMIZERS
def test_a_weight_that_comes_later_is_moved_as_by_a_fresh_optimizer(optimizer: Any, rate: float):
    """Its first update is a first update, whatever the others have behind them; and theirs goes on as it was."""
    shapes = [(130, 140), (7, 9), (30,)]  # factored, whole, a vector

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.weights = nn.ParameterList(torch.randn(shape, generator=generator) for shape in shapes)

    def gradients(*models: nn.Module, step: int) -> None:
        for model in models:
            generator = torch.Generator().manual_seed(step)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)

    both, early, late = Three(), Three(), Three()
    more = {f"more.{name}": nn.Parameter(p.detach().clone()) for name, p in late.named_parameters()}
    ours, first = optimizer.build(both), optimizer.build(early)
    for step in range(6):
        if step == 3:
            ours.admit(more, done=3)
            second = optimizer.build(late)
        gradients(both, early, late, step=step)
        for (_, p), q in zip(more.items(), late.parameters(), strict=True):
            p.grad = q.grad.clone() if q.grad is not None else None
        ours.step(rate)
        first.step(rate)
        if step >= 3:
            second.step(rate)
    assert all(torch.equal(p, q) for p, q in zip(both.parameters(), early.parameters(), strict=True))
    assert all(torch.equal(p, q) for p, q in zip(more.values(), late.parameters(), strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(both.parameters(), late.parameters(), strict=True))


# --- interrupted --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[Adafactor(), AdamW()], ids=["adafactor", "adamw"])
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, bytes]]:
    run = replace(UNFREEZING, optimizer=request.param, schedule=Constant(0.01))
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    go(folder, run)
    return run, outcome(folder)


def stopped_at(run: Any, folder: Path, step: int) -> None:
    model, stream = make(run)
    watched = Watched({step: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.raises(Stopped):
        train(run, model, stream, folder, Machine(), evaluate=evaluate, progress=watched)


def test_a_run_stopped_around_an_unfreezing_ends_in_the_same_bytes(unbroken: Any, tmp_path: Path):
    """Before it, right before it, right after it, and later: one run, stopped four times."""
    run, expected = unbroken
    for step in (3, 6, 7, 11):
        stopped_at(run, tmp_path, step)
        assert steps(tmp_path)[0] == step
    go(tmp_path, run)
    assert outcome(tmp_path) == expected


def test_a_damaged_checkpoint_after_an_unfreezing_falls_back_to_one_before(unbroken: Any, tmp_path: Path):
    run, expected = unbroken
    stopped_at(run, tmp_path, 8)
    assert steps(tmp_path) == [8, 5]
    path = tmp_path / "checkpoints" / "step-000008" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    go(tmp_path, run)
    assert outcome(tmp_path) == expected


@pytest.mark.parametrize(("step", "done", "told"), [(5, 12, "unknown to this"), (8, 0, "missing")])
def test_another_tunings_optimizer_state_is_refused_in_one_line(
    unbroken: Any, tmp_path: Path, step: int, done: int, told: str, capsys: pytest.CaptureFixture[str]
):
    """A checkpoint of step 5 that has states of frozen weights; one of step 8 that lacks those of the unfrozen."""
    run, _ = unbroken
    stopped_at(run, tmp_path, 3)
    model, _ = make(run)
    state = Movement(run.tuning, model, run.steps).optimizer(run.optimizer, done).state_tensors()
    save(tmp_path, Checkpoint(step, step, fingerprint(run), dict(model.named_parameters()), state, {}))
    (tmp_path / "checkpoints" / "step-000003" / "state.json").unlink()
    with pytest.raises(UserError, match="no checkpoint here is good") as error:
        go(tmp_path, run)
    assert "\n" not in str(error.value)
    assert told in capsys.readouterr().err


def test_the_newest_is_told_and_the_one_before_taken(unbroken: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run, expected = unbroken
    stopped_at(run, tmp_path, 3)
    model, _ = make(run)
    state = run.optimizer.build(model).state_tensors()
    save(tmp_path, Checkpoint(5, 5, fingerprint(run), dict(model.named_parameters()), state, {}))
    go(tmp_path, run)
    assert "unknown to this model and optimiser; passed over" in capsys.readouterr().err
    assert outcome(tmp_path) == expected


# --- adapters -----------------------------------------------------------------------------------------------------


def test_adapters_begin_beside_the_weights_of_the_model_they_are_given_to():
    model = architectures.build(SHAPE, 3)
    assert begin(AllParameters(), model, 5) is begin(GradualUnfreezing(), model, 5) is model
    extended = begin(Adapters(8), model, 5)
    assert extended.shape == replace(SHAPE, adapter=8)
    ours, theirs = dict(extended.named_parameters()), dict(model.named_parameters())
    assert all(torch.equal(ours[name], p) for name, p in theirs.items())
    assert {name.split(".")[3] for name in ours.keys() - theirs.keys()} == {"adapter"}
    assert begin(Adapters(8), extended, 6) is extended
    with pytest.raises(UserError, match="has adapters of 8; give 8"):
        begin(Adapters(16), extended, 5)


def test_a_run_with_adapters_moves_them_and_the_norms_alone(tmp_path: Path):
    run = replace(UNFREEZING, tuning=Adapters(8), shape=replace(SHAPE, adapter=8), schedule=Constant(0.1), init="x")
    base, stream = make()
    model = begin(run.tuning, base, run.seed)
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    summary = train(run, model, stream, tmp_path, Machine(), progress=Watched(), evaluate=evaluate)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, first[name])}
    assert moved == run.tuning.moving(first, 1, run.steps)
    assert summary["trainable"] == sum(first[name].numel() for name in moved) < summary["parameters"] / 8
    losses = [row["loss"] for row in read_journal(tmp_path / "journal.jsonl")]
    assert sum(losses[-3:]) < sum(losses[:3])
