"""Attention on a GPU: the two functions of attention.py by the kernels of flash_kernels.py.

The kernels read queries, keys and values where the projections left them and write beside them: nothing is cut into
heads, padded or gathered. What a layer keeps for its backward pass is what lies there anyway, its own output and one
number a query and head. A bias gradient takes room of a few numbers a query, at most ROOM of them at a time.

    N  tokens    M  tokens of the keys, where they are others    W  columns of a projection: one to three times H E
    H  heads    E  d_kv    I  H E    G  segments of a tile    C  2 * longest - 1 distances
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from t5study.model.inputs import Span, Tile, has_triton

ROOM = 1 << 24  # partial sums of the bias's gradient that exist at once: 64 MiB in fp32
WIDEST = 256  # columns of a head that a block's registers hold
SHARED = 150 << 10  # bytes that blocks of 64 rows take at 128 columns a head
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fits(weight: Tensor, dtype: torch.dtype, d_kv: int) -> bool:
    """Whether these kernels do a model's attention: on a GPU, of such numbers, with Triton there."""
    return weight.device.type == "cuda" and dtype in DTYPES and d_kv <= WIDEST and has_triton()


def attend(
    _ops: ModuleType,
    own_NW: Tensor,
    other_MW: Tensor | None,
    factor_NH: Tensor | None,
    diagonal_HC: Tensor | None,
    tiles: Sequence[Tile],
    heads: int,
    causal: bool,
) -> tuple[Tensor, list[Tensor]]:
    """As attention.attend."""
    from t5study.model import flash_kernels as kernels

    q_NI, k_MI, v_MI = _parts(own_NW, other_MW)
    out_NI = own_NW.new_empty(q_NI.shape)
    lse_NH = own_NW.new_empty((len(own_NW), heads), dtype=torch.float32)
    factor_NH, diagonal_HC, longest = _floats(factor_NH, diagonal_HC)
    for tile in tiles:
        launch = _Launch(tile, heads, q_NI, factor_NH, diagonal_HC, causal)
        kernels.forward[launch.over(tile.queries)](
            q_NI, k_MI, v_MI, *launch.optional, out_NI, lse_NH, *launch.spans,
            q_NI.stride(0), k_MI.stride(0), out_NI.stride(0), longest, launch.blocks(tile.queries), heads,
            **launch.constants,
        )  # fmt: skip
    return out_NI, [own_NW, *(() if other_MW is None else (other_MW,)), out_NI, lse_NH]


def attend_backward(
    _ops: ModuleType,
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
    """As attention.attend_backward."""
    from t5study.model import flash_kernels as kernels

    own_NW, *other, out_NI, lse_NH = kept
    q_NI, k_MI, v_MI = _parts(own_NW, other[0] if other else None)
    dq_NI, dk_MI, dv_MI = _parts(down_NW, dother_MW)
    dout_NI = dout_NI.contiguous()
    delta_NH = (dout_NI.float() * out_NI).unflatten(1, (heads, -1)).sum(2)
    factor_NH, fp32_HC, longest = _floats(factor_NH, diagonal_HC)
    ddiagonal_HC = None if fp32_HC is None else torch.zeros_like(fp32_HC)
    for tile in tiles:
        launch = _Launch(tile, heads, q_NI, factor_NH, fp32_HC, causal)
        read = (q_NI, k_MI, v_MI, *launch.optional, dout_NI, lse_NH, delta_NH)
        strides = (q_NI.stride(0), k_MI.stride(0), dout_NI.stride(0))
        kernels.backward_keys[launch.over(tile.keys)](
            *read, dk_MI, dv_MI, *launch.spans,
            *strides, dk_MI.stride(0), longest, launch.blocks(tile.keys), heads, **launch.constants,
        )  # fmt: skip
        # A program's sums begin B diagonals before its first key and end with its last.
        blocks, width = launch.blocks(tile.queries), (launch.blocks(tile.keys) + 1) * launch.block
        for some in _groups(tile, blocks * heads * width if ddiagonal_HC is not None else 0):
            launch = _Launch(some, heads, q_NI, factor_NH, fp32_HC, causal)
            shape = (len(some.queries), blocks, heads, width if ddiagonal_HC is not None else 0)
            sums_GBHW = lse_NH.new_zeros(shape)
            kernels.backward_queries[launch.over(tile.queries)](
                *read, dq_NI, sums_GBHW, *launch.spans,
                *strides, dq_NI.stride(0), longest, blocks, heads, width, **launch.constants,
            )  # fmt: skip
            if ddiagonal_HC is not None:
                _add_diagonals(ddiagonal_HC, sums_GBHW.sum(0), launch.block, longest)
    return None if ddiagonal_HC is None or diagonal_HC is None else ddiagonal_HC.to(diagonal_HC.dtype)


def _add_diagonals(ddiagonal_HC: Tensor, sums_BHW: Tensor, block: int, longest: int) -> None:
    """Adds what each block of queries has of the diagonals, a row after another, which keeps the order of the sums."""
    columns = ddiagonal_HC.shape[1]
    for i, sums_HW in enumerate(sums_BHW.unbind(0)):
        first = longest - 1 - block - i * block  # where key - query = -block - i * block lies among the diagonals
        low, high = max(first, 0), min(first + sums_HW.shape[1], columns)
        if low < high:
            ddiagonal_HC[:, low:high] += sums_HW[:, low - first : high - first]


def _groups(tile: Tile, numbers: int) -> Iterator[Tile]:
    """A tile's segments, as many at a time as there is room for, given what one takes."""
    most = max(1, ROOM // numbers) if numbers else len(tile.queries)
    for first in range(0, len(tile.queries), most):
        some = slice(first, first + most)
        spans = (Span(s.first_G[some], s.length_G[some], s.width) for s in (tile.queries, tile.keys))
        yield Tile(*spans, tile.padded, None if tile.prefix_G is None else tile.prefix_G[some])


def _parts(own_NW: Tensor, other_MW: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, columns of what holds them."""
    if other_MW is None:
        q, k, v = own_NW.chunk(3, 1)
        return q, k, v
    return own_NW, *other_MW.chunk(2, 1)


def _floats(factor_NH: Tensor | None, diagonal_HC: Tensor | None) -> tuple[Tensor | None, Tensor | None, int]:
    """Both in fp32 and whole, and the longest segment that the diagonals are of."""
    factor_NH, diagonal_HC = (x if x is None else x.float().contiguous() for x in (factor_NH, diagonal_HC))
    return factor_NH, diagonal_HC, 1 if diagonal_HC is None else (diagonal_HC.shape[1] + 1) // 2


class _Launch:
    """What the kernels of one tile have in common."""

    def __init__(
        self,
        tile: Tile,
        heads: int,
        q_NI: Tensor,
        factor_NH: Tensor | None,
        diagonal_HC: Tensor | None,
        causal: bool,
    ):
        width = q_NI.shape[1] // heads
        padded = max(16, 1 << (width - 1).bit_length())
        self.heads, self.block = heads, _block(q_NI, padded, max(tile.queries.width, tile.keys.width))
        assert max(tile.queries.width, tile.keys.width) * q_NI.stride(0) < 1 << 31, "places are counted in 32 bits"
        prefix_G = tile.prefix_G if causal else None
        # A kernel that has no use for an argument is given any tensor in its place.
        self.optional = tuple(q_NI if x is None else x for x in (factor_NH, diagonal_HC))
        self.spans = (
            tile.queries.first_G, tile.queries.length_G, tile.keys.first_G, tile.keys.length_G,
            tile.queries.first_G if prefix_G is None else prefix_G,
        )  # fmt: skip
        exact = "ieee" if q_NI.dtype == torch.float32 else "tf32"  # of narrower numbers it changes nothing
        self.constants: dict[str, Any] = dict(
            width=width,
            padded=padded,
            B=self.block,
            exact="wide" if q_NI.device.type == "cpu" else exact,
            causal=causal,
            biased=diagonal_HC is not None,
            has_factor=factor_NH is not None,
            has_prefix=prefix_G is not None,
            num_warps=8 if padded > 64 else 4,
        )

    def blocks(self, span: Span) -> int:
        return -(-span.width // self.block)

    def over(self, span: Span) -> tuple[int, int]:
        """Programs: every block of every segment, every head."""
        return len(span) * self.blocks(span), self.heads


def _block(q_NI: Tensor, padded: int, longest: int) -> int:
    """Rows of a square block: what a multiprocessor's registers and shared memory hold, and no wider than needed."""
    small = padded > 64 and _shared_memory(q_NI.device) < SHARED
    most = 32 if q_NI.dtype == torch.float32 or padded > 128 or small else 64
    return min(most, max(16, 1 << (longest - 1).bit_length()))


@functools.cache
def _shared_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return SHARED
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin
