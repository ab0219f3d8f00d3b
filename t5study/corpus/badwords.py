"""Bad words: the list that C4 drops pages by, found in one pass (Aho-Corasick), with the borders of each profile.

The English list is inside, unchanged, at the version that C4 pins (bad_words_en.txt; its licence beside it). Lists of
other languages, or one's own, are brought as a file: an entry a line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from t5study.corpus.badwords_loops import (
    ANYWHERE,
    NO_WORD_CHARACTER,
    OTHER_THAN_A_TO_Z,
    WITHIN_A_LINE,
    Automaton,
    build,
)
from t5study.corpus.profiles import Profile
from t5study.corpus.rules_url import url_number
from t5study.ground.errors import UserError

ENGLISH_SHA256 = "a506cbcf8a31935b122299f3bb1d32be6db3d0ad498765d28f365dfc4f4d7b8c"
_PATTERN = frozenset(".^$*+?{}[]\\|()")  # an entry with one of these is no plain string to a regular expression
# Entries that 3.1.0 leaves out, since they would drop more than a tenth of a language's pages
_LEFT_OUT = {"ja": {"sm", "グロ", "女の子"}, "zh": {"性"}}


@dataclass(frozen=True, eq=False)
class WordList:
    """Entries of one language, as the file has them. sha256: of that file."""

    language: str
    entries: tuple[str, ...]
    sha256: str

    def find(self, lowered: str, profile: Profile) -> str | None:
        """An entry that stands in a lower-cased text by the profile's borders, or None."""
        anywhere = profile.bad_words == "text" and self.language in profile.bad_words_anywhere
        borders = NO_WORD_CHARACTER if profile.bad_word_borders == "words" else OTHER_THAN_A_TO_Z
        automaton, plain, patterns = _compiled(self, profile.bad_words_literal)
        if (found := automaton.first(lowered, ANYWHERE if anywhere else borders)) >= 0:
            return plain[found]
        if patterns:
            around = _BORDERS[ANYWHERE if anywhere else borders]
            match = re.search(f"{around[0]}({patterns}){around[1]}", lowered)
            return match[1] if match else None
        return None

    def lines_with(self, lowered: bytes, profile: Profile) -> Iterator[int] | None:
        """Numbers of the lines in which `find` finds an entry, in their order, looked for as they are asked for.
        lowered: lines in UTF-8, whose ASCII letters are small. None where bytes do not tell: entries that are
        expressions or have other letters, borders that are."""
        automaton = _compiled_for_bytes(self, profile.bad_words_literal) if profile.bad_word_borders == "a-z" else None
        return None if automaton is None else _lines_with(automaton, lowered)


def _lines_with(automaton: Automaton, lowered: bytes) -> Iterator[int]:
    byte_N, line, start = np.frombuffer(lowered, np.uint8), 0, 0
    while (at := automaton.first_of(byte_N[start:], WITHIN_A_LINE)[1]) >= 0:
        line += lowered.count(b"\n", start, start + at)
        yield line
        end = lowered.find(b"\n", start + at)
        if end < 0:
            return
        line, start = line + 1, end + 1


_BORDERS = {ANYWHERE: ("", ""), OTHER_THAN_A_TO_Z: ("[^a-z]", "[^a-z]"), NO_WORD_CHARACTER: (r"(?:\W|^)", r"(?:\W|$)")}


@lru_cache(maxsize=64)
def _compiled(words: WordList, literal: bool) -> tuple[Automaton, list[str], str]:
    """The automaton of the plain strings among a list's entries, those, and the others as one regular expression."""
    left_out = _LEFT_OUT.get(words.language, ()) if literal else ()
    entries = [entry for entry in words.entries if entry not in left_out]
    plain = [entry for entry in entries if literal or not _PATTERN.intersection(entry)]
    return build(plain), plain, "|".join(entry for entry in entries if entry not in plain)


@lru_cache(maxsize=64)
def _compiled_for_bytes(words: WordList, literal: bool) -> Automaton | None:
    """The automaton of a list's entries in UTF-8, if all of them are plain and none has a letter of two cases beyond
    ASCII's."""
    _, plain, patterns = _compiled(words, literal)
    if patterns or any(not one.isascii() and one.lower() != one.upper() for entry in plain for one in entry):
        return None
    return build([entry.encode().decode("latin-1") for entry in plain])


@lru_cache(maxsize=1)
def english() -> WordList:
    """The list inside the package."""
    return read_words(Path(__file__).with_name("bad_words_en.txt"), "en", ENGLISH_SHA256)


def read_words(path: Path, language: str, sha256: str | None = None) -> WordList:
    """A list from a file, an entry a line in UTF-8. UserError if it is not there, empty, or not what `sha256` says."""
    try:
        raw = Path(path).read_bytes()
        entries = tuple(dict.fromkeys(entry for line in raw.decode().splitlines() if (entry := line.strip())))
    except OSError as error:
        raise UserError(f"bad words: {path}: {error.strerror}; give a file with an entry a line") from None
    except UnicodeDecodeError:
        raise UserError(f"bad words: {path}: is not UTF-8; give a file with an entry a line") from None
    found = hashlib.sha256(raw).hexdigest()
    if sha256 is not None and found != sha256:
        raise UserError(f"bad words: {path}: found sha256 {found}, not {sha256}; get the list of that version again")
    if not entries:
        raise UserError(f"bad words: {path}: found no entry; give a file with an entry a line")
    return WordList(language, entries, found)


def bad_words(text: str, profile: Profile, language: str = "en", words: WordList | None = None) -> str | None:
    """An entry of the language's list that stands in a text, or None: also where no list of that language is given."""
    words = words or english()
    return words.find(text.lower(), profile) if language.split("-")[0] == words.language else None


def drawn_to_go(url: str, fraction: float) -> bool:
    """Whether a page with a bad word goes when only a fraction of them do: by the md5 of its normalised address."""
    numerator, denominator = fraction.as_integer_ratio()
    return url_number(url) % denominator < numerator
