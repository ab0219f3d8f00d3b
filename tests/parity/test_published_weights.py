"""Published weights against the figures that transformers' own tests hold: the summed log-likelihood of "Hi I am", EOS
counted, after "Hello there". No weights are to be had here: an environment variable names each folder (README.md says
how to get one), and the test skips, visibly, without it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from t5study.decode.scores import target_scores
from t5study.ground.pairs import EOS
from t5study.model.released import load_released, load_vocab

KNOWN = {"T5STUDY_T5_SMALL": -19.0845, "T5STUDY_V1_1_SMALL": -59.0293, "T5STUDY_BYT5_SMALL": -60.7397}


@pytest.mark.parametrize("variable", KNOWN)
def test_likelihood_of_a_known_pair(variable: str):
    if variable not in os.environ:
        pytest.skip(f"{variable} names no folder of published weights")
    folder = Path(os.environ[variable])
    model, shape = load_released(folder)
    vocab = load_vocab(folder, shape)
    source, target = (np.append(vocab.encode(text), EOS)[None] for text in ("Hello there", "Hi I am"))
    (nats,), _ = target_scores(model, source, target)
    assert -nats == pytest.approx(KNOWN[variable], abs=1e-3)
