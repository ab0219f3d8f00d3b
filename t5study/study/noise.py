"""What is signal: repeated baselines, the two-standard-deviation rule, intervals. Pure functions over numbers.

The paper (section 3.1.3) trained its baseline ten times from scratch, took the standard deviation of each column, and
held it to be that of every variant, each of which was trained once. So does a study here, with its own baselines and
its own columns; the paper's deviations are never ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

_ROUNDING = 1e-9  # figures are decimal: 83.28 - 82.81 is 0.47, not a hair more or less


@dataclass(frozen=True)
class Spread:
    """Repeated runs of one experiment. std: over runs, n - 1 in the denominator; None for a single run."""

    runs: int
    mean: float
    std: float | None


def spread(values: Sequence[float]) -> Spread:
    """
    >>> spread([2.0, 4.0, 6.0])
    Spread(runs=3, mean=4.0, std=2.0)
    """
    if not values:
        raise ValueError("the spread of no runs")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(1, mean, None)
    return Spread(len(values), mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)))


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval for the mean over runs; None for a single run.

    >>> [round(end, 2) for end in mean_interval([2.0, 4.0, 6.0])]
    [-0.97, 8.97]
    """
    found = spread(values)
    if found.std is None:
        return None
    half = stats.t.ppf((1 + level) / 2, found.runs - 1) * found.std / math.sqrt(found.runs)
    return float(found.mean - half), float(found.mean + half)


def difference_noise(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> float | None:
    """Half the width of the interval for mean(a) - mean(b): what a difference must exceed to be more than noise.

    Welch's interval where both were repeated, so that one may be noisier than the other; where one of them is a single
    run, it is given the other's deviation, as the paper gives its baseline's to every variant. None for single runs.

    >>> round(difference_noise([2.0, 4.0, 6.0], [1.0]), 2), difference_noise([2.0], [1.0])
    (9.94, None)
    """
    x, y = spread(a), spread(b)
    if x.std is None and y.std is None:
        return None
    if x.std is None or y.std is None:
        std, runs = (y.std, y.runs) if x.std is None else (x.std, x.runs)
        assert std is not None
        return float(stats.t.ppf((1 + level) / 2, runs - 1)) * std * math.sqrt(1 / x.runs + 1 / y.runs)
    over_x, over_y = x.std**2 / x.runs, y.std**2 / y.runs
    if over_x + over_y == 0:
        return 0.0
    freedom = (over_x + over_y) ** 2 / (over_x**2 / (x.runs - 1) + over_y**2 / (y.runs - 1))
    return float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(over_x + over_y)


@dataclass(frozen=True)
class Gain:
    """gain: positive when better. noise: what it must exceed, None if nothing was repeated."""

    gain: float
    noise: float | None

    @property
    def above_noise(self) -> bool:
        """Whether it is signal. Without repeated runs nobody can tell, so it is not."""
        return self.noise is not None and self.gain > self.noise


def gain(with_it: Sequence[float], without: Sequence[float], higher_is_better: bool = True) -> Gain:
    """What an ingredient brings: the difference of the means against its 95 % noise.

    >>> gain([3.0, 3.1, 3.2], [4.0, 4.1, 4.2], higher_is_better=False).above_noise
    True
    """
    sign = 1 if higher_is_better else -1
    return Gain(sign * (spread(with_it).mean - spread(without).mean), difference_noise(with_it, without))


def within_two(values: Mapping[str, float], std: float | None, higher_is_better: bool = True) -> tuple[str, ...]:
    """Labels within two standard deviations of the best, the best first: the paper's rule for bold (section 3.1.3).

    At exactly two it is not: that is how the paper has it (Table 2, shared encoder-decoder, GLUE). Without a standard
    deviation the best stands alone, with whatever equals it.

    >>> within_two({"10%": 82.82, "15%": 83.28, "25%": 83.00, "50%": 81.27}, 0.235)
    ('15%', '25%', '10%')
    """
    if not values:
        return ()
    sign = 1 if higher_is_better else -1
    best = max(sign * value for value in values.values())
    room = 2 * (std or 0.0)
    near = [label for label, value in values.items() if sign * value == best or best - sign * value < room - _ROUNDING]
    return tuple(sorted(near, key=lambda label: -sign * values[label]))
