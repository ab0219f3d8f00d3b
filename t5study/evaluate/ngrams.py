"""Runs of n words of a text as 64-bit numbers, and which of them a table knows: loops compiled by numba.

Words are what white space parts, in lower case, without punctuation and symbols (GPT-3, appendix C: "ignoring
punctuation, lowercasing"): letters, digits and marks of any script count, by Unicode's categories. "Don't" is one word,
"dont". A word's number is a hash of its characters, a run's a polynomial of its words' numbers modulo 2^64, which a
word in and a word out bring up to date, and a last mix. Two runs of ten million that are not equal meet once in
hundreds of thousands of tables, so a hit is taken for what it looks like.

    L  characters    W  words    V  code points    G  runs (n-grams)    T  places of a table, a power of two
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit

_SPACE, _SKIPPED, _WORD = 0, 1, 2
_CODE_POINTS = 0x110000

_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a
_STEP = np.uint64(0x9E3779B97F4A7C15)  # what a run's polynomial is in: odd, so no word's weight is ever lost
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _6, _63 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(6), np.uint64(63)
_0, _1 = np.uint64(0), np.uint64(1)


@cache
def _characters() -> tuple[np.ndarray, np.ndarray]:
    """Of every code point: whether it parts words, is left out or is part of one; and its lower case, where that is
    one code point."""
    kind_V, lower_V = np.empty(_CODE_POINTS, np.uint8), np.arange(_CODE_POINTS, dtype=np.uint32)
    for code in range(_CODE_POINTS):
        character = chr(code)
        category = unicodedata.category(character)
        kind_V[code] = _WORD if category[0] in "LNM" else _SPACE if character.isspace() else _SKIPPED
        if category == "Lu" or category == "Lt":
            lower = character.lower()
            lower_V[code] = ord(lower) if len(lower) == 1 else code
    return kind_V, lower_V


def code_points(text: str) -> np.ndarray:
    """A text as its code points, uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def words(text: str) -> list[str]:
    """The words of a text, as they are compared.

    >>> words("Don't -- they SAID 'well-known', isn't it?")
    ['dont', 'they', 'said', 'wellknown', 'isnt', 'it']
    """
    kind_V, lower_V = _characters()
    code_L = code_points(text)
    kind_L = kind_V[code_L]
    spaced_L = np.where(kind_L == _SPACE, np.uint32(32), lower_V[code_L])[kind_L != _SKIPPED]
    return [word for word in spaced_L.tobytes().decode("utf-32-le", "surrogatepass").split(" ") if word]


def word_numbers(text: str) -> np.ndarray:
    """The number of each word of a text, uint64."""
    kind_V, lower_V = _characters()
    code_L = code_points(text)
    number_W = np.empty(len(code_L) // 2 + 1, np.uint64)
    return number_W[: _words(code_L, kind_V, lower_V, number_W)]


def runs(number_W: np.ndarray, n: int) -> np.ndarray:
    """The numbers of all runs of n words, uint64; none of them is 0."""
    run_G = np.empty(max(0, len(number_W) - n + 1), np.uint64)
    _runs(number_W, n, run_G)
    return run_G


@dataclass(frozen=True)
class Table:
    """Runs to look for, by open addressing. run_T: 0 is an empty place. count_T: how often each was seen. bits: a
    filter of 16 bits a run in front, small enough to stay in the processor's cache: most runs of a corpus end there."""

    n: int
    run_T: np.ndarray
    count_T: np.ndarray
    bits: np.ndarray

    @staticmethod
    def of(run_G: np.ndarray, n: int) -> Table:
        """A table of these runs of n words, each once."""
        distinct_G = np.unique(run_G)
        size = 1 << max(4, int(len(distinct_G) * 2).bit_length())
        table = Table(n, np.zeros(size, np.uint64), np.zeros(size, np.uint32), np.zeros(size * 8 // 64, np.uint64))
        _fill(distinct_G, table.run_T, table.bits)
        return table

    def see(self, number_W: np.ndarray, seen: np.ndarray) -> int:
        """Counts the runs of a text. Puts the places of those that were seen for the first time into `seen`, as many
        as it holds; returns how many it put there."""
        return int(_see(number_W, self.n, self.run_T, self.count_T, self.bits, seen))

    def places(self, run_G: np.ndarray) -> np.ndarray:
        """Where these runs stand, -1 for those that do not."""
        place_G = np.empty(len(run_G), np.int64)
        _places(run_G, self.run_T, place_G)
        return place_G


@njit(cache=True, forceinline=True)
def _mixed(z):
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return z ^ (z >> _31)


@njit(cache=True, nogil=True)
def _words(code_L, kind_V, lower_V, number_W):
    count, number, inside = 0, _BASIS, False
    for code in code_L:
        kind = kind_V[code]
        if kind == _WORD:
            number = (number ^ np.uint64(lower_V[code])) * _PRIME
            inside = True
        elif kind == _SPACE and inside:
            number_W[count] = _mixed(number)
            count, number, inside = count + 1, _BASIS, False
    if inside:
        number_W[count] = _mixed(number)
        count += 1
    return count


@njit(cache=True, forceinline=True)
def _weight(n):
    """Of the word that leaves a run of n: the step to the n-th power."""
    weight = _1
    for _ in range(n):
        weight *= _STEP
    return weight


@njit(cache=True, forceinline=True)
def _named(run):
    run = _mixed(run)
    return run if run != _0 else _1


@njit(cache=True, nogil=True)
def _runs(number_W, n, run_G):
    run, leaving = _0, _weight(n)
    for w in range(len(number_W)):
        run = run * _STEP + number_W[w]
        if w >= n:
            run -= number_W[w - n] * leaving
        if w >= n - 1:
            run_G[w - n + 1] = _named(run)


@njit(cache=True, nogil=True)
def _fill(distinct_G, run_T, bits):
    last, last_bit = np.uint64(len(run_T) - 1), np.uint64(len(bits) * 64 - 1)
    for run in distinct_G:
        at = run & last
        while run_T[at] != _0:
            at = (at + _1) & last
        run_T[at] = run
        bit = (run >> _31) & last_bit
        bits[bit >> _6] |= _1 << (bit & _63)


@njit(cache=True, nogil=True)
def _see(number_W, n, run_T, count_T, bits, seen):
    last, last_bit = np.uint64(len(run_T) - 1), np.uint64(len(bits) * 64 - 1)
    state, leaving, new = _0, _weight(n), 0
    for w in range(len(number_W)):
        state = state * _STEP + number_W[w]
        if w >= n:
            state -= number_W[w - n] * leaving
        if w < n - 1:
            continue
        run = _named(state)
        bit = (run >> _31) & last_bit
        if not (bits[bit >> _6] >> (bit & _63)) & _1:
            continue
        at = run & last
        while run_T[at] != _0 and run_T[at] != run:
            at = (at + _1) & last
        if run_T[at] == run:
            if count_T[at] == 0 and new < len(seen):
                seen[new] = at
                new += 1
            if count_T[at] < 0xFFFFFFFF:
                count_T[at] += 1
    return new


@njit(cache=True, nogil=True)
def _places(run_G, run_T, place_G):
    last = np.uint64(len(run_T) - 1)
    for g in range(len(run_G)):
        at = run_G[g] & last
        while run_T[at] != _0 and run_T[at] != run_G[g]:
            at = (at + _1) & last
        place_G[g] = np.int64(at) if run_T[at] == run_G[g] else -1
