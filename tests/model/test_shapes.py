"""Sizes: parameters as the published models have them, counted in the module and by arithmetic; FLOPs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from little_models import rows_of
from model.reference import reference_loss
from torch.utils.flop_counter import FlopCounterMode

from t5study.ground.errors import UserError
from t5study.model.architectures import build
from t5study.model.shapes import SIZES, Shape, size

# Computed in the paper's notes for a table of 32,128 rows; the paper prints 60M, 220M, 770M, 2.8B and 11B.
MILLIONS = {
    "small": 60.5, "base": 222.9, "large": 737.7, "3b": 2851.6, "11b": 11307.3, "2x": 502.7, "4x": 972.6,
    "v1.1-small": 77.0, "v1.1-base": 247.6, "v1.1-large": 783.2, "v1.1-xl": 2849.8, "v1.1-xxl": 11135.3,
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        model = build(size(name, 32_128), seed=0)
    counted = sum(weight.numel() for weight in model.parameters())
    assert counted == SIZES[name].parameters
    if name in MILLIONS:
        assert round(counted / 1e6, 1) == MILLIONS[name]


def test_six_layers_a_stack() -> None:
    assert round(Shape(768, 3072, 64, 12, 6, 6, 32_128).parameters / 1e6, 1) == 123.8


@pytest.mark.parametrize(
    "shape", [Shape(32, 80, 8, 3, 2, 3, 128), Shape(32, 80, 8, 3, 3, 2, 128, "gated_gelu", tied=False)]
)
def test_flops_are_those_of_the_matrix_products(shape: Shape) -> None:
    """Counted in a dense forward pass by torch's own counter; the backward pass is twice that."""
    pair = np.full(24, 5, np.int32), np.full(10, 6, np.int32)
    with FlopCounterMode(display=False) as counter:
        reference_loss(build(shape, 0), rows_of([[pair]], 24, 10))
    assert 3 * counter.get_total_flops() == shape.flops(24, 10)


def test_a_step_of_the_papers_baseline() -> None:
    assert round(128 * size("base", 32_128).flops(512, 114) / 1e12, 1) == 54.5


@pytest.mark.parametrize(("given", "hint"), [("Base", "base"), ("smal", "small"), ("11B", "11b")])
def test_unknown_names_are_told_the_nearest(given: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"size: found '{given}'; did you mean {hint}?"):
        size(given, 128)


@pytest.mark.parametrize(
    ("field", "value"),
    [("d_model", 0), ("heads", -1), ("table_rows", 0), ("decoder_layers", -1), ("activation", "elu")],
)
def test_impossible_shapes(field: str, value: object) -> None:
    fields = {**SIZES["pico"].__dict__, field: value}
    with pytest.raises(UserError, match=f"shape: {field}: found"):
        Shape(**fields)
