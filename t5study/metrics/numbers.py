"""Metrics of answers that are numbers: STS-B's Pearson and Spearman."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from t5study.metrics.counts import Given, several

UNREADABLE_NUMBER = -1.0  # what T5 gives an STS-B answer that is no number: its scores run from 0 to 5


def as_number(text: str | None) -> float | None:
    """A finite number, or None.

    >>> as_number("3.2"), as_number("abc"), as_number("nan"), as_number(None)
    (3.2, None, None, None)
    """
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def moments(given: Given) -> np.ndarray:
    """(N, 11): one, then x, y, xx, yy, xy of the values and again of their ranks; centred, so the sums keep their
    digits."""
    from scipy.stats import rankdata

    answers = [as_number(prediction) for prediction in given.predictions]
    values = [
        np.array([float(several(target)[0]) for target in given.targets]),
        np.array([UNREADABLE_NUMBER if answer is None else answer for answer in answers]),
    ]
    columns = [np.ones(len(given.targets))]
    for x, y in (values, [rankdata(value) for value in values]):
        x, y = x - x.mean(), y - y.mean()
        columns += [x, y, x * x, y * y, x * y]
    return np.stack(columns, axis=1)


def correlations(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """Pearson and Spearman. A constant answer (0/0, nan elsewhere) has no correlation: 0."""
    out = []
    for x, y, xx, yy, xy in totals_K[1:].reshape(2, 5) / totals_K[0]:
        spread_x, spread_y = xx - x * x, yy - y * y
        constant = spread_x <= 1e-12 * max(xx, 1e-300) or spread_y <= 1e-12 * max(yy, 1e-300)
        out.append(0.0 if constant else float(100 * (xy - x * y) / math.sqrt(spread_x * spread_y)))
    return tuple(out)
