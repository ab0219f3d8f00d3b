"""The objectives' loops over tokens, compiled by numba: arrays in, arrays filled. Rows know nothing of each other.

Chances come from splitmix64 sequences, one a row, that start at the row's key: no state outlives a row, and a kernel
can be called with any slice of a batch. Every kernel fills zeroed (B, S) and (B, T) blocks and their lengths, cuts
what does not fit and closes each sequence with EOS, as the official pipeline does (append_eos after trimming).

    B  rows    L  raw tokens    S  source tokens    T  target tokens
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from t5study.ground.pairs import EOS, UNK, Lengths, Pairs

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_TENTH = np.uint64(429496730)  # of 2^32
_ORDINARY = UNK + 1  # the lowest id that is a piece: sentinels that overflow stop here

# What stands for hidden tokens (the order of objectives.INPUTS) and what is asked for (objectives.TARGETS).
MASK, MASK_RANDOM, UNIQUE, DROP = 0, 1, 2, 3
FULL, RUNS, HIDDEN = 0, 1, 2


def run(
    kernel: Callable[..., None],
    raw_BL: np.ndarray,
    length_B: np.ndarray,
    key_B: np.ndarray,
    lengths: Lengths,
    *settings: object,
) -> Pairs:
    """Allocates an example a row and lets a kernel fill it."""
    length_B = np.asarray(length_B, dtype=np.int32)
    rows = len(length_B)
    if rows and (length_B.min() < 1 or length_B.max() > raw_BL.shape[1]):
        raise ValueError(f"rows of {length_B.min()} to {length_B.max()} tokens in a block of {raw_BL.shape[1]}")
    source_BS, target_BT = (np.zeros((rows, n), np.int32) for n in (lengths.inputs, lengths.targets))
    source_length_B, target_length_B = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    raw_BL = np.ascontiguousarray(raw_BL, dtype=np.int32)
    kernel(raw_BL, length_B, key_B, source_BS, source_length_B, target_BT, target_length_B, *settings)
    return Pairs(source_BS, source_length_B, target_BT, target_length_B)


@njit(cache=True, inline="always")
def _bits(state):
    """64 random bits of a splitmix64 sequence at this state."""
    z = state
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return z ^ (z >> _31)


@njit(cache=True, inline="always")
def _below(bits, n):
    """32 random bits -> a whole number in [0, n): multiply and shift, off by less than n / 2^32 in probability."""
    return np.int64(((bits & _LOW) * np.uint64(n)) >> _32)


@njit(cache=True, nogil=True)
def iid_noise(noise_BL, length_B, key_B, rate):
    """Hides each token on its own with probability `rate` (`iid_noise_mask`)."""
    threshold = np.uint64(rate * 4294967296.0)
    for b in range(len(length_B)):
        state, n = key_B[b], length_B[b]
        for i in range(0, n, 2):
            state += _GOLDEN
            bits = _bits(state)
            noise_BL[b, i] = (bits & _LOW) < threshold
            if i + 1 < n:
                noise_BL[b, i + 1] = (bits >> _32) < threshold


@njit(cache=True, nogil=True)
def span_noise(noise_BL, length_B, key_B, rate, mean_span):
    """Hides `round(length * rate)` tokens in `round(hidden / mean_span)` runs (`random_spans_noise_mask`).

    Hidden and other tokens are each divided into as many non-empty parts as there are runs, every division equally
    likely, and laid out in turn from an unhidden one: the first token is never hidden, the last one always is.
    """
    widest = noise_BL.shape[1] + 2
    cut = np.empty(widest, np.bool_)
    flip = np.empty(widest, np.bool_)
    hidden_end, open_end = np.empty(widest, np.int64), np.empty(widest, np.int64)
    for b in range(len(length_B)):
        real = length_B[b]
        n = max(real, 2)  # the official code's floor; what lies beyond the row is dropped again
        hidden = min(max(int(np.round(n * rate)), 1), n - 1)
        runs = min(max(int(np.round(hidden / mean_span)), 1), hidden, n - hidden)
        state = _divide(cut, hidden_end, hidden, runs, key_B[b])
        _divide(cut, open_end, n - hidden, runs, state)
        flip[: n + 1] = False
        before = 0
        for run in range(runs):
            flip[open_end[run] + before] = True
            before = hidden_end[run]
            flip[open_end[run] + before] = True
        noise = False
        for i in range(real):
            noise ^= flip[i]
            noise_BL[b, i] = noise


@njit(forceinline=True)
def _divide(cut, end, n, parts, state):
    """Divides n items into non-empty parts, every division equally likely, and writes where each part ends. Returns
    the state after. No branch depends on a draw, for a branch guessed wrong costs more than all else here."""
    places = n - 1
    cut[:places] = False
    for j in range(places - parts + 1, places):  # Floyd 1987: a choice of k places by k draws, no shuffle
        state += _GOLDEN
        place = _below(_bits(state), j + 1)
        cut[j if cut[place] else place] = True
    part = 0
    for i in range(places):
        end[part] = i + 1
        part += cut[i]
    end[part] = n
    return state


@njit(cache=True, nogil=True)
def hide(raw_BL, length_B, key_B, source_BS, source_length_B, target_BT, target_length_B,
         noise_BL, inputs, targets, enough, size, sentinels):  # fmt: skip
    """Writes examples from tokens and their noise mask. Sentinels count down from `size - 1`, and those beyond the
    vocabulary's into its ordinary ids unless `enough`.

    Inputs and targets are one and the same thing done to the two sides of the mask: what is hidden in the one is what
    is asked for in the other, so that "unique" inputs put a sentinel for each hidden run, and "unique" targets one
    for each run that is not.
    """
    most_s, most_t = source_BS.shape[1] - 1, target_BT.shape[1] - 1
    gone_L, asked_L = np.empty(raw_BL.shape[1], np.int32), np.empty(raw_BL.shape[1], np.int32)
    for b in range(len(length_B)):
        n = length_B[b]
        token_L, source_S, target_T = raw_BL[b, :n], source_BS[b], target_BT[b]
        for i in range(n):
            gone_L[i] = noise_BL[b, i]
        if enough:
            _spare(gone_L[:n], sentinels)
        for i in range(n):
            asked_L[i] = 1 - gone_L[i]
        if inputs == UNIQUE:
            s = _one_a_run(token_L, gone_L, source_S, most_s, size)
        elif inputs == DROP:
            s = _without(token_L, gone_L, source_S, most_s)
        else:
            s = _one_a_token(token_L, gone_L, source_S, most_s, size, inputs == MASK_RANDOM, ~key_B[b])
        if targets == RUNS:
            t = _one_a_run(token_L, asked_L, target_T, most_t, size)
        elif targets == HIDDEN:
            t = _without(token_L, asked_L, target_T, most_t)
        else:
            t = min(n, most_t)
            target_T[:t] = token_L[:t]
        source_S[s] = EOS
        target_T[t] = EOS
        source_length_B[b] = s + 1
        target_length_B[b] = t + 1


# The next three write one id for every token and move on by 0 or 1, instead of asking whether to write: a branch that
# follows a draw is guessed wrong, and costs more than the write. What is not moved on from is written over, at the
# last by EOS; `most` is the place of EOS in a full row. gone_L holds 0 and 1 as numbers, so that they are reckoned
# with: the compiler turns what it knows to be a truth value back into a branch.


@njit(forceinline=True)
def _one_a_run(token_L, gone_L, out, most, size):
    """One sentinel for each run of tokens that are gone. Returns how many ids were written."""
    s, sentinel, before = np.uint64(0), np.int32(size), np.int32(0)
    for i in range(len(token_L)):
        gone = gone_L[i]
        first = gone & ~before
        sentinel = max(np.int32(sentinel - first), np.int32(_ORDINARY))
        out[s] = (sentinel & -gone) | (token_L[i] & (gone - np.int32(1)))
        s = min(s + np.uint64(first | (1 - gone)), np.uint64(most))
        before = gone
    return np.int64(s)


@njit(forceinline=True)
def _without(token_L, gone_L, out, most):
    """The tokens that are not gone."""
    s = np.uint64(0)
    for i in range(len(token_L)):
        out[s] = token_L[i]
        s = min(s + np.uint64(1 - gone_L[i]), np.uint64(most))
    return np.int64(s)


@njit(forceinline=True)
def _one_a_token(token_L, gone_L, out, most, size, random, state):
    """The first sentinel for each hidden token; with `random`, any id from 3 up in one place of ten."""
    n = min(len(token_L), most)
    for i in range(n):
        out[i] = size - 1 if gone_L[i] else token_L[i]
    if random:
        for i in range(n):
            if gone_L[i]:
                state += _GOLDEN
                bits = _bits(state)
                if (bits >> _32) < _TENTH:
                    out[i] = _ORDINARY + _below(bits, size - _ORDINARY)
    return n


@njit(forceinline=True)
def _spare(gone_L, sentinels):
    """Takes back the hidden runs for which no sentinel is left: each needs one in the inputs, and the gap behind it
    one in the targets."""
    runs, gaps, before = 0, 0, -1
    for i in range(len(gone_L)):
        if gone_L[i] and before != 1 and not (runs < sentinels and gaps < sentinels):
            gone_L[i] = 0
        here = gone_L[i]
        runs += here == 1 and before != 1
        gaps += here == 0 and before != 0
        before = here


@njit(cache=True, nogil=True)
def prefix_lm(raw_BL, length_B, key_B, source_BS, source_length_B, target_BT, target_length_B):
    """Everything before a point in [1, length) -> everything from it on."""
    most_s, most_t = source_BS.shape[1] - 1, target_BT.shape[1] - 1
    for b in range(len(length_B)):
        n = length_B[b]
        point = 1 + _below(_bits(key_B[b] + _GOLDEN), max(n - 1, 1))
        s, t = min(point, most_s), min(n - point, most_t)
        source_BS[b, :s] = raw_BL[b, :s]
        target_BT[b, :t] = raw_BL[b, point : point + t]
        source_BS[b, s] = EOS
        target_BT[b, t] = EOS
        source_length_B[b] = s + 1
        target_length_B[b] = t + 1


@njit(cache=True, nogil=True)
def causal_lm(raw_BL, length_B, key_B, source_BS, source_length_B, target_BT, target_length_B):
    """Nothing -> everything."""
    for b in range(len(length_B)):
        t = min(length_B[b], target_BT.shape[1] - 1)
        target_BT[b, :t] = raw_BL[b, :t]
        source_BS[b, 0] = EOS
        target_BT[b, t] = EOS
        source_length_B[b] = 1
        target_length_B[b] = t + 1


@njit(cache=True, nogil=True)
def deshuffle(raw_BL, length_B, key_B, source_BS, source_length_B, target_BT, target_length_B):
    """Everything in a uniformly drawn order (Fisher-Yates) -> everything."""
    most_s, most_t = source_BS.shape[1] - 1, target_BT.shape[1] - 1
    order = np.empty(raw_BL.shape[1], np.int32)
    for b in range(len(length_B)):
        n, state = length_B[b], key_B[b]
        order[:n] = raw_BL[b, :n]
        for i in range(n - 1, 0, -1):
            state += _GOLDEN
            j = _below(_bits(state), i + 1)
            order[i], order[j] = order[j], order[i]
        s, t = min(n, most_s), min(n, most_t)
        source_BS[b, :s] = order[:s]
        target_BT[b, :t] = raw_BL[b, :t]
        source_BS[b, s] = EOS
        target_BT[b, t] = EOS
        source_length_B[b] = s + 1
        target_length_B[b] = t + 1
