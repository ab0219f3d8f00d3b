"""Weights by name: how a model's parameters are cut into the matrices that T5 knows, and what each starts from.

q, k and v of one attention are stored as one parameter, because one wide matrix product is faster than three narrow
ones. To mesh (and so to its initialiser, to Adafactor, and to the published checkpoints) they are three variables.
`Weight` is such a variable: some rows of a parameter.

A weight's first value is a function of (seed, its name) only: not of the order in which a model is built, of the
device, or of what else it holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from t5study.ground import seeds


@dataclass(frozen=True)
class Initial:
    """kind: "normal", "truncated" (at two standard deviations, and not rescaled for what that takes away, as in
    TensorFlow), "uniform" or "ones". scale: the standard deviation; the limit of the uniform.
    """

    kind: str
    scale: float = 1.0

    def draw(self, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        """A float32 array of this shape."""
        if self.kind == "ones":
            return np.ones(shape, np.float32)
        if self.kind == "uniform":
            return ((random.random(shape, np.float32) * 2 - 1) * np.float32(self.scale)).astype(np.float32)
        values = random.standard_normal(shape, np.float32)
        if self.kind == "truncated":
            while (outside := np.abs(values) > 2).any():
                values[outside] = random.standard_normal(int(outside.sum()), np.float32)
        values *= np.float32(self.scale)
        return values


ONES = Initial("ones")


def normal(fan: int) -> Initial:
    """Normal with standard deviation fan^-0.5."""
    return Initial("normal", fan**-0.5)


def truncated(fan: int) -> Initial:
    """Truncated normal; fan^-0.5 is its standard deviation before the truncation."""
    return Initial("truncated", fan**-0.5)


def glorot(rows: int, columns: int) -> Initial:
    """Glorot uniform: TensorFlow's default, which mesh leaves the relative bias to."""
    return Initial("uniform", math.sqrt(6 / (rows + columns)))


@dataclass(frozen=True)
class Weight:
    """Rows `first` to `stop` of a parameter, under the name of the matrix they are."""

    name: str
    parameter: nn.Parameter
    first: int
    stop: int
    initial: Initial

    @property
    def value(self) -> Tensor:
        """A view of the rows, outside autograd: what is written to it is written to the parameter."""
        return self.parameter.detach()[self.first : self.stop]

    @property
    def grad(self) -> Tensor | None:
        """The same rows of the parameter's gradient, a view; None before a backward pass."""
        return None if self.parameter.grad is None else self.parameter.grad[self.first : self.stop]


def start(weights: list[Weight], seed: int) -> None:
    """Gives every weight its first value. On the meta device there is nothing to give."""
    for weight in weights:
        value = weight.value
        if not value.is_meta:
            drawn = weight.initial.draw(tuple(value.shape), seeds.stream(seed, "initial", weight.name))
            value.copy_(torch.from_numpy(drawn))
