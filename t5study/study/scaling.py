"""Scaling: how a loss falls with compute, parameters or steps, as a power law; and what more of them would bring.

    two numbers      L = b C^-alpha              a straight line in logarithms
    three            L = a + b C^-alpha          a: what no amount of C takes away (Henighan 2020, Hoffmann 2022)

Both are fitted by least squares of the logarithm of L, so that errors count in proportion. For the three-number law a
grid of floors is gone through, and for each the line that is best; then finer grids around the best floor. Which of the
two is told: the one with the lower AICc, which asks of a third number that it is worth it with so few points.

Intervals: a parametric bootstrap. Each resample draws how large the errors are, from what so few points leave open of
that (chi-squared), then errors of that size around the law, and the law is fitted again; the middle 95 % is told, of
the exponent and of what is saved. Of the straight line that is Student's interval. It holds if the law does, and
nothing in the points can tell whether it goes on holding beyond them.

Points that bend away from their law (von Neumann's ratio of what they are off, over random orders) are not told by it,
and then nothing is claimed of more. Fewer than four points fit no law that could be wrong, and none is told.

    P  points    R  resamples
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BENT = 0.05
ROUNDING = 1e-5  # of ln L: a loss is told to five digits at most
FEWEST = 4
FEWEST_WITH_FLOOR = 6  # with five points AICc of three numbers and an error divides by zero
RESAMPLES = 400
_FLOORS = 40
_FINER = 4


@dataclass(frozen=True)
class Law:
    """L = floor + factor * C ** -exponent. error: deviation of ln L from it. aicc: what it is chosen by."""

    floor: float
    factor: float
    exponent: float
    error: float
    aicc: float

    def at(self, c: float) -> float:
        """The loss at C.

        >>> Law(1.0, 2.0, 0.5, 0.0, 0.0).at(4.0)
        2.0
        """
        return self.floor + self.factor * c**-self.exponent


@dataclass(frozen=True)
class Fit:
    """points: fitted to. law: the one that is told; exponent: its 95 % interval. times: how much more C is asked about;
    now, then: the law at the largest C there is and at so many times it; saved: what that takes off, its 95 %
    interval. straight: p of the points' order about the law; small where they bend away from it, and then the law is
    not theirs and its intervals are nothing."""

    points: int
    law: Law
    exponent: tuple[float, float]
    times: float
    now: float
    then: float
    saved: tuple[float, float]
    straight: float = 1.0

    @property
    def bends(self) -> bool:
        """Whether the points lie about the law in an order that chance does not give."""
        return self.straight < BENT

    @property
    def pays(self) -> bool | None:
        """Whether more still lowers the loss: True if the interval lies above zero, None if it is open or the law is
        not that of the points."""
        low, high = self.saved
        if self.bends:
            return None
        return True if low > 0 else False if high <= 0 else None


def fit(
    c_P: Sequence[float], loss_P: Sequence[float], times: float = 4.0, resamples: int = RESAMPLES, seed: int = 12345
) -> Fit | str:
    """Points, in any order -> the law that fits them, or why none is told.

    >>> found = fit([1, 2, 4, 8], [4.0, 3.0, 2.25, 1.6875])
    >>> round(found.law.exponent, 3), round(found.law.floor, 3), found.pays
    (0.415, 0.0, True)
    """
    c, loss = np.array(c_P, float), np.array(loss_P, float)
    if len(c) != len(loss):
        raise ValueError(f"{len(c)} sizes and {len(loss)} losses")
    usable = np.isfinite(c) & np.isfinite(loss) & (c > 0) & (loss > 0)
    c, loss = c[usable], loss[usable]
    if len(np.unique(c)) < FEWEST:
        return f"{len(np.unique(c))} sizes: a law takes {FEWEST} at least"
    order = np.argsort(c, kind="stable")
    c, loss = c[order], loss[order]
    law = _better(c, loss)
    fitted_P = np.array([law.at(each) for each in c])
    rng = np.random.default_rng(seed)
    free = len(c) - (3 if law.floor > 0 else 2)
    error_R = law.error * np.sqrt(free / rng.chisquare(free, resamples))
    drawn_RP = fitted_P * np.exp(error_R[:, None] * rng.normal(size=(resamples, len(c))))
    _, factor_R, exponent_R, _ = _with_floor(c, drawn_RP) if law.floor > 0 else _line(c, drawn_RP)
    saved_R = factor_R * (c[-1] ** -exponent_R - (c[-1] * times) ** -exponent_R)
    last = float(c[-1])
    off_P = np.log(loss / fitted_P)
    return Fit(
        points=len(c),
        law=law,
        exponent=_middle(exponent_R),
        times=times,
        now=law.at(last),
        then=law.at(last * times),
        saved=_middle(saved_R),
        straight=in_order(off_P, rng),
    )


def in_order(off_P: np.ndarray, rng: np.random.Generator, orders: int = 2000) -> float:
    """p, one-sided, of neighbours being as alike as they are (von Neumann's ratio over random orders): small where
    what is off goes up and down in long waves. 1 where nothing is off by more than rounding."""
    if np.abs(off_P).max() < ROUNDING:
        return 1.0

    def unlike(off_OP: np.ndarray) -> np.ndarray:
        return (np.diff(off_OP, axis=1) ** 2).sum(1)

    drawn = unlike(rng.permuted(np.tile(off_P, (orders, 1)), axis=1))
    return float(((drawn <= unlike(off_P[None])[0] * (1 + 1e-9)).sum() + 1) / (orders + 1))


def _middle(found_R: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(found_R, [0.025, 0.975])
    return float(low), float(high)


def _better(c_P: np.ndarray, loss_P: np.ndarray) -> Law:
    """The law with the lower AICc."""
    laws = [_law(*(float(each[0]) for each in _line(c_P, loss_P[None])), n=len(c_P))]
    if len(c_P) >= FEWEST_WITH_FLOOR:
        laws.append(_law(*(float(each[0]) for each in _with_floor(c_P, loss_P[None])), n=len(c_P)))
    return min(laws, key=lambda law: law.aicc)


def _law(floor: float, factor: float, exponent: float, squares: float, n: int) -> Law:
    k = 3 if floor > 0 else 2  # and the error is one more number
    aicc = n * math.log(max(squares, 1e-24) / n) + 2 * (k + 1) * n / (n - k - 2) if n > k + 2 else math.inf
    return Law(floor, factor, exponent, math.sqrt(squares / (n - k)), aicc)


Lines = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # floor, factor, exponent, squares: each of R


def _line(c_P: np.ndarray, loss_RP: np.ndarray, floor_R: np.ndarray | None = None) -> Lines:
    """The best factor and exponent above a floor, in logarithms; weighted, because ln (L - a) moves more than ln L.
    squares: of what ln L is off."""
    floor_R = np.zeros(len(loss_RP)) if floor_R is None else floor_R
    above_RP = loss_RP - floor_R[:, None]
    w_RP = (above_RP / loss_RP) ** 2
    w_RP = w_RP / w_RP.sum(1, keepdims=True)
    x_RP, y_RP = np.log(c_P) - (w_RP @ np.log(c_P))[:, None], np.log(above_RP)
    y_R = (w_RP * y_RP).sum(1)
    slope_R = (w_RP * x_RP * y_RP).sum(1) / (w_RP * x_RP**2).sum(1)
    factor_R = np.exp(y_R - slope_R * (w_RP @ np.log(c_P)))
    off_RP = np.log(loss_RP / (floor_R[:, None] + factor_R[:, None] * c_P ** slope_R[:, None]))
    return floor_R, factor_R, -slope_R, (off_RP**2).sum(1)


def _with_floor(c_P: np.ndarray, loss_RP: np.ndarray) -> Lines:
    """The best floor between none and the lowest loss."""
    low_R, high_R = np.zeros(len(loss_RP)), loss_RP.min(1) * (1 - 1e-6)
    best = _line(c_P, loss_RP)
    for _ in range(_FINER):
        step_R = (high_R - low_R) / (_FLOORS - 1)
        for k in range(_FLOORS):
            found = _line(c_P, loss_RP, low_R + k * step_R)
            closer_R = found[3] < best[3]
            floor_R, factor_R, exponent_R, squares_R = (
                np.where(closer_R, new, old) for new, old in zip(found, best, strict=True)
            )
            best = floor_R, factor_R, exponent_R, squares_R
        low_R, high_R = np.maximum(0, best[0] - step_R), np.minimum(high_R, best[0] + step_R)
    return best


def sentence(found: Fit | str, what: str, unit: str = "nats") -> str:
    """What a law says of more.

    >>> print(sentence("3 sizes: a law takes 4 at least", "parameters"))
    No law of parameters: 3 sizes: a law takes 4 at least.
    """
    if isinstance(found, str):
        return f"No law of {what}: {found}."
    law, (low, high), (least, most) = found.law, found.exponent, found.saved
    floor = f"{law.floor:.3g} + " if law.floor > 0 else ""
    answer = {
        True: "more still pays, if the law goes on holding",
        False: "more does not pay",
        None: "whether more pays cannot be told",
    }[found.pays]
    if found.bends:
        answer += f", as the points bend away from the law (p {found.straight:.2g})"
    elif found.points < FEWEST_WITH_FLOOR:
        answer += "; so few points cannot tell a floor, and above one it is less"
    return (
        (
            f"L = {floor}{law.factor:.3g} C^{-law.exponent:.3f}, C in {what}, from {found.points} points; exponent "
            f"{law.exponent:.3f} [{low:.3f}, {high:.3f}]. {found.times:g} times as much would take the loss from "
            f"{found.now:.3f} to {found.then:.3f} {unit}, a gain of {found.now - found.then:.3f} [{least:.3f}, "
            f"{most:.3f}]: {answer}."
        )
        .replace("C^-", "C^−")
        .replace("[-", "[−")
    )
