"""langdetect itself, on 5,460 texts in 21 languages: words, lines, paragraphs and pages."""

from __future__ import annotations

import os
import random

import pytest
from web_pages import TONGUES, line, sentence

from t5study.corpus.language import identify, identify_plain

pytestmark = pytest.mark.skipif("T5STUDY_C4_WHEELS" not in os.environ, reason="opt-in: make parity-c4")


def texts(tongue: str) -> list[str]:
    chance = random.Random(tongue)
    words, others = TONGUES[tongue].split(), [one for name in TONGUES for one in TONGUES[name].split()]
    made = [" ".join(chance.sample(words, chance.randint(1, 4))) for _ in range(60)]
    made += [sentence(chance, words) for _ in range(80)]
    made += [line(chance, words, 0.5) for _ in range(60)]
    made += [" ".join([*chance.choices(words, k=10), *chance.choices(others, k=10)]) for _ in range(30)]
    made += ["\n".join(line(chance, words, 0.2) for _ in range(chance.choice([4, 10, 40]))) for _ in range(30)]
    return made


@pytest.mark.parametrize("tongue", TONGUES)
def test_same_language_same_decision_same_probability(tongue: str):
    from langdetect import DetectorFactory, LangDetectException, detect_langs

    for at, text in enumerate(texts(tongue)):
        DetectorFactory.seed = 0
        try:
            found = [(one.lang, one.prob) for one in detect_langs(text)]
        except LangDetectException:
            found = []
        expected = found[0] if found else ("unknown", 0.0)
        near = (expected[0], pytest.approx(expected[1], abs=1e-9))
        language, probability = identify(text)
        assert (language, probability) == near, text[:200]
        assert ((language == "en") and probability >= 0.99) == (expected[0] == "en" and expected[1] >= 0.99)
        if at % 10 == 0:
            assert identify_plain(text) == near, text[:200]
