"""The model's row-by-row arithmetic as loops compiled by numba: for one CPU thread, in fp32 or with products in bf16.

A small model spends up to half of its time outside matrix products: cutting heads apart, adding the position bias,
exponentials, norms, masks. In torch's own operators each is a pass over memory and a call; here each row is read once
and finished while it lies in the nearest cache. `passes.py` is the same functions in torch's operators, for every other
device, precision and number of threads; tests hold them equal. A NaN among a row's inputs reaches its outputs.

    N  tokens    D  d_model    F  d_ff    W  columns of a projection    H  heads    E  d_kv    B  rows of the batch
    G  segments of a tile    V  vocabulary
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t5study.model import passes
from t5study.model.inputs import Span
from t5study.model.loop_numbers import array, loop, number, part, written
from t5study.model.softmax_loops import (
    NO_MATRIX,
    cross_entropy_,
    softmax_,
    softmax_again_,
    softmax_backward_,
)

__all__ = [
    "add", "add_rows_", "chunks", "cross_entropy_", "gated", "gated_backward", "join", "masked", "relu_",
    "relu_backward_", "rms", "rms_backward", "softmax_", "softmax_again_", "softmax_backward_", "split",
]  # fmt: skip

_NUMBERS = "43451e651f13c57f"  # digest of loop_numbers.py, whose parts are compiled into the loops below

_f = np.float32


def chunks(dtype: torch.dtype) -> int:
    """How many of the loss's chunks (loss.py) to take at a time: the same bytes of logits in fp32 and in bf16."""
    return 4 // dtype.itemsize


# --- norm -----------------------------------------------------------------------------------------------------------


def rms(x_ND: Tensor, gain_D: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x / sqrt(mean(x^2) + 1e-6) * gain, and the factor of each row."""
    y_ND, r_N = torch.empty_like(x_ND, dtype=dtype), torch.empty(len(x_ND))
    _rms(x_ND.numpy(), _lent(gain_D), array(y_ND), r_N.numpy())
    return y_ND, r_N


def _lent(weight: Tensor) -> np.ndarray:
    """A weight's numbers, copied: memory that numpy has seen cannot be freed in place, which FSDP2 does with it."""
    return weight.clone().numpy()


@loop
def _rms(x_ND, gain_D, y_ND, r_N):
    d = x_ND.shape[1]
    for n in range(x_ND.shape[0]):
        total = _f(0)
        for i in range(d):
            total += x_ND[n, i] * x_ND[n, i]
        r = _f(1) / np.sqrt(total / _f(d) + _f(1e-6))
        r_N[n] = r
        for i in range(d):
            y_ND[n, i] = written(x_ND[n, i] * r * gain_D[i], y_ND)


def rms_backward(
    dy_ND: Tensor, x_ND: Tensor, r_N: Tensor, gain_D: Tensor, residual_ND: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the gain; what reaches x around the sub-layer is added."""
    dx_ND, dgain_D = torch.empty_like(x_ND), torch.zeros_like(gain_D)
    around = NO_MATRIX if residual_ND is None else residual_ND
    _rms_backward(
        array(dy_ND), x_ND.numpy(), r_N.numpy(), _lent(gain_D), around.numpy(), dx_ND.numpy(), dgain_D.numpy()
    )
    return dx_ND, dgain_D


@loop
def _rms_backward(dy_ND, x_ND, r_N, gain_D, around_ND, dx_ND, dgain_D):
    d = x_ND.shape[1]
    for n in range(x_ND.shape[0]):
        r = r_N[n]
        along = _f(0)
        for i in range(d):
            product = number(dy_ND[n, i]) * x_ND[n, i]
            along += product * gain_D[i]
            dgain_D[i] += product * r
        along *= r * r * r / _f(d)
        if around_ND.shape[0]:
            for i in range(d):
                dx_ND[n, i] = number(dy_ND[n, i]) * gain_D[i] * r - x_ND[n, i] * along + around_ND[n, i]
        else:
            for i in range(d):
                dx_ND[n, i] = number(dy_ND[n, i]) * gain_D[i] * r - x_ND[n, i] * along


# --- heads ------------------------------------------------------------------------------------------------------------


def split(x_NW: Tensor, parts: int, heads: int, span: Span, factor_NH: Tensor | None) -> Tensor:
    """Segments of a token list, by head: (parts, H, G, width, E), zeros behind what is shorter.

    A token's columns are `parts` times H E numbers (q beside k beside v); the last part's are multiplied by the head's
    factor, if there is one.
    """
    block = x_NW.new_empty(parts, heads, len(span), span.width, x_NW.shape[1] // (parts * heads))
    factor = NO_MATRIX if factor_NH is None else factor_NH
    _split(array(x_NW), span.first_G.numpy(), span.length_G.numpy(), factor.numpy(), array(block))
    return block


@loop
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


@part
def _times(source, factor, target):
    for j in range(len(target)):
        target[j] = written(number(source[j]) * factor, target)


def join(block: Tensor, x_NW: Tensor, span: Span, factor_NH: Tensor | None) -> None:
    """The way back from `split`."""
    factor = NO_MATRIX if factor_NH is None else factor_NH
    _join(array(block), array(x_NW), span.first_G.numpy(), span.length_G.numpy(), factor.numpy())


@loop
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


# --- feed-forward ---------------------------------------------------------------------------------------------------


def relu_(h_NF: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> None:
    """ReLU and dropout, in place."""
    _relu(array(h_NF), (NO_MATRIX if mask_BF is None else mask_BF).numpy(), row_N.numpy())


@loop
def _relu(h_NF, mask_BF, row_N):
    for n in range(h_NF.shape[0]):
        if mask_BF.shape[0]:
            _relu_row(h_NF[n], mask_BF[row_N[n]])
        else:
            _relu_all(h_NF[n])


@part
def _relu_row(h, mask):
    for i in range(len(h)):
        x = number(h[i]) * mask[i]  # a mask is not negative, so it may come first
        h[i] = written(_f(0) if x <= 0 else x, h)


@part
def _relu_all(h):
    for i in range(len(h)):
        x = number(h[i])
        h[i] = written(_f(0) if x <= 0 else x, h)  # and not a maximum: a NaN stays one


def relu_backward_(dh_NF: Tensor, h_NF: Tensor, scale: float) -> None:
    """Gradient through `relu_` in place, h_NF being what it gave: what is 0 there was below 0 or dropped, and all
    else was multiplied by `scale`."""
    _relu_backward(array(dh_NF.view(-1)), array(h_NF.view(-1)), _f(scale))


@loop
def _relu_backward(dh, h, scale):
    for i in range(len(dh)):
        dh[i] = written(_f(0) if number(h[i]) == 0 else number(dh[i]) * scale, dh)


def gated(h_N2F: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> Tensor:
    """gelu(h_0) h_1 under dropout; h_N2F: h_0 beside h_1."""
    return masked(passes.gated(h_N2F, None, row_N), mask_BF, row_N)


def gated_backward(da_NF: Tensor, h_N2F: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> Tensor:
    """Gradient through `gated`, (N, 2 F)."""
    return passes.gated_backward(masked(da_NF, mask_BF, row_N), h_N2F, None, row_N)


# --- dropout and residual -------------------------------------------------------------------------------------------


def add(x_ND: Tensor, o_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    """x + o, o under dropout, in x's dtype. May write into o."""
    if mask_BD is None and o_ND.dtype == x_ND.dtype:
        return o_ND.add_(x_ND)
    out_ND = o_ND if o_ND.dtype == x_ND.dtype else torch.empty_like(x_ND)
    mask = NO_MATRIX if mask_BD is None else mask_BD
    _add(x_ND.numpy(), array(o_ND), mask.numpy(), row_N.numpy(), out_ND.numpy())
    return out_ND


@loop
def _add(x_ND, o_ND, mask_BD, row_N, out_ND):
    for n in range(o_ND.shape[0]):
        if mask_BD.shape[0]:
            mask = mask_BD[row_N[n]]
            for i in range(o_ND.shape[1]):
                out_ND[n, i] = x_ND[n, i] + number(o_ND[n, i]) * mask[i]
        else:
            for i in range(o_ND.shape[1]):
                out_ND[n, i] = x_ND[n, i] + number(o_ND[n, i])


def masked(x_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    """x under dropout: x itself if there is none, else a new tensor."""
    if mask_BD is None:
        return x_ND
    out_ND = torch.empty_like(x_ND)
    _masked(array(x_ND), mask_BD.numpy(), row_N.numpy(), array(out_ND))
    return out_ND


@loop
def _masked(x_ND, mask_BD, row_N, out_ND):
    for n in range(x_ND.shape[0]):
        mask = mask_BD[row_N[n]]
        for i in range(x_ND.shape[1]):
            out_ND[n, i] = written(number(x_ND[n, i]) * mask[i], out_ND)


# --- embedding --------------------------------------------------------------------------------------------------------


def add_rows_(table_VD: Tensor, id_N: Tensor, x_ND: Tensor) -> None:
    """table[id] += x for every token, in the order of tokens."""
    _add_rows(table_VD.numpy(), id_N.numpy(), x_ND.numpy())


@loop
def _add_rows(table_VD, id_N, x_ND):
    for n in range(len(id_N)):
        row = table_VD[id_N[n]]
        for i in range(x_ND.shape[1]):
            row[i] += x_ND[n, i]
