"""Sources: every token or row once an epoch, any example alone, and whatever is wrong with the data is said."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from t5study.feed.sources import DocumentSource, PairSource
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, Ids, Pair, Pairs
from t5study.objectives import CausalLM, Deshuffle, Lengths, Objective, PrefixLM, SpanCorruption

IDS = Ids(size=70_000)
steady = settings(derandomize=True, deadline=None, max_examples=60)


def whole(lengths_of_documents: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Documents in which every token is another id: 3, 4, 5, ..."""
    offsets = np.concatenate([[0], np.cumsum(lengths_of_documents, dtype=np.int64)])
    return np.arange(3, 3 + offsets[-1], dtype=np.uint32), offsets


def texts_of(source: DocumentSource, epoch: int = 0) -> list[list[int]]:
    """The pieces of an epoch in the order of its examples, from an objective whose targets are the text."""
    index_N = np.arange(len(source)) + epoch * len(source)
    return [pair.target[:-1].tolist() for pair in source.pairs(index_N)]


def same(one: Pairs, other: Pairs) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("source_BS", "source_length_B", "target_BT", "target_length_B")
    )


# --- text that is concatenated ------------------------------------------------------------------------------------


@steady
@given(
    documents=st.lists(st.integers(0, 30), min_size=1, max_size=20),
    raw=st.integers(2, 25),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 2**62),
)
def test_every_token_once_an_epoch_in_unbroken_pieces(documents: list[int], raw: int, epoch: int, seed: int):
    tokens, offsets = whole(documents)
    assume(len(tokens) >= raw)
    source = DocumentSource(tokens, offsets, CausalLM(), Lengths(raw, 1, raw + 1), IDS, seed)
    pieces = texts_of(source, epoch)
    seen = Counter(token for piece in pieces for token in piece)
    lone = len(tokens) % raw == 1  # a piece of one token is left out
    assert set(seen.values()) == {1}
    assert len(seen) == len(tokens) - lone
    n = len(tokens)
    for piece in pieces:
        assert [(token - piece[0]) % n for token in piece] == list(range(len(piece)))
    assert sorted(map(len, pieces), reverse=True)[: n // raw] == [raw] * (n // raw)


def test_later_epochs_are_cut_elsewhere_and_come_in_another_order():
    tokens, offsets = whole([5000])
    source = DocumentSource(tokens, offsets, CausalLM(), Lengths(10, 1, 11), IDS, 0)
    epochs = [texts_of(source, epoch) for epoch in range(20)]
    assert sorted(epochs[0]) == [list(range(i, i + 10)) for i in range(3, 5003, 10)]
    assert epochs[0] != sorted(epochs[0])
    cuts = {epoch[0][0] % 10 for epoch in epochs}
    assert len(cuts) > 5
    assert len({tuple(epoch[0]) for epoch in epochs}) == 20


def test_the_same_text_is_hidden_otherwise_in_another_epoch():
    lengths = SpanCorruption().lengths(54)
    source = DocumentSource(*whole([lengths.raw]), SpanCorruption(), lengths, IDS, 0)
    assert len(source) == 1
    asked = {tuple(sorted(pair.target.tolist())) for pair in source.pairs(np.arange(50))}
    assert len(asked) > 45


# --- text that is not ---------------------------------------------------------------------------------------------


@steady
@given(
    documents=st.lists(st.integers(0, 30), min_size=1, max_size=20),
    raw=st.integers(2, 25),
    epoch=st.integers(0, 3),
)
def test_pieces_of_a_document_never_cross_into_another(documents: list[int], raw: int, epoch: int):
    tokens, offsets = whole(documents)
    assume(max(documents) >= 2)
    source = DocumentSource(tokens, offsets, Deshuffle(), Lengths(raw, raw + 1, raw + 1), IDS, 0)
    expected = []
    for begin, end in itertools.pairwise(offsets):
        text = tokens[begin:end].tolist()
        expected += [text[i : i + raw] for i in range(0, len(text), raw) if len(text[i : i + raw]) >= 2]
    assert len(source) == len(expected)
    assert sorted(texts_of(source, epoch)) == sorted(expected)


# --- any example, alone, in any company ---------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [SpanCorruption(), PrefixLM(), Deshuffle(), CausalLM()], ids=lambda o: o.label)
def test_an_example_is_a_function_of_its_index(objective: Objective):
    tokens, offsets = whole([7, 300, 0, 1, 45, 2, 900])
    lengths = objective.lengths(32)
    source = DocumentSource(tokens, offsets, objective, lengths, IDS, 3)
    index_N = np.random.default_rng(0).integers(0, 5 * len(source), 200)
    block = source.pairs(index_N)
    for k, i in enumerate(index_N[:40]):
        assert same(source.pairs(index_N[[k]]), source.pairs(np.array([i])))
        alone = source.pairs(np.array([i]))[0]
        assert alone.source.tolist() == block[k].source.tolist()
        assert alone.target.tolist() == block[k].target.tolist()
    again = DocumentSource(tokens, offsets, objective, lengths, IDS, 3)
    assert same(again.pairs(index_N), block)
    other = DocumentSource(tokens, offsets, objective, lengths, IDS, 4)
    assert not same(other.pairs(index_N), block)
    assert len(source.pairs(np.array([], dtype=np.int64))) == 0
    with pytest.raises(ValueError, match="counted from 0"):
        source.pairs(np.array([-1]))


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i4", "<i8"])
def test_tokens_may_be_of_any_width_and_lie_in_a_file(dtype: str, tmp_path: Path):
    tokens, offsets = whole([4000])
    np.save(tmp_path / "tokens.npy", tokens.astype(dtype))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    lengths = SpanCorruption().lengths(32)
    one, other = (DocumentSource(t, offsets, SpanCorruption(), lengths, IDS, 0) for t in (tokens, mapped))
    assert same(one.pairs(np.arange(300)), other.pairs(np.arange(300)))


# --- what is wrong with the data is said --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [(500, "found id 500 at token 17, but the vocabulary has 500 ids"), (-7, "found id -7 at token 17, but")],
)
def test_an_id_that_is_not_in_the_vocabulary_is_named(bad: int, message: str):
    tokens = np.full(40, 9, dtype=np.int32)
    tokens[17] = bad
    source = DocumentSource(tokens, np.array([0, 40]), CausalLM(), Lengths(10, 1, 11), Ids(size=500), 0)
    with pytest.raises(UserError, match=message):
        source.pairs(np.arange(len(source)))


@pytest.mark.parametrize(
    ("tokens", "offsets", "objective", "message"),
    [
        (np.zeros(0, np.uint16), [0], CausalLM(), "tokens: found 0, fewer than the 10 of one example; give more text"),
        (np.full(9, 5, np.uint16), [0, 9], CausalLM(), "tokens: found 9, fewer than the 10 of one example"),
        (np.full(3, 5, np.uint16), [0, 1, 1, 2, 3], PrefixLM(), "no document of two tokens or more among 4"),
        (np.zeros(0, np.uint16), [0], Deshuffle(), "no document of two tokens or more among 0"),
        (np.full(20, 5.0), [0, 20], CausalLM(), "found float64 of shape (20,); give one row of ids"),
        (np.full((4, 5), 5), [0, 20], CausalLM(), "found int64 of shape (4, 5); give one row of ids"),
        (np.full(20, 5), [0, 19], CausalLM(), "found offsets that do not divide 20 tokens"),
        (np.full(20, 5), [0, 21], CausalLM(), "found offsets that do not divide 20 tokens"),
        (np.full(20, 5), [1, 20], CausalLM(), "found offsets that do not divide 20 tokens"),
        (np.full(20, 5), [0, 12, 8, 20], PrefixLM(), "found offsets that do not divide 20 tokens"),
        (np.full(20, 5), [], PrefixLM(), "found offsets that do not divide 20 tokens"),
    ],
)
def test_tokens_that_cannot_be_cut_are_refused(
    tokens: np.ndarray, offsets: list[int], objective: Objective, message: str
):
    with pytest.raises(UserError) as error:
        DocumentSource(tokens, np.array(offsets, np.int64), objective, Lengths(10, 11, 11), IDS, 0)
    assert message in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_that_would_wrap_is_refused(seed: int):
    with pytest.raises(UserError, match="seed"):
        DocumentSource(*whole([40]), CausalLM(), Lengths(10, 1, 11), IDS, seed)
    with pytest.raises(UserError, match="seed"):
        PairSource([Pair(np.array([1]), np.array([1]))], seed, 4, 4)


# --- rows of a task -----------------------------------------------------------------------------------------------


def rows(n: int) -> list[Pair]:
    chance = np.random.default_rng(1)
    return [
        Pair(np.append(chance.integers(3, 99, chance.integers(0, 9)), EOS), np.append([100 + i], EOS)) for i in range(n)
    ]


def test_every_row_once_an_epoch_and_each_epoch_in_another_order():
    given_rows = rows(50)
    source = PairSource(given_rows, 0, 10, 3)
    orders = []
    for epoch in range(3):
        found = source.pairs(np.arange(50) + 50 * epoch)
        assert found.source_BS.shape == (50, 10)
        assert found.target_BT.shape == (50, 3)
        orders.append([int(pair.target[0]) - 100 for pair in found])
        for k, pair in zip(orders[-1], found, strict=True):
            assert pair.source.tolist() == given_rows[k].source.tolist()
            assert pair.target.tolist() == given_rows[k].target.tolist()
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_single_row_is_every_example():
    source = PairSource(rows(1), 0, 10, 3)
    assert [pair.target.tolist() for pair in source.pairs(np.arange(5))] == [[100, EOS]] * 5


def test_no_rows_and_rows_that_are_too_long_are_refused():
    with pytest.raises(UserError, match="found none; give the task training rows"):
        PairSource([], 0, 10, 10)
    long = [Pair(np.ones(3), np.ones(2)), Pair(np.ones(11), np.ones(2))]
    with pytest.raises(UserError, match="example 1: found a source of 11 tokens, but rows hold 10"):
        PairSource(long, 0, 10, 10)
    with pytest.raises(UserError, match="example 0: found a target of 2 tokens, but rows hold 1"):
        PairSource(long, 0, 11, 1)
