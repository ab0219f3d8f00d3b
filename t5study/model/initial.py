"""What a fresh model's weights are: mesh's initialisation, as a function of (seed, name of the weight) only.

Not of the order in which a model is built, of the device, or of what else it holds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from t5study.ground import seeds
from t5study.model.shapes import BUCKETS, Shape


def start(model: nn.Module, shape: Shape, seed: int) -> None:
    """Gives every weight its first value. On the meta device there is nothing to give."""
    for name, weight in model.named_parameters():
        if not weight.is_meta:
            values = first_value(name, tuple(weight.shape), shape, seed)
            weight.detach().copy_(torch.from_numpy(values))


def first_value(name: str, size: tuple[int, ...], shape: Shape, seed: int) -> np.ndarray:
    """A float32 array: the first value of the weight of this name.

    The deviation of q takes the place of the 1 / sqrt(d_kv) that T5's attention does without. An adapter is a
    feed-forward like any other; it is not zero at first, because Adafactor moves a weight by its own size (docs/model).
    """
    random = seeds.stream(seed, "initial", name)
    match name.rsplit(".", 1)[-1]:
        case "norm":
            return np.ones(size, np.float32)
        case "embedding":
            return _normal(random, size, 1.0)
        case "head":
            return _truncated(random, size, shape.d_model**-0.5)
        case "bias":  # Glorot's uniform, TensorFlow's default, which mesh leaves it to
            limit = (6 / (BUCKETS + shape.heads)) ** 0.5
            return ((random.random(size, np.float32) * 2 - 1) * np.float32(limit)).astype(np.float32)
        case "q":
            return _normal(random, size, (shape.d_model * shape.d_kv) ** -0.5)
        case "k" | "v":
            return _normal(random, size, shape.d_model**-0.5)
        case "out":
            return _normal(random, size, shape.inner**-0.5)
        case "wi" | "wi_0" | "wi_1":
            return _truncated(random, size, shape.d_model**-0.5)
        case "wo":
            return _truncated(random, size, size[1] ** -0.5)  # d_ff, or the adapter's
    raise ValueError(f"no first value is known for a weight named {name}")


def _normal(random: np.random.Generator, size: tuple[int, ...], deviation: float) -> np.ndarray:
    values = random.standard_normal(size, np.float32)
    values *= np.float32(deviation)
    return values


def _truncated(random: np.random.Generator, size: tuple[int, ...], deviation: float) -> np.ndarray:
    """A normal without what lies beyond two deviations, and not widened for what that takes away, as TensorFlow's."""
    values = random.standard_normal(size, np.float32)
    while (outside := np.abs(values) > 2).any():
        values[outside] = random.standard_normal(int(outside.sum()), np.float32)
    values *= np.float32(deviation)
    return values
