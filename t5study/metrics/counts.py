"""What all metrics share: what they are given, and the sum that most of them end in.

N  examples    K  numbers an example    C  classes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Target = str | Sequence[str]


@dataclass(frozen=True)
class Given:
    """N examples. targets: a text each, or several acceptable ones. predictions: a text, or None for an answer that
    was none. labels: the classes, in the order of their index. groups: which examples are judged together (MultiRC:
    those of one question); "" is an example on its own, and () says that all are."""

    targets: Sequence[Target]
    predictions: Sequence[str | None]
    labels: Sequence[str] = ()
    groups: Sequence[str] = ()

    @property
    def group_numbers_N(self) -> np.ndarray:
        """Each example's group as a number, counted in the order in which groups first appear."""
        numbers: dict[str | int, int] = {}
        keys = self.groups or [""] * len(self.targets)
        return np.array([numbers.setdefault(key or i, len(numbers)) for i, key in enumerate(keys)], np.int64)


Counts = Callable[[Given], np.ndarray]
Finish = Callable[[np.ndarray, Sequence[str]], tuple[float, ...]]


def several(target: Target) -> Sequence[str]:
    """All acceptable answers."""
    return (target,) if isinstance(target, str) else target


def mean(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """First column: how many examples. The others: sums of per-example scores in 0..1."""
    return tuple(float(total) / float(totals_K[0]) * 100 for total in totals_K[1:])


def led_by_their_mean(finish: Finish) -> Finish:
    """The same numbers with their mean before them: what GLUE's and SuperGLUE's averages take of a task that has two
    (FACTS, metrics and averages)."""

    def finished(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
        numbers = finish(totals_K, labels)
        return (sum(numbers) / len(numbers), *numbers)

    return finished
