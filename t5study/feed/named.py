"""Rules that go by the members' names: fixed rates, virtual sizes, mixtures within mixtures.

    GLUE_RATES.rates(sizes, ["glue/cola", "glue/rte"])        the official rates, whatever the sizes
    Adjusted(Temperature(2, 2**21), sizes=(("unlabeled", 1_000_000),), factors=(("glue/rte", 0.5),))
    Nested((Part(3, ("glue/cola", "glue/rte"), Equal()), Part(1, ("squad/v1",), Equal())))

Like the rules by size alone (mixing.py) they are frozen values, so a run's fingerprint tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t5study.feed.mixing import Equal, ExamplesProportional, Rule, Temperature, positive
from t5study.ground.errors import UserError
from t5study.tasks.benchmarks import GLUE, SUPERGLUE


@dataclass(frozen=True)
class Fixed(Rule):
    """Rates by name, whatever the sizes: the official ones of GLUE and SuperGLUE, whose data sets never change.

    >>> Fixed((("a", 1), ("b", 3))).rates([10**6, 5], ["a", "b"]).tolist()
    [0.25, 0.75]
    """

    by_name: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        _named(self.by_name, least=0)

    @property
    def label(self) -> str:
        return "fixed rates " + ", ".join(f"{name} {rate:,g}" for name, rate in self.by_name)

    def weights(self, sizes_M: np.ndarray, names: Sequence[str]) -> np.ndarray:
        known = dict(self.by_name)
        if strays := [name for name in names if name not in known]:
            raise UserError(f"mixing: found no fixed rate of {', '.join(strays)}; leave it out, or mix by size")
        return np.array([known[name] for name in _told(self, sizes_M, names)], dtype=np.float64)


@dataclass(frozen=True)
class Adjusted(Rule):
    """Another rule, with what is known of some members by name. sizes: virtual ones, taken in place of the members'
    own before the rule sees them. caps: the most that a member's size counts. factors: multiply rates afterwards.

    >>> more = Adjusted(ExamplesProportional(2**21), sizes=(("text", 1_000_000),), factors=(("rte", 0.5),))
    >>> more.rates([7, 500_000, 500_000], ["text", "rte", "qqp"]).round(3).tolist()
    [0.571, 0.143, 0.286]
    """

    rule: Mixing
    sizes: tuple[tuple[str, float], ...] = ()
    caps: tuple[tuple[str, float], ...] = ()
    factors: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("sizes", "caps"):
            _named(getattr(self, name), least=1)
        _named(self.factors, least=0)

    @property
    def label(self) -> str:
        told = [f"{name} counted as {size:,g}" for name, size in self.sizes]
        told += [f"{name} at most {cap:,g}" for name, cap in self.caps]
        told += [f"{name} x {factor:g}" for name, factor in self.factors]
        return ", ".join([self.rule.label, *told])

    def weights(self, sizes_M: np.ndarray, names: Sequence[str]) -> np.ndarray:
        names = _told(self, sizes_M, names)
        sizes, caps, factors = dict(self.sizes), dict(self.caps), dict(self.factors)
        sizes_M = np.array([sizes.get(name, size) for name, size in zip(names, sizes_M, strict=True)])
        sizes_M = np.array([min(size, caps.get(name, size)) for name, size in zip(names, sizes_M, strict=True)])
        return self.rule.weights(sizes_M, names) * [factors.get(name, 1.0) for name in names]


@dataclass(frozen=True)
class Part:
    """A mixture within a mixture: its own rate, its members' names, and how they share that rate."""

    rate: float
    members: tuple[str, ...]
    rule: Mixing


@dataclass(frozen=True)
class Nested(Rule):
    """Mixtures within a mixture: a member's rate is its part's rate times its share of that part. A member of two
    parts has the sum; members that are not there are left out of their part, and a part without members goes.

    >>> Nested((Part(3, ("a", "b"), Equal()), Part(1, ("b", "c"), Equal()))).rates([9, 9, 9], ["a", "b", "c"]).tolist()
    [0.375, 0.5, 0.125]
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        for part in self.parts:
            positive("rate", part.rate)

    @property
    def label(self) -> str:
        return "nested: " + "; ".join(
            f"{part.rate:,g} x ({', '.join(part.members)}: {part.rule.label})" for part in self.parts
        )

    def weights(self, sizes_M: np.ndarray, names: Sequence[str]) -> np.ndarray:
        names = list(_told(self, sizes_M, names))
        if strays := [name for name in names if not any(name in part.members for part in self.parts)]:
            raise UserError(f"mixing: found {', '.join(strays)} in no part of the mixture; name it in one")
        rates_M = np.zeros(len(names))
        for part in self.parts:
            places = [m for m, name in enumerate(names) if name in part.members]
            if places:
                within = part.rule.rates(sizes_M[places].tolist(), [names[m] for m in places])
                rates_M[places] += part.rate * within
        return rates_M


Mixing = ExamplesProportional | Temperature | Equal | Fixed | Adjusted | Nested


def _named(values: Sequence[tuple[str, float]], least: float) -> None:
    """Numbers by name: each name once, each number finite and from `least` on."""
    for name, value in values:
        if isinstance(value, bool) or not (math.isfinite(value) and value >= least):
            raise UserError(f"mixing: {name}: found {value}; give a number from {least:g}")
    if len(dict(values)) < len(values):
        raise UserError(f"mixing: found a name twice among {', '.join(name for name, _ in values)}; give it once")


def _told(rule: Rule, sizes_M: np.ndarray, names: Sequence[str]) -> Sequence[str]:
    """The names, which a rule that goes by them has to be told."""
    if len(names) != len(sizes_M):
        raise ValueError(f"{type(rule).__name__} goes by names; found {len(names)} of {len(sizes_M)} members")
    return names


GLUE_RATES, SUPERGLUE_RATES = Fixed(GLUE.training), Fixed(SUPERGLUE.training)
