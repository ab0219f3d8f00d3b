"""Attention over tiles, forward and backward.

One tile at a time: its scores are made, biased, normalised and used while they lie in cache. Where a layer's
probabilities are few they are kept for the backward pass; where they are many, only the logarithm of each normaliser
is, and the backward pass makes the scores again, at the cost of one matrix product in five: no tensor of
(batch, heads, length, length) then ever exists.

The relative position bias enters by its diagonals: a head's bias depends on (key - query) alone, so it is a vector of
2 * longest - 1 numbers. It is looked up in the table once a forward pass, every layer of the stack adds it, and its
gradient is summed along diagonals tile by tile, never as a (heads, length, length) tensor.

    N  tokens    M  tokens of the keys, where they are others    W  columns of a projection: one to three times H E
    H  heads    E  d_kv    I  H E    G  segments of a tile    Q  queries    K  keys    C  2 * longest - 1 distances
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from t5study.model.inputs import Tile
from t5study.model.shapes import BUCKETS

KEEP = 1 << 22  # probabilities of one layer that are kept rather than made again: 16 MiB in fp32

# The distance at which each bucket of the far half begins, in whole numbers: the formula's float logarithm disagrees
# between libraries at the boundaries. Two ways: 16 buckets a direction, 8 of them exact. One way: 32, 16 exact.
_FAR_TWO_WAYS = (8, 12, 16, 23, 32, 46, 64, 91)
_FAR_ONE_WAY = (16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113)


def buckets(longest: int, causal: bool) -> Tensor:
    """The bucket of every distance key - query from -(longest - 1) to longest - 1; (C,) int64.

    Two ways (encoder): keys behind get 0..15, keys ahead 16..31. One way (decoder): keys ahead count as distance 0.

    >>> buckets(3, causal=False).tolist()  # -2 -1 0 1 2
    [2, 1, 0, 17, 18]
    """
    return torch.from_numpy(_buckets(max(longest, 1), causal))


@functools.lru_cache(maxsize=64)
def _buckets(longest: int, causal: bool) -> np.ndarray:
    distance_C = np.arange(-(longest - 1), longest)
    far = np.array(_FAR_ONE_WAY if causal else _FAR_TWO_WAYS)
    exact = int(far[0])
    behind_C = np.maximum(-distance_C, 0) if causal else np.abs(distance_C)
    past_C = exact - 1 + np.searchsorted(far, behind_C, side="right")
    bucket_C = np.where(behind_C < exact, behind_C, past_C)
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
    own_NW: Tensor,
    other_MW: Tensor | None,
    factor_NH: Tensor | None,
    diagonal_HC: Tensor | None,
    tiles: Sequence[Tile],
    heads: int,
    causal: bool,
) -> tuple[Tensor, list[Tensor]]:
    """softmax(q k' + bias) v for each segment, (N, H E); and what the backward pass needs, some tensors a tile.

    own_NW: q beside k beside v; where keys come from elsewhere q alone, and other_MW is k beside v. factor: what
    dropout makes of each head's values, by token. There is no 1 / sqrt(d_kv): T5 has it in q's initial weights.
    """
    inner = own_NW.shape[1] // (3 if other_MW is None else 1)
    out_NI = own_NW.new_empty(len(own_NW), inner)
    keep, room = _keeps(tiles, heads, own_NW)
    kept = []
    for tile in tiles:
        if other_MW is None:
            blocks = [ops.split(own_NW, 3, heads, tile.queries, factor_NH)]
        else:
            blocks = [
                ops.split(own_NW, 1, heads, tile.queries, None),
                ops.split(other_MW, 2, heads, tile.keys, factor_NH),
            ]
        q_HGQE, k_HGKE, v_HGKE = _parts(blocks)
        p_HGQK = _scores(q_HGQE, k_HGKE, room)
        lse_HGQ = ops.softmax_(p_HGQK, diagonal_HC, _length(tile), causal, tile.prefix_G)
        ops.join(_bmm(p_HGQK, v_HGKE)[None], out_NI, tile.queries, None)
        kept += (*blocks, p_HGQK if keep else lse_HGQ)
    return out_NI, kept


def attend_backward(
    ops: ModuleType,
    dout_NI: Tensor,
    factor_NH: Tensor | None,
    diagonal_HC: Tensor | None,
    kept: Sequence[Tensor],
    tiles: Sequence[Tile],
    heads: int,
    causal: bool,
    down_NW: Tensor,
    dother_MW: Tensor | None,
) -> Tensor | None:
    """Fills the gradients of own and other; returns that of the diagonals."""
    ddiagonal_HC = None if diagonal_HC is None else torch.zeros_like(diagonal_HC)
    keep, room = _keeps(tiles, heads, dout_NI)
    droom = room if room is None else torch.empty_like(room)
    each = 2 if dother_MW is None else 3
    for i, tile in enumerate(tiles):
        *blocks, p_HGQK = kept[each * i : each * (i + 1)]
        q_HGQE, k_HGKE, v_HGKE = _parts(blocks)
        if not keep:
            lse_HGQ, p_HGQK = p_HGQK, _scores(q_HGQE, k_HGKE, room)
            ops.softmax_again_(p_HGQK, diagonal_HC, _length(tile), causal, lse_HGQ, tile.prefix_G)
        dout_HGQE = ops.split(dout_NI, 1, heads, tile.queries, None)[0]
        dblocks = [torch.empty_like(block) for block in blocks]
        dq_HGQE, dk_HGKE, dv_HGKE = _parts(dblocks)
        _bmm(p_HGQK.transpose(2, 3), dout_HGQE, dv_HGKE)
        ds_HGQK = _scores(dout_HGQE, v_HGKE, droom)
        ops.softmax_backward_(p_HGQK, ds_HGQK, ddiagonal_HC)
        _bmm(ds_HGQK, k_HGKE, dq_HGQE)
        _bmm(ds_HGQK.transpose(2, 3), q_HGQE, dk_HGKE)
        ops.join(dblocks[0], down_NW, tile.queries, None if dother_MW is not None else factor_NH)
        if dother_MW is not None:
            ops.join(dblocks[1], dother_MW, tile.keys, factor_NH)
    return ddiagonal_HC


def _length(tile: Tile) -> Tensor | None:
    return tile.keys.length_G if tile.padded else None


def _parts(blocks: Sequence[Tensor]) -> list[Tensor]:
    """q, k and v of one block of three or of a block of one and a block of two."""
    return [part for block in blocks for part in block.unbind(0)]


def _keeps(tiles: Sequence[Tile], heads: int, like: Tensor) -> tuple[bool, Tensor | None]:
    """Whether the layer's probabilities are kept; if not, room for those of any one tile."""
    sizes = [heads * len(tile.queries) * tile.queries.width * tile.keys.width for tile in tiles]
    if sum(sizes) <= KEEP:
        return True, None
    return False, like.new_empty(max(sizes))


def _bmm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """A matrix product for every head and segment."""
    flat = None if out is None else out.flatten(0, 1)
    return torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out=flat).unflatten(0, a.shape[:2])


def _scores(q_HGQE: Tensor, k_HGKE: Tensor, room: Tensor | None) -> Tensor:
    """q k' (H, G, Q, K), in `room` if there is one."""
    if room is not None:
        size = (*q_HGQE.shape[:3], k_HGKE.shape[2])
        room = room[: q_HGQE.shape[:3].numel() * size[3]].view(size)
    return _bmm(q_HGQE, k_HGKE.transpose(2, 3), room)
