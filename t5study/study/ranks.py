"""Rank agreement: do two columns order the same rows alike? Kendall's tau-b, its p and its interval. Pure functions.

    tau-b      ties count for neither side (Kendall 1945); 1 the same order, -1 the reverse, 0 no relation
    p          two-sided, how often a random order agrees or disagrees as much: all orders up to seven rows (5040),
               beyond that 9999 drawn ones with the added one
    interval   what our own noise leaves of it: every figure of ours is drawn anew from a normal distribution of its
               own deviation, and the theirs stay; the middle 95 % of the taus

The two answer different questions. p: could rows that have nothing to do with each other look like this? The interval:
would the same study with other seeds have said the same? Added noise blurs a clear
order, so the interval then lies below the tau that was found; ties of ours are broken in it, either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

FEWEST = 4  # rows: with three, even a perfect order has p = 1/3
DRAWS = 9999
_EXACT = 7  # rows whose orders are all gone through


@dataclass(frozen=True)
class RankAgreement:
    """rows: compared. low, high: None where nothing is known of our noise."""

    rows: int
    tau: float
    p: float
    low: float | None
    high: float | None


def rank_agreement(
    ours: Sequence[float], theirs: Sequence[float], deviations: Sequence[float] | None = None, seed: int = 12345
) -> RankAgreement | None:
    """Both: higher is better, row by row. deviations: of our figures (standard errors of means over seeds), one a row.

    None below four rows, and where either side holds only ties: then there is no order to agree with.

    >>> found = rank_agreement([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0])
    >>> found.tau, round(found.p, 4), found.low
    (1.0, 0.0833, None)
    """
    if len(ours) != len(theirs) or (deviations is not None and len(deviations) != len(ours)):
        raise ValueError(f"{len(ours)} rows of ours, {len(theirs)} of theirs")
    if len(ours) < FEWEST:
        return None
    signs_P, against_P = _signs(np.array([ours], float))[0], _signs(np.array([theirs], float))[0]
    if not signs_P.any() or not against_P.any():
        return None
    tau = _tau(signs_P[None], against_P)[0]
    rng = np.random.default_rng(seed)
    orders_ON = (
        np.array(list(permutations(ours)), float)
        if len(ours) <= _EXACT
        else rng.permuted(np.tile(np.array(ours, float), (DRAWS, 1)), axis=1)
    )
    as_far = int((np.abs(_tau(_signs(orders_ON), against_P)) >= abs(tau) - 1e-12).sum())
    p = as_far / len(orders_ON) if len(ours) <= _EXACT else (as_far + 1) / (DRAWS + 1)
    if deviations is None:
        return RankAgreement(len(ours), float(tau), p, None, None)
    drawn_ON = np.array(ours) + rng.normal(size=(DRAWS, len(ours))) * np.array(deviations, float)
    low, high = np.quantile(_tau(_signs(drawn_ON), against_P), [0.025, 0.975])
    return RankAgreement(len(ours), float(tau), p, float(low), float(high))


def _signs(values_ON: np.ndarray) -> np.ndarray:
    """[O, P]: for every pair of rows, which of the two is higher; 0 for a tie."""
    first, second = np.triu_indices(values_ON.shape[1], 1)
    return np.sign(values_ON[:, first] - values_ON[:, second]).astype(np.int8)


def _tau(signs_OP: np.ndarray, against_P: np.ndarray) -> np.ndarray:
    """[O]: tau-b of every order against one; 0 where an order is all ties."""
    agreed_O = signs_OP.astype(np.int64) @ against_P.astype(np.int64)
    untied_O = np.abs(signs_OP).sum(axis=1, dtype=np.int64)
    return agreed_O / np.maximum(1.0, np.sqrt(untied_O * np.abs(against_P).sum(dtype=np.int64)))
