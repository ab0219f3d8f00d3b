"""Least values by key: equal to a dict, however rows are dealt out over pieces, and hot keys cost a row a piece."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.corpus import dedup
from t5study.corpus.profiles import PROFILES
from t5study.corpus.rules_spans import lost
from t5study.corpus.rules_url import url_key

ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 2**64 - 1), st.integers(0, 3), st.integers(0, 3)), max_size=60
)


def arrays(rows: list[tuple[int, int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Few different keys, so that they meet; the high half decides the bucket."""
    keys = [(high * 0x1234567890ABCDEF % 2**64, low % 3) for high, low, _, _ in rows]
    return np.array(keys, np.uint64).reshape(-1, 2), np.array([row[2:] for row in rows], np.uint64).reshape(-1, 2)


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_winners_are_a_dicts(rows: list[tuple[int, int, int, int]]):
    keys_N2, values_N2 = arrays(rows)
    best: dict[tuple[int, ...], tuple[tuple[int, ...], int]] = {}
    for i, (key, value) in enumerate(zip(keys_N2.tolist(), values_N2.tolist(), strict=True)):
        best[tuple(key)] = min(best.get(tuple(key), (tuple(value), i)), (tuple(value), i))
    assert dedup.winners(keys_N2, values_N2).tolist() == [best[tuple(key)][1] for key in keys_N2.tolist()]


@pytest.mark.parametrize("memory", [1, 40 * dedup.ROW_BYTES, 1 << 28])
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_pieces_and_ranges_agree_with_one_table(tmp_path: Path, pieces: int, memory: int):
    draw = np.random.default_rng(pieces)
    pool = draw.integers(0, 2**64, (150, 2), dtype=np.uint64)
    keys_N2, values_N2 = pool[draw.integers(0, 150, 700)], draw.integers(0, 2**64, (700, 2), dtype=np.uint64)
    whole = dedup.winners(keys_N2, values_N2) == np.arange(700)
    paths, parts, places = [], [np.arange(700)[i::pieces] for i in range(pieces)], []
    for i, part in enumerate(parts):
        paths.append(tmp_path / f"piece{i}")
        winner_N = dedup.winners(keys_N2[part], values_N2[part])
        sent = dedup.send(paths[-1], keys_N2[part], values_N2[part], winner_N)
        places.append(np.where(winner_N == np.arange(len(part)), sent.place_N, -1))
        assert sent.rows == len(np.unique(keys_N2[part], axis=0))
    reduced = []
    ranges = dedup.ranges((np.load(f"{path}.index.npy") for path in paths), memory)
    assert [first for first, _ in ranges[1:]] == [end for _, end in ranges[:-1]]
    assert (ranges[0][0], ranges[-1][1]) == (0, dedup.BUCKETS)
    for first, end in ranges:
        folder = tmp_path / f"reduced{first}"
        folder.mkdir()
        wins, starts = dedup.reduce(paths, first, end)
        np.save(folder / "wins.npy", wins)
        np.save(folder / "starts.npy", starts)
        reduced.append(folder)
    if memory == 40 * dedup.ROW_BYTES:
        assert len(ranges) > 3
    found = np.zeros(700, bool)
    for i, part in enumerate(parts):
        wins = dedup.answers(i, reduced)
        found[part] = (places[i] >= 0) & (wins[places[i]] == 1)
    assert found.tolist() == whole.tolist()


def test_a_hot_line_is_sent_once_a_piece(tmp_path: Path):
    keys_N2, values_N2 = np.full((100_000, 2), 7, np.uint64), np.arange(200_000, dtype=np.uint64).reshape(-1, 2)[::-1]
    values_N2 = np.ascontiguousarray(values_N2)
    winner_N = dedup.winners(keys_N2, values_N2)
    assert set(winner_N.tolist()) == {99_999}
    assert dedup.send(tmp_path / "hot", keys_N2, values_N2, winner_N).rows == 1


@pytest.mark.parametrize("name", PROFILES)
def test_what_stays_is_what_the_rules_say(name: str):
    """The same policy as rules_spans.lost, by hashes: pages of few different spans, many of them twice."""
    profile, draw = PROFILES[name], np.random.default_rng(0)
    for _ in range(200):
        page_N = np.sort(draw.integers(0, 4, 20))
        span_N = draw.integers(0, 5, 20)
        owner_P = draw.permutation(4)
        values_N1 = np.ascontiguousarray(owner_P[page_N].astype(np.uint64)[:, None])
        keys_N2 = np.ascontiguousarray(np.stack([span_N, span_N], axis=1).astype(np.uint64))
        winner_N = dedup.winners(keys_N2, values_N1)
        stays_N = dedup.stays(profile.repeats, page_N, winner_N, np.ones(20, bool))
        for page in range(4):
            rows = np.flatnonzero(page_N == page)
            best = {span: min(owner_P[page_N[span_N == span]]) for span in span_N}
            gone = lost([str(span_N[i]) for i in rows], [owner_P[page] == best[span_N[i]] for i in rows], profile)
            assert [i not in gone for i in range(len(rows))] == stays_N[rows].tolist()


def test_a_key_that_another_piece_wins_stays_nowhere():
    page_N, winner_N = np.array([0, 0, 1]), np.array([0, 0, 0])
    for repeats in ("stay", "first stays", "all go"):
        assert dedup.stays(repeats, page_N, winner_N, np.zeros(3)).tolist() == [False] * 3


def test_keys_compare_as_their_hex_does():
    urls = [f"example.org/{i}" for i in range(50)]
    keys_N2 = dedup.as_keys([url_key(url) for url in urls])
    by_number = sorted(range(50), key=lambda i: tuple(keys_N2[i].tolist()))
    assert by_number == sorted(range(50), key=lambda i: url_key(urls[i]).hex())
    assert Counter(map(len, (dedup.text_key(b"x"), url_key("x")))) == {16: 2}
