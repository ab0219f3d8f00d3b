"""langdetect's loops, compiled by numba: characters in, the mean probability of each language out.

langdetect draws n-grams of the text at random, seven times over, and multiplies what each says about the languages
until one of them is nearly certain. C4 sets its seed to 0 before every text, so that the numbers drawn are always the
same: they are taken from a table of that Mersenne Twister's output (`stream_R`) instead of being made again.

    N  characters    G  n-grams of the text that are known    L  languages    H  slots    R  random numbers
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

TRIALS = 7
NO_NGRAMS, STREAM_ENDS = -1, -2

_ALPHA, _ALPHA_WIDTH, _BASE = 0.5, 0.05, 10_000.0
_CERTAIN, _MOST_DRAWS = 0.99999, 1000
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BITS = np.uint64(21)
_SPACE = np.uint32(32)
_TWICE = np.uint64(42)


@njit(forceinline=True)
def _row(key, keys_H, rows_H, shift):
    """The row of an n-gram's rates, or -1. The table has free slots, and a free slot ends the search."""
    at = (key * _GOLDEN) >> shift
    while keys_H[at] != key:
        if keys_H[at] == 0:
            return np.int32(-1)
        at = (at + np.uint64(1)) & np.uint64(len(keys_H) - 1)
    return rows_H[at]


@njit(cache=True)
def fill_slots(keys_W, keys_H, rows_H, shift):
    """Puts every key and its number into a table of a power of two slots; 0 is a free one."""
    for w in range(len(keys_W)):
        at = (keys_W[w] * _GOLDEN) >> shift
        while keys_H[at] != 0:
            at = (at + np.uint64(1)) & np.uint64(len(keys_H) - 1)
        keys_H[at], rows_H[at] = keys_W[w], w


@njit(forceinline=True)
def _latin_goes(code_N):
    """Whether a text is hardly Latin, so that its Latin letters (and the six marks between Z and a) do not count.

    langdetect means to count Vietnamese letters (U+1E00 to U+1EFF) as Latin, but compares a number with a name, so that
    they count as other ones; here too.
    """
    latin = other = 0
    for code in code_N:
        if 65 <= code <= 122:
            latin += 1
        elif code >= 0x300:
            other += 1
    return latin * 2 < other


@njit(forceinline=True)
def _known_ngrams(code_N, plain_C, capital_P, keys_H, rows_H, shift, row_G):
    """Rows of the text's known n-grams in order; returns how many. Words of capitals have none after their first."""
    strip = _latin_goes(code_N)
    count = 0
    before, last, length, shouting, last_capital = _SPACE, _SPACE, 1, False, False
    for code in code_N:
        if strip and 65 <= code <= 122:
            continue
        one = plain_C[code] if code < np.uint32(65536) else code
        if last == _SPACE:
            length, shouting, last_capital = 1, False, False
            if one == _SPACE:
                continue
        capital = one < np.uint32(len(capital_P)) and capital_P[one]
        if not capital:
            shouting = False
        elif last_capital:
            shouting = True
        length = min(length + 1, 3)
        if not shouting:
            pair = (np.uint64(last) << _BITS) | np.uint64(one)
            if one != _SPACE:
                row = _row(np.uint64(one), keys_H, rows_H, shift)
                if row >= 0:
                    row_G[count] = row
                    count += 1
            row = _row(pair, keys_H, rows_H, shift)
            if row >= 0:
                row_G[count] = row
                count += 1
            if length == 3:
                row = _row((np.uint64(before) << _TWICE) | pair, keys_H, rows_H, shift)
                if row >= 0:
                    row_G[count] = row
                    count += 1
        before, last, last_capital = last, one, capital
    return count


@njit(forceinline=True)
def _chance(stream_R, at):
    """53 random bits as a number in [0, 1), from two outputs."""
    return ((stream_R[at] >> 5) * 67108864.0 + (stream_R[at + 1] >> 6)) / 9007199254740992.0


@njit(forceinline=True)
def _normalise(chance_L):
    """To a sum of one; returns the largest."""
    total = 0.0
    for one in chance_L:
        total += one
    most = 0.0
    for i in range(len(chance_L)):
        chance_L[i] /= total
        most = max(most, chance_L[i])
    return most


@njit(cache=True, nogil=True)
def probabilities(code_N, plain_C, capital_P, keys_H, rows_H, shift, rates_WL, stream_R, row_G, mean_L):
    """Fills mean_L with the languages' probabilities. Returns the n-grams of the text, or NO_NGRAMS, or STREAM_ENDS.

    code_N: at most 10,000 code points. row_G: scratch of three for each of them.
    """
    count = _known_ngrams(code_N, plain_C, capital_P, keys_H, rows_H, shift, row_G)
    if count == 0:
        return NO_NGRAMS
    bits = 0
    while count >> bits:
        bits += 1
    drop = np.uint32(32 - bits)
    languages = len(mean_L)
    mean_L[:] = 0.0
    chance_L = np.empty(languages)
    at, second = 0, 0.0
    for trial in range(TRIALS):
        if trial % 2 == 0:  # normal deviates come in pairs
            angle = _chance(stream_R, at) * 2.0 * math.pi
            radius = math.sqrt(-2.0 * math.log(1.0 - _chance(stream_R, at + 2)))
            at += 4
            deviate, second = math.cos(angle) * radius, math.sin(angle) * radius
        else:
            deviate = second
        weight = (_ALPHA + deviate * _ALPHA_WIDTH) / _BASE
        chance_L[:] = 1.0 / languages
        for draw in range(_MOST_DRAWS + 1):
            if at + 64 > len(stream_R):
                return STREAM_ENDS
            drawn = np.int64(stream_R[at] >> drop)
            at += 1
            while drawn >= count:
                if at + 64 > len(stream_R):
                    return STREAM_ENDS
                drawn = np.int64(stream_R[at] >> drop)
                at += 1
            row = row_G[drawn]
            for i in range(languages):
                chance_L[i] *= weight + rates_WL[row, i]
            if draw % 5 == 0 and _normalise(chance_L) > _CERTAIN:
                break
        for i in range(languages):
            mean_L[i] += chance_L[i] / TRIALS
    return count
