"""Attention on a GPU, tile by tile in Triton: scores live in registers and nothing of their size is ever written.

Three kernels. A program of `forward` and of `backward_queries` owns a block of one segment's queries of one head and
walks over its keys; one of `backward_keys`, which comes after `backward_queries`, owns a block of keys and walks over
the queries. None of them adds to what another writes, so equal inputs give equal bytes: there is no atomic addition.

The bias of a query and a key is the number of their diagonal, read from a vector of 2 * longest - 1 numbers a head.
Its gradient is the sum of the scores' gradients along diagonals. A square tile of B queries and B keys has 2 B - 1 of
them. Row i is turned to the left by i places (`tl.gather`); column j then holds diagonal j where it did not go around
the end, and diagonal j - B where it did. Two sums down the columns are the tile's upper and lower diagonals, and the
lower ones of a tile are the same diagonals as the upper ones of the tile before it: each program writes a row of
(tiles + 1) * B numbers, once.

    Q  queries of a block    K  keys of a block    B  either: blocks are square    E  d_kv, rounded up to a power of two
"""

# Triton's language is not Python's to a type checker.
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import triton
import triton.language as tl

# A kernel is compiled once a combination of these: not for what differs from batch to batch, such as whether a list of
# segments begins at a multiple of 16 bytes.
AS_THEY_COME = ["q_first", "q_length", "k_first", "k_length", "prefix", "longest", "blocks", "heads", "sums_width"]


@triton.jit
def _rows(base, first, at_Q, length, stride, head, width: tl.constexpr, padded: tl.constexpr):
    """Numbers of one head at these places of a segment, (Q, E); zeros outside."""
    along_E = tl.arange(0, padded)
    place_QE = at_Q[:, None] * stride + along_E[None, :]  # in 32 bits: half the registers
    mask_QE = (at_Q < length)[:, None] & (along_E < width)[None, :]
    return tl.load(base + first * stride + head * width + place_QE, mask=mask_QE, other=0.0)


@triton.jit
def _keep(base, first, at_Q, length, stride, head, width: tl.constexpr, padded: tl.constexpr, value_QE):
    along_E = tl.arange(0, padded)
    place_QE = at_Q[:, None] * stride + along_E[None, :]
    mask_QE = (at_Q < length)[:, None] & (along_E < width)[None, :]
    tl.store(base + first * stride + head * width + place_QE, value_QE.to(base.dtype.element_ty), mask=mask_QE)


@triton.jit
def _weighed(v_KE, factor, first, at_K, length, head, heads, has_factor: tl.constexpr):
    """Values as dropout leaves them: times a factor of each key, in the values' own precision."""
    if has_factor:
        factor_K = tl.load(factor + first * heads + head + at_K * heads, mask=at_K < length, other=0.0)
        v_KE = (v_KE.to(tl.float32) * factor_K[:, None]).to(v_KE.dtype)
    return v_KE


@triton.jit
def _dot(a, b, exact: tl.constexpr):
    """A product with sums in fp32. "wide": of numbers made fp32 first, since the interpreter knows no bf16."""
    if exact == "wide":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=exact)


@triton.jit
def _scores(
    q_QE, k_KE, at_Q, at_K, keys, prefix, diagonal, head, longest,
    causal: tl.constexpr, biased: tl.constexpr, exact: tl.constexpr,
):  # fmt: skip
    """q k' + bias, (Q, K) fp32; -inf where a key is not seen."""
    s_QK = _dot(q_QE, tl.trans(k_KE), exact)
    seen_QK = (at_K < keys)[None, :]
    if causal:
        seen_QK = seen_QK & (at_K[None, :] < tl.maximum(at_Q + 1, prefix)[:, None])
    if biased:
        at_QK = at_K[None, :] - at_Q[:, None] + (longest - 1)
        inside_QK = (at_QK >= 0) & (at_QK < 2 * longest - 1)
        s_QK += tl.load(diagonal + head * (2 * longest - 1) + at_QK, mask=inside_QK, other=0.0)
    return tl.where(seen_QK, s_QK, float("-inf"))


@triton.jit
def _place(q_first, q_length, k_first, k_length, prefix, segment, has_prefix: tl.constexpr):
    front = 0
    if has_prefix:
        front = tl.load(prefix + segment).to(tl.int32)
    return (
        tl.load(q_first + segment), tl.load(q_length + segment).to(tl.int32),
        tl.load(k_first + segment), tl.load(k_length + segment).to(tl.int32), front,
    )  # fmt: skip


@triton.jit(do_not_specialize=AS_THEY_COME)
def forward(
    q, k, v, factor, diagonal, out, lse, q_first, q_length, k_first, k_length, prefix,
    q_stride, kv_stride, out_stride, longest, blocks, heads,
    width: tl.constexpr, padded: tl.constexpr, B: tl.constexpr, exact: tl.constexpr,
    causal: tl.constexpr, biased: tl.constexpr, has_factor: tl.constexpr, has_prefix: tl.constexpr,
):  # fmt: skip
    """out (N, H E) and the logarithm of each normaliser, lse (N, H)."""
    segment, begin, head = tl.program_id(0) // blocks, tl.program_id(0) % blocks * B, tl.program_id(1)
    first, queries, from_k, keys, front = _place(q_first, q_length, k_first, k_length, prefix, segment, has_prefix)
    if begin < queries:
        at_Q = begin + tl.arange(0, B)
        q_QE = _rows(q, first, at_Q, queries, q_stride, head, width, padded)
        most_Q = tl.full([B], float("-inf"), tl.float32)
        total_Q = tl.zeros([B], tl.float32)
        sum_QE = tl.zeros([B, padded], tl.float32)
        end = keys
        if causal:
            end = tl.minimum(keys, tl.maximum(begin + B, front))
        for start in range(0, end, B):
            at_K = start + tl.arange(0, B)
            k_KE = _rows(k, from_k, at_K, keys, kv_stride, head, width, padded)
            v_KE = _rows(v, from_k, at_K, keys, kv_stride, head, width, padded)
            v_KE = _weighed(v_KE, factor, from_k, at_K, keys, head, heads, has_factor)
            s_QK = _scores(q_QE, k_KE, at_Q, at_K, keys, front, diagonal, head, longest, causal, biased, exact)
            higher_Q = tl.maximum(most_Q, tl.max(s_QK, 1))  # finite: every query sees the first key
            shrink_Q = tl.exp(most_Q - higher_Q)
            p_QK = tl.exp(s_QK - higher_Q[:, None])
            total_Q = total_Q * shrink_Q + tl.sum(p_QK, 1)
            product_QE = _dot(p_QK.to(v_KE.dtype), v_KE, exact)
            sum_QE = sum_QE * shrink_Q[:, None] + product_QE
            most_Q = higher_Q
        _keep(out, first, at_Q, queries, out_stride, head, width, padded, sum_QE / total_Q[:, None])
        tl.store(lse + first * heads + head + at_Q * heads, most_Q + tl.log(total_Q), mask=at_Q < queries)


@triton.jit(do_not_specialize=AS_THEY_COME)
def backward_queries(
    q, k, v, factor, diagonal, dout, lse, delta, out, dq, sums, q_first, q_length, k_first, k_length, prefix,
    q_stride, kv_stride, dout_stride, dq_stride, longest, blocks, heads, sums_width,
    width: tl.constexpr, padded: tl.constexpr, B: tl.constexpr, exact: tl.constexpr,
    causal: tl.constexpr, biased: tl.constexpr, has_factor: tl.constexpr, has_prefix: tl.constexpr,
):  # fmt: skip
    """The gradients of queries; delta (N, H): of each, the product of its output and the output's gradient; and of the
    bias, sums (segments * blocks, H, W): a program's place w is the diagonal key - query = w - B - (its first query).
    What it does not write there has to be 0 before."""
    segment, begin, head = tl.program_id(0) // blocks, tl.program_id(0) % blocks * B, tl.program_id(1)
    first, queries, from_k, keys, front = _place(q_first, q_length, k_first, k_length, prefix, segment, has_prefix)
    if begin < queries:
        along_B = tl.arange(0, B)
        at_Q = begin + along_B
        q_QE = _rows(q, first, at_Q, queries, q_stride, head, width, padded)
        dout_QE = _rows(dout, first, at_Q, queries, dout_stride, head, width, padded)
        lse_Q = tl.load(lse + first * heads + head + at_Q * heads, mask=at_Q < queries, other=float("inf"))
        out_QE = _rows(out, first, at_Q, queries, dout_stride, head, width, padded)
        delta_Q = tl.sum(out_QE.to(tl.float32) * dout_QE.to(tl.float32), 1)
        tl.store(delta + first * heads + head + at_Q * heads, delta_Q, mask=at_Q < queries)
        dq_QE = tl.zeros([B, padded], tl.float32)
        around_QK = along_B[:, None] + along_B[None, :]
        upper_B = tl.zeros([B], tl.float32)  # of the tile before: the same diagonals as this one's lower half
        row = sums + (tl.program_id(0).to(tl.int64) * heads + head) * sums_width + along_B
        end = keys
        if causal:
            end = tl.minimum(keys, tl.maximum(begin + B, front))
        for start in range(0, end, B):
            at_K = start + along_B
            k_KE = _rows(k, from_k, at_K, keys, kv_stride, head, width, padded)
            v_KE = _rows(v, from_k, at_K, keys, kv_stride, head, width, padded)
            v_KE = _weighed(v_KE, factor, from_k, at_K, keys, head, heads, has_factor)
            s_QK = _scores(q_QE, k_KE, at_Q, at_K, keys, front, diagonal, head, longest, causal, biased, exact)
            p_QK = tl.exp(s_QK - lse_Q[:, None])
            dp_QK = _dot(dout_QE, tl.trans(v_KE), exact)
            ds_QK = p_QK * (dp_QK - delta_Q[:, None])
            dq_QE += _dot(ds_QK.to(k_KE.dtype), k_KE, exact)
            if biased:
                turned_QK = tl.gather(ds_QK, around_QK % B, 1)
                straight_QK = around_QK < B
                tl.store(row + start, upper_B + tl.sum(tl.where(straight_QK, 0.0, turned_QK), 0))
                upper_B = tl.sum(tl.where(straight_QK, turned_QK, 0.0), 0)
        if biased:
            tl.store(row + tl.cdiv(end, B) * B, upper_B)
        _keep(dq, first, at_Q, queries, dq_stride, head, width, padded, dq_QE)


@triton.jit(do_not_specialize=AS_THEY_COME)
def backward_keys(
    q, k, v, factor, diagonal, dout, lse, delta, dk, dv, q_first, q_length, k_first, k_length, prefix,
    q_stride, kv_stride, dout_stride, dkv_stride, longest, blocks, heads,
    width: tl.constexpr, padded: tl.constexpr, B: tl.constexpr, exact: tl.constexpr,
    causal: tl.constexpr, biased: tl.constexpr, has_factor: tl.constexpr, has_prefix: tl.constexpr,
):  # fmt: skip
    """The gradients of keys and values. delta (N, H): as backward_queries leaves it."""
    segment, start, head = tl.program_id(0) // blocks, tl.program_id(0) % blocks * B, tl.program_id(1)
    first, queries, from_k, keys, front = _place(q_first, q_length, k_first, k_length, prefix, segment, has_prefix)
    if start < keys:
        at_K = start + tl.arange(0, B)
        k_KE = _rows(k, from_k, at_K, keys, kv_stride, head, width, padded)
        v_KE = _rows(v, from_k, at_K, keys, kv_stride, head, width, padded)
        v_KE = _weighed(v_KE, factor, from_k, at_K, keys, head, heads, has_factor)
        dk_KE, dv_KE = tl.zeros([B, padded], tl.float32), tl.zeros([B, padded], tl.float32)
        origin = 0
        if causal:
            origin = tl.where(start < front, 0, start)  # queries before these keys see them in the prefix alone
        for begin in range(origin, queries, B):
            at_Q = begin + tl.arange(0, B)
            q_QE = _rows(q, first, at_Q, queries, q_stride, head, width, padded)
            dout_QE = _rows(dout, first, at_Q, queries, dout_stride, head, width, padded)
            lse_Q = tl.load(lse + first * heads + head + at_Q * heads, mask=at_Q < queries, other=float("inf"))
            delta_Q = tl.load(delta + first * heads + head + at_Q * heads, mask=at_Q < queries, other=0.0)
            s_QK = _scores(q_QE, k_KE, at_Q, at_K, keys, front, diagonal, head, longest, causal, biased, exact)
            p_QK = tl.exp(s_QK - lse_Q[:, None])  # 0 for places behind the last query, whose lse is infinite
            dv_KE += _dot(tl.trans(p_QK.to(dout_QE.dtype)), dout_QE, exact)
            dp_QK = _dot(dout_QE, tl.trans(v_KE), exact)
            ds_QK = p_QK * (dp_QK - delta_Q[:, None])
            dk_KE += _dot(tl.trans(ds_QK.to(q_QE.dtype)), q_QE, exact)
        if has_factor:
            factor_K = tl.load(factor + from_k * heads + head + at_K * heads, mask=at_K < keys, other=0.0)
            dv_KE = dv_KE * factor_K[:, None]
        _keep(dk, from_k, at_K, keys, dkv_stride, head, width, padded, dk_KE)
        _keep(dv, from_k, at_K, keys, dkv_stride, head, width, padded, dv_KE)
