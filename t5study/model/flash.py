"""Attention on a GPU: the two functions of attention.py by the kernels of flash_kernels.py.

The kernels read queries, keys and values where the projections left them and write beside them: nothing is cut into
heads, padded or gathered. What a layer keeps for its backward pass is what lies there anyway, its own output and one
number a query and head. A bias gradient takes room of a few numbers a query, at most ROOM of them at a time.

    N  tokens    M  tokens of the keys, where they are others    W  columns of a projection: one to three times H E
    H  heads    E  d_kv    I  H E    G  segments of a tile    B  blocks of queries    C  2 * longest - 1 distances
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from t5study.model import gpu
from t5study.model.inputs import Span, Tile

ROOM = 1 << 24  # partial sums of the bias's gradient that exist at once: 64 MiB in fp32
WIDEST = 256  # columns of a head that a block's registers hold
SHARES = 10  # (rows, columns) blocks that a kernel has in shared memory at once, at most, as it is compiled
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fits(weight: Tensor, dtype: torch.dtype, d_kv: int) -> bool:
    """Whether these kernels do a model's attention: where there are any, on such numbers."""
    if gpu.why_not(weight.device) is not None or dtype not in DTYPES or d_kv > WIDEST:
        return False
    return SHARES * 16 * padded(d_kv) * dtype.itemsize <= _shared_memory(weight.device)


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
    kernels = _kernels()
    q_NI, k_MI, v_MI = _parts(own_NW, other_MW)
    out_NI = own_NW.new_empty(q_NI.shape)
    lse_NH = own_NW.new_empty((len(own_NW), heads), dtype=torch.float32)
    factor_NH, diagonal_HC, longest = _floats(factor_NH, diagonal_HC)
    for tile in tiles:
        launch = _Launch.of(tile, heads, q_NI, k_MI, factor_NH, diagonal_HC, causal)
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
    kernels = _kernels()
    own_NW, *other, out_NI, lse_NH = kept
    q_NI, k_MI, v_MI = _parts(own_NW, other[0] if other else None)
    dq_NI, dk_MI, dv_MI = _parts(down_NW, dother_MW)
    dout_NI, delta_NH = dout_NI.contiguous(), torch.empty_like(lse_NH)
    factor_NH, fp32_HC, longest = _floats(factor_NH, diagonal_HC)
    ddiagonal_HC = None if fp32_HC is None else torch.zeros_like(fp32_HC)
    strides = (q_NI.stride(0), k_MI.stride(0), out_NI.stride(0))
    for tile in tiles:
        launch = _Launch.of(tile, heads, q_NI, k_MI, factor_NH, fp32_HC, causal)
        read = (q_NI, k_MI, v_MI, *launch.optional, dout_NI, lse_NH, delta_NH)
        # A program's sums begin one block before its first key and end with its last.
        blocks, width = launch.blocks(tile.queries), (launch.blocks(tile.keys) + 1) * launch.block
        for some in _groups(tile, blocks * heads * width if ddiagonal_HC is not None else 0):
            part = _Launch.of(some, heads, q_NI, k_MI, factor_NH, fp32_HC, causal, launch.block)
            sums_GBHW = lse_NH if ddiagonal_HC is None else lse_NH.new_zeros(len(some.queries), blocks, heads, width)
            kernels.backward_queries[part.over(some.queries)](
                *read, out_NI, dq_NI, sums_GBHW, *part.spans,
                *strides, dq_NI.stride(0), longest, blocks, heads, width, **part.constants,
            )  # fmt: skip
            if ddiagonal_HC is not None:
                _add_diagonals(ddiagonal_HC, sums_GBHW.sum(0), launch.block, longest)
        kernels.backward_keys[launch.over(tile.keys)](
            *read, dk_MI, dv_MI, *launch.spans,
            *strides, dk_MI.stride(0), longest, launch.blocks(tile.keys), heads, **launch.constants,
        )  # fmt: skip
    return None if ddiagonal_HC is None or diagonal_HC is None else ddiagonal_HC.to(diagonal_HC.dtype)


def _kernels() -> Any:
    """Imported where they are called, since Triton is not everywhere."""
    from t5study.model import flash_kernels

    return flash_kernels


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
        queries, keys = (Span(s.first_G[some], s.length_G[some], s.width) for s in (tile.queries, tile.keys))
        yield Tile(queries, keys, tile.padded, None if tile.prefix_G is None else tile.prefix_G[some])


def _parts(own_NW: Tensor, other_MW: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, columns of what holds them."""
    if other_MW is None:
        q, k, v = own_NW.chunk(3, 1)
        return q, k, v
    k, v = other_MW.chunk(2, 1)
    return own_NW, k, v


def _floats(factor_NH: Tensor | None, diagonal_HC: Tensor | None) -> tuple[Tensor | None, Tensor | None, int]:
    """Both in fp32 and whole, and the longest segment that the diagonals are of."""
    factor_NH, diagonal_HC = (x if x is None else x.float().contiguous() for x in (factor_NH, diagonal_HC))
    return factor_NH, diagonal_HC, 1 if diagonal_HC is None else (diagonal_HC.shape[1] + 1) // 2


@dataclass(frozen=True)
class _Launch:
    """What the kernels of one tile have in common. block: rows of a square block. optional: the factor and the
    diagonals. A kernel that has no use for an argument is given any tensor in its place."""

    heads: int
    block: int
    optional: tuple[Tensor, Tensor]
    spans: tuple[Tensor, ...]
    constants: dict[str, Any]

    @staticmethod
    def of(
        tile: Tile,
        heads: int,
        q_NI: Tensor,
        k_MI: Tensor,
        factor_NH: Tensor | None,
        diagonal_HC: Tensor | None,
        causal: bool,
        block: int | None = None,
    ) -> _Launch:
        width, longest = q_NI.shape[1] // heads, max(tile.queries.width, tile.keys.width)
        columns = padded(width)
        assert all(x.stride(1) == 1 for x in (q_NI, k_MI)), "a row's numbers lie side by side"
        assert (longest + 64) * max(q_NI.stride(0), k_MI.stride(0)) < 1 << 31, "places are counted in 32 bits"
        block = block or block_of(q_NI.dtype, columns, longest, _shared_memory(q_NI.device))
        prefix_G = tile.prefix_G if causal else None
        spans = (tile.queries.first_G, tile.queries.length_G, tile.keys.first_G, tile.keys.length_G)
        constants = dict(
            width=width,
            padded=columns,
            B=block,
            exact=_exact(q_NI),
            causal=causal,
            biased=diagonal_HC is not None,
            has_factor=factor_NH is not None,
            has_prefix=prefix_G is not None,
            **options(columns),
        )
        optional = (q_NI if factor_NH is None else factor_NH, q_NI if diagonal_HC is None else diagonal_HC)
        return _Launch(heads, block, optional, (*spans, spans[0] if prefix_G is None else prefix_G), constants)

    def blocks(self, span: Span) -> int:
        return -(-span.width // self.block)

    def over(self, span: Span) -> tuple[int, int]:
        """Programs: every block of every segment, every head."""
        return len(span) * self.blocks(span), self.heads


def padded(width: int) -> int:
    """Columns of a head as a power of two, 16 at least, which is what products take."""
    return max(16, 1 << (width - 1).bit_length())


def block_of(dtype: torch.dtype, columns: int, longest: int, shared: int) -> int:
    """Rows of a block: what registers and `shared` bytes of a multiprocessor's memory hold, no more than needed."""
    block = 32 if dtype == torch.float32 else 64
    while block > 16 and (block >= 2 * longest or SHARES * block * columns * dtype.itemsize > shared):
        block //= 2
    return block


def options(columns: int) -> dict[str, int]:
    """Of the compiler."""
    return dict(num_warps=8 if columns > 64 else 4)


def _exact(q_NI: Tensor) -> str:
    """How products are made: of fp32 numbers in fp32 (torch's default too), of narrower ones as the GPU has it."""
    if q_NI.device.type == "cpu":  # Triton's interpreter
        return "wide"
    return "ieee" if q_NI.dtype == torch.float32 else "tf32"


@functools.cache
def _shared_memory(device: torch.device) -> int:
    """Bytes that a block may have of a multiprocessor's shared memory."""
    return (
        227 << 10 if device.type != "cuda" else torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    )
