"""Several models as one, rank classification, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from decode.plain import Table
from little_models import SHAPES, of_family, random_pairs, talkative

from t5study.decode.ensembles import averaged
from t5study.decode.generate import generate, greedy
from t5study.decode.methods import Beam, Greedy, Sample
from t5study.decode.scores import rank, target_scores
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, pad_rows

PAIRS = random_pairs(6, 20, 6, 384, seed=9)
SOURCE_NS, _ = pad_rows([source for source, _ in PAIRS])
TARGET_NT, _ = pad_rows([target for _, target in PAIRS])
AVERAGES = ("logits", "probabilities")


def test_two_by_hand() -> None:
    """Probabilities (0.8, 0.2) and (0.2, 0.8) with logits (ln 4, 0) and (0, ln 4): either mean is one half. A third
    member of (0.5, 0.5) but logits (10, 10) changes neither."""
    four = float(np.log(4))
    a, b, c = torch.tensor([[four, 0.0]]), torch.tensor([[0.0, four]]), torch.tensor([[10.0, 10.0]])
    for average in AVERAGES:
        p = averaged([a, b, c], average).softmax(1)
        np.testing.assert_allclose(p.numpy(), [[0.5, 0.5]], rtol=1e-6)
    # (ln 9, 0) is (0.9, 0.1), (0, 0) is (0.5, 0.5): mean probability 0.7; mean logit ln 3, which is 0.75.
    sure, unsure = torch.tensor([[float(np.log(9)), 0.0]]), torch.zeros(1, 2)
    assert float(averaged([sure, unsure], "probabilities").softmax(1)[0, 0]) == pytest.approx(0.7)
    assert float(averaged([sure, unsure], "logits").softmax(1)[0, 0]) == pytest.approx(0.75)


@pytest.mark.parametrize("method", [Greedy(), Beam(3, 0.6), Sample(seed=4)], ids=str)
def test_one_alone_or_twice_is_the_model(method: Greedy | Beam | Sample) -> None:
    model = talkative(SHAPES["v1.1"], seed=3)
    alone = generate(model, SOURCE_NS, 10, method)
    for average in AVERAGES:
        for members in ([model], [model, model]):
            for a, b in zip(alone, generate(members, SOURCE_NS, 10, method, average=average), strict=True):
                assert a.ids.tolist() == b.ids.tolist()
                assert a.score == pytest.approx(b.score, rel=1e-4)


@pytest.mark.parametrize("average", AVERAGES)
def test_three_of_different_kinds_against_the_definition(average: str) -> None:
    """An encoder-decoder, a language model and a prefix LM answer together, and score targets together."""
    members = [of_family(f"{kind} relu tied", 2) for kind in ("encoder_decoder", "language_model", "prefix_lm")]

    def next_of_all(source: np.ndarray, said: list[int]) -> np.ndarray:
        log_p = np.stack([Table(model, source).next(said) for model in members])
        mean = log_p.mean(0) if average == "logits" else np.log(np.exp(log_p).mean(0))
        return mean - np.log(np.exp(mean).sum())

    answers = generate(members, SOURCE_NS, 4, average=average)
    nats_N, tokens_N = target_scores(members, SOURCE_NS, TARGET_NT, 4, average=average)
    for i, (source, target) in enumerate(PAIRS):
        said: list[int] = []
        while len(said) < 4 and EOS not in said:
            said.append(int(next_of_all(source, said).argmax()))
        assert answers[i].ids.tolist() == [token for token in said if token > EOS]
        nats = -sum(next_of_all(source, target[:t].tolist())[target[t]] for t in range(len(target)))
        assert nats_N[i] == pytest.approx(nats, rel=1e-5)
    assert tokens_N.tolist() == [len(target) for _, target in PAIRS]


def test_rank_takes_the_likeliest() -> None:
    model = talkative(SHAPES["v1.1"], seed=3)
    choices = [np.array([7, EOS]), np.array([9, 12, EOS]), np.array([EOS]), np.array([30, 31, 32, 33, EOS])]
    best_N, nats_NC = rank(model, SOURCE_NS, choices)
    assert nats_NC.shape == (len(SOURCE_NS), 4)
    for c, ids in enumerate(choices):
        nats_N, _ = target_scores(model, SOURCE_NS, np.tile(ids, (len(SOURCE_NS), 1)))
        np.testing.assert_allclose(nats_NC[:, c], nats_N, rtol=1e-5)
    assert best_N.tolist() == nats_NC.argmin(1).tolist()
    assert len(set(best_N.tolist())) > 0
    by_token, nats_by_token = rank(model, SOURCE_NS, choices, per_token=True)
    np.testing.assert_allclose(nats_by_token * [2, 3, 1, 5], nats_NC, rtol=1e-5)
    assert by_token.tolist() == nats_by_token.argmin(1).tolist()
    own = [choices[: 1 + i % 3] for i in range(len(SOURCE_NS))]
    some_N, some_NC = rank([model, model], SOURCE_NS, own)
    assert np.isinf(some_NC[0, 1:]).all()
    assert some_N[0] == 0
    np.testing.assert_allclose(some_NC[2], nats_NC[2, :3], rtol=1e-5)


MODEL = talkative(SHAPES["v1.0"], seed=0)
LONG = np.full((1, 1_000_000), 5, np.int32)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: generate(MODEL, SOURCE_NS, 0), "max_length: found 0; give a whole number from 1"),
        (lambda: greedy(MODEL, SOURCE_NS, -1), "max_length: found -1"),
        (lambda: generate(MODEL, SOURCE_NS, 10**9), "max_length: found 1000000000"),
        (lambda: generate(MODEL, SOURCE_NS, 2.5), "max_length: found 2.5"),  # type: ignore[arg-type]
        (lambda: generate(MODEL, SOURCE_NS, 4, batch_rows=0), "batch_rows: found 0"),
        (lambda: Beam(10**6), "beams: found 1000000"),
        (lambda: Beam(0), "beams: found 0"),
        (lambda: Beam(4, float("nan")), "alpha: found nan"),
        (lambda: Beam(4, -0.5), "alpha: found -0.5"),
        (lambda: Sample(temperature=-1), "temperature: found -1"),
        (lambda: Sample(temperature=float("nan")), "temperature: found nan"),
        (lambda: Sample(temperature=0), "temperature: found 0"),
        (lambda: Sample(top_p=0), "top_p: found 0"),
        (lambda: Sample(top_p=2), "top_p: found 2"),
        (lambda: Sample(top_k=-1), "top_k: found -1"),
        (lambda: Sample(seed=-1), "seed: found -1"),
        (lambda: generate(MODEL, SOURCE_NS, 4, "beam"), "method: found 'beam'"),  # type: ignore[arg-type]
        (lambda: generate(MODEL, SOURCE_NS, 4, precision="fp8"), "precision: found 'fp8'"),
        (lambda: generate(MODEL, SOURCE_NS, 4, average="median"), "average: found 'median'"),
        (lambda: generate([], SOURCE_NS, 4), "models: found none"),
        (lambda: generate([MODEL, WIDER], SOURCE_NS, 4), "models: found vocabularies of"),
        (lambda: generate(MODEL, LONG, 4), "source: row 0: found 1,000,000 tokens; give at most 8,192"),
        (lambda: generate(MODEL, np.zeros((2, 0), np.int32), 4), "source: row 0 is empty"),
        (lambda: generate(MODEL, np.array([[400, 1]]), 4), "source: row 0: found an id"),
        (lambda: generate(MODEL, np.array([[5, 1], [-3, 1]]), 4), "source: row 1: found an id"),
        (lambda: generate(MODEL, np.array([[0.5, 1]]), 4), "source: found 2 dimensions of float64"),
        (lambda: target_scores(MODEL, SOURCE_NS, TARGET_NT[:2]), "target: found 2 rows for 6 sources"),
        (lambda: rank(MODEL, SOURCE_NS, [[np.array([5, 1])]]), "choices: found 1 lists for 6 sources"),
        (lambda: rank(MODEL, SOURCE_NS[:1], [[]]), "choices: row 0: found none"),
    ],
)
def test_refused_in_one_line(call: Callable, says: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


WIDER = talkative(replace(SHAPES["v1.0"], table_rows=385), seed=0)


def test_what_looks_odd_but_is_not() -> None:
    """A source of EOS alone (an empty text), of sentinels alone; a beam as wide as two thirds of the vocabulary."""
    odd_NS = np.array([[EOS, 0, 0], [383, 382, EOS], [383, 0, EOS]], np.int32)
    assert len(generate(MODEL, odd_NS, 5)) == 3
    assert len(generate(MODEL, odd_NS, 3, Beam(256, 1.0))) == 3
    assert generate(MODEL, SOURCE_NS[:0], 5) == []
    assert all(np.isfinite(answer.score) for answer in generate(MODEL, SOURCE_NS, 1, Beam(2)))


@pytest.mark.parametrize("method", [Greedy(), Beam(2), Sample()], ids=str)
def test_weights_that_are_not_finite(method: Greedy | Beam | Sample) -> None:
    model = talkative(SHAPES["v1.0"], seed=0)
    with torch.no_grad():
        model.decoder.layers[0].feed.wo[0, 0] = float("nan")  # type: ignore[union-attr, index]
    for precision in ("float32", "int8"):
        with pytest.raises(UserError, match="its weights are not usable"):
            generate(model, SOURCE_NS, 4, method, precision=precision)
