"""Bad words: the list that C4 drops pages by, found in one pass (Aho-Corasick), with the borders of each profile.

The English list is inside, unchanged, at the version that C4 pins (bad_words_en.txt; its licence beside it). Lists of
other languages, or one's own, are brought as a file: an entry a line.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import ahocorasick

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

    @cached_property
    def _plain(self) -> ahocorasick.Automaton:
        automaton = ahocorasick.Automaton()
        for entry in self.entries:
            automaton.add_word(entry, (len(entry), entry))
        automaton.make_automaton()
        return automaton

    def find(self, lowered: str, profile: Profile) -> str | None:
        """An entry that stands in a lower-cased text by the profile's borders, or None."""
        anywhere = profile.bad_words == "text" and self.language in profile.bad_words_anywhere
        left_out = _LEFT_OUT.get(self.language, ()) if profile.bad_words_literal else ()
        stands = _between_other_than_a_to_z if profile.bad_word_borders == "a-z" else _between_no_word_characters
        for last, (length, entry) in self._plain.iter(lowered):
            plain = profile.bad_words_literal or not _PATTERN.intersection(entry)
            if plain and entry not in left_out and (anywhere or stands(lowered, last - length + 1, last + 1)):
                return entry
        if not profile.bad_words_literal and (patterns := self._patterns(profile, anywhere)):
            return found[0] if (found := patterns.search(lowered)) else None
        return None

    @lru_cache(maxsize=8)  # noqa: B019  a word list lives as long as the process
    def _patterns(self, profile: Profile, anywhere: bool) -> re.Pattern[str] | None:
        """Entries that are more than plain strings to a regular expression, for profiles that do not escape."""
        entries = "|".join(entry for entry in self.entries if _PATTERN.intersection(entry))
        if not entries or anywhere:
            return re.compile(entries) if entries else None
        borders = ("[^a-z]", "[^a-z]") if profile.bad_word_borders == "a-z" else (r"(?:\W|^)", r"(?:\W|$)")
        return re.compile(f"{borders[0]}({entries}){borders[1]}")


def _between_other_than_a_to_z(text: str, start: int, end: int) -> bool:
    """A digit and é are borders; the beginning and the end of a line are none, so that a first word is missed."""
    return start > 0 and end < len(text) and not ("a" <= text[start - 1] <= "z" or "a" <= text[end] <= "z")


def _between_no_word_characters(text: str, start: int, end: int) -> bool:
    return not (start and _of_a_word(text[start - 1])) and not (end < len(text) and _of_a_word(text[end]))


def _of_a_word(character: str) -> bool:
    return character.isalnum() or character == "_"


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
