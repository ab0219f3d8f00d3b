"""Footprints: every weight's size as the module has it, and the states of real optimisers, without allocating any."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from t5study.model.architectures import build
from t5study.model.footprint import WAYS, adafactor_state, cache, inference, trainable, training, weights
from t5study.model.shapes import ARCHITECTURES, SIZES, Shape, parameters, shape_of, size
from t5study.train.optim import Adafactor, AdamW
from t5study.train.tuning import Adapters, Movement

SMALL = replace(size("small", 384), adapter=136)
GATED = replace(size("v1.1-small", 384), adapter=20)


@pytest.mark.parametrize("shape", [SMALL, GATED, replace(SMALL, adapter=0)], ids=["small", "gated", "plain"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_weight_is_counted_with_its_size(shape: Shape, architecture: str):
    shape = shape_of(architecture, shape)
    with torch.device("meta"):
        model = build(shape, 0, architecture)
    found: Counter[tuple[int, ...]] = Counter()
    for each in weights(shape, architecture):
        found[each.size] += each.count
    assert found == Counter(tuple(weight.shape) for weight in model.parameters())
    assert sum(each.numbers for each in weights(shape, architecture)) == parameters(shape, architecture)


@pytest.mark.parametrize("shape", [SMALL, GATED], ids=["small", "gated"])
def test_states_are_those_of_the_optimisers(shape: Shape):
    """All weights, then adapters and norms alone: numbers of real states, on a device that holds nothing."""
    with torch.device("meta"):
        model = build(shape, 0)
    every = weights(shape)
    moved = [each for each in every if each.tuned]
    for some, optimizer in (
        (every, Adafactor().build(model)),
        (moved, Movement(Adapters(shape.adapter), model, 10).optimizer(Adafactor(), 0)),
    ):
        state = optimizer.state_tensors()
        assert adafactor_state(some) == sum(t.numel() for name, t in state.items() if name != "step")
    model.requires_grad_(True)
    moments = [t.numel() for name, t in AdamW().build(model).state_tensors().items() if not name.endswith("/step")]
    assert sum(moments) == 2 * parameters(shape)
    assert trainable(shape) == Movement(Adapters(shape.adapter), model, 10).trainable(1)


def test_fine_tuning_11_billion_takes_what_the_notes_say():
    """181, 90 and 45 GB; the last two hold the gradients of a layer beside the weights."""
    giga = [round(size / 1e9) for _, size in training(size("11b"))]
    assert giga == [181, 181, 91, 45, 46, 23]
    assert [way.name for way in WAYS if not way.here] == ["AdamW, bfloat16 model and gradients, float32 master copy"]


def test_adapters_need_little_beside_the_weights():
    shape = replace(size("base"), adapter=32)
    fresh, whole = dict(training(shape)), dict(training(size("base")))
    for way in WAYS:
        assert way.weight * parameters(shape) < fresh[way] < whole[way]
    assert fresh[WAYS[0]] == 4 * parameters(shape) + 12 * trainable(shape)


@pytest.mark.parametrize("adapter", [8, 32, 64])
def test_an_adapter_is_of_matrices_however_few_columns_it_has(adapter: int):
    """By hand: a byte a number, and 4 a row; 4 a number of its norm."""
    shape = size("base")
    more = inference(replace(shape, adapter=adapter))["int8"] - inference(shape)["int8"]
    assert more == 24 * (2 * 768 * adapter + 4 * (768 + adapter) + 4 * 768)


def test_answering():
    shape = SIZES["small"]
    found = inference(shape)
    assert (found["float32"], found["bfloat16"]) == (4 * shape.parameters, 2 * shape.parameters)
    assert shape.parameters < found["int8"] < 1.02 * shape.parameters
    assert cache(shape, "encoder_decoder", 512, 114) == 6 * 2 * 512 * 626
