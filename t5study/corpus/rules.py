"""The rules of C4 (section 2.2 of the paper): one rule, one function, whose docstring quotes the paper.

`clean` is what happens to a page before texts are compared with each other, `finish` what happens after; between them
stand the rules of rules_spans.py. Both return the page, or Drop with the reason, and count what every rule did.

The order is the official code's and matters: "lorem ipsum" or a curly bracket only drops a page if it stands in a line
that passed the tests before it. Most pages fail none of the rules that need a second look, so `clean` first goes
through a page at once and only falls back to judging line by line where a forbidden string stands in what is left.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
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


def _at_once(text: str, profile: Profile, words: WordList | None, counts: Counter[str]) -> list[str] | None:
    """What `_line_by_line` returns, if no line that got so far can drop the page; else None, and nothing is counted.

    The rules of single lines stand here a second time, in place: calling them costs more than they do.
    """
    most, least = profile.word_characters or len(text), profile.words
    cited = "[" in text
    lines = []
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
        else:
            lines.append(line)
    left = "\n".join(lines)
    lowered = _lowered(left)
    if "{" in left or b"lorem ipsum" in lowered:
        return None
    if words is not None and has_bad_word(left.lower(), profile, words):  # a newline is a border: this finds no fewer
        return None
    script = policy = 0
    if b"javascript" in lowered:
        lines, script = _split_off(mentions_javascript, lines)
    if b"cookie" in lowered or b"terms of use" in lowered or b"privacy policy" in lowered:
        lines, policy = _split_off(is_policy, lines)
    for times, name in (
        (len(lines), "line: kept"), (unended, "line: no end mark"), (short, "line: too few words"),
        (long, "line: too long a word"), (script, "line: javascript"), (policy, "line: policy"),
    ):  # fmt: skip
        if times:
            counts[name] += times
    return lines


def _lowered(text: str) -> bytes:
    """Lower-cased as far as ASCII strings are concerned: no other letter but the Kelvin sign becomes one of ASCII's."""
    return text.replace("\u212a", "k").encode("utf-8", "surrogatepass").lower()


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
    language = page.language
    if profile.language is not None:
        language, measure = detector(profile.detector)(page.text)
        sure = surely(profile.detector, measure, profile.probability)
        if language != profile.language or not sure:
            return dropped(f"language: {language if sure else 'unsure'}", counts)
    if profile.bad_words == "text":
        words = words or english()
        if language.split("-")[0] == words.language and has_bad_word(page.text.lower(), profile, words):
            if drawn_to_go(normalise_url(page.url), profile.bad_word_fraction):
                return dropped("bad word", counts)
            counts["bad word, kept by lot"] += 1
    counts["kept"] += 1
    return replace(page, language=language)
