"""The objectives' loops over tokens, compiled by numba: arrays in, arrays filled. Rows know nothing of each other.

Chances come from splitmix64 sequences, one a row, that start at the row's key: no state outlives a row, and a kernel
can be called with any slice of a batch. Every kernel fills zeroed (B, S) and (B, T) blocks and their lengths, cuts
what does not fit and closes each sequence with EOS, as the official pipeline does (append_eos after trimming).

    B  rows    L  raw tokens    S  source tokens    T  target tokens
"""

from __future__ import annotations

import numpy as np
from numba import njit

from t5study.ground.pairs import EOS

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)

# What stands for hidden tokens (the order of objectives.INPUTS) and what is asked for (objectives.TARGETS).
MASK, MASK_RANDOM, UNIQUE, DROP = 0, 1, 2, 3
FULL, RUNS, HIDDEN = 0, 1, 2


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
    cut_hidden = np.zeros(widest, np.bool_)
    cut_open = np.zeros(widest, np.bool_)
    for b in range(len(length_B)):
        real = length_B[b]
        n = max(real, 2)  # the official code's floor; what lies beyond the row is dropped again
        hidden = min(max(int(np.round(n * rate)), 1), n - 1)
        runs = min(max(int(np.round(hidden / mean_span)), 1), hidden, n - hidden)
        state = _choose(cut_hidden, hidden - 1, runs - 1, key_B[b])
        _choose(cut_open, n - hidden - 1, runs - 1, state)
        i, h, o = 0, 0, 0
        for _ in range(runs):
            while True:
                if i < real:
                    noise_BL[b, i] = False
                i += 1
                o += 1
                if o > n - hidden - 1 or cut_open[o - 1]:
                    break
            while True:
                if i < real:
                    noise_BL[b, i] = True
                i += 1
                h += 1
                if h > hidden - 1 or cut_hidden[h - 1]:
                    break


@njit(cache=True, nogil=True)
def _choose(chosen, n, k, state):
    """Marks k of n places, every choice equally likely (Floyd 1987: k draws, no shuffle). Returns the state after."""
    chosen[:n] = False
    for j in range(n - k, n):
        state += _GOLDEN
        place = _below(_bits(state), j + 1)
        if chosen[place]:
            chosen[j] = True
        else:
            chosen[place] = True
    return state


@njit(cache=True, nogil=True)
def hide(raw_BL, length_B, key_B, source_BS, source_length_B, target_BT, target_length_B,
         noise_BL, inputs, targets, enough, size, sentinels):  # fmt: skip
    """Writes examples from tokens and their noise mask. Sentinels count down from `size - 1`."""
    most_s, most_t = source_BS.shape[1] - 1, target_BT.shape[1] - 1
    tenth = np.uint64(429496730)  # one in ten of 2^32
    for b in range(len(length_B)):
        s, t, runs, gaps = 0, 0, 0, 0
        state = ~key_B[b]  # another sequence than the mask's
        before = -1
        hiding = True
        for i in range(length_B[b]):
            token = raw_BL[b, i]
            noise = 1 if noise_BL[b, i] else 0
            if noise == 1 and before != 1 and enough:
                # A run needs a sentinel in the inputs, and the gap after it one in the targets.
                hiding = runs < sentinels and gaps < sentinels
            if noise == 1 and not hiding:
                noise = 0
            first = noise != before
            before = noise
            if noise == 1:
                if inputs == UNIQUE:
                    if first:
                        if s < most_s:
                            source_BS[b, s] = size - 1 - runs
                            s += 1
                        runs += 1
                elif inputs == MASK or inputs == MASK_RANDOM:
                    stands = size - 1
                    if inputs == MASK_RANDOM:
                        state += _GOLDEN
                        bits = _bits(state)
                        if (bits >> _32) < tenth:
                            stands = 3 + _below(bits, size - 3)
                    if s < most_s:
                        source_BS[b, s] = stands
                        s += 1
                if t < most_t:
                    target_BT[b, t] = token
                    t += 1
            else:
                if s < most_s:
                    source_BS[b, s] = token
                    s += 1
                if targets == FULL:
                    if t < most_t:
                        target_BT[b, t] = token
                        t += 1
                elif targets == RUNS and first:
                    if t < most_t:
                        target_BT[b, t] = size - 1 - gaps
                        t += 1
                    gaps += 1
        source_BS[b, s] = EOS
        target_BT[b, t] = EOS
        source_length_B[b] = s + 1
        target_length_B[b] = t + 1


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
