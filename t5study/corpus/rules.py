"""The rules of C4 (section 2.2 of the paper): one rule, one function, whose docstring quotes the paper.

`clean` is what happens to a page before texts are compared with each other, `finish` what happens after; between them
stand the rules of rules_spans.py. Both return the page, or Drop with the reason, and count what every rule did.

The order is the official code's and matters: "lorem ipsum" or a curly bracket only drops a page if it stands in a line
that passed the tests before it. Most pages fail none of the rules that need a second look, so `clean` goes through a
page at once, and looks at single lines a second time only where a forbidden string stands in what is left.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from t5study.corpus.badwords import WordList, drawn_to_go, english
from t5study.corpus.language import detector, surely
from t5study.corpus.page import Drop, Page, dropped
from t5study.corpus.profiles import Profile
from t5study.corpus.rules_url import normalise_url
from t5study.corpus.sentences import count_sentences

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_END_MARKS = (".", "?", "!", '"')
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


# --- rules of a page ----------------------------------------------------------------------------------------------


def is_too_long(text: str, profile: Profile) -> bool:
    """Not in the paper: pages of more than 190,000 characters are left out."""
    return len(text) > profile.page_characters


def has_enough_sentences(lines: list[str], profile: Profile) -> bool:
    """Paper: "We discarded any page with fewer than 3 sentences."

    Counted line by line. Each line has one at least, so that nothing needs to be counted where three are left.

    The paper's first text had 5 sentences and 3 words; the code always had it the right way round.
    """
    missing = profile.sentences - len(lines)
    return missing <= 0 or sum(count_sentences(line, profile.sentences, profile.punkt) for line in lines) >= (
        profile.sentences
    )


# --- rules of a line ----------------------------------------------------------------------------------------------


def has_long_word(line: str, profile: Profile) -> bool:
    """Not in the paper: a line with a word of more than 1,000 characters goes (since 2.2.0)."""
    most = profile.word_characters
    return most is not None and len(line) > most and any(len(word) > most for word in line.split())


def without_citations(line: str) -> str:
    """Paper: "Since some of the scraped pages were sourced from Wikipedia and had citation markers (e.g. [1],
    [citation needed], etc.), we removed any such markers."

    White space before a marker stays: a line that ends in ". [3]" ends in a space then, and is lost for it.
    """
    return _CITATION.sub("", line) if "[" in line else line


def ends_in_a_mark(line: str) -> bool:
    """Paper: "We only retained lines that ended in a terminal punctuation mark (i.e. a period, exclamation mark,
    question mark, or end quotation mark)." The code means the four ASCII characters, and not three dots."""
    return line.endswith(_END_MARKS) and not line.endswith("...")


def has_enough_words(line: str, profile: Profile) -> bool:
    """Paper: "... and only retained lines that contained at least 5 words." """
    return len(line.split(None, profile.words)) >= profile.words


def is_lorem_ipsum(lowered: str) -> bool:
    """Paper: "Some pages had placeholder 'lorem ipsum' text; we removed any page where the phrase 'lorem ipsum'
    appeared." """
    return "lorem ipsum" in lowered


def mentions_javascript(lowered: str) -> bool:
    """Paper: "Many of the scraped pages contained warnings stating that Javascript should be enabled so we removed any
    line with the word Javascript." """
    return "javascript" in lowered


def has_curly_bracket(line: str) -> bool:
    """Paper: "Some pages inadvertently contained code. Since the curly bracket '{' appears in many programming
    languages (such as Javascript, widely used on the web) but not in natural text, we removed any pages that contained
    a curly bracket." """
    return "{" in line


def is_policy(lowered: str) -> bool:
    """Paper: "Many pages had boilerplate policy notices, so we removed any lines containing the strings 'terms of use',
    'privacy policy', 'cookie policy', 'uses cookies', 'use of cookies', or 'use cookies'." """
    return any(policy in lowered for policy in _POLICIES)


def has_bad_word(lowered: str, profile: Profile, words: WordList) -> bool:
    """Paper: "We removed any page that contained any word on the 'List of Dirty, Naughty, Obscene or Otherwise Bad
    Words'." """
    return words.find(lowered, profile) is not None


# --- before texts are compared ------------------------------------------------------------------------------------


def clean(
    page: Page, profile: Profile, counts: Counter[str] | None = None, words: WordList | None = None
) -> Page | Drop:
    """A page with the lines that its rules leave, joined by newlines; or why it goes.

    words: the bad words, where the profile looks for them in lines (default: C4's English list). counts: for every
    reason of a Drop and every "line: ..." how often it happened.
    """
    counts = Counter() if counts is None else counts
    if is_too_long(page.text, profile):
        return dropped("too long", counts)
    watched = (words or english()) if profile.bad_words == "lines" else None
    lines = _at_once(page.text, profile, watched, counts)
    if lines is None:
        lines = _line_by_line(page.text, profile, watched, counts)
    if isinstance(lines, Drop):
        return lines
    if not has_enough_sentences(lines, profile):
        return dropped("too few sentences", counts)
    return replace(page, text="\n".join(lines).strip())


def _line_by_line(text: str, profile: Profile, words: WordList | None, counts: Counter[str]) -> list[str] | Drop:
    """Every rule on every line, in order."""
    lines = []
    for raw in text.splitlines():
        line = raw.strip()
        if has_long_word(line, profile):
            counts["line: too long a word"] += 1
            continue
        line = without_citations(line)
        if not ends_in_a_mark(line):
            counts["line: no end mark"] += 1
            continue
        if not has_enough_words(line, profile):
            counts["line: too few words"] += 1
            continue
        lowered = line.lower()
        if is_lorem_ipsum(lowered):
            return dropped("lorem ipsum", counts)
        if mentions_javascript(lowered):
            counts["line: javascript"] += 1
            continue
        if has_curly_bracket(line):
            return dropped("curly bracket", counts)
        if is_policy(lowered):
            counts["line: policy"] += 1
            continue
        if words is not None and has_bad_word(lowered, profile, words):
            return dropped("bad word", counts)
        lines.append(line)
        counts["line: kept"] += 1
    return lines


def _at_once(text: str, profile: Profile, words: WordList | None, counts: Counter[str]) -> list[str] | Drop | None:
    """What `_line_by_line` returns, and counts; None, and nothing counted, where a list of bad words needs it."""
    lines, lost = _first_tests(text, profile, len(text))
    lowered = _lowered("\n".join(lines))
    bad: Iterator[int] | None = iter(())
    if words is not None and (bad := words.lines_with(lowered, profile)) is None:
        return None
    going = _first_to_drop(lines, lowered, bad)
    if going is not None:
        lines, lost = _first_tests(text, profile, going[0])  # what stands before it
    script = policy = 0
    if b"javascript" in lowered:
        lines, script = _split_off(mentions_javascript, lines)
    if b"cookie" in lowered or b"terms of use" in lowered or b"privacy policy" in lowered:
        lines, policy = _split_off(is_policy, lines)
    for times, name in zip((len(lines), script, policy, *lost), _COUNTED, strict=True):
        if times:
            counts[name] += times
    return lines if going is None else dropped(going[1], counts)


_COUNTED = (
    "line: kept", "line: javascript", "line: policy", "line: too long a word", "line: no end mark",
    "line: too few words",
)  # fmt: skip


def _first_tests(text: str, profile: Profile, upto: int) -> tuple[list[str], tuple[int, int, int]]:
    """The lines that have no endless word, an end mark and enough words, the first `upto` of them; and how many lines
    before the next one fail which of the three.

    The rules of single lines stand here a second time, in place: calling them costs more than they do.
    """
    most, least = profile.word_characters or len(text), profile.words
    cited = "[" in text
    lines: list[str] = []
    long = unended = short = 0
    for raw in text.splitlines():
        line = raw.strip()
        if len(line) > most and has_long_word(line, profile):
            long += 1
            continue
        if cited and "[" in line:
            line = _CITATION.sub("", line)
        if line[-1:] not in _MARKS or line[-3:] == "...":
            unended += 1
        elif len(line.split(None, least)) < least:
            short += 1
        elif len(lines) < upto:
            lines.append(line)
        else:
            break
    return lines, (long, unended, short)


def _first_to_drop(lines: list[str], lowered: bytes, bad: Iterator[int]) -> tuple[int, str] | None:
    """The number of the first line that drops its page, and why. bad: the lines with bad words, in their order."""
    word = next(bad, -1)
    placeholder = b"lorem ipsum" in lowered
    if word < 0 and not placeholder and b"{" not in lowered:
        return None
    for number, line in enumerate(lines):
        if number != word and not placeholder and "{" not in line:
            continue
        small = line.lower()
        if is_lorem_ipsum(small):
            return number, "lorem ipsum"
        if not mentions_javascript(small):
            if has_curly_bracket(line):
                return number, "curly bracket"
            if number == word and not is_policy(small):
                return number, "bad word"
        if number == word:
            word = next(bad, -1)
    return None


def _lowered(text: str) -> bytes:
    """Lower-cased as far as ASCII's letters are concerned: no others become one of them but the Kelvin sign and,
    with a dot behind it, the Turkish capital I."""
    return text.replace("\u212a", "k").replace("\u0130", "i\u0307").encode("utf-8", "surrogatepass").lower()


def _split_off(rule: Callable[[str], bool], lines: list[str]) -> tuple[list[str], int]:
    kept = [line for line in lines if not rule(line.lower())]
    return kept, len(lines) - len(kept)


_MARKS = frozenset(_END_MARKS)


# --- after texts are compared -------------------------------------------------------------------------------------


def finish(
    page: Page, profile: Profile, counts: Counter[str] | None = None, words: WordList | None = None
) -> Page | Drop:
    """The rules that come last: the language of what is left, then bad words where the profile looks for them there.

    The page that is returned says its language. words: default C4's English list.
    """
    counts = Counter() if counts is None else counts
    found = in_language(page, profile, counts)
    return found if isinstance(found, Drop) else without_bad_words(found, profile, counts, words)


def in_language(page: Page, profile: Profile, counts: Counter[str]) -> Page | Drop:
    """The first half of `finish`: a page that surely is in the profile's language, which it says from now on."""
    if profile.language is None:
        return page
    language, measure = detector(profile.detector)(page.text)
    sure = surely(profile.detector, measure, profile.probability)
    if language != profile.language or not sure:
        return dropped(f"language: {language if sure else 'unsure'}", counts)
    return replace(page, language=language)


def without_bad_words(page: Page, profile: Profile, counts: Counter[str], words: WordList | None = None) -> Page | Drop:
    """The second half: a page whose language has no list, or without a word of it, or let pass by lot."""
    if profile.bad_words == "text":
        words = words or english()
        if page.language.split("-")[0] == words.language and has_bad_word(page.text.lower(), profile, words):
            if drawn_to_go(normalise_url(page.url), profile.bad_word_fraction):
                return dropped("bad word", counts)
            counts["bad word, kept by lot"] += 1
    counts["kept"] += 1
    return page
