"""Dropout's masks: their rate, what they depend on, and what they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t5study.ground.errors import UserError
from t5study.model.dropout import Dropout, sites
from t5study.model.shapes import SIZES

WIDTHS = {"a": 301, "b": 64, "c": 4096}


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_rates(rate: float) -> None:
    masks = Dropout(rate, seed=0, step=1).masks(64, WIDTHS)
    for name, mask_BW in masks.items():
        assert mask_BW.shape == (64, WIDTHS[name])
        dropped = (mask_BW == 0).double()
        spread = math.sqrt(rate * (1 - rate) / mask_BW.numel())
        assert abs(dropped.mean().item() - rate) < 5 * spread + 1 / 65536
        kept = mask_BW[mask_BW != 0]
        assert (kept == kept[0]).all()
        assert kept[0].item() == pytest.approx(1 / (1 - rate), rel=1e-3)
        # Rows and columns alike: no row or column is dropped much more often than chance has it.
        for axis, n in ((0, 64), (1, WIDTHS[name])):
            assert (dropped.mean(axis) - rate).abs().max() < 6 * math.sqrt(rate * (1 - rate) / n)


def test_neighbours_are_independent() -> None:
    """Of one row's places, of one place's rows, of sites and of steps: correlations of kept-or-not."""
    here = (Dropout(0.5, 0, 1).masks(256, {"a": 512, "b": 512})["a"] > 0).double() * 2 - 1
    others = [
        (Dropout(0.5, 0, 1).masks(256, {"a": 512, "b": 512})["b"] > 0).double() * 2 - 1,
        (Dropout(0.5, 0, 2).masks(256, {"a": 512})["a"] > 0).double() * 2 - 1,
        (Dropout(0.5, 1, 1).masks(256, {"a": 512})["a"] > 0).double() * 2 - 1,
        here.roll(1, 0),
        here.roll(1, 1),
    ]
    for other in others:
        assert abs((here * other).mean().item()) < 5 / math.sqrt(here.numel())


@given(
    rows=st.integers(1, 12), cut=st.integers(0, 12), step=st.integers(0, 2**40), seed=st.integers(0, 2**62),
    width=st.integers(0, 40), wider=st.integers(0, 9),
)  # fmt: skip
def test_independent_of_micro_batches_and_widths(
    rows: int, cut: int, step: int, seed: int, width: int, wider: int
) -> None:
    cut = min(cut, rows)
    whole = Dropout(0.3, seed, step).masks(rows, {"x": 7, "a": width})["a"]
    first = Dropout(0.3, seed, step).masks(cut, {"x": 7, "a": width})["a"]
    second = Dropout(0.3, seed, step, first_row=cut).masks(rows - cut, {"x": 7, "a": width})["a"]
    assert torch.equal(torch.cat((first, second)), whole)
    longer = Dropout(0.3, seed, step).masks(rows, {"a": width + wider, "z": 3})["a"]
    assert torch.equal(longer[:, :width], whole)


def test_sites_are_meshs() -> None:
    shape = SIZES["tiny"]
    found = sites(shape, source=100, target=30)
    per_layer = {"encoder": 4, "decoder": 6}  # weights and output of each attention; hidden layer and output
    for stack, each in per_layer.items():
        assert sum(name.startswith(f"{stack}.layers.1.") for name in found) == each
        assert found[f"{stack}.embedding"] == found[f"{stack}.norm"] == shape.d_model
    assert found["encoder.layers.0.attention.weights"] == 100 * shape.heads
    assert found["decoder.layers.0.cross.weights"] == 100 * shape.heads
    assert found["decoder.layers.0.attention.weights"] == 30 * shape.heads
    assert found["decoder.layers.1.feed.hidden"] == shape.d_ff
    assert len(found) == 2 * 4 + 2 * 6 + 4


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_impossible_rates(rate: float) -> None:
    with pytest.raises(UserError, match="dropout: found"):
        Dropout(rate, 0, 0)


def test_a_mask_is_what_it_was() -> None:
    """The first masks ever drawn: a change would change every run with dropout."""
    mask_BW = Dropout(0.25, seed=1, step=2).masks(2, {"encoder.embedding": 16})["encoder.embedding"]
    assert ["".join("01"[int(x > 0)] for x in row) for row in mask_BW.numpy()] == FIRST
    assert mask_BW.numpy().max() == np.float32(4 / 3)


FIRST = ["1010100111111111", "1111111011100110"]
