"""Sampling: frequencies are those of the distribution, cuts are where they should be, and rows draw for themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from little_models import SHAPES, random_pairs, talkative
from scipy.stats import chisquare

from t5study.decode.choose import drawn
from t5study.decode.generate import generate
from t5study.decode.methods import Sample
from t5study.ground.pairs import pad_rows

SOURCE_NS, _ = pad_rows([source for source, _ in random_pairs(9, 20, 1, 384, seed=4)])
LOGITS_V = torch.tensor([0.3, 2.0, -1.0, 1.0, 1.5, 0.0, 0.7])
DRAWS = 20_000


def frequencies(how: Sample, step: int = 0) -> np.ndarray:
    """How often each token comes in as many rows of the same logits."""
    token_A, log_p_A = drawn(LOGITS_V.expand(DRAWS, -1), how, np.arange(DRAWS), step)
    np.testing.assert_allclose(log_p_A, LOGITS_V.log_softmax(0).numpy()[token_A], rtol=1e-5)
    return np.bincount(token_A, minlength=len(LOGITS_V))


def expected(how: Sample) -> np.ndarray:
    """The distribution, by a loop over sorted tokens."""
    p_V = (LOGITS_V.double() / how.temperature).softmax(0).numpy()
    order = np.argsort(-p_V)
    kept = list(order[: how.top_k or len(p_V)])
    total, likeliest = sum(p_V[kept]), []
    for token in kept:
        if sum(p_V[likeliest]) / total >= how.top_p:
            break
        likeliest.append(token)
    out_V = np.zeros(len(p_V))
    out_V[likeliest] = p_V[likeliest] / sum(p_V[likeliest])
    return out_V


@pytest.mark.parametrize(
    "how",
    [
        Sample(seed=1),
        Sample(temperature=0.5, seed=2),
        Sample(temperature=3.0, seed=3),
        Sample(top_k=3, seed=4),
        Sample(top_p=0.6, seed=5),
        Sample(temperature=2.0, top_k=5, top_p=0.8, seed=6),
    ],
    ids=str,
)
def test_frequencies(how: Sample) -> None:
    p_V = expected(how)
    for step in (0, 7):
        found_V = frequencies(how, step)
        assert (found_V[p_V == 0] == 0).all()
        assert chisquare(found_V[p_V > 0], DRAWS * p_V[p_V > 0]).pvalue > 0.001


def test_cuts_are_at_work() -> None:
    assert (expected(Sample(top_k=3)) > 0).sum() == 3
    assert 1 < (expected(Sample(top_p=0.6)) > 0).sum() < 7
    assert frequencies(Sample(top_k=1)).argmax() == 1
    assert frequencies(Sample(top_p=1e-9))[1] == DRAWS
    assert frequencies(Sample(temperature=0.01))[1] == DRAWS


def test_steps_and_seeds_draw_apart() -> None:
    """Draws of one step say nothing of the next, nor one seed of another: pairs come as they should."""
    p_V = expected(Sample())
    rows_NV = LOGITS_V.expand(DRAWS, -1)
    base, _ = drawn(rows_NV, Sample(seed=0), np.arange(DRAWS), 0)
    for seed, step in ((0, 1), (1, 0)):
        other, _ = drawn(rows_NV, Sample(seed=seed), np.arange(DRAWS), step)
        pairs = np.bincount(base * len(p_V) + other, minlength=len(p_V) ** 2)
        assert chisquare(pairs, DRAWS * np.outer(p_V, p_V).ravel()).pvalue > 0.001


def test_a_row_draws_for_itself() -> None:
    """The same rows at the same numbers say the same whatever the batches; another seed says something else."""
    model = talkative(SHAPES["v1.1"], seed=3)
    how = Sample(temperature=1.3, top_k=50, top_p=0.95, seed=11)
    answers = [a.ids.tolist() for a in generate(model, SOURCE_NS, 12, how)]
    assert answers == [a.ids.tolist() for a in generate(model, SOURCE_NS, 12, how, batch_rows=2)]
    assert answers[:4] == [a.ids.tolist() for a in generate(model, SOURCE_NS[:4], 12, how)]
    wider_NS = np.pad(SOURCE_NS, ((0, 0), (0, 3)))
    assert answers == [a.ids.tolist() for a in generate(model, wider_NS, 12, how)]
    assert answers != [a.ids.tolist() for a in generate(model, SOURCE_NS, 12, Sample(1.3, 50, 0.95, seed=12))]
    twice = generate(model, SOURCE_NS[[0] * 6], 12, how)
    assert len({tuple(a.ids) for a in twice}) > 1, "equal rows at different numbers draw different lots"
