"""Aho-Corasick with borders against the regular expressions that say what a hit is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_pages import pages

from t5study.corpus.badwords import ENGLISH_SHA256, WordList, bad_words, drawn_to_go, english, read_words
from t5study.corpus.profiles import PROFILES, Profile
from t5study.ground.errors import UserError

every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


def pattern(words: WordList, profile: Profile) -> re.Pattern[str]:
    """A hit, said as a regular expression."""
    entries = [re.escape(one) if profile.bad_words_literal else one for one in words.entries]
    either = "|".join(entries)
    if profile.bad_words == "text" and words.language in profile.bad_words_anywhere:
        return re.compile(either)
    return re.compile(
        f"[^a-z]({either})[^a-z]" if profile.bad_word_borders == "a-z" else rf"(?:\W|^)({either})(?:\W|$)"
    )


def test_the_list_inside_is_the_pinned_one():
    assert len(english().entries) == 377
    assert english().sha256 == ENGLISH_SHA256


@every_profile
def test_hits_on_pages_are_those_of_the_expression(profile: Profile):
    expression = pattern(english(), profile)
    hits = 0
    for page in pages(200, seed=7):
        for line in page.text.splitlines():
            expected = expression.search(line.lower())
            assert (bad_words(line, profile) is not None) == (expected is not None), line
            hits += expected is not None
    assert hits > 5


@every_profile
@pytest.mark.parametrize("language", ["xx", "th", "ja"])
@settings(deadline=None, max_examples=50)
@given(text=st.text(alphabet="ab.+é1_ \n?c", max_size=24))
def test_entries_of_all_kinds_are_found_where_the_expression_finds_them(profile: Profile, language: str, text: str):
    words = WordList(language, ("ab", "b a", "a.b", "ba+", "a", "1é", "(a|c)c", "é"), "")
    found = words.find(text, profile)
    assert (found is not None) == (pattern(words, profile).search(text) is not None)


def test_a_suffix_of_the_language_does_not_matter_and_another_language_has_no_list():
    text, profile = f"They said {english().entries[0]} to us.", PROFILES["3.1.0"]
    assert bad_words(text, profile, "en-latin") == bad_words(text, profile, "en") == english().entries[0]
    assert bad_words(text, profile, "de") is None


def test_entries_that_3_1_0_leaves_out():
    words = WordList("ja", ("sm", "女の子"), "")
    assert (
        words.find("これは女の子です", PROFILES["3.0.1"]) == "女の子"
        or "ja" not in PROFILES["3.0.1"].bad_words_anywhere
    )
    assert words.find("sm 女の子", PROFILES["3.1.0"]) is None


def test_the_lot_is_exact_in_the_fraction():
    urls = [f"example.com/{i}" for i in range(400)]
    assert all(drawn_to_go(url, 1.0) for url in urls)
    assert not any(drawn_to_go(url, 0.0) for url in urls)
    assert 140 < sum(drawn_to_go(url, 0.5) for url in urls) < 260
    quarter = {url for url in urls if drawn_to_go(url, 0.25)}
    assert 60 < len(quarter) < 140


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file"), (b"", "no entry"), (b"\n \n", "no entry"), (b"\xff", "UTF-8")]
)
def test_a_list_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, content: bytes | None, told: str):
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_words(tmp_path / "list", "de")


def test_another_version_of_the_list_is_refused(tmp_path: Path):
    (tmp_path / "en").write_text("snark\n")
    assert read_words(tmp_path / "en", "en").entries == ("snark",)
    with pytest.raises(UserError, match=f"found sha256 .*, not {ENGLISH_SHA256}"):
        read_words(tmp_path / "en", "en", ENGLISH_SHA256)


def test_a_profile_with_other_borders_is_another_value():
    assert replace(PROFILES["3.0.1"], bad_word_borders="a-z") != PROFILES["3.0.1"]
