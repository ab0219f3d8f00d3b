"""Layers that are run again in the backward pass: the same numbers, and far fewer of them kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from little_models import batch_of
from live_bytes import Allocated
from tiny_run import RUN, SHAPE, go, outcome

from t5study.ground.machine import Machine
from t5study.ground.pairs import Batch
from t5study.model.architectures import Dropout, Model, build
from t5study.model.shapes import ARCHITECTURES, shape_of
from t5study.train.recompute import recomputed


def step(model: Model, batch: Batch, again: bool, late: bool = True) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and every gradient, with dropout."""
    model.zero_grad()
    model.late = late
    with recomputed(model, again):
        losses = model.loss_sum(model.arrange(batch), Dropout(0.1, 5, 7), 1e-4)
        losses.total.backward()
    return losses.total.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_bytes(architecture: str):
    deep = replace(SHAPE, encoder_layers=4, decoder_layers=4, adapter=24)
    model, batch = build(shape_of(architecture, deep), 3, architecture), batch_of(6, 32, 24)
    loss, kept = step(model, batch, again=False)
    again = step(model, batch, again=True)
    assert again[0] == loss
    assert again[1].keys() == kept.keys() == dict(model.named_parameters()).keys()
    for name, grad in kept.items():
        assert torch.equal(again[1][name], grad), name
    # Keys and values of all layers at the encoder's end: other sums, the same numbers.
    early_loss, early = step(model, batch, again=False, late=False)
    assert early_loss == pytest.approx(loss, rel=1e-6)
    assert max(float((early[name] - grad).norm() / grad.norm()) for name, grad in kept.items()) < 1e-5


def test_nothing_of_it_stays_behind():
    model = build(SHAPE, 3)
    with recomputed(model, True):
        assert model.late
        assert all("forward" in vars(layer) for layer in (*model.encoder, *model.decoder))
    assert not model.late
    assert not any("forward" in vars(layer) for layer in (*model.encoder, *model.decoder))


def test_a_layer_more_keeps_one_tensor_more():
    """Bytes that live at most while a step is made, beside the weights: what each layer more of both stacks adds is,
    beside its gradients, a stream of each side and not what its sub-layers made."""
    batch = batch_of(16, 64, 64)

    def peak(layers: int, again: bool) -> int:
        model = build(replace(SHAPE, encoder_layers=layers, decoder_layers=layers), 3)
        step(model, batch, again)
        model.zero_grad()  # compiled, and every gradient a new one
        with Allocated() as allocated, recomputed(model, again):
            model.loss_sum(model.arrange(batch)).total.backward()
        return allocated.peak

    inputs = build(SHAPE, 3).arrange(batch)
    stream = 4 * SHAPE.d_model * (len(inputs.source) + len(inputs.target))
    one, none = (replace(SHAPE, encoder_layers=n, decoder_layers=n).parameters for n in (1, 0))
    gradients = 4 * (one - none)
    more = {again: (peak(6, again) - peak(2, again)) / 4 - gradients for again in (False, True)}
    assert more[True] < 1.1 * stream
    assert more[False] > 6 * stream


def test_a_run_goes_on_with_and_without(tmp_path: Path):
    """It is how a run is made, not which: an interrupted one may change it."""
    run = replace(RUN, steps=12, evaluate_every=0, save_every=6)
    again = Machine(recompute=True)
    go(tmp_path / "with", run, again)
    go(tmp_path / "twice", run, again)
    assert outcome(tmp_path / "with") == outcome(tmp_path / "twice")
    found: dict[bool, Any] = {name: go(tmp_path / str(name), run, Machine(recompute=name)) for name in (False, True)}
    assert found[True]["last_loss"] == pytest.approx(found[False]["last_loss"], rel=1e-6)
