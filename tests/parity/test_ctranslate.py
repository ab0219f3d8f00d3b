"""CTranslate2 against our own decoding, on models we wrote for it: each kind of ends, each kind of feed-forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from little_models import random_pairs, talkative

from t5study.decode import generate, scores
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, pad_rows
from t5study.ground.store import verify
from t5study.model.architectures import EncoderDecoder
from t5study.model.ctranslate import Asked, spell, write_ctranslate
from t5study.model.shapes import Shape
from t5study.vocab import ByteVocab

pytest.importorskip("ctranslate2")


@pytest.fixture(params=[("relu", True), ("relu", False), ("gated_gelu", True), ("gated_gelu", False)], ids=str)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[EncoderDecoder, Asked]:
    activation, tied = request.param
    model = talkative(Shape(64, 96, 16, 3, 3, 2, 384, activation, tied), seed=5)
    write_ctranslate(model, tmp_path, ByteVocab(), weights="abc")
    assert verify(tmp_path)["weights"] == "abc"
    return model, Asked.open(tmp_path, "float32", threads=1)


def test_likelihoods_and_answers(both: tuple[EncoderDecoder, Asked]):
    model, asked = both
    pairs = random_pairs(24, 150, 40, 259, seed=2)
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    source_NS = pad_rows(sources)[0]
    nats_N, _ = scores.target_scores(model, source_NS, pad_rows(targets)[0])
    assert np.abs(asked.nats(sources, targets) - nats_N).max() < 1e-4
    ours = generate.greedy(model, source_NS, 16)
    theirs = asked.answers(sources, 16, beams=1, alpha=0.0, batch_rows=7)
    assert [ids.tolist() for ids in ours] == [ids.tolist() for ids, _ in theirs]
    assert len({len(ids) for ids in ours}) > 1


@pytest.mark.parametrize("beams", [1, 4])
def test_scores_are_log_probabilities_under_our_penalty(both: tuple[EncoderDecoder, Asked], beams: int):
    """Of answers that ended: of one that was cut the score has no EOS in it."""
    model, asked = both
    sources = [source for source, _ in random_pairs(24, 60, 2, 259, seed=3)]
    found = [(s, *one) for s, one in zip(sources, asked.answers(sources, 30, beams, 0.6, 64), strict=True)]
    ended = [(source, ids, score) for source, ids, score in found if len(ids) < 29]
    assert len(ended) > 5
    whole = [np.append(ids, EOS) for _, ids, _ in ended]
    nats_N, n_N = scores.target_scores(model, pad_rows([source for source, _, _ in ended])[0], pad_rows(whole)[0])
    wanted = -nats_N / (((5 + n_N) / 6) ** 0.6 if beams > 1 else 1)
    np.testing.assert_allclose([score for _, _, score in ended], wanted, atol=1e-4)


def test_every_row_has_a_name_of_its_own():
    names = spell(ByteVocab(), 384)
    assert len(set(names)) == 384
    assert names[258] == chr(255)


def test_what_has_no_place_there_is_refused(tmp_path: Path):
    model = talkative(Shape(16, 24, 4, 2, 1, 1, 384, adapter=4), 0)
    with pytest.raises(UserError, match="CTranslate2 has no place for adapters"):
        write_ctranslate(model, tmp_path, ByteVocab())
