"""What langdetect knows, read from its installed package: rates of n-grams in 55 languages, and which characters it
takes for one another. Its files are data (profiles/*, utils/messages.properties); none of its code is loaded.

    W  n-grams of one to three characters    L  languages    C  code points below 65,536    H  slots of a hash table
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from t5study.ground.errors import UserError

SPACE = ord(" ")
BITS = 21  # of a code point: three of them are an n-gram's key
_PLANES = 0x20000  # no character above has a capital


@dataclass(frozen=True, eq=False)
class Tables:
    """languages: sorted by name, (L,). rates_WL: how often an n-gram stands among a language's of its length, float64.

    ngrams: text -> row of rates_WL. plain_C: what a character counts as (a digit is a space, all Hangul are one).
    capital_P: whether it is a capital, for the first two planes. marks: letter + combining mark -> Vietnamese letter;
    marked finds them, after are the marks.
    """

    languages: tuple[str, ...]
    rates_WL: np.ndarray
    ngrams: dict[str, int]
    plain_C: np.ndarray
    capital_P: np.ndarray
    marks: dict[str, str]
    marked: re.Pattern[str]
    after: str


@lru_cache(maxsize=1)
def tables() -> Tables:
    """Read once a process, in about a second. UserError if langdetect is not installed or is not what it was."""
    spec = find_spec("langdetect")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("language: langdetect is not installed, whose profiles are needed; pip install langdetect")
    folder = Path(spec.submodule_search_locations[0])
    try:
        names = sorted(path.name for path in (folder / "profiles").iterdir() if not path.name.startswith("."))
        profiles = [json.loads((folder / "profiles" / name).read_text("utf-8")) for name in names]
        messages = _messages(folder / "utils" / "messages.properties")
        languages, rates_WL, ngrams = _rates(profiles)
        marks = _marks(messages)
        letters, after = ("".join(sorted({pair[i] for pair in marks})) for i in (0, 1))
        marked = re.compile(f"[{re.escape(letters)}][{re.escape(after)}]")
        return Tables(languages, rates_WL, ngrams, _plain(messages), _capitals(), marks, marked, after)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"language: {folder}: found no readable profiles ({error!r}); install langdetect 1.0.9"
        ) from None


def _messages(path: Path) -> dict[str, str]:
    lines = path.read_text("ascii").splitlines()
    pairs = (line.strip().partition("=") for line in lines)
    return {key: value.encode().decode("unicode_escape") for key, _, value in pairs}


def _rates(profiles: list[dict]) -> tuple[tuple[str, ...], np.ndarray, dict[str, int]]:
    ngrams: dict[str, int] = {}
    for profile in profiles:
        for ngram in profile["freq"]:
            if 1 <= len(ngram) <= 3:
                ngrams.setdefault(ngram, len(ngrams))
    rates_WL = np.zeros((len(ngrams), len(profiles)))
    for column, profile in enumerate(profiles):
        known = [(ngrams[one], times / profile["n_words"][len(one) - 1]) for one, times in profile["freq"].items()
                 if 1 <= len(one) <= 3]  # fmt: skip
        rows, rates = zip(*known, strict=True)
        rates_WL[list(rows), column] = rates
    return tuple(profile["name"] for profile in profiles), rates_WL, ngrams


def _plain(messages: dict[str, str]) -> np.ndarray:
    """What each character counts as. Blocks of Unicode that are not named here stay as they are."""
    plain_C = np.arange(1 << 16, dtype=np.uint32)

    def block(first: int, last: int, to: str) -> None:
        plain_C[first : last + 1] = ord(to)

    letters = [*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)]
    block(0x00, 0x7F, " ")
    plain_C[letters] = letters
    for one in messages["NGram.LATIN1_EXCLUDE"]:
        if 0x80 <= ord(one) <= 0xFF:
            plain_C[ord(one)] = SPACE
    plain_C[ord("ș")], plain_C[ord("ț")] = ord("ş"), ord("ţ")  # Romanian: comma below -> cedilla
    block(0x2000, 0x206F, " ")  # general punctuation
    plain_C[0x06CC] = 0x064A  # Farsi yeh -> Arabic yeh
    block(0x1EA0, 0x1EFF, "\u1ec3")  # Vietnamese
    block(0x3040, 0x309F, "\u3042")  # Hiragana
    block(0x30A0, 0x30FF, "\u30a2")  # Katakana
    block(0x3100, 0x312F, "\u3105")  # Bopomofo
    block(0x31A0, 0x31BF, "\u3105")
    block(0xAC00, 0xD7AF, "\uac00")  # Hangul
    for key, alike in messages.items():
        if key.startswith("NGram.KANJI_"):
            plain_C[[ord(one) for one in alike if 0x4E00 <= ord(one) <= 0x9FFF]] = ord(alike[0])
    return plain_C


def _capitals() -> np.ndarray:
    return np.array([chr(code).isupper() for code in range(_PLANES)], np.bool_)


def _marks(messages: dict[str, str]) -> dict[str, str]:
    letters, marks = messages["TO_NORMALIZE_VI_CHARS"], messages["DMARK_CLASS"]
    rows = [messages[f"NORMALIZED_VI_CHARS_{ord(mark):04X}"] for mark in marks]
    return {
        a + mark: whole for mark, row in zip(marks, rows, strict=True) for a, whole in zip(letters, row, strict=True)
    }


def key_of(ngram: str) -> int:
    """An n-gram as one number."""
    key = 0
    for one in ngram:
        key = key << BITS | ord(one)
    return key
