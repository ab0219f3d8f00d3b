"""The loops that take exponentials: attention's softmax, cross-entropy. A part of loops.py.

The exponential is a polynomial that the compiler runs eight lanes wide, and the maximum is one of integers, since one
of floats would run in a single lane.

    H  heads    E  d_kv    G  segments of a tile    Q  queries    K  keys    C  2 * longest - 1 distances
    R  rows of a chunk (loss)    V  vocabulary
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from t5study.model.loop_numbers import array, as_float, as_int, loop, number, room, written

_NUMBERS = "43451e651f13c57f"  # digest of loop_numbers.py, whose parts are compiled into the loops below
_inline = njit(cache=True, inline="always")
_f = np.float32
NO_MATRIX = torch.empty(0, 0)  # stands for None: an optional argument would be compiled once more for each case
_NO_LENGTHS = torch.empty(0, dtype=torch.int64)


# --- exponential and maximum ----------------------------------------------------------------------------------------


@_inline
def _exp(x):
    """e^x for x <= 0 within 2e-7, below -87 as if it were -87 (1.6e-38): Cephes' polynomial on what whole
    powers of two leave of x."""
    x = max(x, _f(-87))
    n = np.int32(x * _f(1.44269504) - _f(0.5))
    f = x - _f(n) * _f(0.693147181)
    p = ((((_f(1.9875691500e-4) * f + _f(1.3981999507e-3)) * f + _f(8.3334519073e-3)) * f
          + _f(4.1665795894e-2)) * f + _f(1.6666665459e-1)) * f + _f(5.0000001201e-1)  # fmt: skip
    return (p * f * f + f + _f(1)) * as_float((n + np.int32(127)) << np.int32(23))


@_inline
def _ordered(bits):
    """The bits of a float as an integer of the same order, and back: a maximum of integers runs in lanes."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


_LEAST = np.int32(-2147483647)


# --- attention ------------------------------------------------------------------------------------------------------


def softmax_(
    scores_HGQK: Tensor,
    diagonal_HC: Tensor | None,
    length_G: Tensor | None,
    causal: bool,
    prefix_G: Tensor | None = None,
) -> Tensor:
    """Scores become probabilities, in place; returns the logarithm of each row's normaliser (H, G, Q).

    diagonal_HC: the position bias by distance, diagonal[h, key - query + longest - 1]. length_G: keys beyond it are
    padding. causal: keys after the query are not seen, unless they are among the segment's first `prefix`.
    """
    lse_HGQ = torch.empty(scores_HGQK.shape[:3])
    diagonal, length, prefix = _or_none(diagonal_HC, length_G, prefix_G)
    _softmax(array(scores_HGQK), diagonal, length, prefix, causal, lse_HGQ.numpy())
    return lse_HGQ


def _or_none(
    diagonal_HC: Tensor | None, length_G: Tensor | None, prefix_G: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    diagonal = NO_MATRIX if diagonal_HC is None else diagonal_HC
    length, prefix = (_NO_LENGTHS if given is None else given for given in (length_G, prefix_G))
    return diagonal.numpy(), length.numpy(), prefix.numpy()


@_inline
def _seen(length_G, prefix_G, g, i, keys, causal):
    """How many keys query i of segment g sees."""
    seen = length_G[g] if len(length_G) else keys
    if causal:
        own = max(i + 1, prefix_G[g]) if len(prefix_G) else i + 1
        seen = min(seen, own)
    return seen


@loop
def _softmax(scores_HGQK, diagonal_HC, length_G, prefix_G, causal, lse_HGQ):
    heads, segments, queries, keys = scores_HGQK.shape
    biased = diagonal_HC.shape[0] > 0
    middle = diagonal_HC.shape[1] // 2
    scratch_K = np.empty(keys, np.float32)
    for h in range(heads):
        for g in range(segments):
            for i in range(queries):
                row = scores_HGQK[h, g, i]
                x_K = room(row, scratch_K)
                seen = _seen(length_G, prefix_G, g, i, keys, causal)
                most, check = _LEAST, _f(0)
                if biased:
                    bias = diagonal_HC[h, middle - i : middle - i + keys]
                    for j in range(seen):
                        x = number(row[j]) + bias[j]
                        x_K[j] = x
                        check += x
                        most = max(most, _ordered(as_int(x)))
                else:
                    for j in range(seen):
                        x = number(row[j])
                        x_K[j] = x
                        check += x
                        most = max(most, _ordered(as_int(x)))
                top = as_float(_ordered(most))
                total = _f(0)
                for j in range(seen):
                    e = _exp(x_K[j] - top)
                    x_K[j] = e
                    total += e
                total += check * _f(0)  # a NaN stays one
                scale = _f(1) / total
                for j in range(seen):
                    row[j] = written(x_K[j] * scale, row)
                for j in range(seen, keys):
                    row[j] = 0
                lse_HGQ[h, g, i] = top + np.log(total)


def softmax_again_(
    scores_HGQK: Tensor,
    diagonal_HC: Tensor | None,
    length_G: Tensor | None,
    causal: bool,
    lse_HGQ: Tensor,
    prefix_G: Tensor | None = None,
) -> None:
    """The same scores once more, the normalisers known."""
    diagonal, length, prefix = _or_none(diagonal_HC, length_G, prefix_G)
    _softmax_again(array(scores_HGQK), diagonal, length, prefix, causal, lse_HGQ.numpy())


@loop
def _softmax_again(scores_HGQK, diagonal_HC, length_G, prefix_G, causal, lse_HGQ):
    heads, segments, queries, keys = scores_HGQK.shape
    biased = diagonal_HC.shape[0] > 0
    middle = diagonal_HC.shape[1] // 2
    for h in range(heads):
        for g in range(segments):
            for i in range(queries):
                row = scores_HGQK[h, g, i]
                seen = _seen(length_G, prefix_G, g, i, keys, causal)
                lse = lse_HGQ[h, g, i]
                if biased:
                    bias = diagonal_HC[h, middle - i : middle - i + keys]
                    for j in range(seen):
                        row[j] = written(_exp(number(row[j]) + bias[j] - lse), row)
                else:
                    for j in range(seen):
                        row[j] = written(_exp(number(row[j]) - lse), row)
                for j in range(seen, keys):
                    row[j] = 0


def softmax_backward_(p_HGQK: Tensor, dp_HGQK: Tensor, ddiagonal_HC: Tensor | None) -> None:
    """dp becomes the gradient of the scores, in place, and is added up along the diagonals into ddiagonal_HC."""
    diagonal = NO_MATRIX if ddiagonal_HC is None else ddiagonal_HC
    _softmax_backward(array(p_HGQK), array(dp_HGQK), diagonal.numpy())


@loop
def _softmax_backward(p_HGQK, dp_HGQK, ddiagonal_HC):
    heads, segments, queries, keys = p_HGQK.shape
    biased = ddiagonal_HC.shape[0] > 0
    middle = ddiagonal_HC.shape[1] // 2
    for h in range(heads):
        for g in range(segments):
            for i in range(queries):
                p, dp = p_HGQK[h, g, i], dp_HGQK[h, g, i]
                mean = _f(0)
                for j in range(keys):
                    mean += number(p[j]) * number(dp[j])
                if biased:
                    along = ddiagonal_HC[h, middle - i : middle - i + keys]
                    for j in range(keys):
                        ds = number(p[j]) * (number(dp[j]) - mean)
                        dp[j] = written(ds, dp)
                        along[j] += ds
                else:
                    for j in range(keys):
                        dp[j] = written(number(p[j]) * (number(dp[j]) - mean), dp)


# --- loss -----------------------------------------------------------------------------------------------------------


def cross_entropy_(logits_RV: Tensor, label_R: Tensor, z_loss: float, gradient: bool) -> tuple[Tensor, Tensor]:
    """Nats of each label and the logarithm of each normaliser. With `gradient`, logits become the gradient of
    nats + z_loss * normaliser^2."""
    nats_R, lse_R = torch.empty(len(label_R)), torch.empty(len(label_R))
    _cross_entropy(array(logits_RV), label_R.numpy(), _f(z_loss), gradient, nats_R.numpy(), lse_R.numpy())
    return nats_R, lse_R


@loop
def _cross_entropy(logits_RV, label_R, z_loss, gradient, nats_R, lse_R):
    v = logits_RV.shape[1]
    scratch_V = np.empty(v, np.float32)
    for n in range(len(label_R)):
        row = logits_RV[n]
        x_V = room(row, scratch_V)
        most, check = _LEAST, _f(0)
        for j in range(v):
            x = number(row[j])
            check += x
            most = max(most, _ordered(as_int(x)))
        top = as_float(_ordered(most))
        own = number(row[label_R[n]])
        total = _f(0)
        if gradient:
            for j in range(v):
                e = _exp(number(row[j]) - top)
                x_V[j] = e
                total += e
        else:
            for j in range(v):
                total += _exp(number(row[j]) - top)
        lse = top + np.log(total) + check * _f(0)
        nats_R[n], lse_R[n] = lse - own, lse
        if gradient:
            scale = (_f(1) + _f(2) * z_loss * lse) / total
            own = x_V[label_R[n]] * scale - _f(1)
            for j in range(v):
                row[j] = written(x_V[j] * scale, row)
            row[label_R[n]] = written(own, row)
