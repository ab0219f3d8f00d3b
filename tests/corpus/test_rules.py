"""C4's rules one by one, and all together against what the official functions decided (golden/c4_decisions.txt)."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import SHARED
from web_pages import pages

from t5study.corpus import rules
from t5study.corpus.badwords import WordList, english, read_words
from t5study.corpus.page import Drop, Page
from t5study.corpus.profiles import PROFILES, Profile, find_profile
from t5study.corpus.rules import clean, finish
from t5study.corpus.rules_spans import lost, windows, without
from t5study.corpus.rules_url import is_validation, normalise_url, url_key, url_number
from t5study.ground.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "c4_decisions.txt"
GOOD = "This line has more than five words."
THREE = "\n".join([GOOD, "So has this one, as anybody sees.", "The third is here for company!"])
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


def cleaned(text: str, profile: Profile = PROFILES["3.0.1"]) -> str | None:
    page = clean(Page(text, "example.com"), profile)
    return None if isinstance(page, Drop) else page.text


def dropped(text: str, profile: Profile = PROFILES["3.0.1"]) -> str | None:
    page = clean(Page(text, "example.com"), profile)
    return page.reason if isinstance(page, Drop) else None


@every_profile
def test_a_page_of_good_lines_is_kept_and_others_lose_what_is_no_sentence(profile: Profile):
    counts = Counter()
    menu = f"Home\n\n{THREE}\nRead more...\nThree words only.\nCopyright of this page is ours\n"
    page = clean(Page(menu, "example.com/a"), profile, counts)
    assert page == Page(THREE, "example.com/a")
    assert counts == {"line: kept": 3, "line: no end mark": 4, "line: too few words": 1}


@pytest.mark.parametrize("end", [".", "?", "!", '"', ")", "…", "...", "”", "’", ";", "。", "", ". ", ".\u00a0"])
def test_only_four_marks_end_a_line(end: str):
    kept = end.strip() in (".", "?", "!", '"')
    assert cleaned(f"{THREE}\nHere are five more words{end}") == (
        f"{THREE}\nHere are five more words{end.strip()}" if kept else THREE
    )


def test_citation_marks_go_and_the_space_before_the_last_takes_its_line_along():
    assert (
        cleaned(f"{THREE}\nThis[1] was[] said[edit] long ago[citation needed].[23]")
        == f"{THREE}\nThis was said long ago."
    )
    assert cleaned(f"{THREE}\nThis was said a long time ago. [3]") == THREE
    assert cleaned(f"{THREE}\nThis [sic] was said long ago.") == f"{THREE}\nThis [sic] was said long ago."


def test_what_drops_a_page_only_does_so_in_a_line_that_got_that_far():
    assert dropped(f"{THREE}\nHere is lorem Ipsum among five.") == "lorem ipsum"
    assert dropped(f"{THREE}\nlorem ipsum") is None
    assert dropped(f"{THREE}\nfunction of x and y {{ return it. }} And so on.") == "curly bracket"
    assert dropped(f"{THREE}\nfunction of x and y {{ return it }}") is None
    assert dropped(f"{THREE}\nA closing one }} does not count here.") is None
    assert cleaned(f"{THREE}\nThis javascript {{ goes as a line only.") == THREE
    assert dropped(f"{THREE}\nThis policy {{ line tells what uses cookies here.") == "curly bracket"


@pytest.mark.parametrize("line", [
    "Please enable JavaScript in your browser now.", "By going on you accept our Terms of Use.",
    "Our PRIVACY POLICY is on another page.", "Have a look at the cookie policy.", "This very site uses cookies, too.",
    "We tell about the use of cookies.", "We always use cookies for all this.", "We use coo\u212aies for all of it.",
])  # fmt: skip
def test_notices_go_as_lines(line: str):
    assert cleaned(f"{THREE}\n{line}") == THREE


def test_a_line_with_an_endless_word_goes_since_2_2_0():
    for length, kept in ((999, True), (1000, False)):
        line = f"Four words and then {'x' * length}."  # the mark belongs to the word
        assert (cleaned(f"{THREE}\n{line}") == f"{THREE}\n{line}") is kept
    assert cleaned(f"{THREE}\nFour words and then {'x' * 1001}.", PROFILES["2.2.0"]) == THREE
    assert cleaned(f"{THREE}\nFour words and then {'x' * 1001}.", PROFILES["paper"]) != THREE


def test_three_sentences_are_asked_for_wherever_they_stand():
    assert dropped(f"{GOOD}\n{GOOD}") == "too few sentences"
    assert dropped(f"{GOOD} It says a second thing. It says a third thing.") is None
    assert dropped("") == dropped("\n \n") == "too few sentences"
    assert dropped("x" * 190_001) == "too long"
    assert dropped("x" * 190_000) == "too few sentences"


def test_lines_are_split_as_python_splits_them():
    assert cleaned("\x0b".join(THREE.split("\n"))) == cleaned("\u2028".join(THREE.split("\n"))) == THREE


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([GOOD, *(part for page in pages(60, seed=5) for part in page.text.splitlines())]), max_size=12
    )
)
def test_a_page_at_once_is_the_page_line_by_line(lines: list[str]):
    text = "\n".join(lines)
    for profile in PROFILES.values():
        words = english() if profile.bad_words == "lines" else None
        quick, slow = Counter(), Counter()
        at_once = rules._at_once(text, profile, words, quick)
        one_by_one = rules._line_by_line(text, profile, words, slow)
        assert (at_once, quick) == (one_by_one, slow)


_SPOILED = [
    "A curly { bracket stands in this line.",
    "Lorem ipsum stands in this whole line.",
    "Turn on JavaScript { to read this page.",
    "Turn on javascript or a snark comes here.",
    "We use cookies and a snark too, sir.",
    "We see the snark come to us, sir.",
    "snark is the first word of this line.",
    "The last of its words is a snark\u0130.",
    "The last of its words is a snar\u212a now.",
    "This one is about hennai\u0130 and others.",
    "A boojum hunt is what we went to.",
    "A boojum",
    "hunt is no hunt of that kind, sir.",
    "Words beside it: \u00e9snark\u00e9 and so on.",
    "Other letters: \u00c4RGER and \u00e4rger here, sir.",
    "too short.",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from([GOOD, *_SPOILED]), max_size=7), st.sampled_from(["", "\u00e4rger", "h.nnai"]))
def test_a_page_at_once_drops_at_the_line_that_drops_it(lines: list[str], entry: str):
    """entry: one that bytes do not find, so that lines are judged one by one."""
    words = WordList("en", ("snark", "boojum hunt", "hennai", *([entry] if entry else [])), "")
    for name in ("paper", "2.2.0"):
        quick, slow = Counter(), Counter()
        at_once = rules._at_once("\n".join(lines), PROFILES[name], words, quick)
        assert (at_once is None) == bool(entry)
        if not entry:
            assert (at_once, quick) == (rules._line_by_line("\n".join(lines), PROFILES[name], words, slow), slow)


@every_profile
def test_bad_words_drop_a_page_where_the_profile_looks_for_them(profile: Profile, tmp_path: Path):
    (tmp_path / "list").write_text("snark\nboojum hunt\n")
    words = read_words(tmp_path / "list", "en")
    old = profile.bad_words == "lines"

    def goes(line: str) -> bool:
        page = clean(Page(f"{THREE}\n{line}", "x"), replace(profile, language=None), words=words)
        if isinstance(page, Drop):
            return page.reason == "bad word"
        after = finish(replace(page, language="en"), replace(profile, language=None), words=words)
        return isinstance(after, Drop) and after.reason == "bad word"

    assert goes("They went to find the Snark out there.")
    assert goes("They went on a boojum hunt out there.")
    assert goes("They said the (snark) was out there.")
    assert not goes("They said the snarks were out there.")
    assert (
        goes("Snark was what they looked for there.") is not old
    )  # the first word of a line: missed by the old pattern
    assert goes("They found the snark2 over there, too.") is old  # digits are borders for it
    assert goes("They found the ésnark over there, too.") is old
    assert goes("They found the _snark_ over there, too.") is old


def test_a_fraction_of_the_pages_with_bad_words_goes_by_the_md5_of_the_address(tmp_path: Path):
    (tmp_path / "list").write_text("snark\n")
    words = read_words(tmp_path / "list", "en")
    half = replace(PROFILES["3.1.0"], language=None, bad_word_fraction=0.5)
    for url in (f"https://example.com/{i}" for i in range(20)):
        page = Page("The snark was a boojum, you see.", url, language="en")
        goes = url_number(normalise_url(url)) % 2 < 1
        assert isinstance(finish(page, half, words=words), Drop) is goes
        assert isinstance(finish(page, replace(half, bad_word_fraction=1.0), words=words), Drop)
        assert not isinstance(finish(page, replace(half, bad_words=None), words=words), Drop)
        assert not isinstance(finish(replace(page, language="de"), half, words=words), Drop)


def test_another_language_or_none_is_named_in_the_reason():
    counts = Counter()
    german = Page("Das ist die Seite, die wir heute und morgen nicht auf Englisch lesen können.", "x")
    assert finish(german, PROFILES["paper"], counts) == Drop("language: de")
    assert finish(Page("1234", "x"), PROFILES["paper"], counts) == Drop("language: unsure")
    assert counts == {"language: de": 1, "language: unsure": 1}
    page = finish(Page(THREE, "x"), PROFILES["3.1.0"])
    assert page == Page(THREE, "x", language="en")


def test_urls():
    assert normalise_url("http://www.example.com//?utm_source=a&b=c") == "example.com"
    assert normalise_url("https://example.com/?q=http://www.other.com/") == "example.com/?q=other.com"
    assert normalise_url("https://example.com/?reference=1") == "example.com"
    assert normalise_url("ftp://www.example.com/?x=1/") == "ftp://www.example.com/?x=1"
    held = [f"example.com/{i}" for i in range(5000) if is_validation(f"example.com/{i}")]
    assert held == [
        f"example.com/{i}"
        for i in range(5000)
        if int(hashlib.md5(f"example.com/{i}".encode()).hexdigest(), 16) % 1000 == 0
    ]
    assert held


def test_an_unknown_profile_is_told_in_one_line():
    with pytest.raises(UserError, match=r"profile: found '4.0'; give one of paper, 2.2.0, 3.0.1, 3.1.0"):
        find_profile("4.0")


def decisions(made: list[Page], profile: Profile) -> list[str]:
    """For each page: what is left after its rules, after others were compared with it, and whether it is kept."""
    first: dict[str, Page] = {}
    marks = []
    for page in made:
        page = replace(page, url=normalise_url(page.url, profile))
        got = clean(page, profile)
        marks.append("-" if isinstance(got, Drop) else _mark(got.text))
        if not isinstance(got, Drop):
            first.setdefault(page.url, got)
    owners: dict[str, bytes] = {}
    for url, page in first.items():
        for key in windows(page.text, profile):
            owners[key] = min(owners.get(key, b"\xff" * 17), url_key(url))
    rows = []
    for page, mark in zip(made, marks, strict=True):
        url = normalise_url(page.url, profile)
        taken = first.pop(url, None) if mark != "-" else None
        if taken is None:
            rows.append(mark)
            continue
        keys = windows(taken.text, profile)
        left = without(taken, lost(keys, [owners[key] == url_key(url) for key in keys], profile), profile)
        after = "-" if isinstance(left, Drop) else _mark(left.text)
        kept = "" if isinstance(left, Drop) or isinstance(finish(left, profile), Drop) else "+"
        rows.append(f"{mark}/{after}{kept}")
    return rows


def _mark(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()[:8]


def one_of_each_url(made: list[Page]) -> list[Page]:
    seen: set[str] = set()
    return [page for page in made if not ((url := normalise_url(page.url)) in seen or seen.add(url))]


@every_profile
def test_pages_fare_as_the_official_functions_decided(profile: Profile):
    rows = [line.split("\t") for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    expected = [row[list(PROFILES).index(profile.name)] for row in rows]
    found = decisions(one_of_each_url(pages(250)), profile)
    assert len(found) == len(expected) > 200
    different = [(at, a, b) for at, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    assert not different, f"{len(different)} pages, the first: page {different[0][0]} of pages(250)"


@pytest.mark.skipif(SHARED is None, reason="needs shared/data")
def test_pages_that_the_hosted_c4_kept_are_kept_unchanged():
    import gzip
    import json

    assert SHARED is not None
    profile = PROFILES["3.0.1"]
    with gzip.open(SHARED / "text" / "c4_sample" / "c4_en_000-499.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        page = clean(Page(row["text"], row["url"]), profile)
        assert not isinstance(page, Drop)
        page = without(page, set(), profile)
        assert not isinstance(page, Drop)
        page = finish(page, profile)
        assert not isinstance(page, Drop)
        assert page.text == row["text"]


def test_no_other_letter_than_the_kelvin_sign_becomes_an_ascii_one_in_lower_case():
    found = {chr(code) for code in range(0x80, 0x20000) if any(one < "\x80" for one in chr(code).lower())}
    assert found == {"\u212a", "\u0130"}
    assert "\u0130".lower() == "i\u0307"
    assert rules._lowered("\u212a\u0130\u00c9A") == "ki\u0307\u00c9a".encode()
