"""Updates inside the backward pass: a weight moves as soon as its gradient is whole, and the gradient is gone.

So the gradients of one sub-layer exist at a time (with `model.late`; of all layers' cross keys and values else), not
those of the model. Adafactor needs nothing of other weights, so the numbers are those of an ordinary step, to the byte.

What is lost: whatever looks at a whole gradient before the weights move. A step's loss is looked at before its
backward pass, so a loss that is not finite stops the run with no weight moved; a gradient that is not finite under a
good loss is found behind it, and the run stops with its last checkpoint good. No spike rule, no skipping, no rewinding;
no micro-batches, whose gradients are sums; one rank.
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from t5study.train.adafactor import AdafactorOptimizer
from t5study.train.optim import Adafactor, Rounded


@dataclass(frozen=True)
class Settings:
    """Adafactor's, for updates inside the backward pass."""

    settings: Adafactor | Rounded

    def build(self, model: nn.Module) -> Streamed:
        return Streamed(self.settings.build(model))


class Streamed:
    """An Optimizer whose `begin` is called before a step's backward pass and whose `step` finds all done after it.

    largest: bytes of gradients that have existed at once.
    """

    def __init__(self, inner: AdafactorOptimizer):
        self.inner, self.rate, self.moves = inner, 0.0, True
        self.norms: dict[str, Tensor] = {}
        self.largest = 0
        self._hooks = [
            weight.register_post_accumulate_grad_hook(lambda _, name=name: self._move(name))
            for name, weight in inner.weights.items()
        ]

    def close(self) -> None:
        """The weights are anybody's again."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def dry(self) -> Iterator[None]:
        """Gradients go as they come and no weight moves."""
        self.moves = False
        try:
            yield
        finally:
            self.moves = True

    def begin(self, rate: float) -> None:
        """Every weight that gets a gradient from here on moves at this rate, at once."""
        self.rate, self.norms = rate, {}
        self.inner.count += 1

    def _move(self, name: str) -> None:
        weight = self.inner.weights[name]
        assert weight.grad is not None
        if not self.moves:
            weight.grad = None
            return
        self.norms[name] = torch._foreach_norm([weight.grad])[0]
        self.largest = max(self.largest, sum(p.grad.nbytes for p in self.inner.weights.values() if p.grad is not None))
        self.inner.step_one(name, self.rate)
        weight.grad = None

    def norm(self) -> Tensor:
        """The L2 norm of the whole gradient that there was."""
        if not self.norms:  # there was no backward pass
            return torch.tensor(math.nan, dtype=torch.float64, device=next(iter(self.inner.weights.values())).device)
        return torch.linalg.vector_norm(torch.stack([self.norms[name] for name in self.inner.weights])).double()

    def step(self, rate: float) -> None:
        assert rate == self.rate
        assert self.norms.keys() == self.inner.weights.keys()

    def admit(self, weights: Mapping[str, nn.Parameter], done: int) -> None:
        raise NotImplementedError("weights that begin to move later")

    def state_tensors(self) -> dict[str, Tensor]:
        return self.inner.state_tensors()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.inner.load(tensors)
