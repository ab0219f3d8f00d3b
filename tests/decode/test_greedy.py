"""Decoding: the cache changes nothing, neither do batches, order or padding; likelihoods are those of the logits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little_models import SHAPES, random_pairs, rows_of, talkative

from t5study.decode import generate, scores
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, pad_rows
from t5study.model import layers, passes
from t5study.model.architectures import EncoderDecoder, arrange

PAIRS = random_pairs(20, 40, 12, 384, seed=2)
SOURCE_NS, _ = pad_rows([source for source, _ in PAIRS])
TARGET_NT, _ = pad_rows([target for _, target in PAIRS])
LONGEST = 20


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest) -> EncoderDecoder:
    return talkative(SHAPES[request.param], seed=0)


def without_cache(model: EncoderDecoder, source: np.ndarray, longest: int) -> list[int]:
    """The definition: the whole decoder again for every token."""
    said: list[int] = []
    while len(said) < longest:
        target = np.array([*said, EOS], np.int32)  # the last place is the one asked for; what stands there is not seen
        logits_MV = model.logits(arrange(rows_of([[(source, target)]], len(source), len(target))))
        token = int(logits_MV[-1].argmax())
        if token == EOS:
            break
        said.append(token)
    return [token for token in said if token != 0]


def test_greedy_is_argmax_of_the_whole_decoder(model: EncoderDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [without_cache(model, source, LONGEST) for source, _ in PAIRS]
    assert len({len(answer) for answer in expected}) > 3, "rows that leave early are not tried"
    assert [a.tolist() for a in generate.greedy(model, SOURCE_NS, LONGEST, batch_rows=7)] == expected
    monkeypatch.setattr(layers, "loops", passes)
    assert [a.tolist() for a in generate.greedy(model, SOURCE_NS, LONGEST, batch_rows=7)] == expected


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_batches_order_and_padding_change_nothing(data: st.DataObject) -> None:
    model = talkative(SHAPES["v1.0"], seed=0)
    rows = data.draw(st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=8))
    batch_rows, wider = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 5))
    source_NS = np.pad(SOURCE_NS[rows], ((0, 0), (0, wider)))
    answers = generate.greedy(model, source_NS, LONGEST, batch_rows)
    nats_N, tokens_N = scores.target_scores(model, source_NS, TARGET_NT[rows], batch_rows)
    for i, row in enumerate(rows):
        alone, target = SOURCE_NS[row : row + 1], TARGET_NT[row : row + 1]
        assert answers[i].tolist() == generate.greedy(model, alone, LONGEST)[0].tolist()
        assert answers[i].dtype == np.int32
        nats, tokens = scores.target_scores(model, alone, target)
        assert tokens_N[i] == tokens[0]
        assert nats_N[i] == pytest.approx(nats[0], rel=1e-5)


def test_target_scores_are_log_probabilities(model: EncoderDecoder) -> None:
    nats_N, tokens_N = scores.target_scores(model, SOURCE_NS, TARGET_NT, batch_rows=6)
    assert nats_N.dtype == np.float64
    for (source, target), nats, tokens in zip(PAIRS, nats_N, tokens_N, strict=True):
        logits_MV = model.logits(arrange(rows_of([[(source, target)]], len(source), len(target)))).double()
        expected = -logits_MV.log_softmax(1).gather(1, torch.from_numpy(target).long()[:, None]).sum()
        assert nats == pytest.approx(float(expected), rel=1e-5)
        assert tokens == len(target)


def test_edges(model: EncoderDecoder) -> None:
    assert generate.greedy(model, SOURCE_NS[:0], 5) == []
    assert all(len(a) <= 1 for a in generate.greedy(model, SOURCE_NS, 1))
    nats_N, tokens_N = scores.target_scores(model, SOURCE_NS[:2], np.array([[5, EOS], [0, 0]], np.int32))
    assert tokens_N.tolist() == [2, 0]
    assert nats_N[0] > 0
    assert nats_N[1] == 0
    with pytest.raises(UserError, match="source: row 1 is empty"):
        generate.greedy(model, np.array([[5, EOS], [0, 0]], np.int32), 3)


def test_leaves_no_trace_in_the_model(model: EncoderDecoder) -> None:
    generate.greedy(model, SOURCE_NS[:3], 4)
    scores.target_scores(model, SOURCE_NS[:3], TARGET_NT[:3])
    model.zero_grad()
    model.loss_sum(arrange(rows_of([[PAIRS[0]]], 40, 12))).total.backward()
    assert model.decoder.bias.grad is not None
