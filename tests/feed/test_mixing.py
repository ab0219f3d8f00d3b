"""Mixing: rates by the paper's formulas; members' examples in order, none skipped, none twice, in proportion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.feed.mixing import BLOCK, Equal, ExamplesProportional, Mixture, Temperature
from t5study.feed.sources import PairSource
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, Pair

steady = settings(derandomize=True, deadline=None, max_examples=60)
some_rates = st.lists(st.sampled_from([0, 1e-9, 1e-3, 0.1, 1 / 3, 1, 7, 1e6]), min_size=1, max_size=9).filter(any)


def member(m: int, rows: int, width: int = 4) -> PairSource:
    """Rows whose source says whose they are and whose target says which."""
    return PairSource([Pair(np.array([m + 3, EOS]), np.array([i + 3, EOS])) for i in range(rows)], 0, width, width)


def mixture(rates: list[float], seed: int = 0, rows: int = 3) -> Mixture:
    return Mixture([member(m, rows) for m in range(len(rates))], rates, seed)


# --- rates --------------------------------------------------------------------------------------------------------

GLUE = [8551, 67349, 3668, 363849, 5749, 392702, 104743, 2490]


@pytest.mark.parametrize("limit", [1, 2**16, 2**21])
def test_rates_are_min_of_size_and_limit_to_the_power_of_one_over_t(limit: int):
    capped = np.minimum(GLUE, limit).astype(float)
    assert np.allclose(ExamplesProportional(limit).rates(GLUE), capped / capped.sum())
    for t in (0.5, 1, 2, 8):
        assert np.allclose(Temperature(t, limit).rates(GLUE), capped ** (1 / t) / (capped ** (1 / t)).sum())
    assert np.allclose(Temperature(1e9, limit).rates(GLUE), Equal().rates(GLUE))
    assert np.allclose(Equal().rates(GLUE), 1 / 8)


def test_rules_are_values_with_labels():
    assert ExamplesProportional(2**19) == ExamplesProportional(limit=524_288)
    assert ExamplesProportional(2**19).label == "examples-proportional, K = 2^19"
    assert Temperature(2, 1000).label == "temperature-scaled, T = 2, K = 1000"
    assert Equal().label == "equal"


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_limits_and_temperatures_that_are_none_are_refused(bad: float):
    with pytest.raises(UserError, match="mixing: limit: found"):
        ExamplesProportional(bad)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="mixing: temperature: found"):
        Temperature(bad, 10)
    with pytest.raises(UserError, match="mixing: limit: found"):
        Temperature(2, bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [ExamplesProportional(10), Temperature(2, 10), Equal()])
def test_a_task_with_no_data_is_named(rule: ExamplesProportional | Temperature | Equal):
    with pytest.raises(UserError, match="member 1: found 0 examples; leave it out, or give it training rows"):
        rule.rates([5, 0, 3])
    with pytest.raises(UserError, match="found no members"):
        rule.rates([])


# --- mixtures -----------------------------------------------------------------------------------------------------


@steady
@given(rates=some_rates, seed=st.integers(0, 2**62), blocks=st.integers(1, 5))
def test_members_are_used_in_order_and_in_proportion(rates: list[float], seed: int, blocks: int):
    n = blocks * BLOCK
    member_N, within_N = mixture(rates, seed).members(np.arange(n))
    shares = np.array(rates) / sum(rates)
    for m, share in enumerate(shares):
        mine = within_N[member_N == m]
        assert mine.tolist() == list(range(len(mine)))  # from the first, none skipped, none twice
        assert abs(len(mine) - n * share) <= len(rates)
        if share == 0:
            assert len(mine) == 0


@steady
@given(rates=some_rates, begin=st.integers(0, 2**45), seed=st.integers(0, 2**62))
def test_so_it_is_anywhere_however_far(rates: list[float], begin: int, seed: int):
    mixed = mixture(rates, seed)
    index_N = np.arange(begin, begin + 2 * BLOCK)
    member_N, within_N = mixed.members(index_N)
    shares = np.array(rates) / sum(rates)
    for m, share in enumerate(shares):
        mine = within_N[member_N == m]
        assert (np.diff(mine) == 1).all()
        if len(mine):
            assert abs(mine[0] - begin * share) <= BLOCK + begin * 1e-15 * len(rates)
    some = np.random.default_rng(0).permutation(len(index_N))[:50]
    again = mixture(rates, seed).members(index_N[some])
    assert (again[0] == member_N[some]).all()
    assert (again[1] == within_N[some]).all()


def test_rates_hold_in_the_long_run_to_the_last_example():
    mixed = mixture([1, 2, 4])
    far = 7 * BLOCK * 10**6
    member_N, within_N = mixed.members(np.arange(far, far + BLOCK))
    first = [int(within_N[member_N == m].min()) for m in range(3)]
    assert max(abs(np.array(first) - np.array([1, 2, 4]) * BLOCK * 10**6)) <= 2


def test_within_a_block_the_order_is_a_shuffle():
    member_N, _ = mixture([1, 1]).members(np.arange(20 * BLOCK))
    follows = (member_N[1:] == member_N[:-1]).mean()
    assert abs(follows - 0.5) < 0.02
    blocks = member_N.reshape(20, BLOCK)
    assert len({row.tobytes() for row in blocks}) == 20
    assert (mixture([1, 1], seed=1).members(np.arange(BLOCK))[0] != blocks[0]).any()


def test_the_examples_are_the_members_own():
    sources = [member(0, 10, width=4), member(1, 1, width=7), member(2, 300, width=3)]
    mixed = Mixture(sources, [1, 2, 3], seed=5)
    assert len(mixed) == 311
    index_N = np.random.default_rng(0).integers(0, 5000, 400)
    member_N, within_N = mixed.members(index_N)
    found = mixed.pairs(index_N)
    assert found.source_BS.shape == (400, 7)
    for k in range(400):
        own = sources[member_N[k]].pairs(within_N[[k]])[0]
        assert found[k].source.tolist() == own.source.tolist()
        assert found[k].target.tolist() == own.target.tolist()
    for m, source in enumerate(sources[:2]):  # whole epochs of the small ones, each row once in each
        mine = [pair.target[0] for pair in mixed.pairs(np.arange(20 * BLOCK)) if pair.source[0] == m + 3]
        epoch = len(source)
        assert sorted(mine[:epoch]) == sorted(mine[epoch : 2 * epoch]) == list(range(3, 3 + epoch))
    assert len(mixed.pairs(np.array([], dtype=np.int64))) == 0


def test_mixtures_may_be_members():
    inner = Mixture([member(1, 5), member(2, 5)], [1, 1], seed=0)
    outer = Mixture([member(0, 5), inner], [1, 1], seed=0)
    owner_N = outer.pairs(np.arange(4 * BLOCK)).source_BS[:, 0] - 3
    assert np.abs(np.bincount(owner_N) / len(owner_N) - [0.5, 0.25, 0.25]).max() < 0.02


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([0, 0], "found only rates of 0; give at least one above 0"),
        ([1, -1], "member 1: found a rate of -1.0; give a number from 0"),
        ([float("nan"), 1], "member 0: found a rate of nan; give a number from 0"),
        ([1, float("inf")], "member 1: found a rate of inf; give a number from 0"),
        ([1], "found 1 rates for 2 members; give one a member"),
        ([1, 1, 1], "found 3 rates for 2 members; give one a member"),
        ([], "found 0 rates for 2 members; give one a member"),
    ],
)
def test_rates_that_cannot_be_are_refused(rates: list[float], message: str):
    with pytest.raises(UserError, match=f"mixing: {message}"):
        Mixture([member(0, 2), member(1, 2)], rates, 0)
    with pytest.raises(UserError, match="found 0 rates for 0 members"):
        Mixture([], [], 0)


def test_huge_and_tiny_rates_do_not_overflow():
    member_N, _ = mixture([1e308, 1e308, 5e-324]).members(np.arange(BLOCK))
    assert np.bincount(member_N, minlength=3).tolist() == [BLOCK // 2, BLOCK // 2, 0]
