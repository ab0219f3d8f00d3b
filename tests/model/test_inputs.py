"""Batches as lists of real tokens, and the tiles that cover them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little_models import random_pairs, rows_of

from t5study.model import inputs
from t5study.model.inputs import Tile, arrange, arrange_joined


def test_decoder_inputs_restart_in_every_segment() -> None:
    one, two = np.array([7, 8, 1], np.int32), np.array([9, 1], np.int32)
    batch = rows_of([[(one, two), (two, one)], [(two, two)]], 8, 6)
    found = arrange(batch)
    assert found.source.id_N.tolist() == [7, 8, 1, 9, 1, 9, 1]
    assert found.label_M.tolist() == [9, 1, 7, 8, 1, 9, 1]
    assert found.target.id_N.tolist() == [0, 9, 0, 7, 8, 0, 9]
    assert found.source.row_N.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert found.source.position_N.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert (found.source.longest, found.source.row_length, found.target.row_length) == (3, 8, 6)


def covered(tiles: tuple[Tile, ...]) -> tuple[list[int], list[int]]:
    queries, keys = [], []
    for tile in tiles:
        for span, into in ((tile.queries, queries), (tile.keys, keys)):
            for first, length in zip(span.first_G.tolist(), span.length_G.tolist(), strict=True):
                assert length <= span.width
                into += range(first, first + length)
        assert tile.padded == bool((tile.keys.length_G < tile.keys.width).any())
    return sorted(queries), sorted(keys)


@settings(deadline=None)
@given(st.data())
def test_tiles_cover_every_token_once(data: st.DataObject) -> None:
    pairs = random_pairs(data.draw(st.integers(1, 40)), 60, 30, 99, data.draw(st.integers(0, 999)))
    each = data.draw(st.integers(1, 4))
    groups = [pairs[i : i + each] for i in range(0, len(pairs), each)]
    found = arrange(rows_of(groups, 60 * each, 30 * each))
    sources, targets = list(range(len(found.source))), list(range(len(found.target)))
    assert covered(found.encoder) == (sources, sources)
    assert covered(found.decoder) == (targets, targets)
    assert covered(found.cross) == (targets, sources)
    assert found.every_key
    for tile in (*found.encoder, *found.decoder, *found.cross):
        padded = len(tile.queries) * tile.queries.width * tile.keys.width
        real = int((tile.queries.length_G * tile.keys.length_G).sum())
        assert padded <= max(inputs.TILE, real)
        assert padded - real <= inputs.CALL


def test_full_rows_are_one_tile_without_padding() -> None:
    pairs = [(np.full(64, 5, np.int32), np.full(32, 6, np.int32))] * 16
    found = arrange(rows_of([[pair] for pair in pairs], 64, 32))
    for tiles in (found.encoder, found.decoder, found.cross):
        assert [len(tile.queries) for tile in tiles] == [16]
        assert not tiles[0].padded


def test_micro_batches_are_parts_of_the_batch() -> None:
    pairs = random_pairs(6, 20, 9, 99, seed=0)
    batch = rows_of([pairs[:2], pairs[2:4], pairs[4:]], 40, 20)
    whole, part = arrange(batch), arrange(batch.rows(slice(1, 3)))
    assert part.label_M.tolist() == whole.label_M[whole.target.row_N >= 1].tolist()
    assert part.rows == 2
    assert part.target.row_N.tolist() == (whole.target.row_N[whole.target.row_N >= 1] - 1).tolist()


def test_a_target_without_its_source() -> None:
    batch = rows_of([random_pairs(2, 20, 9, 99, seed=0)], 40, 20)
    cut_off = replace(batch, source_segment_BS=np.where(batch.source_segment_BS == 2, 0, batch.source_segment_BS))
    with pytest.raises(ValueError, match="a target segment without a source segment"):
        arrange(cut_off)


def test_a_source_that_no_target_asks() -> None:
    pairs = random_pairs(2, 20, 9, 99, seed=0)
    found = arrange(rows_of([[pairs[0], (pairs[1][0], pairs[1][1][:0])]], 40, 20))
    assert not found.every_key
    assert len(found.source) == len(pairs[0][0]) + len(pairs[1][0])
    assert torch.equal(found.label_M, torch.from_numpy(pairs[0][1]).long())


def test_pairs_are_found_by_number_though_a_side_counts_further() -> None:
    """Row 0's third source has no target, so sources count to 3 and targets to 2."""
    one, two, three = (np.array([i, 1], np.int32) for i in (7, 8, 9))
    nothing = one[:0]
    found = arrange(rows_of([[(one, two), (two, three), (three, nothing)], [(three, one), (one, two)]], 8, 6))
    queries = {}
    for tile in found.cross:
        for q, k in zip(tile.queries.first_G.tolist(), tile.keys.first_G.tolist(), strict=True):
            queries[found.label_M[q].item(), found.target.row_N[q].item()] = found.source.id_N[k].item()
    assert queries == {(8, 0): 7, (9, 0): 8, (7, 1): 9, (8, 1): 7}


# --- source and target as one sequence ------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [False, True])
def test_a_joined_sequence(prefix: bool) -> None:
    one, two, nothing = np.array([7, 8, 1], np.int32), np.array([9, 1], np.int32), np.zeros(0, np.int32)
    found = arrange_joined(rows_of([[(one, two), (two, one)], [(two, nothing), (two, two)]], 8, 6), prefix=prefix)
    assert found.target.id_N.tolist() == [0, 7, 8, 1, 9, 0, 9, 1, 7, 8, 0, 9, 1, 0, 9, 1, 9]
    assert found.target.row_N.tolist() == [0] * 10 + [1] * 7
    assert found.target.position_N.tolist() == [*range(10), *range(7)]
    assert found.label_M.tolist() == [9, 1, 7, 8, 1, 9, 1]
    assert found.target_row_M.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert found.answers.place_M is not None
    assert found.answers.place_M.tolist() == [3, 4, 7, 8, 9, 15, 16]
    everything = [7, 8, 1, 9, 1, 9, 1, 7, 8, 1, 9, 1, 9, 1, 9, 1]
    assert found.learned.id_M.tolist() == (found.label_M.tolist() if prefix else everything)
    seen = {}
    for tile in found.decoder:
        assert (tile.prefix_G is None) != prefix
        for g, first in enumerate(tile.queries.first_G.tolist()):
            seen[first] = None if tile.prefix_G is None else tile.prefix_G[g].item()
    assert seen == ({0: 4, 5: 3, 10: 3, 13: 3} if prefix else dict.fromkeys((0, 5, 10, 13)))
    assert (found.target.longest, found.target.row_length, len(found.source)) == (5, 14, 9)


@settings(deadline=None)
@given(st.data())
def test_joined_tiles_cover_every_token_once(data: st.DataObject) -> None:
    pairs = random_pairs(data.draw(st.integers(1, 40)), 60, 30, 99, data.draw(st.integers(0, 999)))
    each = data.draw(st.integers(1, 4))
    groups = [pairs[i : i + each] for i in range(0, len(pairs), each)]
    found = arrange_joined(rows_of(groups, 60 * each, 30 * each), prefix=True)
    tokens = list(range(sum(len(source) + len(target) for source, target in pairs)))
    assert covered(found.decoder) == (tokens, tokens)


def test_a_full_row_without_targets_is_wider_than_its_batch() -> None:
    """By one: the place that reads the source's end. Dropout's masks must reach it."""
    source = np.array([7, 8, 1], np.int32)
    found = arrange_joined(rows_of([[(source, source[:0])]], 3, 0), prefix=True)
    assert found.target.row_length == len(found.target) == 4
    assert len(found.answers) == 0
