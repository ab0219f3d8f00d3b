"""Paired tests: what was measured twice under like conditions -> is the mean difference more than chance?

    Student        the differences are normal, or so many that their mean is (one sample; of several strata, Welch's
                   degrees of freedom)
    sign flips     the differences are as likely one way as the other: every way to turn their signs is gone through
                   (Fisher 1935), so p is exact, and of answers right or wrong it is McNemar's exact p
    interval       Student's; of sign flips by seed the means of all subsets, among which the true mean lies anywhere
                   with equal chance (Hartigan 1969)

Which one fits is a matter of the count. Two to five pairs of seeds: Student, because five signs cannot be turned in
enough ways for p < 0.05. From six on: sign flips, until there are so many that Student needs no normality. Examples:
sign flips where at most sixteen of them differ at all or all differ by as much (right or wrong), else Student.

A difference without any spread is not tested: that some numbers agree to the last digit is no measure of their noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

FLIPPED = 16  # differences whose signs are all turned: 65,536 ways
FEWEST_FLIPPED = 6  # seeds: with five the smallest p is 2/32
FEWEST_EXAMPLES = 10  # below that, neither flips nor Student can be relied on for a set of examples
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Contrast:
    """how: "Student" or "sign flips". pairs: of seeds, or of examples. low, high: 95 %. p: two-sided, of one test."""

    how: str
    pairs: int
    mean: float
    low: float
    high: float
    p: float


def by_seed(differences: Sequence[float]) -> Contrast | str:
    """One difference a seed that both have; or why they cannot be tested.

    >>> found = by_seed([1.0, 2.0, 3.0])
    >>> found.how, round(found.p, 3), round(found.low, 2), round(found.high, 2)
    ('Student', 0.074, -0.48, 4.48)
    >>> by_seed([1.0])
    'one seed in common: nothing is known of its noise'
    """
    n = len(differences)
    if n < 2:
        return "one seed in common: nothing is known of its noise" if n else "no seed in common"
    d_N = np.array(differences, float)
    mean, std = float(d_N.mean()), float(d_N.std(ddof=1))
    if std <= _ROUNDING * abs(mean):
        return "all seeds differ alike to the last digit: no noise to judge by"
    if FEWEST_FLIPPED <= n <= FLIPPED:
        low, high = _subset_interval(d_N)
        return Contrast("sign flips", n, mean, low, high, flips(d_N))
    return _student("Student", n, mean, std / math.sqrt(n), n - 1)


def by_example(strata: Sequence[Sequence[float]], mean: float | None = None) -> Contrast | str:
    """Differences example by example, stratum by stratum (a stratum is a task; its weight is in its differences, whose
    means are summed); or why they cannot be tested. mean: the difference as it was measured, where it is not that sum
    to the last digit (a score that is no mean over examples).

    >>> found = by_example([[1.0] * 9 + [-1.0] + [0.0] * 90])
    >>> found.how, found.pairs, round(found.p, 4)
    ('sign flips', 100, 0.0215)
    """
    parts = [np.array(each, float) for each in strata]
    n = sum(len(part) for part in parts)
    if min(map(len, parts), default=0) < FEWEST_EXAMPLES:
        return f"fewer than {FEWEST_EXAMPLES} examples: too few to judge by"
    sums_N = np.concatenate([part / len(part) for part in parts])
    found = float(sums_N.sum()) if mean is None else mean
    errors = [float(part.var(ddof=1)) / len(part) for part in parts]
    error = math.sqrt(math.fsum(errors))
    unlike_M = sums_N[np.abs(sums_N) > _ROUNDING * np.abs(sums_N).max()]
    if not len(unlike_M):
        return Contrast("sign flips", n, 0.0, 0.0, 0.0, 1.0)
    if error == 0:
        return "all examples differ alike to the last digit: no noise to judge by"
    freedom = error**4 / math.fsum(each**2 / (len(part) - 1) for each, part in zip(errors, parts, strict=True))
    alike = bool(np.ptp(np.abs(unlike_M)) <= _ROUNDING * np.abs(unlike_M[0]))
    if len(unlike_M) > FLIPPED and not alike:
        return _student("Student", n, found, error, freedom)
    p = float(stats.binomtest(int((unlike_M > 0).sum()), len(unlike_M)).pvalue) if alike else flips(unlike_M)
    # Wide enough to agree with p (test-based, Miettinen 1976): Student's is too narrow where few examples differ.
    told = abs(found) / float(stats.t.isf(p / 2, freedom)) if 0 < p < 1 and found else 0.0
    student = _student("sign flips", n, found, max(error, told), freedom)
    return Contrast("sign flips", n, found, student.low, student.high, p)


def _student(how: str, n: int, mean: float, error: float, freedom: float) -> Contrast:
    half = float(stats.t.ppf(0.975, freedom)) * error
    return Contrast(how, n, mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def flips(d_N: np.ndarray) -> float:
    """p of all sign flips, two-sided: how many of the 2^N sums are as far from 0 as the one that was found.

    >>> flips(np.array([1.0, 2.0, 3.0, 4.0]))
    0.125
    """
    total = float(d_N.sum())
    sums = total - 2 * _subset_sums(d_N)
    return float((np.abs(sums) >= abs(total) - _ROUNDING * np.abs(d_N).sum()).mean())


def _subset_sums(d_N: np.ndarray) -> np.ndarray:
    """[2^N]: the sum of every subset, the empty one first."""
    sums = np.zeros(1)
    for d in d_N:
        sums = np.concatenate([sums, sums + d])
    return sums


def _subset_interval(d_N: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """At least `level`: between the k-th lowest and the k-th highest mean of a subset, k as large as that allows."""
    means = np.sort((_subset_sums(d_N) / np.maximum(1, _subset_sums(np.ones(len(d_N)))))[1:])
    k = math.floor((1 - level) / 2 * 2 ** len(d_N))
    return float(means[k - 1]), float(means[-k])
