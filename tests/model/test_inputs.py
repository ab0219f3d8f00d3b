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
from t5study.model.inputs import Tile, arrange


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
