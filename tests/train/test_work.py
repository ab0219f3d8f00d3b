"""The work of a step: its FLOPs by real tokens, whatever they are packed with, and the peak they are held against."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.feed.packing import pack
from t5study.ground.machine import Machine
from t5study.ground.pairs import Batch, Pair, Pairs
from t5study.model.shapes import ARCHITECTURES, Shape, flops, shape_of, size
from t5study.train import work
from t5study.train.work import Work, lengths, peak


def packed(sizes: list[tuple[int, int]], rows: int, source: int, target: int) -> tuple[Batch, int]:
    pairs = [Pair(np.full(s, 5, np.int32), np.full(t, 6, np.int32)) for s, t in sizes]
    return pack(Pairs.of(pairs), rows, source, target)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7)), min_size=1, max_size=12), st.sampled_from(ARCHITECTURES)
)
@settings(max_examples=60, deadline=None)
def test_a_batch_is_the_sum_of_its_pairs(sizes: list[tuple[int, int]], architecture: str):
    batch, used = packed(sizes, 4, 12, 8)
    shape = shape_of(architecture, Shape(24, 40, 8, 3, 2, 2, 128, "gated_gelu", adapter=8))
    assert Work(shape, architecture).of(batch) == sum(flops(shape, architecture, *one) for one in sizes[:used])
    source, target = lengths(batch)
    assert (source.sum() + target.sum(), (source > 0).sum()) == (batch.tokens, used)


def test_the_papers_step():
    """128 rows of 512 and 114 tokens at Base: 54.5 TFLOP (paper, 3.1.2 and 3.6 by arithmetic)."""
    batch, _ = packed([(512, 114)] * 128, 128, 512, 114)
    assert Work(size("base"), "encoder_decoder").of(batch) / 1e12 == pytest.approx(54.5, abs=0.05)


def test_padding_is_no_work():
    shape = size("pico")
    full, short = (packed([(8, 4)], rows, width, width)[0] for rows, width in ((1, 8), (3, 64)))
    assert Work(shape, "encoder_decoder").of(full) == Work(shape, "encoder_decoder").of(short)


def test_a_peak_is_stated_or_measured_once(monkeypatch: pytest.MonkeyPatch):
    assert peak(Machine(peak_tflops=0.5)) == 5e11
    monkeypatch.setattr(work, "_SIDE", {"cpu": 128})
    monkeypatch.setattr(work, "_LONG_ENOUGH_S", 0.0)
    found = peak(Machine(threads=7))  # no other test asks for so many
    assert found > 1e7
    assert peak(Machine(threads=7)) == found
