"""Packing: nothing lost, in order, nothing overlapping, and exactly what a slow first fit would do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.feed.packing import pack
from t5study.ground.errors import UserError
from t5study.ground.pairs import Batch, Pair, Pairs

steady = settings(derandomize=True, deadline=None, max_examples=150)


def pairs_of(lengths: list[tuple[int, int]]) -> Pairs:
    """Pairs of ids that occur nowhere else, so that what became of each can be told."""
    fresh = iter(range(3, 10**6))

    def take(n: int) -> np.ndarray:
        return np.array([next(fresh) for _ in range(n)], np.int32)

    return Pairs.of([Pair(take(s), take(t)) for s, t in lengths])


def slowly(lengths: list[tuple[int, int]], rows: int, room: tuple[int, int]) -> tuple[list[list[int]], int]:
    """First fit with lists: which pairs each row holds, and how many were taken."""
    held: list[list[int]] = [[] for _ in range(rows)]
    for k, need in enumerate(lengths):
        filled = [[sum(lengths[i][side] for i in row) for side in (0, 1)] for row in held]
        fits = [b for b in range(rows) if all(filled[b][side] + need[side] <= room[side] for side in (0, 1))]
        if not fits:
            return held, k
        held[fits[0]].append(k)
    return held, len(lengths)


def unpacked(batch: Batch, row: int) -> list[Pair]:
    """A row's pairs, read back from its segments; checks that segments and positions are well-formed."""
    sides = []
    for ids, segment, position in [
        (batch.source_BS[row], batch.source_segment_BS[row], batch.source_position_BS[row]),
        (batch.target_BT[row], batch.target_segment_BT[row], batch.target_position_BT[row]),
    ]:
        count = int(segment.max())
        filled = int((segment > 0).sum())
        assert (np.diff(segment[:filled]) >= 0).all()
        assert set(np.diff(segment[:filled]).tolist()) <= {0, 1}
        assert filled == 0 or segment[0] == 1
        assert not ids[filled:].any()
        assert not segment[filled:].any()
        assert not position[filled:].any()
        parts = [np.flatnonzero(segment == k) for k in range(1, count + 1)]
        for part in parts:
            assert position[part].tolist() == list(range(len(part)))
        sides.append([ids[part] for part in parts])
    return [Pair(source, target) for source, target in zip(*sides, strict=True)]


@steady
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6)), max_size=40),
    rows=st.integers(1, 6),
    room=st.tuples(st.integers(9, 25), st.integers(6, 14)),
)
def test_rows_hold_what_a_slow_first_fit_puts_there(lengths: list[tuple[int, int]], rows: int, room: tuple[int, int]):
    pairs = pairs_of(lengths) if lengths else Pairs.of([])
    batch, used = pack(pairs, rows, *room)
    held, expected = slowly(lengths, rows, room)
    assert used == expected
    assert batch.source_BS.shape == (rows, room[0])
    assert batch.target_BT.shape == (rows, room[1])
    for row in range(rows):
        found = unpacked(batch, row)
        assert [pair.source.tolist() for pair in found] == [pairs[k].source.tolist() for k in held[row]]
        assert [pair.target.tolist() for pair in found] == [pairs[k].target.tolist() for k in held[row]]
    assert batch.target_tokens == sum(t for _, t in lengths[:used])
    assert batch.tokens == sum(s + t for s, t in lengths[:used])
    assert all(array.dtype == np.int32 for array in vars(batch).values())


def test_pairs_that_fill_a_row_have_one_each():
    batch, used = pack(pairs_of([(512, 114)] * 5), 4, 512, 114)
    assert used == 4
    assert (batch.source_segment_BS == 1).all()
    assert (batch.target_segment_BT == 1).all()
    assert (batch.source_position_BS == np.arange(512)).all()


@pytest.mark.parametrize(("pair", "message"), [((9, 2), "9 source and 2 target"), ((2, 9), "2 source and 9 target")])
def test_a_pair_longer_than_a_row_is_named_when_it_is_reached(pair: tuple[int, int], message: str):
    with pytest.raises(UserError, match=f"packing: found a pair of {message} tokens, but rows hold 8 and 8"):
        pack(pairs_of([(4, 4), pair]), 2, 8, 8)
    _, used = pack(pairs_of([(8, 8), (4, 4), pair]), 1, 8, 8)  # the second finds no room first
    assert used == 1


def test_no_rows_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="0 rows"):
        pack(pairs_of([(1, 1)]), 0, 8, 8)
