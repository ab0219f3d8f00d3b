"""Attention over tiles, forward and backward, without a score tensor of the whole batch.

One head of one tile at a time: its scores are made, biased, normalised and used while they lie in cache, and only the
logarithm of each normaliser is kept. The backward pass makes the scores again, which costs one matrix product in five.

The relative position bias enters by its diagonals: a head's bias depends on (key - query) alone, so it is a vector of
2 * longest - 1 numbers. It is looked up in the table once a forward pass, every layer of the stack adds it, and its
gradient is summed along diagonals tile by tile, never as a (heads, length, length) tensor.

    N  tokens of the queries    M  of the keys    I  H K, the columns of all heads    H  heads    K  d_kv
    G  segments of a tile    Q  queries    K  keys of a tile's block    C  2 * longest - 1 distances
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from t5study.model.inputs import Span, Tile
from t5study.model.shapes import BUCKETS, MAX_DISTANCE

# The distance at which each bucket of the far half begins, in whole numbers: the formula's float logarithm disagrees
# between libraries at the boundaries. Two ways: 16 buckets a direction, 8 of them exact. One way: 32, 16 exact.
_FAR_TWO_WAYS = (8, 12, 16, 23, 32, 46, 64, 91)
_FAR_ONE_WAY = (16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113)


@functools.lru_cache(maxsize=64)
def buckets(longest: int, causal: bool) -> Tensor:
    """The bucket of every distance key - query from -(longest - 1) to longest - 1; (C,) int64.

    Two ways (encoder): keys behind get 0..15, keys ahead 16..31. One way (decoder): keys ahead count as distance 0.

    >>> buckets(3, causal=False).tolist()  # -2 -1 0 1 2
    [2, 1, 0, 17, 18]
    """
    distance_C = torch.arange(-(longest - 1), longest)
    far = torch.tensor(_FAR_ONE_WAY if causal else _FAR_TWO_WAYS)
    exact = int(far[0])
    behind_C = (-distance_C).clamp(min=0) if causal else distance_C.abs()
    past_C = exact - 1 + torch.searchsorted(far, behind_C.clamp(max=MAX_DISTANCE), right=True)
    bucket_C = torch.where(behind_C < exact, behind_C, past_C)
    return bucket_C if causal else bucket_C + (BUCKETS // 2) * (distance_C > 0)


class Diagonals(torch.autograd.Function):
    """A bias table (buckets, H) -> its diagonals (H, C)."""

    @staticmethod
    def forward(ctx, table: Tensor, longest: int, causal: bool) -> Tensor:
        bucket_C = buckets(longest, causal).to(table.device)
        ctx.save_for_backward(bucket_C)
        return table.detach().t()[:, bucket_C].contiguous()

    @staticmethod
    def backward(ctx, ddiagonal_HC: Tensor):
        (bucket_C,) = ctx.saved_tensors
        one_CB = torch.nn.functional.one_hot(bucket_C, BUCKETS).to(ddiagonal_HC.dtype)
        return (ddiagonal_HC @ one_CB).t(), None, None


def attend(
    ops: ModuleType,
    q_NI: Tensor,
    k_MI: Tensor,
    v_MI: Tensor,
    diagonal_HC: Tensor | None,
    tiles: Sequence[Tile],
    heads: int,
    causal: bool,
) -> tuple[Tensor, list[Tensor]]:
    """softmax(q k' + bias) v, each segment for itself; and the logarithms of the normalisers, one (H, G, Q) a tile.

    There is no 1 / sqrt(d_kv): T5 has it in q's initial weights.
    """
    out_NI = q_NI.new_empty(q_NI.shape)
    scores = q_NI.new_empty(
        max((len(tile.queries) * tile.queries.width * tile.keys.width for tile in tiles), default=0)
    )
    kept = []
    for tile in tiles:
        q_heads, k_heads, v_heads = (
            _heads(_block(ops, x, span), heads)
            for x, span in ((q_NI, tile.queries), (k_MI, tile.keys), (v_MI, tile.keys))
        )
        size = (len(tile.queries), tile.queries.width, tile.keys.width)
        scores_GQK = scores[: size[0] * size[1] * size[2]].view(size)
        length_G = tile.keys.length_G if tile.padded else None
        out_block = _own_block(out_NI, tile.queries)
        lse = []
        for h, out_GQK in enumerate(_heads(out_block, heads)):
            torch.bmm(q_heads[h], k_heads[h].transpose(1, 2), out=scores_GQK)
            diagonal_C = None if diagonal_HC is None else diagonal_HC[h]
            lse.append(ops.softmax_(scores_GQK, diagonal_C, length_G, causal))
            out_GQK.copy_(torch.bmm(scores_GQK, v_heads[h]))
        kept.append(torch.stack(lse))
        _return(ops, out_NI, tile.queries, out_block)
    return out_NI, kept


def attend_backward(
    ops: ModuleType,
    dout_NI: Tensor,
    q_NI: Tensor,
    k_MI: Tensor,
    v_MI: Tensor,
    diagonal_HC: Tensor | None,
    kept: Sequence[Tensor],
    tiles: Sequence[Tile],
    heads: int,
    causal: bool,
    dq_NI: Tensor,
    dk_MI: Tensor,
    dv_MI: Tensor,
) -> Tensor | None:
    """Fills dq, dk and dv, which may be columns of one matrix; returns the gradient of the diagonals."""
    ddiagonal_HC = None if diagonal_HC is None else torch.zeros_like(diagonal_HC)
    largest = max((len(tile.queries) * tile.queries.width * tile.keys.width for tile in tiles), default=0)
    scores, dscores = q_NI.new_empty(2, largest)
    for tile, lse_HGQ in zip(tiles, kept, strict=True):
        sides = ((q_NI, tile.queries), (k_MI, tile.keys), (v_MI, tile.keys), (dout_NI, tile.queries))
        q_heads, k_heads, v_heads, dout_heads = (_heads(_block(ops, x, span), heads) for x, span in sides)
        ends = ((dq_NI, tile.queries), (dk_MI, tile.keys), (dv_MI, tile.keys))
        blocks = [_own_block(x, span) for x, span in ends]
        dq_heads, dk_heads, dv_heads = (_heads(block, heads) for block in blocks)
        size = (len(tile.queries), tile.queries.width, tile.keys.width)
        p_GQK = scores[: size[0] * size[1] * size[2]].view(size)
        ds_GQK = dscores[: size[0] * size[1] * size[2]].view(size)
        length_G = tile.keys.length_G if tile.padded else None
        for h in range(heads):
            torch.bmm(q_heads[h], k_heads[h].transpose(1, 2), out=p_GQK)
            diagonal_C = None if diagonal_HC is None else diagonal_HC[h]
            ops.softmax_again_(p_GQK, diagonal_C, length_G, causal, lse_HGQ[h])
            dv_heads[h].copy_(torch.bmm(p_GQK.transpose(1, 2), dout_heads[h]))
            torch.bmm(dout_heads[h], v_heads[h].transpose(1, 2), out=ds_GQK)
            ops.softmax_backward_(p_GQK, ds_GQK, None if ddiagonal_HC is None else ddiagonal_HC[h])
            dq_heads[h].copy_(torch.bmm(ds_GQK, k_heads[h]))
            dk_heads[h].copy_(torch.bmm(ds_GQK.transpose(1, 2), q_heads[h]))
        for (x, span), block in zip(ends, blocks, strict=True):
            _return(ops, x, span, block)
    return ddiagonal_HC


def _block(ops: ModuleType, x_NI: Tensor, span: Span) -> Tensor:
    """One side of a tile as a block (G, width, I): a view where its segments lie in a row, else a padded copy."""
    if span.contiguous:
        return x_NI[span.start : span.start + len(span) * span.width].unflatten(0, (len(span), span.width))
    return ops.take(x_NI, span.first_G, span.length_G, span.width)


def _own_block(x_NI: Tensor, span: Span) -> Tensor:
    """Where one side's results go: a view of x where that can be, else room that `_return` copies from."""
    if span.contiguous:
        return x_NI[span.start : span.start + len(span) * span.width].unflatten(0, (len(span), span.width))
    return x_NI.new_empty(len(span), span.width, x_NI.shape[1])


def _return(ops: ModuleType, x_NI: Tensor, span: Span, block: Tensor) -> None:
    if not span.contiguous:
        ops.put(x_NI, span.first_G, span.length_G, block)


def _heads(block: Tensor, heads: int) -> tuple[Tensor, ...]:
    """(G, width, H K) -> H views (G, width, K)."""
    return block.unflatten(-1, (heads, -1)).unbind(2)
