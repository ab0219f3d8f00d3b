"""The model's row-by-row arithmetic as loops compiled by numba: for one CPU thread in fp32.

A small model spends half of its time outside matrix products: adding the position bias, exponentials, norms, masks.
In torch's own operators each is a pass over memory and a call; here each row is read once and finished while it lies
in the nearest cache, and the exponential is a polynomial that the compiler runs eight lanes wide. `passes.py` is the
same functions in torch's operators, for every other device, precision and number of threads; tests hold them equal.

    N  tokens    D  d_model    F  d_ff    W  columns of a projection    H  heads    E  d_kv    B  rows of the batch
    G  segments of a tile    Q  queries    K  keys    C  2 * longest - 1 distances    V  vocabulary    R  its rows

Sums may be taken in any order (what lets them run in lanes), and a NaN among the inputs of a row reaches its outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from t5study.model.inputs import Span

_loop = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
_inline = njit(cache=True, inline="always")
_f = np.float32
_NONE_FF = torch.empty(0, 0)
_NONE_I = torch.empty(0, dtype=torch.int64)


def _float_of_bits(_context, _bits):
    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


def _bits_of_float(_context, _number):
    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


_as_float: Any = intrinsic(_float_of_bits)
_as_int: Any = intrinsic(_bits_of_float)


@_inline
def _exp(x):
    """e^x for x <= 0 within 2e-7, below -87 as if it were -87 (1.6e-38): Cephes' polynomial on what whole
    powers of two leave of x."""
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


def split(x_NW: Tensor, parts: int, heads: int, span: Span, factor_NH: Tensor | None) -> Tensor:
    """Segments of a token list, by head: (parts, H, G, width, E), zeros behind what is shorter.

    A token's columns are `parts` times H E numbers (q beside k beside v); the last part's are multiplied by the head's
    factor, if there is one.
    """
    block = torch.empty(parts, heads, len(span), span.width, x_NW.shape[1] // (parts * heads))
    factor = _NONE_FF if factor_NH is None else factor_NH
    _split(x_NW.numpy(), span.first_G.numpy(), span.length_G.numpy(), factor.numpy(), block.numpy())
    return block


@_loop
def _split(x_NW, first_G, length_G, factor_NH, block):
    parts, heads, segments, width, e = block.shape
    for g in range(segments):
        for i in range(length_G[g]):
            n = first_G[g] + i
            for a in range(parts):
                for h in range(heads):
                    factor = factor_NH[n, h] if a == parts - 1 and factor_NH.shape[0] else _f(1)
                    at = (a * heads + h) * e
                    _times(x_NW[n, at : at + e], factor, block[a, h, g, i])
        for a in range(parts):
            for h in range(heads):
                block[a, h, g, length_G[g] : width] = 0


@_loop
def _times(source, factor, target):
    for j in range(len(target)):
        target[j] = source[j] * factor


def join(block: Tensor, x_NW: Tensor, span: Span, factor_NH: Tensor | None) -> None:
    """The way back from `split`."""
    factor = _NONE_FF if factor_NH is None else factor_NH
    _join(block.numpy(), x_NW.numpy(), span.first_G.numpy(), span.length_G.numpy(), factor.numpy())


@_loop
def _join(block, x_NW, first_G, length_G, factor_NH):
    parts, heads, segments, _, e = block.shape
    for g in range(segments):
        for i in range(length_G[g]):
            n = first_G[g] + i
            for a in range(parts):
                for h in range(heads):
                    factor = factor_NH[n, h] if a == parts - 1 and factor_NH.shape[0] else _f(1)
                    at = (a * heads + h) * e
                    _times(block[a, h, g, i], factor, x_NW[n, at : at + e])


def softmax_(scores_HGQK: Tensor, diagonal_HC: Tensor | None, length_G: Tensor | None, causal: bool) -> Tensor:
    """Scores become probabilities, in place; returns the logarithm of each row's normaliser (H, G, Q).

    diagonal_HC: the position bias by distance, diagonal[h, key - query + longest - 1]. length_G: keys beyond it are
    padding. causal: keys after the query are not seen.
    """
    lse_HGQ = torch.empty(scores_HGQK.shape[:3])
    diagonal, length = _or_none(diagonal_HC, length_G)
    _softmax(scores_HGQK.numpy(), diagonal, length, causal, lse_HGQ.numpy())
    return lse_HGQ


def _or_none(diagonal_HC: Tensor | None, length_G: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    diagonal = _NONE_FF if diagonal_HC is None else diagonal_HC
    return diagonal.numpy(), (_NONE_I if length_G is None else length_G).numpy()


@_inline
def _seen(length_G, g, i, keys, causal):
    """How many keys query i of segment g sees."""
    seen = length_G[g] if len(length_G) else keys
    return min(seen, i + 1) if causal else seen


@_loop
def _softmax(scores_HGQK, diagonal_HC, length_G, causal, lse_HGQ):
    heads, segments, queries, keys = scores_HGQK.shape
    biased = diagonal_HC.shape[0] > 0
    middle = diagonal_HC.shape[1] // 2
    for h in range(heads):
        for g in range(segments):
            for i in range(queries):
                row = scores_HGQK[h, g, i]
                seen = _seen(length_G, g, i, keys, causal)
                most, check = _LEAST, _f(0)
                if biased:
                    bias = diagonal_HC[h, middle - i : middle - i + keys]
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
                lse_HGQ[h, g, i] = top + np.log(total)


def softmax_again_(
    scores_HGQK: Tensor, diagonal_HC: Tensor | None, length_G: Tensor | None, causal: bool, lse_HGQ: Tensor
) -> None:
    """The same scores once more, the normalisers known."""
    diagonal, length = _or_none(diagonal_HC, length_G)
    _softmax_again(scores_HGQK.numpy(), diagonal, length, causal, lse_HGQ.numpy())


@_loop
def _softmax_again(scores_HGQK, diagonal_HC, length_G, causal, lse_HGQ):
    heads, segments, queries, keys = scores_HGQK.shape
    biased = diagonal_HC.shape[0] > 0
    middle = diagonal_HC.shape[1] // 2
    for h in range(heads):
        for g in range(segments):
            for i in range(queries):
                row = scores_HGQK[h, g, i]
                seen = _seen(length_G, g, i, keys, causal)
                lse = lse_HGQ[h, g, i]
                if biased:
                    bias = diagonal_HC[h, middle - i : middle - i + keys]
                    for j in range(seen):
                        row[j] = _exp(row[j] + bias[j] - lse)
                else:
                    for j in range(seen):
                        row[j] = _exp(row[j] - lse)
                for j in range(seen, keys):
                    row[j] = 0


def softmax_backward_(p_HGQK: Tensor, dp_HGQK: Tensor, ddiagonal_HC: Tensor | None) -> None:
    """dp becomes the gradient of the scores, in place, and is added up along the diagonals into ddiagonal_HC."""
    diagonal = _NONE_FF if ddiagonal_HC is None else ddiagonal_HC
    _softmax_backward(p_HGQK.numpy(), dp_HGQK.numpy(), diagonal.numpy())


@_loop
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
                    mean += p[j] * dp[j]
                if biased:
                    along = ddiagonal_HC[h, middle - i : middle - i + keys]
                    for j in range(keys):
                        ds = p[j] * (dp[j] - mean)
                        dp[j] = ds
                        along[j] += ds
                else:
                    for j in range(keys):
                        dp[j] = p[j] * (dp[j] - mean)


def attend_one(
    q_AI: Tensor, k_HREL: Tensor, v_HRLE: Tensor, row_A: Tensor, length_A: Tensor, bias_HL: Tensor | None
) -> Tensor:
    """Attention of one query each of some rows over their rows' first keys: a step of decoding.

    k_HREL: keys, a place's numbers apart, so that a row's scores are sums of vectors. bias_HL: by how far a key lies
    behind the last one.
    """
    out_AI = torch.empty_like(q_AI)
    bias = _NONE_FF if bias_HL is None else bias_HL
    arrays = [x.numpy() for x in (q_AI, k_HREL, v_HRLE, row_A, length_A, bias, out_AI)]
    _attend_one(*arrays)
    return out_AI


@_loop
def _attend_one(q_AI, k_HREL, v_HRLE, row_A, length_A, bias_HL, out_AI):
    heads, _, e, longest = k_HREL.shape
    room = np.empty(longest, np.float32)
    out_AI[:] = 0
    for a in range(len(row_A)):
        r, keys = row_A[a], length_A[a]
        p = room[:keys]
        for h in range(heads):
            for j in range(keys):
                p[j] = bias_HL[h, keys - 1 - j] if bias_HL.shape[0] else _f(0)
            for i in range(e):
                _add_times(k_HREL[h, r, i, :keys], q_AI[a, h * e + i], p)
            _normalise(p)
            out = out_AI[a, h * e : h * e + e]
            for j in range(keys):
                _add_times(v_HRLE[h, r, j], p[j], out)


@_loop
def _add_times(source, factor, target):
    for j in range(len(target)):
        target[j] += source[j] * factor


@_loop
def _normalise(p):
    """Softmax of one row in place."""
    most, check, total = _LEAST, _f(0), _f(0)
    for j in range(len(p)):
        check += p[j]
        most = max(most, _ordered(_as_int(p[j])))
    top = _as_float(_ordered(most))
    for j in range(len(p)):
        p[j] = _exp(p[j] - top)
        total += p[j]
    scale = _f(1) / (total + check * _f(0))
    for j in range(len(p)):
        p[j] *= scale


# --- feed-forward ---------------------------------------------------------------------------------------------------


def relu_(h_NF: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> None:
    """ReLU and dropout, in place."""
    _relu(h_NF.numpy(), (_NONE_FF if mask_BF is None else mask_BF).numpy(), row_N.numpy())


@_loop
def _relu(h_NF, mask_BF, row_N):
    for n in range(h_NF.shape[0]):
        if mask_BF.shape[0]:
            _relu_row(h_NF[n], mask_BF[row_N[n]])
        else:
            _relu_all(h_NF[n])


@_loop
def _relu_row(h, mask):
    for i in range(len(h)):
        x = h[i] * mask[i]  # a mask is not negative, so it may come first
        h[i] = _f(0) if x <= 0 else x


@_loop
def _relu_all(h):
    for i in range(len(h)):
        x = h[i]
        h[i] = _f(0) if x <= 0 else x  # and not a maximum: a NaN stays one


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
