"""Updates inside the backward pass, and matrices kept in bfloat16: the recipe for a model that fills its device."""

from __future__ import annotations

import math
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from little_models import batch_of
from tiny_run import RUN, SHAPE, Quiet, Watched, evaluate, go, make, outcome

from t5study.ground.errors import Stopped, UserError
from t5study.ground.machine import Machine
from t5study.model.architectures import build
from t5study.model.footprint import WAYS, training
from t5study.model.scale import Layout, memory
from t5study.model.shapes import Shape, shape_of
from t5study.train import streamed
from t5study.train.adafactor import AdafactorOptimizer, Rule, rounded
from t5study.train.guard import Guard
from t5study.train.loop import check, train
from t5study.train.optim import Adafactor, AdamW, Rounded, in_bf16
from t5study.train.parallel import Ranks
from t5study.train.step import gradients
from t5study.train.tuning import parse

STREAM = Machine(streamed=True)
FACTORED = Adafactor(min_dim_to_factor=16)
HOW: dict[str, Any] = {"seed": 5, "dropout": 0.1, "z_loss": 1e-4}


@pytest.mark.parametrize("architecture", ["encoder_decoder", "shared_encoder_decoder", "language_model"])
@pytest.mark.parametrize("native", [None, False])
def test_the_same_bytes_as_an_ordinary_step(architecture: str, native: bool | None):
    """Three steps, by loops and by torch's operators: weights, state, loss and norm."""
    batch, made = batch_of(6, 32, 24), []
    for stream in (False, True):
        model = build(shape_of(architecture, replace(SHAPE, adapter=24)), 3, architecture)
        model.late = True
        optimizer = FACTORED.build(model)
        optimizer = type(optimizer)(optimizer.rule, optimizer.weights, native)
        moved = streamed.Streamed(optimizer) if stream else None
        taken = []
        for step in (1, 2, 3):
            if moved:
                moved.begin(0.02)
            weights = list(model.parameters())
            taken.append(gradients(model, weights, batch, step, machine=Machine(), streamed=moved, **HOW))
            (moved or optimizer).step(0.02)
        assert all(p.grad is None for p in model.parameters()) == stream
        made.append((taken, {**dict(model.named_parameters()), **optimizer.state_tensors()}))
    assert made[0][0] == made[1][0]
    for name, tensor in made[0][1].items():
        assert torch.equal(tensor, made[1][1][name]), name


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_a_run_goes_on_where_it_was(tmp_path: Path, weights: str):
    """Interrupted or not, the same bytes; in fp32 those of a run that keeps its gradients."""
    run = replace(RUN, steps=12, evaluate_every=6, save_every=6, weights=weights, optimizer=FACTORED)
    summary = go(tmp_path / "run", run, STREAM)
    stop = Watched({7: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.raises(Stopped):
        train(run, *make(run), tmp_path / "part", STREAM, evaluate=evaluate, progress=stop)
    go(tmp_path / "part", run, STREAM)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "part")
    assert summary["last_loss"] < summary["first_loss"] - 0.5
    kept = go(tmp_path / "kept", run, Machine())
    assert kept["last_loss"] == pytest.approx(summary["last_loss"], rel=1e-6 if weights == "fp32" else 1e-2)


def test_gradients_are_gone_as_soon_as_they_are_used():
    """What exists at once is what one sub-layer or table makes, and footprint.py says how much that is."""
    shape = Shape(128, 512, 32, 4, 3, 3, 1000)
    for weights, way in (("fp32", WAYS[4]), ("bf16", WAYS[5])):
        model = build(shape, 3)
        if weights == "bf16":
            in_bf16(model)
        model.late = True
        optimizer = streamed.Settings(Rounded(Adafactor(), 1)).build(model)
        optimizer.begin(0.01)
        gradients(model, list(model.parameters()), batch_of(4, 16, 16), 1, machine=STREAM, streamed=optimizer, **HOW)
        state = optimizer.state_tensors().items()
        measured = sum(p.nbytes for p in model.parameters()) + sum(t.nbytes for name, t in state if name != "step")
        expected = dict(training(shape))[way]
        assert measured + optimizer.largest == pytest.approx(expected, rel=0.02)
        takes = memory(
            shape, "encoder_decoder", Layout(1, 0, 4, 1, 16, 16, kept=4 if weights == "fp32" else 2, streamed=True)
        )
        assert takes.weights == sum(p.nbytes for p in model.parameters())
        assert takes.gradients == pytest.approx(optimizer.largest, rel=0.03)
        assert optimizer.largest < 0.2 * sum(p.nbytes for p in model.parameters())


def test_rounding_is_right_on_average():
    """A number a quarter of the way from one bfloat16 to the next: up in a quarter of a million draws; the mean of
    random numbers is theirs. Nothing moves by more than a neighbour, what is bfloat16 stays, what is not finite too."""
    low = 1.0
    value = torch.full((1_000_000,), low + 0.25 * 2**-7)
    random = torch.Generator().manual_seed(1)
    up = (rounded(value, random).float() > low).double().mean().item()
    assert abs(up - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 1e6)
    some = torch.randn(1000, generator=random)
    draws = torch.stack([rounded(some, random).float() for _ in range(400)])
    nearest = some.to(torch.bfloat16).float()
    apart = some.abs() * 2**-7
    assert ((draws - some).abs() <= apart).all()
    error, bound = (draws.mean(0) - some).abs(), 5 * apart / 2 / math.sqrt(400)
    assert (error < bound).all()
    assert ((nearest - some).abs() > bound).double().mean() > 0.5  # which rounding to the nearest is not
    assert torch.equal(rounded(nearest, random).float(), nearest)
    odd = torch.tensor([math.inf, -math.inf, math.nan, 3.4e38, -0.0])
    assert rounded(odd, random)[:2].tolist() == [math.inf, -math.inf]
    assert rounded(odd, random)[2].isnan()
    assert rounded(-some, random).sign().equal(-some.to(torch.bfloat16).sign())


def test_rounding_is_a_function_of_seed_update_and_name():
    def moved(seed: int, name: str, count: int = 0) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
        optimizer = AdafactorOptimizer(Rule(), {name: weight}, seed=seed)
        optimizer.count = count
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.step(1e-3)
        return weight.detach()

    first = moved(1, "a")
    assert torch.equal(first, moved(1, "a"))
    assert 0.05 < float((first != 1).double().mean()) < 0.95
    for other in (moved(2, "a"), moved(1, "b"), moved(1, "a", count=1)):
        assert not torch.equal(first, other)


def test_a_loss_that_is_not_finite_moves_nothing(tmp_path: Path):
    run = replace(RUN, steps=3, evaluate_every=0)
    model, stream = make(run)
    with torch.no_grad():
        model.decoder.norm[0] = math.nan
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(UserError, match="step 1: found a loss of nan"):
        train(run, model, stream, tmp_path / "run", STREAM, progress=Quiet())
    for name, weight in model.named_parameters():
        assert torch.equal(weight.nan_to_num(9.0), before[name].nan_to_num(9.0)), name
    model.embedding.sum().backward()  # whose hook is gone
    assert model.embedding.grad is not None


@pytest.mark.parametrize(
    ("run", "machine", "told"),
    [
        ({"optimizer": AdamW()}, STREAM, "update in backward: found AdamW"),
        ({}, replace(STREAM, micro_batch=2), "found micro-batches of 2 of 4 rows"),
        ({"guard": Guard("skip")}, STREAM, "found a rule for bad steps"),
        ({"tuning": parse("unfreezing(2)")}, STREAM, "update in backward: found gradual unfreezing"),
        ({"tuning": parse("unfreezing(2)"), "weights": "bf16"}, Machine(), "weights: found gradual unfreezing"),
        ({"weights": "bf16", "optimizer": AdamW()}, Machine(), "found bf16 with AdamW"),
        ({"weights": "fp16"}, Machine(), "found 'fp16'; give fp32 or bf16"),
    ],
)
def test_what_cannot_go_together_is_told_before_anything_is_written(
    tmp_path: Path, run: dict[str, Any], machine: Machine, told: str
):
    with pytest.raises(UserError, match=re.escape(told)):
        go(tmp_path / "run", replace(RUN, **run), machine)
    assert not (tmp_path / "run").exists()


def test_one_rank_alone():
    for ranks, told in ((Ranks(0, 2), "found updates inside the backward pass on 2 ranks"), (Ranks(0, 2, 2), "shards")):
        with pytest.raises(UserError, match=told):
            check(RUN, STREAM, ranks)
        with pytest.raises(UserError, match=told.replace("updates inside the backward pass", "bf16")):
            check(replace(RUN, weights="bf16"), Machine(), ranks)
