"""Punkt against NLTK's own, with the same model; the parity test runs it under the NLTK of each profile's day."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_pages import pages

from t5study.corpus.sentences import count_sentences, sentences

# What NLTK 3.10 takes for closing quotes, and the releases that C4 was made with did not
NEW_QUOTES = re.compile("[‘’“”«»]")


@pytest.fixture(scope="module")
def nltk() -> Any:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english

    model = PunktParameters()
    model.abbrev_types, model.sent_starters = set(english.ABBREV_TYPES), set(english.SENT_STARTERS)
    model.collocations, model.ortho_context = set(english.COLLOCATIONS), defaultdict(int, english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(model)


def odd_texts(count: int) -> list[str]:
    """Strings of what splitters stumble over: words of the model with periods, marks, runs of marks, white space."""
    from punkt.data import english

    chance = random.Random(3)
    abbreviations, starters = sorted(english.ABBREV_TYPES), sorted(english.SENT_STARTERS)
    pairs, words = sorted(english.COLLOCATIONS), sorted(english.ORTHO_CONTEXT)
    bits = ["J", "5", "3.14", "1,000", "-2", "..", ".", "!", "?", ". . .", "...", "--", '"', "'", ")", "(", "]", "*",
            ":", ",", "\t", "\n", "  ", "\u00a0", "@", "É", "x.y", "end-co", "I", "V.", "12th"]  # fmt: skip

    def one() -> str:
        kind = chance.random()
        if kind < 0.2:
            return chance.choice(abbreviations) + "."
        if kind < 0.3:
            return chance.choice(starters).capitalize()
        if kind < 0.4:
            first, second = chance.choice(pairs)
            return f"{first.replace('##number##', '7')}. {second.replace('##number##', '8')}"
        if kind < 0.6:
            word = chance.choice(words).replace("##number##", "9")
            return chance.choice([word, word.capitalize(), word + "."])
        return chance.choice(bits)

    return ["".join(one() + chance.choice(["", " ", " ", ". ", "! ", "?"]) for _ in range(20)) for _ in range(count)]


def test_every_sentence_of_pages_and_of_odd_texts_is_nltk_s(nltk: Any):
    texts = [NEW_QUOTES.sub("'", page.text) for page in pages(40, seed=2)] + odd_texts(400)
    for text in texts:
        assert sentences(text, "3.9") == nltk.tokenize(text)


@settings(deadline=None)
@given(st.text(alphabet='aA.?!) "\n-5,(e'))
def test_any_string_is_split_as_nltk_splits_it(nltk: Any, text: str):
    assert sentences(text, "3.9") == nltk.tokenize(text)


def test_a_no_break_space_parts_words_for_the_older_one_only():
    text = "He went home.\u00a0Slept. Now he is up."
    assert sentences(text) == ["He went home.", "Slept.", "Now he is up."]
    assert sentences(text, "3.9") == ["He went home.\u00a0Slept.", "Now he is up."]
    assert sentences("!!! Wow") == ["!!!", "Wow"]
    assert sentences("!!! Wow", "3.9") == ["!", "!!", "Wow"]


def test_counting_stops_where_it_is_told_and_a_newline_ends_nothing():
    text = "One is here. Two is here! Is three here? Four."
    assert [count_sentences(text, stop) for stop in (1, 2, 3, None)] == [1, 2, 3, 4]
    assert count_sentences("") == count_sentences(" \n ") == 0
    assert count_sentences("A line without an end\nand another one") == 1


def test_counting_up_to_three_does_not_read_a_long_page_to_its_end():
    class Read(str):
        reach = 0

        def rfind(self, *given: Any) -> int:
            Read.reach = max(Read.reach, given[2])
            return str.rfind(self, *given)

    assert count_sentences(Read("This is a sentence. " * 5000), 3) == 3
    assert Read.reach < 200
