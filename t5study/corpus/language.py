"""Which language is a text in? langdetect's answer, to the last of nine digits, some hundred times faster.

C4's threshold (English with 0.99) only means something with this very detector: others are sure of different texts, by
different amounts. They are there by name, for texts of one's own, and never stand in for it silently.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module

import numpy as np

from t5study.corpus import language_loops, language_plain
from t5study.corpus.language_tables import Tables, key_of, tables
from t5study.ground.errors import UserError

UNKNOWN = "unknown"
_CHARACTERS = 10_000  # no more of a text is read
_LEAST = 0.1  # a language with less is not named
_LINK = re.compile("https?://[-_.?&~;+=/#0-9A-Za-z]{1,2076}")
_HOST = re.compile("[-_0-9A-Za-z]{1,255}[-_.0-9A-Za-z]{1,255}")
_COMPILED = hasattr(language_loops.probabilities, "py_func")  # numba may be told not to compile anything
_BEFORE_AT = frozenset("-_.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def identify(text: str) -> tuple[str, float]:
    """The most probable language ("en", "de", "zh-cn", ...; langdetect's 55) and its probability, as langdetect with
    seed 0 gives them; ("unknown", 0.0) for a text without a known letter or where nothing is likely."""
    known = tables()
    text = _prepared(text, known)
    mean_L = _loops().probabilities(text) if _COMPILED else language_plain.probabilities(text, known)
    return _best(mean_L, known)


def identify_plain(text: str) -> tuple[str, float]:
    """`identify` without compiled loops, with the same answer: what it does itself where NUMBA_DISABLE_JIT is set."""
    return _best(language_plain.probabilities(_prepared(text, tables()), tables()), tables())


def _best(mean_L: np.ndarray | None, known: Tables) -> tuple[str, float]:
    if mean_L is None:
        return UNKNOWN, 0.0
    best = int(np.argmax(mean_L))
    probability = float(mean_L[best])
    return (known.languages[best], probability) if probability > _LEAST else (UNKNOWN, 0.0)


def is_english(text: str, threshold: float = 0.99) -> bool:
    """Paper: "We used langdetect to filter out any pages that were not classified as English with a probability of at
    least 0.99." """
    language, probability = identify(text)
    return language == "en" and probability >= threshold


@dataclass(frozen=True, eq=False)
class _Loops:
    """Tables in the form that the compiled loops read."""

    known: Tables
    keys_H: np.ndarray
    rows_H: np.ndarray
    shift: np.uint64
    stream: list[np.ndarray] = field(default_factory=lambda: [_stream(1 << 16)])

    def probabilities(self, text: str) -> np.ndarray | None:
        code_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        row_G, mean_L = np.empty(3 * len(code_N), np.int32), np.empty(len(self.known.languages))
        while True:
            found = language_loops.probabilities(
                code_N, self.known.plain_C, self.known.capital_P, self.keys_H, self.rows_H, self.shift,
                self.known.rates_WL, self.stream[0], row_G, mean_L,
            )  # fmt: skip
            if found != language_loops.STREAM_ENDS:
                return mean_L if found > 0 else None
            self.stream[0] = _stream(2 * len(self.stream[0]))


def _stream(numbers: int) -> np.ndarray:
    """What the Mersenne Twister that is seeded with 0 puts out."""
    chances = random.Random(0)
    return np.array([chances.getrandbits(32) for _ in range(numbers)], np.uint32)


@lru_cache(maxsize=1)
def _loops() -> _Loops:
    known = tables()
    bits = (2 * len(known.ngrams)).bit_length()
    keys_W = np.array([key_of(ngram) for ngram in known.ngrams], np.uint64)
    keys_H, rows_H, shift = np.zeros(1 << bits, np.uint64), np.zeros(1 << bits, np.int32), np.uint64(64 - bits)
    language_loops.fill_slots(keys_W, keys_H, rows_H, shift)
    return _Loops(known, keys_H, rows_H, shift)


def _prepared(text: str, known: Tables) -> str:
    """The characters that are read: no links, no addresses of mail, Vietnamese letters whole."""
    if "://" in text:
        text = _LINK.sub(" ", text)
    if "@" in text:
        text = _without_mail(text)
    if not text.isascii() and any(map(text.__contains__, known.after)):
        text = known.marked.sub(lambda pair: known.marks[pair[0]], text)
    return text[:_CHARACTERS]


def _without_mail(text: str) -> str:
    """[-_.0-9A-Za-z]{1,64}@ and a host -> a space, found from the @ outwards: trying every letter is quadratic."""
    parts, done, at = [], 0, text.find("@")
    while at >= 0:
        start, least = at, max(done, at - 64)
        while start > least and text[start - 1] in _BEFORE_AT:
            start -= 1
        host = _HOST.match(text, at + 1) if start < at else None
        if host:
            parts += [text[done:start], " "]
            done = host.end()
        at = text.find("@", max(done, at + 1))
    return "".join([*parts, text[done:]])


# --- other detectors ----------------------------------------------------------------------------------------------

OTHERS = {"cld2": "pycld2", "resiliparse": "resiliparse"}  # name -> package
DETECTORS = ("langdetect", *OTHERS)


def detector(name: str) -> Callable[[str], tuple[str, float]]:
    """A detector by name: "langdetect" is `identify`. The others are installed by whoever wants them and have measures
    of their own: cld2 the share of the text (0 to 1) if it is sure, resiliparse a distance (0 is best, unlike the
    others). UserError if there is none of the name, or its package is missing."""
    if name == "langdetect":
        return identify
    if name not in OTHERS:
        raise UserError(f"language detector: found {name!r}; give one of {', '.join(DETECTORS)}")
    try:
        module = import_module("pycld2" if name == "cld2" else "resiliparse.parse.lang")
    except ImportError:
        raise UserError(f"language detector: {name} is not installed; pip install {OTHERS[name]}") from None
    if name == "resiliparse":
        return module.detect_fast

    def cld2(text: str) -> tuple[str, float]:
        reliable, _, found = module.detect(text.encode())
        return (found[0][1], found[0][2] / 100) if reliable else (UNKNOWN, 0.0)

    return cld2


def surely(name: str, measure: float, asked: float) -> bool:
    """Whether what a detector measured is as sure as is asked: at least that, or for a distance at most."""
    return measure <= asked if name == "resiliparse" else measure >= asked


def check_language(name: str, language: str) -> None:
    """UserError where langdetect does not know a language. The others do not tell what they know."""
    if name == "langdetect" and language not in tables().languages:
        raise UserError(f"--language: found {language[:40]!r}; give one of {', '.join(tables().languages)}")
