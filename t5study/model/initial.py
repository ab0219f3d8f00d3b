"""What a fresh model's weights are: mesh's initialisation, as a function of (seed, name of the weight) only.

Not of the order in which a model is built, of the device, or of what else it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from t5study.ground import seeds
from t5study.model.shapes import BUCKETS, Shape

_CHUNK = 1 << 20  # numbers drawn at a time: 4 MiB


def start(model: nn.Module, shape: Shape, seed: int) -> None:
    """Gives every weight its first value. On the meta device there is nothing to give."""
    for name, weight in model.named_parameters():
        if not weight.is_meta:
            values = first_value(name, tuple(weight.shape), shape, seed)
            weight.detach().copy_(torch.from_numpy(values))


def first_value(name: str, size: tuple[int, ...], shape: Shape, seed: int, rows: slice | None = None) -> np.ndarray:
    """A float32 array: the first value of the weight of this name, or some rows of it.

    All of it is drawn, a chunk at a time, and what was asked for is kept: the stream of draws has no places to begin
    at, since a normal takes as many as it needs.

    The deviation of q takes the place of the 1 / sqrt(d_kv) that T5's attention does without. An adapter is a
    feed-forward like any other; it is not zero at first, because Adafactor moves a weight by its own size (docs/model).
    """
    random = seeds.stream(seed, "initial", name)
    rows = rows or slice(0, size[0])
    match name.rsplit(".", 1)[-1]:
        case "norm":
            return np.ones(size, np.float32)[rows]
        case "embedding":
            return _normal(random, size, rows, 1.0)
        case "head":
            return _truncated(random, size, rows, shape.d_model**-0.5)
        case "bias":  # Glorot's uniform, TensorFlow's default, which mesh leaves it to
            limit = (6 / (BUCKETS + shape.heads)) ** 0.5
            return ((random.random(size, np.float32) * 2 - 1) * np.float32(limit)).astype(np.float32)[rows]
        case "q":
            return _normal(random, size, rows, (shape.d_model * shape.d_kv) ** -0.5)
        case "k" | "v":
            return _normal(random, size, rows, shape.d_model**-0.5)
        case "out":
            return _normal(random, size, rows, shape.inner**-0.5)
        case "wi" | "wi_0" | "wi_1":
            return _truncated(random, size, rows, shape.d_model**-0.5)
        case "wo":
            return _truncated(random, size, rows, size[1] ** -0.5)  # d_ff, or the adapter's
    raise ValueError(f"no first value is known for a weight named {name}")


def _normal(random: np.random.Generator, size: tuple[int, ...], rows: slice, deviation: float) -> np.ndarray:
    values, first = _kept(size, rows)
    for at, drawn in _draws(random, math.prod(size)):
        _put(values, first, at, drawn)
    values *= np.float32(deviation)
    return values.reshape(-1, *size[1:])


def _truncated(random: np.random.Generator, size: tuple[int, ...], rows: slice, deviation: float) -> np.ndarray:
    """A normal without what lies beyond two deviations, and not widened for what that takes away, as TensorFlow's.
    What lies beyond is drawn again when all have been drawn, in their order."""
    values, first = _kept(size, rows)
    found = []
    for at, drawn in _draws(random, math.prod(size)):
        _put(values, first, at, drawn)
        found.append(at + np.flatnonzero(np.abs(drawn) > 2))
    outside = np.concatenate(found)
    while len(outside):
        drawn = random.standard_normal(len(outside), np.float32)
        begin, end = np.searchsorted(outside, (first, first + len(values)))
        values[outside[begin:end] - first] = drawn[begin:end]
        outside = outside[np.abs(drawn) > 2]
    values *= np.float32(deviation)
    return values.reshape(-1, *size[1:])


def _kept(size: tuple[int, ...], rows: slice) -> tuple[np.ndarray, int]:
    """Room for some rows' numbers, and the place of the first of them in the whole weight."""
    width = math.prod(size[1:])
    return np.empty((rows.stop - rows.start) * width, np.float32), rows.start * width


def _draws(random: np.random.Generator, n: int) -> Iterator[tuple[int, np.ndarray]]:
    """n normal numbers, a chunk at a time, each with the place of its first."""
    for at in range(0, n, _CHUNK):
        yield at, random.standard_normal(min(_CHUNK, n - at), np.float32)


def _put(values: np.ndarray, first: int, at: int, drawn: np.ndarray) -> None:
    """Those of some drawn numbers that belong to values."""
    begin, end = max(first, at), min(first + len(values), at + len(drawn))
    if begin < end:
        values[begin - first : end - first] = drawn[begin - at : end - at]
