"""Sizes: parameters as the published models have them, counted in the module and by arithmetic; FLOPs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from little_models import rows_of
from model.reference import reference_loss
from torch.utils.flop_counter import FlopCounterMode

from t5study.ground.errors import UserError
from t5study.model.architectures import build
from t5study.model.shapes import ARCHITECTURES, SIZES, Shape, check, costs, parameters, parts, shape_of, size

# Computed in the paper's notes for a table of 32,128 rows; the paper prints 60M, 220M, 770M, 2.8B and 11B. The articles
# on mT5 and ByT5 print 300M, 580M (582M), 1.2B, 3.7B, 13B (12.9B) for both.
MILLIONS = {
    "small": 60.5, "base": 222.9, "base-6": 123.8, "large": 737.7, "3b": 2851.6, "11b": 11307.3, "2x": 502.7,
    "4x": 972.6, "large-12": 385.3,
    "v1.1-small": 77.0, "v1.1-base": 247.6, "v1.1-large": 783.2, "v1.1-xl": 2849.8, "v1.1-xxl": 11135.3,
    "mt5-small": 300.2, "mt5-base": 582.4, "mt5-large": 1229.6, "mt5-xl": 3742.6, "mt5-xxl": 12921.1,
    "byt5-small": 299.6, "byt5-base": 581.7, "byt5-large": 1228.2, "byt5-xl": 3737.8, "byt5-xxl": 12906.9,
}  # fmt: skip


def counted(shape: Shape, architecture: str) -> int:
    """Numbers in the weights of a real module; nothing is allocated."""
    with torch.device("meta"):
        model = build(shape, 0, architecture)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name: str) -> None:
    found = counted(size(name), "encoder_decoder")
    assert found == SIZES[name].parameters
    if name in MILLIONS:
        assert round(found / 1e6, 1) == MILLIONS[name]


@pytest.mark.parametrize("adapter", [0, 48])
@pytest.mark.parametrize("name", ["base", "v1.1-small"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_of_every_architecture(architecture: str, name: str, adapter: int) -> None:
    shape = shape_of(architecture, replace(size(name), adapter=adapter))
    assert counted(shape, architecture) == parameters(shape, architecture)


def test_a_table_of_their_own() -> None:
    assert {size(name).table_rows for name in SIZES if name.startswith("mt5")} == {250_112}
    assert {size(name).table_rows for name in SIZES if name.startswith("byt5")} == {384}
    assert all(s.encoder_layers == 3 * s.decoder_layers for name, s in SIZES.items() if name.startswith("byt5"))
    assert size("byt5-small", 512).table_rows == 512


# --- Table 2 ------------------------------------------------------------------------------------------------------

P_AND_M = {  # of the paper; P of one stack's layers, M of the encoder-decoder's
    "encoder_decoder": (2, 1), "shared_encoder_decoder": (1, 1), "halved": (1, 1 / 2), "language_model": (1, 1),
    "prefix_lm": (1, 1),
}  # fmt: skip


@pytest.mark.parametrize("row", P_AND_M)
def test_relative_size_and_cost_are_table_2s(row: str) -> None:
    """The paper's convention: P and M are those of the layers; cross-attention (10 % of the parameters), embedding and
    softmax are not counted, and neither are scores (which make the language models' 4 % more)."""
    base = size("base")
    architecture, shape = ("encoder_decoder", base.halved()) if row == "halved" else (row, shape_of(row, base))
    found, cost = parts(shape, architecture), costs(shape, architecture, 512, 114)
    p, m = P_AND_M[row]
    assert (found["encoder"] + found["decoder"]) / parts(base)["encoder"] == pytest.approx(p, rel=1e-4)
    whole = costs(base, "encoder_decoder", 512, 114)
    ours, theirs = (sum(one[stack] for stack in ("encoder", "decoder")) for one in (cost, whole))
    assert ours / theirs == pytest.approx(m, rel=0.04)


def test_with_everything_counted_the_encoder_decoder_is_2_03_language_models() -> None:
    """And one that shares is 1.26: its cross-attention is a third of a stack."""
    base, lm = size("base"), shape_of("language_model", size("base"))
    assert round(parameters(base) / parameters(lm, "language_model"), 2) == 2.03
    assert round(parameters(base, "shared_encoder_decoder") / parameters(lm, "language_model"), 2) == 1.26


@pytest.mark.parametrize(
    ("architecture", "shape", "told"),
    [
        ("language_model", size("base"), "encoder_layers: found 12; a language_model has a decoder alone, give 0"),
        ("shared_encoder_decoder", size("byt5-small"), "decoder_layers: found 4 beside 12"),
        ("prefix-lm", size("base"), "architecture: found 'prefix-lm'; did you mean prefix_lm?"),
    ],
)
def test_shapes_that_an_architecture_cannot_have(architecture: str, shape: Shape, told: str) -> None:
    for ask in (check, parameters, lambda s, a: costs(s, a, 8, 8)):
        with pytest.raises(UserError, match=told):
            ask(shape, architecture)


# --- FLOPs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [Shape(32, 80, 8, 3, 2, 3, 128), Shape(32, 80, 8, 3, 3, 2, 128, "gated_gelu", tied=False)]
)
def test_flops_are_those_of_the_matrix_products(shape: Shape) -> None:
    """Counted in a dense forward pass by torch's own counter; the backward pass is twice that."""
    pair = np.full(24, 5, np.int32), np.full(10, 6, np.int32)
    with FlopCounterMode(display=False) as counter:
        reference_loss(build(shape, 0), rows_of([[pair]], 24, 10))
    assert 3 * counter.get_total_flops() == shape.flops(24, 10)


def test_adapters_cost_their_matrices() -> None:
    plain, with_them = Shape(32, 80, 8, 3, 2, 3, 128), Shape(32, 80, 8, 3, 2, 3, 128, adapter=16)
    assert with_them.flops(24, 10) - plain.flops(24, 10) == 6 * 2 * 32 * 16 * (2 * 24 + 3 * 10)


def test_a_step_of_the_papers_baseline() -> None:
    assert round(128 * size("base").flops(512, 114) / 1e12, 1) == 54.5


@pytest.mark.parametrize(
    ("given", "hint"),
    [("Base", "base"), ("smal", "small"), ("11B", "11b"), ("byt5_small", "byt5-small"), ("MT5-xl", "mt5-xl")],
)
def test_unknown_names_are_told_the_nearest(given: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"size: found '{given}'; did you mean {hint}?"):
        size(given, 128)


@pytest.mark.parametrize(
    ("field", "value"),
    [("d_model", 0), ("heads", -1), ("table_rows", 0), ("decoder_layers", -1), ("adapter", -1), ("activation", "elu")],
)
def test_impossible_shapes(field: str, value: object) -> None:
    fields = {**SIZES["pico"].__dict__, field: value}
    with pytest.raises(UserError, match=f"shape: {field}: found"):
        Shape(**fields)
