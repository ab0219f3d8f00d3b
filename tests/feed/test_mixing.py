"""Mixing: rates by the paper's formulas; members' examples in order, none skipped, none twice, in proportion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.feed.mixing import BLOCK, Equal, ExamplesProportional, Mixture, Temperature
from t5study.feed.multitask import UNLABELED, final_mixing, leave_one_out, multitask, multitask_mixing
from t5study.feed.named import GLUE_RATES, SUPERGLUE_RATES, Adjusted, Fixed, Mixing, Nested, Part
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


# --- rules by name ------------------------------------------------------------------------------------------------

NAMES = ["glue/cola", "glue/sst2", "glue/mrpc", "glue/qqp", "glue/stsb", "glue/mnli_matched", "glue/qnli", "glue/rte"]
some_sizes = st.lists(st.integers(1, 2**40), min_size=1, max_size=8)
some_rules = st.one_of(
    st.builds(ExamplesProportional, st.integers(1, 2**30)),
    st.builds(Temperature, st.sampled_from([0.5, 1.0, 2.0, 8.0]), st.integers(1, 2**30)),
    st.just(Equal()),
)


def test_official_rates_are_those_of_all_training_sets_by_size():
    """No training set of GLUE is above the paper's K, so the fixed rates are examples-proportional mixing."""
    assert np.allclose(GLUE_RATES.rates([1] * 8, NAMES), ExamplesProportional(2**19).rates(GLUE))
    assert SUPERGLUE_RATES.rates([9, 9], ["superglue/wsc", "superglue/dpr"]).tolist() == [259 / 1581, 1322 / 1581]


def test_a_member_without_a_rate_is_named():
    with pytest.raises(UserError, match="found no fixed rate of squad/v1; leave it out, or mix by size"):
        GLUE_RATES.rates([1, 1], ["glue/rte", "squad/v1"])
    with pytest.raises(UserError, match="found squad/v1 in no part of the mixture"):
        Nested((Part(1, ("glue/rte",), Equal()),)).rates([1, 1], ["glue/rte", "squad/v1"])
    with pytest.raises(UserError, match="mixing: a: found -1; give a number from 0"):
        Fixed((("a", -1),))
    with pytest.raises(UserError, match="found a name twice"):
        Fixed((("a", 1), ("a", 2)))
    with pytest.raises(UserError, match="found only rates of 0"):
        Fixed((("a", 0),)).rates([3], ["a"])


@steady
@given(sizes=some_sizes, rule=some_rules, seed=st.integers(0, 2**32))
def test_rates_follow_the_members_wherever_they_stand(sizes: list[int], rule: Mixing, seed: int):
    order = np.random.default_rng(seed).permutation(len(sizes))
    rates = rule.rates(sizes)
    assert rates.sum() == pytest.approx(1)
    assert (rates > 0).all()
    assert np.allclose(rule.rates(np.array(sizes)[order].tolist()), rates[order])
    larger = np.argsort(sizes)
    assert (np.diff(rates[larger]) >= -1e-15).all()  # a larger member never comes less often


@steady
@given(sizes=some_sizes, t=st.floats(1, 16), limit=st.integers(1, 2**40))
def test_a_higher_temperature_lies_between_proportional_and_equal(sizes: list[int], t: float, limit: int):
    rates = Temperature(t, limit).rates(sizes)
    assert np.allclose(Temperature(1, limit).rates(sizes), ExamplesProportional(limit).rates(sizes))
    assert rates.max() <= ExamplesProportional(limit).rates(sizes).max() + 1e-12
    assert rates.max() >= 1 / len(sizes) - 1e-12


@steady
@given(sizes=st.lists(st.integers(1, 2**30), min_size=4, max_size=4), rule=some_rules)
def test_a_virtual_size_stands_for_the_members_own(sizes: list[int], rule: Mixing):
    names = ["a", "b", "c", "unlabeled"]
    virtual = Adjusted(rule, sizes=(("unlabeled", 1_000_000),))
    assert np.allclose(virtual.rates(sizes, names), rule.rates([*sizes[:3], 1_000_000]))
    capped = Adjusted(rule, caps=(("a", 50),))
    assert np.allclose(capped.rates(sizes, names), rule.rates([min(sizes[0], 50), *sizes[1:]]))
    halved = Adjusted(rule, factors=(("b", 0.5),)).rates(sizes, names)
    assert halved[1] / halved[0] == pytest.approx(rule.rates(sizes)[1] / rule.rates(sizes)[0] / 2)


@steady
@given(
    sizes=st.lists(st.integers(1, 2**30), min_size=5, max_size=5), inner=some_rules, outer=st.sampled_from([0.1, 1, 9])
)
def test_nested_rates_multiply(sizes: list[int], inner: Mixing, outer: float):
    names = list("abcde")
    nested = Nested((Part(outer, ("a", "b", "c"), inner), Part(1, ("d", "e"), Equal())))
    rates = nested.rates(sizes, names)
    assert rates[:3].sum() == pytest.approx(outer / (outer + 1))
    assert np.allclose(rates[:3] / rates[:3].sum(), inner.rates(sizes[:3]))
    assert np.allclose(rates[3:], 0.5 / (outer + 1))


def test_a_mixture_of_mixtures_is_the_nested_rule():
    """Sources nest as rules do: over many examples both give the same counts."""
    inner = Mixture([member(0, 3), member(1, 3)], [1, 3], seed=1)
    outer = Mixture([inner, member(2, 3)], [2, 1], seed=2)
    pairs = outer.pairs(np.arange(6 * BLOCK))
    count = np.bincount(pairs.source_BS[:, 0] - 3, minlength=3)
    rule = Nested((Part(2, ("a", "b"), Fixed((("a", 1), ("b", 3)))), Part(1, ("c",), Equal())))
    wanted = 6 * BLOCK * rule.rates([1, 1, 1], ["a", "b", "c"])
    assert np.abs(count - wanted).max() <= 4


@steady
@given(rates=some_rates, seed=st.integers(0, 2**62), position=st.integers(0, 3 * BLOCK))
def test_what_was_taken_is_what_came(rates: list[float], seed: int, position: int):
    names = [f"m{m}" for m in range(len(rates))]
    mixed = Mixture([member(m, 3) for m in range(len(rates))], rates, seed, names)
    member_N, _ = mixed.members(np.arange(position))
    assert mixed.taken(position) == dict(zip(names, np.bincount(member_N, minlength=len(rates)).tolist(), strict=True))
    assert sum(mixed.shares.values()) == pytest.approx(1)
    assert mixture(rates, seed).taken(position) == {}


# --- all tasks at once --------------------------------------------------------------------------------------------


def test_leave_one_out_has_seven_members_and_leaves_a_benchmark_out_as_a_whole():
    everything, mixtures = set(multitask()), leave_one_out()
    assert len(mixtures) == 7
    gone = {name: everything - set(members) for name, members in mixtures.items()}
    assert gone["glue"] == set(NAMES)
    assert gone["squad"] == {"squad/v1"}
    assert set().union(*gone.values()) == everything - {UNLABELED}
    assert sum(map(len, gone.values())) == len(everything) - 1  # no task is left out twice
    assert multitask(unlabeled=False) == multitask()[:-1]


def test_what_is_left_keeps_its_proportions():
    names = list(multitask())
    sizes = {name: 1000 + 17 * m for m, name in enumerate(names)}
    rule = multitask_mixing(ExamplesProportional(2**19))
    every = dict(zip(names, rule.rates(list(sizes.values()), names), strict=True))
    for members in leave_one_out().values():
        rates = dict(zip(members, rule.rates([sizes[name] for name in members], members), strict=True))
        assert rates[UNLABELED] / rates[members[0]] == pytest.approx(every[UNLABELED] / every[members[0]])


def test_the_final_models_sizes():
    with pytest.raises(UserError, match="found 'huge'; give one of small, base, large, 3b, 11b"):
        final_mixing("huge")
    rates = final_mixing("11b").rates([5, 4_500_966, 40_853_137, 610_320], ["unlabeled", *WMT])
    assert np.allclose(rates, np.array([133e6, 1e6, 1e6, 610_320]) / (133e6 + 2e6 + 610_320))


WMT = ["wmt/ende", "wmt/enfr", "wmt/enro"]
