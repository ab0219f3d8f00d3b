"""Beam search: against every sequence there is, against a plain one without cache, and against greedy decoding."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from decode.plain import Table, plain_search
from little_models import SHAPES, random_pairs, talkative

from t5study.decode.generate import generate
from t5study.decode.methods import Beam, Greedy
from t5study.decode.scores import target_scores
from t5study.ground.pairs import EOS, pad_rows
from t5study.model.architectures import EncoderDecoder, build
from t5study.model.shapes import Shape

SMALL = Shape(16, 24, 4, 3, 1, 2, 6)  # six tokens: padding, EOS, and four others
SOURCE_NS, _ = pad_rows([source for source, _ in random_pairs(12, 30, 1, 384, seed=4)])
ALPHAS = (0.0, 0.6, 1.5)
SEEDS = {"v1.0": 2, "v1.1": 3}  # whose answers end at various lengths


def sharpened(shape: Shape, seed: int) -> EncoderDecoder:
    """Far from uniform, so that sequences of all lengths win somewhere."""
    model = build(shape, seed)
    with torch.no_grad():
        for layer in model.decoder:
            for weight in (layer.attention.out, layer.cross.out, layer.feed.wo):
                weight *= 8
        model.embedding *= 1.5
    return model


def every_sequence(table: Table, longest: int) -> list[tuple[float, tuple[int, ...]]]:
    """log p and tokens of all finished sequences."""
    found, open_ = [], [(0.0, ())]
    for _ in range(longest):
        grown = []
        for total, said in open_:
            log_p_V = table.next(said)
            found.append((total + log_p_V[EOS], (*said, EOS)))
            grown += [(total + log_p_V[v], (*said, v)) for v in range(len(log_p_V)) if v != EOS]
        open_ = grown
    return found


@pytest.mark.parametrize("seed", range(3))
def test_enough_beams_find_the_best_of_all_sequences(seed: int) -> None:
    longest, winners = 4, set()
    model, sources = sharpened(SMALL, seed), [np.array([3, 4, EOS]), np.array([5, 5, 2, 3, EOS])]
    for source in sources:
        sequences = every_sequence(Table(model, source), longest)
        assert len(sequences) == sum(5**n for n in range(longest))
        assert sum(np.exp(total) for total, _ in sequences) < 1
        for alpha in ALPHAS:
            score, said = max((total / ((5 + len(said)) / 6) ** alpha, said) for total, said in sequences)
            (answer,) = generate(model, source[None].astype(np.int32), longest, Beam(5**longest // 5, alpha))
            assert answer.ids.tolist() == [token for token in said if token > EOS]
            assert answer.score == pytest.approx(score, rel=1e-5)
            winners.add(len(said))
    assert winners


@pytest.mark.parametrize("version", SHAPES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_cache_and_the_stopping_rule_change_nothing(version: str, alpha: float) -> None:
    """A search that stops by T5's rule says what one that never stops says."""
    model, longest, ends = talkative(SHAPES[version], SEEDS[version]), 7, set()
    answers = generate(model, SOURCE_NS, longest, Beam(3, alpha), batch_rows=5)
    for source_S, answer in zip(SOURCE_NS, answers, strict=True):
        score, ids, finished = plain_search(Table(model, source_S[source_S > 0]), longest, Beam(3, alpha))
        assert answer.ids.tolist() == ids
        assert answer.score == pytest.approx(score, rel=1e-5)
        ends.add((finished, len(ids)))
    assert len(ends) > 2, f"answers that finish and that do not, of several lengths: {ends}"


@pytest.mark.parametrize("version", SHAPES)
def test_one_beam_is_greedy(version: str) -> None:
    """One beam looks at two continuations, so an EOS in second place is kept, too; it is the answer only where greedy
    decoding ends up with something less likely, or with nothing finished."""
    model, same = talkative(SHAPES[version], SEEDS[version]), 0
    one = generate(model, SOURCE_NS, 20, Beam(1, 0.0))
    for beam, greedy in zip(one, generate(model, SOURCE_NS, 20, Greedy()), strict=True):
        if beam.ids.tolist() == greedy.ids.tolist():
            assert beam.score == pytest.approx(greedy.score, rel=1e-5, abs=1e-6)
            same += 1
        else:
            assert len(beam.ids) < len(greedy.ids)
            assert beam.score > greedy.score + 1e-3 or len(greedy.ids) == 20
    assert same > 6


@pytest.mark.parametrize("alpha", ALPHAS)
def test_scores_are_those_of_the_answers(alpha: float) -> None:
    model = talkative(SHAPES["v1.0"], seed=2)
    answers = generate(model, SOURCE_NS, 30, Beam(4, alpha))
    done = [i for i, answer in enumerate(answers) if len(answer.ids) < 29]
    assert len(done) > 3
    target_NT, length_N = pad_rows([np.append(answers[i].ids, EOS) for i in done])
    nats_N, _ = target_scores(model, SOURCE_NS[done], target_NT)
    for i, nats, n in zip(done, nats_N, length_N, strict=True):
        assert answers[i].score == pytest.approx(-nats / ((5 + n) / 6) ** alpha, rel=1e-5)


def test_batches_change_nothing_and_more_beams_find_more() -> None:
    model = talkative(SHAPES["v1.1"], seed=3)
    by_beams = {}
    for beams in (1, 2, 4, 8):
        answers = generate(model, SOURCE_NS, 12, Beam(beams, 0.6))
        alone = [generate(model, row[None], 12, Beam(beams, 0.6), batch_rows=1)[0] for row in SOURCE_NS]
        for a, b in zip(answers, alone, strict=True):
            assert a.ids.tolist() == b.ids.tolist()
            assert a.score == pytest.approx(b.score, rel=1e-5)
        by_beams[beams] = np.mean([answer.score for answer in answers])
    assert by_beams[8] > by_beams[1]


def test_a_longer_penalty_gives_longer_answers() -> None:
    model = talkative(replace(SHAPES["v1.0"], decoder_layers=2), seed=2)
    mean = [np.mean([len(a.ids) for a in generate(model, SOURCE_NS, 30, Beam(4, alpha))]) for alpha in (0.0, 1.0, 5.0)]
    assert mean == sorted(mean)
    assert mean[0] < mean[-1]


def test_penalty_by_hand() -> None:
    """Wu et al. 2016: ((5 + n) / 6)^alpha; 1 for a single token."""
    assert Beam(4, 0.6).penalty(1) == 1
    assert Beam(4, 0.6).penalty(7) == pytest.approx(2**0.6)
    assert [Beam(4, 0.0).penalty(n) for n in range(1, 4)] == [1, 1, 1]
    assert all(a < b for a, b in itertools.pairwise(Beam(4, 0.6).penalty(n) for n in range(1, 40)))
