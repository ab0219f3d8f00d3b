"""Rank agreement: scipy's tau-b and exact p, and an interval that widens with noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from t5study.study.ranks import rank_agreement

FIGURES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=6)


@given(FIGURES)
def test_tau_is_scipys_with_ties_as_without(pairs: list[tuple[int, int]]):
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    found = rank_agreement(ours, theirs)
    if len(set(ours)) == 1 or len(set(theirs)) == 1:
        assert found is None
    else:
        assert found is not None
        assert found.tau == pytest.approx(stats.kendalltau(ours, theirs)[0])


@pytest.mark.parametrize("rows", [4, 5, 7])
def test_the_p_of_few_rows_is_exact(rows: int):
    ours, theirs = np.random.default_rng(rows).normal(size=(2, rows)).tolist()
    found = rank_agreement(ours, theirs)
    assert found is not None
    assert found.p == pytest.approx(stats.kendalltau(ours, theirs, method="exact")[1])


def test_the_p_of_many_rows_is_near_the_exact_one():
    ours, theirs = np.random.default_rng(3).normal(size=(2, 12)).tolist()
    found = rank_agreement(ours, theirs)
    assert found is not None
    assert found.p == pytest.approx(stats.kendalltau(ours, theirs, method="exact")[1], abs=0.02)


def test_unrelated_orders_are_called_related_as_seldom_as_p_says():
    draws = np.random.default_rng(0).normal(size=(400, 2, 5))
    found = [rank_agreement(ours.tolist(), theirs.tolist()) for ours, theirs in draws]
    assert np.mean([each is not None and each.p <= 0.05 for each in found]) <= 0.05


def test_the_interval_holds_what_noise_leaves():
    ours, theirs = [1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 40.0, 50.0]
    sure, unsure = (rank_agreement(ours, theirs, [noise] * 5) for noise in (1e-3, 5.0))
    assert sure is not None
    assert unsure is not None
    assert (sure.low, sure.high) == (1.0, 1.0)
    assert unsure.low is not None
    assert unsure.low < 0
    assert unsure == rank_agreement(ours, theirs, [5.0] * 5)  # the same draws every time


def test_too_few_rows_or_no_order_is_no_agreement():
    assert rank_agreement([1, 2, 3], [1, 2, 3]) is None
    assert rank_agreement([1, 1, 1, 1], [1, 2, 3, 4]) is None
    with pytest.raises(ValueError, match="4 rows of ours, 3 of theirs"):
        rank_agreement([1, 2, 3, 4], [1, 2, 3])
