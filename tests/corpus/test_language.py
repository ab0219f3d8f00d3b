"""identify() against langdetect itself, compiled and plain. `make parity-c4` does the same on 5,460 texts."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_pages import TONGUES, line, sentence

from t5study.corpus import language, language_tables
from t5study.corpus.language import detector, identify, identify_plain, is_english
from t5study.corpus.language_tables import tables
from t5study.ground.errors import UserError


def langdetect(text: str) -> tuple[str, float]:
    from langdetect import DetectorFactory, LangDetectException, detect_langs

    DetectorFactory.seed = 0
    try:
        found = detect_langs(text)
    except LangDetectException:
        return "unknown", 0.0
    return (found[0].lang, found[0].prob) if found else ("unknown", 0.0)


def near(expected: tuple[str, float]) -> tuple[str, object]:
    return expected[0], pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize("tongue", TONGUES)
def test_same_language_and_probability_as_langdetect(tongue: str):
    chance, words = random.Random(tongue), TONGUES[tongue].split()
    texts = [" ".join(chance.sample(words, k)) for k in (1, 2, 4)]
    texts += [sentence(chance, words) for _ in range(4)] + ["\n".join(line(chance, words, 0.3) for _ in range(6))]
    texts += [" ".join([*chance.sample(words, 8), *chance.sample(TONGUES["en"].split(), 8)])]
    for text in texts:
        assert identify(text) == near(langdetect(text)), text
    assert identify_plain(texts[-1]) == near(langdetect(texts[-1]))
    assert identify(" ".join(words))[0] == tongue


BITS = [
    "Việt ", "a\u0300e\u0301", "ABC", "ABc ", "İ", "日本語", "ひらがな", "カタカナ", "한국어 ", "1234",
    "http://a.b/c?d ", "x@y.zz ", "a@b", "@@", "@x.", "q" * 70 + "@host.com", "ğş",
    "\U00010400\U00010401a", "ș", "ی", " ", "привет ", "مرحبا ", "[]^_`", "\u2014", "ß", "\x00",
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(BITS), max_size=25))
def test_odd_characters_count_as_they_do_for_langdetect(bits: list[str]):
    text = "".join(bits)
    expected = near(langdetect(text))
    assert identify(text) == expected
    assert identify_plain(text) == expected


def test_every_character_counts_as_it_does_for_langdetect():
    from langdetect.utils.ngram import NGram

    plain_C = tables().plain_C
    assert [code for code in range(0xD800) if ord(NGram.normalize(chr(code))) != plain_C[code]] == []
    assert [code for code in range(0xE000, 0x10000) if ord(NGram.normalize(chr(code))) != plain_C[code]] == []
    assert not any(chr(code).isupper() for code in range(0x20000, 0x110000))


@given(st.text(alphabet="a@.-_é ", max_size=40), st.integers(0, 3))
def test_addresses_of_mail_go_as_the_expression_takes_them(text: str, long: int):
    text = text + ("b" * 63 * long + "@" + "c" * 300 * long) + text
    expression = r"[-_.0-9A-Za-z]{1,64}@[-_0-9A-Za-z]{1,255}[-_.0-9A-Za-z]{1,255}"
    assert language._without_mail(text) == re.sub(expression, " ", text)


def test_no_more_than_ten_thousand_characters_are_read():
    german = " ".join(random.Random(0).choices(TONGUES["de"].split(), k=3000))
    text = german[:10_000] + " ".join(random.Random(0).choices(TONGUES["ru"].split(), k=5000))
    assert identify(text) == near(langdetect(text))
    assert identify(text)[0] == "de"


def test_english_is_what_is_surely_english():
    text = " ".join(random.Random(0).choices(TONGUES["en"].split(), k=60))
    assert is_english(text)
    assert not is_english(text, threshold=1.0)
    assert not is_english(" ".join(TONGUES["de"].split()))
    assert identify("") == identify("123 !?") == ("unknown", 0.0)
    assert not is_english("", threshold=0.0)


def test_a_stream_of_random_numbers_that_ends_is_made_longer():
    text = " ".join(random.Random(0).choices(TONGUES["nl"].split(), k=40))
    expected = identify(text)
    loops = language._Loops(*(getattr(language._loops(), name) for name in ("known", "keys_H", "rows_H", "shift")),
                            [language._stream(70)])  # fmt: skip
    mean_L = loops.probabilities(text)
    assert mean_L is not None
    assert (tables().languages[int(np.argmax(mean_L))], float(mean_L.max())) == expected
    assert len(loops.stream[0]) > 70


def test_other_detectors_are_there_by_name_only(monkeypatch: pytest.MonkeyPatch):
    assert detector("langdetect") is identify
    with pytest.raises(UserError, match="found 'fasttext'; give one of langdetect, cld2, resiliparse"):
        detector("fasttext")
    monkeypatch.setitem(sys.modules, "pycld2", None)
    monkeypatch.setitem(sys.modules, "resiliparse.parse.lang", None)
    for name, package in language.OTHERS.items():
        with pytest.raises(UserError, match=f"{name} is not installed; pip install {package}"):
            detector(name)
    cld2 = ModuleType("pycld2")
    vars(cld2)["detect"] = lambda raw: (raw == b"yes", 3, (("ENGLISH", "en", 97, 1200.0), ("Unknown", "un", 0, 0.0)))
    monkeypatch.setitem(sys.modules, "pycld2", cld2)
    assert [detector("cld2")(text) for text in ("yes", "no")] == [("en", 0.97), ("unknown", 0.0)]


def test_missing_or_damaged_profiles_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(language_tables, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="langdetect is not installed"):
        tables.__wrapped__()
    monkeypatch.setattr(
        language_tables, "find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    with pytest.raises(UserError, match="no readable profiles"):
        tables.__wrapped__()
