"""The model's row-by-row arithmetic as loops compiled by numba: for one CPU thread in fp32.

A small model spends half of its time outside matrix products: adding the position bias, exponentials, norms, masks.
In torch's own operators each is a pass over memory and a call; here each row is read once and finished while it lies
in the nearest cache, and the exponential is a polynomial that the compiler runs eight lanes wide. `passes.py` is the
same functions in torch's operators, for every other device, precision and number of threads; tests hold them equal.

    N  tokens    D  width of a row    I  H K, the columns of all heads    H  heads    R  rows of the softmax
    G  segments of a tile    Q  queries    K  keys    V  vocabulary rows    C  2 * longest - 1 distances

Sums may be taken in any order (what lets them run in lanes), and a NaN among the inputs of a row reaches its outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

_loop = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
_inline = njit(cache=True, inline="always")
_f = np.float32
_NONE_F = torch.empty(0)
_NONE_FF = torch.empty(0, 0)
_NONE_I = torch.empty(0, dtype=torch.int64)


@intrinsic
def _as_float(context, bits):
    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _as_int(context, number):
    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@_inline
def _exp(x):
    """e^x for x <= 0 within 2e-7, 0 below -87: Cephes' polynomial on what is left of x after whole powers of two."""
    x = max(x, _f(-87))
    n = np.int32(x * _f(1.44269504) - _f(0.5))
    f = x - _f(n) * _f(0.693147181)
    p = ((((_f(1.9875691500e-4) * f + _f(1.3981999507e-3)) * f + _f(8.3334519073e-3)) * f
          + _f(4.1665795894e-2)) * f + _f(1.6666665459e-1)) * f + _f(5.0000001201e-1)  # fmt: skip
    return (p * f * f + f + _f(1)) * _as_float((n + np.int32(127)) << np.int32(23))


@_inline
def _ordered(bits):
    """The bits of a float as an integer of the same order, and back: a maximum of integers runs in lanes."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


_LEAST = np.int32(-2147483647)


# --- norm -----------------------------------------------------------------------------------------------------------


def rms(x_ND: Tensor, gain_D: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x / sqrt(mean(x^2) + 1e-6) * gain, and the factor of each row."""
    y_ND, r_N = torch.empty_like(x_ND), torch.empty(len(x_ND))
    _rms(x_ND.numpy(), gain_D.numpy(), y_ND.numpy(), r_N.numpy())
    return y_ND, r_N


@_loop
def _rms(x_ND, gain_D, y_ND, r_N):
    d = x_ND.shape[1]
    for n in range(x_ND.shape[0]):
        total = _f(0)
        for i in range(d):
            total += x_ND[n, i] * x_ND[n, i]
        r = _f(1) / np.sqrt(total / _f(d) + _f(1e-6))
        r_N[n] = r
        for i in range(d):
            y_ND[n, i] = x_ND[n, i] * r * gain_D[i]


def rms_backward(
    dy_ND: Tensor, x_ND: Tensor, r_N: Tensor, gain_D: Tensor, residual_ND: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the gain; what reaches x around the sub-layer is added."""
    dx_ND, dgain_D = torch.empty_like(x_ND), torch.zeros_like(gain_D)
    around = _NONE_FF if residual_ND is None else residual_ND
    _rms_backward(
        dy_ND.numpy(), x_ND.numpy(), r_N.numpy(), gain_D.numpy(), around.numpy(), dx_ND.numpy(), dgain_D.numpy()
    )
    return dx_ND, dgain_D


@_loop
def _rms_backward(dy_ND, x_ND, r_N, gain_D, around_ND, dx_ND, dgain_D):
    d = x_ND.shape[1]
    for n in range(x_ND.shape[0]):
        r = r_N[n]
        along = _f(0)
        for i in range(d):
            product = dy_ND[n, i] * x_ND[n, i]
            along += product * gain_D[i]
            dgain_D[i] += product * r
        along *= r * r * r / _f(d)
        if around_ND.shape[0]:
            for i in range(d):
                dx_ND[n, i] = dy_ND[n, i] * gain_D[i] * r - x_ND[n, i] * along + around_ND[n, i]
        else:
            for i in range(d):
                dx_ND[n, i] = dy_ND[n, i] * gain_D[i] * r - x_ND[n, i] * along


# --- attention ------------------------------------------------------------------------------------------------------


def softmax_(scores_GQK: Tensor, diagonal_C: Tensor | None, length_G: Tensor | None, causal: bool) -> Tensor:
    """Scores become probabilities, in place; returns the logarithm of each row's normaliser (G, Q).

    diagonal_C: the position bias by distance, diagonal_C[key - query + longest - 1]. length_G: keys beyond it are
    padding. causal: keys after the query are not seen.
    """
    lse_GQ = scores_GQK.new_empty(scores_GQK.shape[:2])
    diagonal, length = _or_none(diagonal_C, length_G)
    _softmax(scores_GQK.numpy(), diagonal, length, causal, lse_GQ.numpy())
    return lse_GQ


def _or_none(diagonal_C: Tensor | None, length_G: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    diagonal = _NONE_F if diagonal_C is None else diagonal_C
    return diagonal.numpy(), (_NONE_I if length_G is None else length_G).numpy()


@_inline
def _seen(length_G, g, i, keys, causal):
    """How many keys query i of segment g sees."""
    seen = length_G[g] if len(length_G) else keys
    return min(seen, i + 1) if causal else seen


@_loop
def _softmax(scores_GQK, diagonal_C, length_G, causal, lse_GQ):
    segments, queries, keys = scores_GQK.shape
    biased = len(diagonal_C) > 0
    middle = len(diagonal_C) // 2
    for g in range(segments):
        for i in range(queries):
            row = scores_GQK[g, i]
            seen = _seen(length_G, g, i, keys, causal)
            most, check = _LEAST, _f(0)
            if biased:
                bias = diagonal_C[middle - i : middle - i + keys]
                for j in range(seen):
                    x = row[j] + bias[j]
                    row[j] = x
                    check += x
                    most = max(most, _ordered(_as_int(x)))
            else:
                for j in range(seen):
                    x = row[j]
                    check += x
                    most = max(most, _ordered(_as_int(x)))
            top = _as_float(_ordered(most))
            total = _f(0)
            for j in range(seen):
                e = _exp(row[j] - top)
                row[j] = e
                total += e
            total += check * _f(0)  # a NaN stays one
            scale = _f(1) / total
            for j in range(seen):
                row[j] *= scale
            for j in range(seen, keys):
                row[j] = 0
            lse_GQ[g, i] = top + np.log(total)


def softmax_again_(
    scores_GQK: Tensor, diagonal_C: Tensor | None, length_G: Tensor | None, causal: bool, lse_GQ: Tensor
) -> None:
    """The same scores once more, the normalisers known."""
    diagonal, length = _or_none(diagonal_C, length_G)
    _softmax_again(scores_GQK.numpy(), diagonal, length, causal, lse_GQ.numpy())


@_loop
def _softmax_again(scores_GQK, diagonal_C, length_G, causal, lse_GQ):
    segments, queries, keys = scores_GQK.shape
    biased = len(diagonal_C) > 0
    middle = len(diagonal_C) // 2
    for g in range(segments):
        for i in range(queries):
            row = scores_GQK[g, i]
            seen = _seen(length_G, g, i, keys, causal)
            lse = lse_GQ[g, i]
            if biased:
                bias = diagonal_C[middle - i : middle - i + keys]
                for j in range(seen):
                    row[j] = _exp(row[j] + bias[j] - lse)
            else:
                for j in range(seen):
                    row[j] = _exp(row[j] - lse)
            for j in range(seen, keys):
                row[j] = 0


def softmax_backward_(p_GQK: Tensor, dp_GQK: Tensor, ddiagonal_C: Tensor | None) -> None:
    """dp becomes the gradient of the scores, in place, and is added up along the diagonals into ddiagonal_C."""
    diagonal = _NONE_F if ddiagonal_C is None else ddiagonal_C
    _softmax_backward(p_GQK.numpy(), dp_GQK.numpy(), diagonal.numpy())


@_loop
def _softmax_backward(p_GQK, dp_GQK, ddiagonal_C):
    segments, queries, keys = p_GQK.shape
    biased = len(ddiagonal_C) > 0
    middle = len(ddiagonal_C) // 2
    for g in range(segments):
        for i in range(queries):
            p, dp = p_GQK[g, i], dp_GQK[g, i]
            mean = _f(0)
            for j in range(keys):
                mean += p[j] * dp[j]
            if biased:
                along = ddiagonal_C[middle - i : middle - i + keys]
                for j in range(keys):
                    ds = p[j] * (dp[j] - mean)
                    dp[j] = ds
                    along[j] += ds
            else:
                for j in range(keys):
                    dp[j] = p[j] * (dp[j] - mean)


def take(source_NI: Tensor, first_G: Tensor, length_G: Tensor, width: int) -> Tensor:
    """Segments of a token list as a (G, width, I) block, zeros behind each. source_NI may be some columns of a wider
    matrix."""
    block = torch.empty(len(first_G), width, source_NI.shape[1])
    _take(source_NI.numpy(), first_G.numpy(), length_G.numpy(), block.numpy())
    return block


@_loop
def _take(source_NI, first_G, length_G, block):
    for g in range(len(first_G)):
        n, first = length_G[g], first_G[g]
        block[g, :n] = source_NI[first : first + n]
        block[g, n:] = 0


def put(target_NI: Tensor, first_G: Tensor, length_G: Tensor, block: Tensor) -> None:
    """The way back: the segments of a block into a token list."""
    _put(target_NI.numpy(), first_G.numpy(), length_G.numpy(), block.numpy())


@_loop
def _put(target_NI, first_G, length_G, block):
    for g in range(len(first_G)):
        n, first = length_G[g], first_G[g]
        target_NI[first : first + n] = block[g, :n]


# --- feed-forward ---------------------------------------------------------------------------------------------------


def relu_(h_NF: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> None:
    """ReLU and dropout, in place."""
    _relu(h_NF.numpy(), (_NONE_FF if mask_BF is None else mask_BF).numpy(), row_N.numpy())


@_loop
def _relu(h_NF, mask_BF, row_N):
    f = h_NF.shape[1]
    for n in range(h_NF.shape[0]):
        if mask_BF.shape[0]:
            mask = mask_BF[row_N[n]]
            for i in range(f):
                h = h_NF[n, i]
                h_NF[n, i] = _f(0) if h <= 0 else h * mask[i]
        else:
            for i in range(f):
                h = h_NF[n, i]
                h_NF[n, i] = _f(0) if h <= 0 else h


def relu_backward_(dh_NF: Tensor, h_NF: Tensor, scale: float) -> None:
    """Gradient through `relu_` in place, h_NF being what it gave: what is 0 there was below 0 or dropped, and all
    else was multiplied by `scale`."""
    _relu_backward(dh_NF.view(-1).numpy(), h_NF.view(-1).numpy(), _f(scale))


@_loop
def _relu_backward(dh, h, scale):
    for i in range(len(dh)):
        dh[i] = _f(0) if h[i] == 0 else dh[i] * scale


# --- dropout and residual -------------------------------------------------------------------------------------------


def add(x_ND: Tensor, o_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    """x + o, o under dropout. May write into o."""
    if mask_BD is None:
        return o_ND.add_(x_ND)
    _add(x_ND.numpy(), o_ND.numpy(), mask_BD.numpy(), row_N.numpy())
    return o_ND


@_loop
def _add(x_ND, o_ND, mask_BD, row_N):
    for n in range(o_ND.shape[0]):
        mask = mask_BD[row_N[n]]
        for i in range(o_ND.shape[1]):
            o_ND[n, i] = x_ND[n, i] + o_ND[n, i] * mask[i]


def masked(x_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    """x under dropout: x itself if there is none, else a new tensor."""
    if mask_BD is None:
        return x_ND
    out_ND = torch.empty_like(x_ND)
    _masked(x_ND.numpy(), mask_BD.numpy(), row_N.numpy(), out_ND.numpy())
    return out_ND


@_loop
def _masked(x_ND, mask_BD, row_N, out_ND):
    for n in range(x_ND.shape[0]):
        mask = mask_BD[row_N[n]]
        for i in range(x_ND.shape[1]):
            out_ND[n, i] = x_ND[n, i] * mask[i]


# --- ends -----------------------------------------------------------------------------------------------------------


def add_rows_(table_VD: Tensor, id_N: Tensor, x_ND: Tensor) -> None:
    """table[id] += x for every token, in the order of tokens."""
    _add_rows(table_VD.numpy(), id_N.numpy(), x_ND.numpy())


@_loop
def _add_rows(table_VD, id_N, x_ND):
    for n in range(len(id_N)):
        row = table_VD[id_N[n]]
        for i in range(x_ND.shape[1]):
            row[i] += x_ND[n, i]


def cross_entropy_(logits_RV: Tensor, label_R: Tensor, z_loss: float, gradient: bool) -> tuple[Tensor, Tensor]:
    """Nats of each label and the logarithm of each normaliser. With `gradient`, logits become the gradient of
    nats + z_loss * normaliser^2."""
    nats_R, lse_R = torch.empty(len(label_R)), torch.empty(len(label_R))
    _cross_entropy(logits_RV.numpy(), label_R.numpy(), _f(z_loss), gradient, nats_R.numpy(), lse_R.numpy())
    return nats_R, lse_R


@_loop
def _cross_entropy(logits_RV, label_R, z_loss, gradient, nats_R, lse_R):
    v = logits_RV.shape[1]
    for n in range(len(label_R)):
        row = logits_RV[n]
        most, check = _LEAST, _f(0)
        for j in range(v):
            check += row[j]
            most = max(most, _ordered(_as_int(row[j])))
        top = _as_float(_ordered(most))
        own = row[label_R[n]]
        total = _f(0)
        if gradient:
            for j in range(v):
                e = _exp(row[j] - top)
                row[j] = e
                total += e
        else:
            for j in range(v):
                total += _exp(row[j] - top)
        lse = top + np.log(total) + check * _f(0)
        nats_R[n], lse_R[n] = lse - own, lse
        if gradient:
            scale = (_f(1) + _f(2) * z_loss * lse) / total
            for j in range(v):
                row[j] *= scale
            row[label_R[n]] -= _f(1)
