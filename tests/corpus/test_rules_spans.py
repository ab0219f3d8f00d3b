"""What is said once only: spans of three sentences or lines, who owns them, what is left of a page."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace

import pytest
from web_pages import pages

from t5study.corpus import rules_spans
from t5study.corpus.page import Drop, Page
from t5study.corpus.profiles import PROFILES, Profile
from t5study.corpus.rules_spans import lost, spans, windows, without
from t5study.corpus.rules_url import url_key
from t5study.corpus.sentences import sentences

PAPER, SECOND, HOSTED = PROFILES["paper"], PROFILES["2.2.0"], PROFILES["3.0.1"]
A, B, C, D, E = (f"{name} went out to sea." for name in ("Anna", "Ben", "Clara", "Dora", "Emil"))


def left(texts: dict[str, str], profile: Profile) -> dict[str, str | None]:
    """Pages by address after they were compared with each other."""
    keys = {url: windows(text, profile) for url, text in texts.items()}
    owner: dict[str, str] = {}
    for url, said in keys.items():
        for span in said:
            owner[span] = min(owner.get(span, url), url, key=url_key)
    out = {}
    for url, text in texts.items():
        page = without(Page(text, url), lost(keys[url], [owner[span] == url for span in keys[url]], profile), profile)
        out[url] = None if isinstance(page, Drop) else page.text
    return out


def test_windows_are_three_sentences_within_a_line_and_a_short_line_is_one():
    text = f"{A} {B} {C} {D}\n{E} {A}\n! ! !"
    low = [one.lower() for one in (A, B, C, D, E)]
    expected = ["\n".join(low[0:3]), "\n".join(low[1:4]), "\n".join([low[4], low[0]]), ""]
    assert windows(text, PAPER) == expected
    assert windows("", PAPER) == []
    assert windows("a\n\nb ", HOSTED) == ["a", "", "b"]


def test_lines_whose_sentences_were_counted_before_are_not_split_again_to_the_same_end(
    monkeypatch: pytest.MonkeyPatch,
):
    """Odd white space between sentences, which becomes one space, lines of nothing, every kind of loss."""
    draw, odd = (
        random.Random(7),
        f"{A}  {B}\t{C}\n   \n{D}\u00a0{E} {A}\n\n {B} {C} {D} {E} \n? ! .\n{A} {B} {C} {D} {E}",
    )
    texts = [page.text for page in pages(150)] + [odd, "", "No end", f"{A} {B}\u2028{C}"]
    dropped = changed = 0
    for text in texts:
        keys, sizes = spans(text, PAPER)
        assert keys == windows(text, PAPER)
        for share in (0.0, 0.1, 0.5, 1.0):
            gone = {at for at in range(len(keys)) if draw.random() < share}
            counted = Counter[str](), Counter[str]()
            found = without(Page(text), gone, PAPER, counted[0], sizes)
            assert found == without(Page(text), gone, PAPER, counted[1])
            assert counted[0] == counted[1]
            dropped += isinstance(found, Drop)
            changed += isinstance(found, Page) and found.text != text
    assert dropped > 50
    assert changed > 100
    assert spans(odd, PAPER)[1] == [-3, 0, -3, 0, -4, 3, 5]
    split: list[str] = []
    monkeypatch.setattr(rules_spans, "sentences", lambda text, version: split.append(text) or sentences(text, version))
    without(Page(odd), {len(windows(odd, PAPER)) - 1}, PAPER, sizes=spans(odd, PAPER)[1])
    assert len(split[14:]) == 6


def test_a_repeated_window_goes_from_every_page_but_the_one_whose_address_has_the_smallest_md5():
    first, second = sorted(("x.example/1", "x.example/2"), key=lambda url: hashlib.md5(url.encode()).hexdigest())
    texts = {second: f"{A} {B} {C} {D}  {E} {A.upper()} {B}", first: f"{A} {B} {C}"}
    assert left(texts, PAPER) == {first: f"{A} {B} {C}", second: f"{D} {E} {A.upper()} {B}"}
    assert left(dict(reversed(texts.items())), PAPER) == left(texts, PAPER)


def test_a_window_that_stands_twice_in_one_page_goes_both_times():
    text = f"{A} {B} {C}\n{A} {B} {C}\n{C} {B} {A} {D}"
    assert left({"x": text}, PAPER) == {"x": f"{C} {B} {A} {D}"}
    assert left({"x": f"{A} {B} {C}\n{A} {B} {C}"}, PAPER) == {"x": None}


@pytest.mark.parametrize(("profile", "expected"), [(SECOND, [A, B, C, A, D]), (HOSTED, [A, B, C, D])])
def test_a_line_that_stands_twice_in_its_owner_stays_there_once_or_twice(profile: Profile, expected: list[str]):
    assert left({"x": "\n".join([A, B, C, A, D])}, profile) == {"x": "\n".join(expected)}


def test_lines_compare_without_case_and_outer_space_and_2_2_0_only_knows_ascii():
    assert windows(" ÄRGER Am Meer\u00a0", SECOND) == ["ÄrGER am meer\u00a0".replace("rGER", "rger")]
    assert windows(" ÄRGER Am Meer\u00a0", HOSTED) == ["ärger am meer"]


def test_a_page_with_nothing_gone_can_fail_the_second_count():
    text = "Here is\nwhat Mr.\nSmith said to us."
    assert without(Page(text, "x"), set(), HOSTED) == Drop("too few new sentences")
    assert without(Page(text, "x"), set(), replace(HOSTED, sentences=1)) == Page(text, "x")
    assert without(Page("", "x"), set(), HOSTED) == Drop("too few new sentences")


def test_what_goes_is_counted():
    counts = Counter()
    without(Page("\n".join([A, B, C, D]), "x"), {1}, HOSTED, counts)
    without(Page(f"{A} {B} {C} {D} {E} {A}", "x"), {0}, PAPER, counts)
    without(Page(A, "x"), {0}, HOSTED, counts)
    assert counts == {"line: said before": 2, "sentence: said before": 3, "too few new sentences": 1}
