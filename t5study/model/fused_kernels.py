"""The arithmetic between matrix products on a GPU, in Triton: each row is read once, finished, and written once.

A GPU's products are so fast that a step of torch's operators, each a pass over memory, takes longer than them: a norm
and its backward pass are almost 30 of them, here two kernels. Statistics and sums are in fp32 whatever the numbers are.
No program adds to what another writes: equal inputs give equal bytes. A NaN among a row's inputs reaches its outputs.

    N  tokens    D  d_model    F  d_ff    B  rows of the batch    V  vocabulary    C  columns of a program at a time
"""

# Triton's language is not Python's to a type checker.
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import triton
import triton.language as tl

AS_THEY_COME = [
    "rows",
    "each",
    "mask",
    "mask_stride",
    "row",
    "label",
]  # no kernel is compiled again for others of these


@triton.jit
def _of_row(base, n, columns, at_C, inside_C):
    return tl.load(base + n * columns + at_C, mask=inside_C, other=0.0).to(tl.float32)


@triton.jit
def _to_row(base, n, columns, at_C, inside_C, value_C):
    tl.store(base + n * columns + at_C, value_C.to(base.dtype.element_ty), mask=inside_C)


@triton.jit
def _mask_of(mask, row, n, mask_stride, at_C, inside_C):
    return tl.load(mask + tl.load(row + n) * mask_stride + at_C, mask=inside_C, other=0.0)


@triton.jit
def _place(columns, C: tl.constexpr):
    """A program's token, in 64 bits, its columns, and which of them there are."""
    at_C = tl.program_id(1) * C + tl.arange(0, C)
    return tl.program_id(0).to(tl.int64), at_C, at_C < columns


# --- norm: a program has a row, or several ------------------------------------------------------------------


@triton.jit
def norm(x, gain, y, r, columns, C: tl.constexpr):
    n, at_C, inside_C = _place(columns, C)
    x_C = _of_row(x, n, columns, at_C, inside_C)
    factor = tl.rsqrt(tl.sum(x_C * x_C, 0) / columns + 1e-6)
    _to_row(y, n, columns, at_C, inside_C, x_C * factor * _of_row(gain, 0, columns, at_C, inside_C))
    tl.store(r + n, factor)


@triton.jit(do_not_specialize=AS_THEY_COME)
def norm_backward(dy, x, r, gain, around, dx, sums, rows, each, columns, has_around: tl.constexpr, C: tl.constexpr):
    """sums (programs, D): what each has of the gain's gradient."""
    at_C = tl.arange(0, C)
    inside_C = at_C < columns
    first = tl.program_id(0).to(tl.int64) * each
    gain_C = _of_row(gain, 0, columns, at_C, inside_C)
    sum_C = tl.zeros([C], tl.float32)
    for i in range(0, tl.minimum(each, rows - first)):
        n = first + i
        dy_C, x_C = _of_row(dy, n, columns, at_C, inside_C), _of_row(x, n, columns, at_C, inside_C)
        factor = tl.load(r + n).to(tl.float32)
        scaled_C = x_C * factor
        product_C = dy_C * scaled_C
        sum_C += product_C
        dx_C = (dy_C * gain_C - scaled_C * (tl.sum(product_C * gain_C, 0) / columns)) * factor
        if has_around:
            dx_C += _of_row(around, n, columns, at_C, inside_C)
        _to_row(dx, n, columns, at_C, inside_C, dx_C)
    _to_row(sums, tl.program_id(0).to(tl.int64), columns, at_C, inside_C, sum_C)


# --- dropout, with what is done on the way ------------------------------------------------------------------


@triton.jit(do_not_specialize=AS_THEY_COME)
def masked(x, mask, row, out, columns, mask_stride, C: tl.constexpr):
    n, at_C, inside_C = _place(columns, C)
    x_C = _of_row(x, n, columns, at_C, inside_C)
    _to_row(out, n, columns, at_C, inside_C, x_C * _mask_of(mask, row, n, mask_stride, at_C, inside_C))


@triton.jit(do_not_specialize=AS_THEY_COME)
def add(x, o, mask, row, out, columns, mask_stride, C: tl.constexpr):
    n, at_C, inside_C = _place(columns, C)
    o_C = _of_row(o, n, columns, at_C, inside_C) * _mask_of(mask, row, n, mask_stride, at_C, inside_C)
    _to_row(out, n, columns, at_C, inside_C, _of_row(x, n, columns, at_C, inside_C) + o_C)


@triton.jit(do_not_specialize=AS_THEY_COME)
def relu(h, mask, row, columns, mask_stride, C: tl.constexpr):
    n, at_C, inside_C = _place(columns, C)
    h_C = _of_row(h, n, columns, at_C, inside_C)
    kept_C = h_C * _mask_of(mask, row, n, mask_stride, at_C, inside_C)
    _to_row(h, n, columns, at_C, inside_C, tl.where(h_C <= 0, 0.0, kept_C))  # and not a maximum: a NaN stays one


@triton.jit
def relu_backward(dh, h, columns, scale, C: tl.constexpr):
    n, at_C, inside_C = _place(columns, C)
    h_C, dh_C = _of_row(h, n, columns, at_C, inside_C), _of_row(dh, n, columns, at_C, inside_C)
    _to_row(dh, n, columns, at_C, inside_C, tl.where(h_C == 0, 0.0, dh_C * scale))


# --- gated feed-forward: gelu(x) = x s, s = sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), its tanh form -------


@triton.jit
def _gate(x_C):
    """s, and the derivative of x s."""
    s_C = tl.sigmoid(1.5957691216057308 * x_C * (1 + 0.044715 * x_C * x_C))
    return s_C, s_C + x_C * s_C * (1 - s_C) * 1.5957691216057308 * (1 + 0.134145 * x_C * x_C)


@triton.jit(do_not_specialize=AS_THEY_COME)
def gated(h, mask, row, a, columns, mask_stride, has_mask: tl.constexpr, C: tl.constexpr):
    """h (N, 2 F): what goes through the gelu beside what it is multiplied with."""
    n, at_C, inside_C = _place(columns, C)
    gate_C = _of_row(h, 2 * n, columns, at_C, inside_C)
    s_C, _ = _gate(gate_C)
    a_C = gate_C * s_C * _of_row(h, 2 * n + 1, columns, at_C, inside_C)
    if has_mask:
        a_C *= _mask_of(mask, row, n, mask_stride, at_C, inside_C)
    _to_row(a, n, columns, at_C, inside_C, a_C)


@triton.jit(do_not_specialize=AS_THEY_COME)
def gated_backward(da, h, mask, row, dh, columns, mask_stride, has_mask: tl.constexpr, C: tl.constexpr):
    n, at_C, inside_C = _place(columns, C)
    gate_C, line_C = _of_row(h, 2 * n, columns, at_C, inside_C), _of_row(h, 2 * n + 1, columns, at_C, inside_C)
    da_C = _of_row(da, n, columns, at_C, inside_C)
    if has_mask:
        da_C *= _mask_of(mask, row, n, mask_stride, at_C, inside_C)
    s_C, slope_C = _gate(gate_C)
    _to_row(dh, 2 * n, columns, at_C, inside_C, da_C * line_C * slope_C)
    _to_row(dh, 2 * n + 1, columns, at_C, inside_C, da_C * gate_C * s_C)


# --- loss: a program has a row of logits --------------------------------------------------------------------


@triton.jit(do_not_specialize=AS_THEY_COME)
def cross_entropy(logits, label, nats, lse, columns, z_loss, gradient: tl.constexpr, C: tl.constexpr):
    """Writes the gradient of nats + z_loss lse^2 over the logits, if it is asked for."""
    n = tl.program_id(0).to(tl.int64)
    wanted = tl.load(label + n)
    most, total, own = float("-inf"), 0.0, 0.0
    for first in range(0, columns, C):
        at_C = first + tl.arange(0, C)
        x_C = tl.load(logits + n * columns + at_C, mask=at_C < columns, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(most, tl.max(x_C, 0))
        total = total * tl.exp(most - higher) + tl.sum(tl.exp(x_C - higher), 0)
        # Not read alone: it could have been written over by then.
        own += tl.sum(tl.where(at_C == wanted, x_C, 0.0), 0)
        most = higher
    log_z = most + tl.log(total)
    tl.store(nats + n, log_z - own)
    tl.store(lse + n, log_z)
    if gradient:
        for first in range(0, columns, C):
            at_C = first + tl.arange(0, C)
            x_C = _of_row(logits, n, columns, at_C, at_C < columns)
            p_C = tl.exp(x_C - log_z) * (1 + 2 * z_loss * log_z) - tl.where(at_C == wanted, 1.0, 0.0)
            _to_row(logits, n, columns, at_C, at_C < columns, p_C)
