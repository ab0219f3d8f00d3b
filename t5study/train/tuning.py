"""Tuning: which weights move at which step (paper, section 3.5.1), as values.

    AllParameters()               every weight, at every step
    Adapters(32)                  a small network after each feed-forward, and the norms; nothing else
    GradualUnfreezing(12)         the top layer of each stack first, then one more an episode

`moving(names, step, steps)` names the weights that the update number `step` (1 to `steps`) moves; it changes at the
steps `changes(steps)` alone. Both are functions of their arguments, so a run that is resumed knows them again. What
does not move has `requires_grad` false: no gradient is kept for it, an optimiser has no state for it, and its bytes
stay as they are. A weight that begins to move later gets an optimiser state of its own then, whose first update that
is: as if fine-tuning began there and then (`optim.Optimizer.admit`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from t5study.ground.errors import UserError
from t5study.model.shapes import Shape
from t5study.train.optim import Builder, Optimizer

_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.")


@dataclass(frozen=True)
class AllParameters:
    """Every weight moves (the paper's baseline)."""

    label: ClassVar[str] = "all"

    def shape(self, shape: Shape) -> Shape:
        """The shape of the model that is tuned, from that of the model it starts from."""
        return shape

    def changes(self, steps: int) -> tuple[int, ...]:
        """Steps from which on more weights may move, in order, the first among them."""
        return (1,)

    def moving(self, names: Iterable[str], step: int, steps: int) -> frozenset[str]:
        """Which of a model's weights the update number `step` moves."""
        return frozenset(names)


@dataclass(frozen=True)
class Adapters:
    """Dense-ReLU-dense of inner size `inner` after each feed-forward (Houlsby et al. 2019; the paper: 32, 128, 512,
    2048). Adapters and all norms move; embedding, attention, feed-forward and the bias tables do not."""

    inner: int

    def __post_init__(self) -> None:
        if self.inner < 1:
            raise UserError(f"adapters: inner: found {self.inner}; give at least 1")

    @property
    def label(self) -> str:
        return f"adapters, d={self.inner}"

    def shape(self, shape: Shape) -> Shape:
        """UserError if the model has adapters of another size already."""
        if shape.adapter not in (0, self.inner):
            raise UserError(
                f"adapters: inner: found {self.inner} for a model that has adapters of {shape.adapter}; give "
                f"{shape.adapter}, or start from a model without"
            )
        return replace(shape, adapter=self.inner)

    def changes(self, steps: int) -> tuple[int, ...]:
        return (1,)

    def moving(self, names: Iterable[str], step: int, steps: int) -> frozenset[str]:
        return frozenset(name for name in names if ".adapter." in name or name.endswith(".norm"))


@dataclass(frozen=True)
class GradualUnfreezing:
    """From the top layer down, encoder and decoder in parallel, in `episodes` episodes of equal length (Howard and
    Ruder 2018 as the paper has it: 12 layers, 12 episodes of 2^18 / 12 steps).

    In episode e of E the top ceil(L e / E) layers of a stack of L move: one more an episode where L = E, and all of
    them in the last whatever L is. A weight that belongs to no one layer moves as soon as every layer that uses it
    does: a stack's final norm stands above the top layer and moves from the first step; its table of position biases
    is used by every layer and waits for the lowest (in published files it is part of that layer). Embedding and
    softmax matrix move throughout, as in the paper, which names as its reason that they are one matrix.

    >>> names = ["embedding", "decoder.bias", "decoder.layers.0.feed.wo", "decoder.layers.1.feed.wo", "decoder.norm"]
    >>> sorted(GradualUnfreezing(2).moving(names, step=5, steps=10))
    ['decoder.layers.1.feed.wo', 'decoder.norm', 'embedding']
    """

    episodes: int = 12

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise UserError(f"gradual unfreezing: episodes: found {self.episodes}; give at least 1")

    @property
    def label(self) -> str:
        return f"gradual unfreezing, {self.episodes} episodes"

    def shape(self, shape: Shape) -> Shape:
        return shape

    def changes(self, steps: int) -> tuple[int, ...]:
        """
        >>> GradualUnfreezing(12).changes(2**18)[:3]
        (1, 21846, 43691)
        """
        return tuple(sorted({episode * steps // self.episodes + 1 for episode in range(self.episodes)}))

    def moving(self, names: Iterable[str], step: int, steps: int) -> frozenset[str]:
        names = list(names)
        depth = {"encoder": 0, "decoder": 0}
        for name in names:
            if found := _LAYER.match(name):
                depth[found[1]] = max(depth[found[1]], int(found[2]) + 1)
        episode = math.ceil(step * self.episodes / steps)
        lowest = {stack: layers - math.ceil(layers * episode / self.episodes) for stack, layers in depth.items()}

        def moves(name: str) -> bool:
            if found := _LAYER.match(name):
                return int(found[2]) >= lowest[found[1]]
            stack, _, what = name.partition(".")
            return what != "bias" or lowest[stack] == 0

        return frozenset(filter(moves, names))


Tuning = AllParameters | Adapters | GradualUnfreezing


def parse(text: str) -> Tuning:
    """A tuning as it is typed: all, adapters(32), unfreezing or unfreezing(12). UserError for anything else.

    >>> parse("adapters(32)") == Adapters(32), parse("unfreezing") == GradualUnfreezing(12)
    (True, True)
    """
    found = re.fullmatch(r"(all|adapters|unfreezing)(?:\((\d{1,9})\))?", text.strip().lower())
    match found.groups() if found else None:
        case ("all", None):
            return AllParameters()
        case ("adapters", str(inner)):
            return Adapters(int(inner))
        case ("unfreezing", episodes):
            return GradualUnfreezing(int(episodes or 12))
    raise UserError(f"tuning: found {text[:60]!r}; give all, adapters(32) or unfreezing(12)")


def begin(tuning: Tuning, model: Any, seed: int) -> Any:
    """The model that tuning starts from: this one, or one of the same weights with fresh adapters beside them."""
    from t5study.model import architectures

    shape = tuning.shape(model.shape)
    if shape == model.shape:
        return model
    extended = architectures.build(shape, seed, model.architecture)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in extended.named_parameters():
            if name in weights:
                weight.copy_(weights[name])
    return extended


class Movement:
    """A tuning at work on a model: `requires_grad` is true of what moves, and of nothing else.

    groups: the steps at which weights begin to move -> those weights by name; the first of them is step 1. whole: the
    model that numbers are counted in, where this one has pieces of its weights.
    """

    def __init__(self, tuning: Tuning, model: nn.Module, steps: int, whole: nn.Module | None = None):
        self.model = model
        self.numbers = {name: weight.numel() for name, weight in (model if whole is None else whole).named_parameters()}
        self.groups: dict[int, dict[str, nn.Parameter]] = {}
        weights, moving = dict(model.named_parameters()), frozenset[str]()
        for step in tuning.changes(steps):
            before, moving = moving, tuning.moving(weights, step, steps)
            assert before <= moving, "nothing that moves is frozen again"
            if moving > before:
                self.groups[step] = {name: p for name, p in weights.items() if name in moving - before}

    def trainable(self, step: int) -> int:
        """Numbers that the update number `step` moves."""
        moving = (group for first, group in self.groups.items() if first <= step)
        return sum(self.numbers[name] for group in moving for name in group)

    def optimizer(self, settings: Builder, done: int) -> Optimizer:
        """A new optimiser as it is after `done` updates, but for the numbers in its states: it has a state for what
        has moved by then (before the first update: for what moves first)."""
        self.model.requires_grad_(False)
        first = self.groups[1]
        for weight in first.values():
            weight.requires_grad_(True)
        optimizer = settings.build(self.model)
        for step in self.groups:
            if 1 < step <= done:
                self.advance(step, optimizer)
        return optimizer

    def advance(self, step: int, optimizer: Optimizer) -> bool:
        """To be called before the update number `step`: lets move what begins to move then. Whether anything does."""
        group = self.groups.get(step, {}) if step > 1 else {}
        for weight in group.values():
            weight.requires_grad_(True)
        if group:
            optimizer.admit(group, done=step - 1)
        return bool(group)
