"""Optimisers and schedules as values: what a run asks for, part of its fingerprint.

    optimizer = Adafactor().build(model)
    optimizer.step(rate=InverseSquareRoot().rate(step))

The rate is a function of the step alone and is given with every update, so nothing about it needs saving.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from t5study.ground.errors import UserError
from t5study.train.adafactor import AdafactorOptimizer, Rule


class Optimizer(Protocol):
    """What a training loop needs of one."""

    def step(self, rate: float) -> None:
        """Moves the weights by their gradients."""
        ...

    def admit(self, weights: Mapping[str, nn.Parameter], done: int) -> None:
        """Takes in more weights, after `done` updates of the others. Their state begins here: what an optimiser
        counts, it counts for them from their own first update."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """All that the next step depends on beside weights, gradients and rate, by name, and beside when weights were
        admitted, which whoever admits them knows."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `state_tensors` of an equal optimiser gave."""
        ...


class Builder(Protocol):
    """An optimiser as a value."""

    def build(self, model: nn.Module) -> Optimizer: ...


# --- optimisers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adafactor:
    """T5's optimiser (paper, section 3.1.2); the rule and the meaning of each number: adafactor.py.

    Where others that go by the name differ: transformers' factors every matrix, which `min_dim_to_factor=1` does
    here; torch's does too, caps the rate at 1 / sqrt(t) (the schedules below say what they do), and bounds v from
    below instead of adding epsilon, which shows where a gradient is zero.
    """

    decay: float = 0.8
    epsilon: float = 1e-30
    clip: float = 1.0
    smallest: float = 1e-3
    min_dim_to_factor: int = 128

    def __post_init__(self) -> None:
        _positive("adafactor", self, "decay", "epsilon", "clip", "smallest", "min_dim_to_factor")

    @property
    def rule(self) -> Rule:
        """The same as the arithmetic has it (adafactor.py)."""
        return Rule(self.decay, self.epsilon, self.clip, self.smallest, self.min_dim_to_factor)

    def build(self, model: nn.Module) -> AdafactorOptimizer:
        """The optimiser of all weights of a model that can move, which is on its device already."""
        return AdafactorOptimizer(self.rule, movable(model))


@dataclass(frozen=True)
class Rounded:
    """Adafactor for a model whose matrices are bfloat16 (`in_bf16`). seed: of the rounding."""

    settings: Adafactor
    seed: int

    def build(self, model: nn.Module) -> AdafactorOptimizer:
        return AdafactorOptimizer(self.settings.rule, movable(model), seed=self.seed)


def in_bf16(model: nn.Module) -> None:
    """Makes a model's matrices bfloat16, in place; norms and bias tables, which are few numbers, stay fp32."""
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and not name.endswith(".bias"):
            weight.data = weight.data.to(torch.bfloat16)


@dataclass(frozen=True)
class AdamW:
    """Loshchilov and Hutter 2019, torch's fused kernel. No weight decay unless asked for, as T5 has none."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _positive("adamw", self, "epsilon")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"adamw: {name}: found {getattr(self, name)}; give a number from 0 to below 1")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise UserError(f"adamw: weight_decay: found {self.weight_decay}; give 0 or more")

    def build(self, model: nn.Module) -> AdamWOptimizer:
        """The optimiser of all weights of a model that can move, which is on its device already."""
        return AdamWOptimizer(self, movable(model))


class AdamWOptimizer:
    """torch.optim.AdamW behind the three methods of an Optimizer."""

    def __init__(self, settings: AdamW, weights: Mapping[str, nn.Parameter]):
        self.weights = dict(weights)
        self._adam = torch.optim.AdamW(
            list(self.weights.values()),
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._begin(self.weights)

    def admit(self, weights: Mapping[str, nn.Parameter], done: int) -> None:
        self.weights.update(weights)
        self._adam.add_param_group({"params": list(weights.values())})
        self._begin(weights)

    def _begin(self, weights: Mapping[str, nn.Parameter]) -> None:
        # torch makes a weight's state at its first step; made here it has its names and shapes from the start.
        for p in weights.values():
            self._adam.state[p] = {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(p, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(p, requires_grad=False),
            }

    def step(self, rate: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()

    def state_tensors(self) -> dict[str, Tensor]:
        return {f"{name}/{part}": t for name, p in self.weights.items() for part, t in self._adam.state[p].items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, own in self.state_tensors().items():
            own.copy_(tensors[name])


def movable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that training moves, by name; a weight that two places share is there once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


# --- schedules ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InverseSquareRoot:
    """scale / sqrt(max(step, warmup)): flat, then falling (paper, section 3.1.2). No linear part at either end.

    >>> schedule = InverseSquareRoot()
    >>> schedule.rate(0), schedule.rate(10_000), schedule.rate(40_000)
    (0.01, 0.01, 0.005)
    """

    scale: float = 1.0
    warmup: int = 10_000

    def __post_init__(self) -> None:
        _positive("inverse square root", self, "scale", "warmup")

    def rate(self, step: int) -> float:
        """The rate of the update that `step` updates came before."""
        return self.scale / math.sqrt(max(step, self.warmup))


@dataclass(frozen=True)
class Constant:
    """The same rate at every step (paper: 0.001 for fine-tuning)."""

    value: float

    def __post_init__(self) -> None:
        _positive("constant rate", self, "value")

    def rate(self, step: int) -> float:
        return self.value


def _positive(what: str, settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{what}: {name}: found {value}; give a finite number above 0")
