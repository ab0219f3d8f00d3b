"""Paired tests against scipy's, McNemar's and coverage; what may not be tested is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from t5study.evaluate.compare import mcnemar
from t5study.study.paired import Contrast, by_example, by_seed, flips

NUMBERS = st.integers(-50, 50).map(lambda n: n / 8)


def told(found: Contrast | str) -> Contrast:
    assert isinstance(found, Contrast), found
    return found


@pytest.mark.parametrize("n", [2, 3, 5, 17, 40])
def test_few_and_very_many_seeds_are_students(n: int):
    a, b = np.random.default_rng(n).normal(size=(2, n))
    found, theirs = told(by_seed((a - b).tolist())), stats.ttest_rel(a, b)
    low, high = theirs.confidence_interval()
    assert (found.how, found.pairs) == ("Student", n)
    assert (found.p, found.low, found.high) == pytest.approx((theirs.pvalue, low, high))


@pytest.mark.parametrize("n", [6, 9])
def test_from_six_seeds_on_every_sign_is_turned(n: int):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    found = told(by_seed(d.tolist()))
    theirs = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.how == "sign flips"
    assert found.p == pytest.approx(theirs.pvalue)


@given(st.lists(NUMBERS, min_size=6, max_size=9), NUMBERS)
def test_the_interval_of_sign_flips_holds_what_they_do_not_refuse(d: list[float], shift: float):
    found = by_seed(d)
    if isinstance(found, str):
        assert "to the last digit" in found
        return
    p = flips(np.array(d) - shift)
    if found.low < shift < found.high:
        assert p > 0.05
    elif shift < found.low or shift > found.high:
        assert p <= 0.05 + 1 / 2 ** len(d)  # k is rounded down, so the ends are the first that are refused


@pytest.mark.parametrize("n", [2, 4, 6, 8])
def test_no_difference_is_called_one_as_seldom_as_p_says(n: int):
    draws = np.random.default_rng(7).normal(size=(600, n))
    found = [told(by_seed(row.tolist())) for row in draws]
    assert np.mean([each.p <= 0.05 for each in found]) <= 0.05 + 0.025
    assert np.mean([each.low <= 0 <= each.high for each in found]) >= 0.95 - 0.025


@pytest.mark.parametrize(("d", "why"), [([], "no seed in"), ([1.0], "one seed"), ([0.5, 0.5, 0.5], "no noise")])
def test_what_has_no_noise_is_not_tested(d: list[float], why: str):
    found = by_seed(d)
    assert isinstance(found, str)
    assert why in found


@given(st.integers(0, 30), st.integers(0, 30))
def test_of_answers_right_or_wrong_p_is_mcnemars(only_first: int, only_second: int):
    first = np.array([True] * only_first + [False] * only_second + [True] * 40)
    second = np.array([False] * only_first + [True] * only_second + [True] * 40)
    found = told(by_example([first.astype(float) - second]))
    assert found.p == pytest.approx(mcnemar(first, second).p)
    assert found.low <= found.mean <= found.high
    assert (found.low <= 0 <= found.high) == (found.p > 0.05)


def test_many_examples_are_students():
    a, b = np.random.default_rng(1).normal(size=(2, 300))
    found, theirs = told(by_example([(a - b).tolist()])), stats.ttest_rel(a, b)
    assert (found.how, found.pairs) == ("Student", 300)
    assert (found.p, found.low) == pytest.approx((theirs.pvalue, theirs.confidence_interval()[0]))


def test_tasks_are_strata_whose_means_are_summed():
    """Two tasks against Welch's test, which knows the same two variances."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.3, 1, 60), rng.normal(0, 3, 200)
    found, theirs = told(by_example([a.tolist(), (-b).tolist()])), stats.ttest_ind(a, b, equal_var=False)
    low, high = theirs.confidence_interval()
    assert (found.p, found.low, found.high) == pytest.approx((theirs.pvalue, low, high))
    assert found.pairs == 260


def test_examples_that_cannot_judge():
    assert told(by_example([[0.0] * 50])).p == 1.0
    for strata, why in [([[1.0] * 50], "no noise"), ([[1.0, 2.0]], "fewer than"), ([], "fewer than")]:
        found = by_example(strata)
        assert isinstance(found, str)
        assert why in found
