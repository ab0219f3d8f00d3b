"""Streams are functions of their names; the shuffle is a permutation at every size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.ground.errors import UserError
from t5study.ground.seeds import check_seed, key, keys, shuffled, stream


@settings(derandomize=True, deadline=None, max_examples=60)
@given(n=st.integers(1, 3000), stream_key=st.integers(0, 2**63 - 1))
def test_shuffled_is_a_permutation(n: int, stream_key: int):
    assert sorted(shuffled(np.arange(n), n, stream_key).tolist()) == list(range(n))


def test_shuffled_asks_for_any_part_alone_and_mixes_well():
    n = 10_000
    whole = shuffled(np.arange(n), n, 5)
    assert (shuffled(np.arange(700, 800), n, 5) == whole[700:800]).all()
    assert abs(np.corrcoef(np.arange(n), whole)[0, 1]) < 0.05
    assert (whole != shuffled(np.arange(n), n, 6)).mean() > 0.99
    with pytest.raises(ValueError, match="shuffle of 3"):
        shuffled(np.array([3]), 3, 0)


def test_keys_are_uniform_and_do_not_depend_on_their_neighbours():
    a = keys(1, "noise", np.arange(100_000))
    assert (keys(1, "noise", np.array([77_777])) == a[77_777]).all()
    bits = (a[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 0.008
    assert len(np.unique(a)) == len(a)
    assert (keys(2, "noise", np.arange(10)) != a[:10]).all()


def test_streams_by_name_are_repeatable_and_unrelated():
    assert stream(3, "a").integers(1 << 40) == stream(3, "a").integers(1 << 40)
    assert len({key(3, "a"), key(3, "b"), key(4, "a"), key(3, "a", 0)}) == 4


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.5, True, "3"])
def test_a_seed_that_would_wrap_is_refused(seed: object):
    with pytest.raises(UserError, match="seed"):
        check_seed(seed)  # type: ignore[arg-type]
