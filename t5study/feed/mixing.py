"""Mixing: several sources as one, in proportions (section 3.5.2).

    rates = ExamplesProportional(limit=2**19).rates([len(source) for source in sources])
    Mixture(sources, rates, seed).pairs(np.arange(64))

Which member the i-th example comes from, and the how-manyth of that member it is, are functions of (rates, seed, i).
Every member's examples are used in order from its first, none skipped and none taken twice, and after any number of
examples each member's count is within a few of its share: nothing is drawn by lot that could drift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from t5study.feed.sources import Source
from t5study.ground.errors import UserError
from t5study.ground.pairs import Pairs
from t5study.ground.seeds import check_seed, key, shuffled

BLOCK = 1024  # examples that are shuffled among themselves
_UNIT = 2**53  # rates are whole multiples of 1 / _UNIT, so that counts are exact however far a stream goes


# --- rates --------------------------------------------------------------------------------------------------------


class Rule:
    """How often each member of a mixture comes, as a frozen value that is part of a run's fingerprint."""

    @property
    def label(self) -> str:
        """For people."""
        raise NotImplementedError

    def weights(self, sizes_M: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Sizes -> rates in any unit, none below 0."""
        raise NotImplementedError

    def rates(self, sizes: Sequence[int], names: Sequence[str] = ()) -> np.ndarray:
        """Examples of each member -> rates that sum to 1. names: the members' addresses, for rules that know some by
        name. UserError: no members, one without examples, no member that is ever drawn."""
        sizes_M = _sizes(sizes)
        if names and len(names) != len(sizes_M):
            raise ValueError(f"{len(names)} names of {len(sizes_M)} members")
        return _shares(self.weights(sizes_M, names))


@dataclass(frozen=True)
class ExamplesProportional(Rule):
    """Rates in proportion to the members' sizes, none counted above `limit` (the paper's K).

    >>> ExamplesProportional(limit=300).rates([100, 300, 10**6]).round(3).tolist()
    [0.143, 0.429, 0.429]
    """

    limit: int

    def __post_init__(self) -> None:
        positive("limit", self.limit)

    @property
    def label(self) -> str:
        return f"examples-proportional, K = {_power(self.limit)}"

    def weights(self, sizes_M: np.ndarray, names: Sequence[str]) -> np.ndarray:
        return np.minimum(sizes_M, self.limit)


@dataclass(frozen=True)
class Temperature(Rule):
    """Rates in proportion to the T-th root of the members' sizes, cut at `limit` before (as in mT5 and here).

    >>> Temperature(temperature=2, limit=10_000).rates([100, 10**6]).round(3).tolist()
    [0.091, 0.909]
    """

    temperature: float
    limit: int

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)
        positive("limit", self.limit)

    @property
    def label(self) -> str:
        return f"temperature-scaled, T = {self.temperature:g}, K = {_power(self.limit)}"

    def weights(self, sizes_M: np.ndarray, names: Sequence[str]) -> np.ndarray:
        return np.minimum(sizes_M, self.limit) ** (1 / self.temperature)


@dataclass(frozen=True)
class Equal(Rule):
    """The same rate for every member, however small.

    >>> Equal().rates([100, 10**6]).tolist()
    [0.5, 0.5]
    """

    @property
    def label(self) -> str:
        return "equal"

    def weights(self, sizes_M: np.ndarray, names: Sequence[str]) -> np.ndarray:
        return np.ones_like(sizes_M)


def positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
        raise UserError(f"mixing: {name}: found {value}; give a number above 0")


def _power(n: int) -> str:
    return f"2^{int(n).bit_length() - 1}" if n == int(n) and int(n).bit_count() == 1 else f"{n:g}"


def _sizes(sizes: Sequence[int]) -> np.ndarray:
    sizes_M = np.asarray(sizes, dtype=np.float64)
    if not len(sizes_M):
        raise UserError("mixing: found no members; give at least one task")
    for i, size in enumerate(sizes_M):
        if not (math.isfinite(size) and size >= 1):
            raise UserError(f"mixing: member {i}: found {size:g} examples; leave it out, or give it training rows")
    return sizes_M


def _shares(rates_M: np.ndarray) -> np.ndarray:
    if not rates_M.max() > 0:
        raise UserError("mixing: found only rates of 0; give at least one above 0")
    return rates_M / rates_M.sum()


# --- the mixture --------------------------------------------------------------------------------------------------


class Mixture:
    """Several sources as one source, which may be a member of another mixture in its turn: rates then multiply.

    rates: one a member, at least 0, in any unit; a member of rate 0 is never drawn. An epoch is as many examples as
    the members have together. names: of the members, by which a run's journal tells how often each came; () for none.
    UserError: no member, no rate above 0, a rate that is negative or no number.

    A member's share of the first t ticks is round(t * rate): that never falls, and comes to t over all members up to
    a few, so the n-th example of the mixture lies near tick n and a short search finds it. This gives the counts at
    the borders of blocks of 1,024 examples; within a block the order is a shuffle.
    """

    def __init__(
        self, sources: Sequence[Source], rates: Sequence[float] | np.ndarray, seed: int, names: Sequence[str] = ()
    ):
        rates_M = np.asarray(rates, dtype=np.float64)
        if not len(sources) or rates_M.shape != (len(sources),):
            raise UserError(f"mixing: found {rates_M.size} rates for {len(sources)} members; give one a member")
        for i, rate in enumerate(rates_M):
            if not (math.isfinite(rate) and rate >= 0):
                raise UserError(f"mixing: member {i}: found a rate of {rate}; give a number from 0")
        if not rates_M.max() > 0:
            raise UserError("mixing: found only rates of 0; give at least one above 0")
        if names and len(names) != len(sources):
            raise ValueError(f"{len(names)} names of {len(sources)} members")
        self._sources, self._seed, self.names = tuple(sources), check_seed(seed), tuple(names)
        shares_M = rates_M / rates_M.max()  # first, so that no sum overflows
        weights = [round(share * _UNIT) for share in (shares_M / shares_M.sum()).tolist()]
        weights[int(np.argmax(rates_M))] += _UNIT - sum(weights)
        self._weights = tuple(weights)

    def __len__(self) -> int:
        return sum(len(source) for source in self._sources)

    def pairs(self, index_N: np.ndarray) -> Pairs:
        member_N, within_N = self.members(index_N)
        found = []
        for m in np.unique(member_N):
            place_N = np.flatnonzero(member_N == m)
            found.append((place_N, self._sources[m].pairs(within_N[place_N])))
        if len(found) == 1:
            return found[0][1]
        n = len(member_N)
        widest_s = max((pairs.source_BS.shape[1] for _, pairs in found), default=0)
        widest_t = max((pairs.target_BT.shape[1] for _, pairs in found), default=0)
        source_BS, target_BT = np.zeros((n, widest_s), np.int32), np.zeros((n, widest_t), np.int32)
        source_length_B, target_length_B = np.zeros(n, np.int32), np.zeros(n, np.int32)
        for place_N, pairs in found:
            source_BS[place_N, : pairs.source_BS.shape[1]] = pairs.source_BS
            target_BT[place_N, : pairs.target_BT.shape[1]] = pairs.target_BT
            source_length_B[place_N], target_length_B[place_N] = pairs.source_length_B, pairs.target_length_B
        return Pairs(source_BS, source_length_B, target_BT, target_length_B)

    def members(self, index_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices -> the member each comes from, and its index there (both int64)."""
        index_N = np.asarray(index_N, dtype=np.int64)
        if len(index_N) and index_N.min() < 0:
            raise ValueError(f"example {index_N.min()}: examples are counted from 0")
        block_N, place_N = np.divmod(index_N, BLOCK)
        member_N, within_N = np.empty_like(index_N), np.empty_like(index_N)
        for block in np.unique(block_N).tolist():
            here_N = block_N == block
            member_P, within_P = _block(self._weights, self._seed, block)
            member_N[here_N], within_N[here_N] = member_P[place_N[here_N]], within_P[place_N[here_N]]
        return member_N, within_N

    def taken(self, position: int) -> dict[str, int]:
        """How many of the first `position` examples are each member's, by name; {} without names."""
        if not self.names:
            return {}
        block, rest = divmod(position, BLOCK)
        member_P, _ = _block(self._weights, self._seed, block)
        count_M = _counts(self._weights, block * BLOCK) + np.bincount(member_P[:rest], minlength=len(self._weights))
        return dict(zip(self.names, count_M.tolist(), strict=True))

    @property
    def shares(self) -> dict[str, float]:
        """What part of the examples are each member's in the long run, by name; {} without names."""
        return dict(zip(self.names, (weight / _UNIT for weight in self._weights), strict=False))


@lru_cache(maxsize=8)
def _block(weights: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Members, and indices there, of one block's examples. The last few are kept, as a batch is a part of a block."""
    before_M, after_M = _counts(weights, block * BLOCK), _counts(weights, (block + 1) * BLOCK)
    count_M = after_M - before_M
    in_order = np.repeat(np.arange(len(count_M)), count_M)
    member_P = in_order[shuffled(np.arange(BLOCK), BLOCK, key(seed, "mixture", block))]
    within_P = np.empty(BLOCK, dtype=np.int64)
    # A stable sort lists each member's places in order: they get its next indices in order.
    first_M = np.cumsum(count_M) - count_M
    within_P[np.argsort(member_P, kind="stable")] = np.arange(BLOCK) - first_M[in_order] + before_M[in_order]
    return member_P, within_P


def _counts(weights: tuple[int, ...], n: int) -> np.ndarray:
    """How many of the first n examples are each member's: never falls as n grows, and sums to n."""

    def by(tick: int) -> list[int]:
        return [(tick * weight + _UNIT // 2) // _UNIT for weight in weights]

    low, high = max(0, n - len(weights)), n + len(weights)  # by(low) has n at most, by(high) n at least
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if sum(by(middle)) >= n else (middle + 1, high)
    counts, before = by(low), by(low - 1) if low else [0] * len(weights)
    # A tick may bring several members one example each; the last of them come after the n-th.
    for m in reversed(range(len(counts))):
        if sum(counts) > n and counts[m] > before[m]:
            counts[m] -= 1
    return np.array(counts, dtype=np.int64)
