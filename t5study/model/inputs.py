"""Inputs: a batch of packed rows as lists of real tokens, and the tiles that attention works through.

Norms, projections and the loss know no rows: they run over the N source tokens and M target tokens that are not
padding. Attention never leaves a segment, so it needs no masks over rows either. Segments of like length are stacked
into tiles; inside a tile the only padding is that of its shorter segments. A batch of full rows of one segment each,
as pre-training has it, gives tiles without padding that are views of the token list.

    B  rows    S  source positions    T  target positions    N  source tokens    M  target tokens    G  segments
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from t5study.ground.pairs import Batch

TILE = 1 << 17  # scores of one head of a tile: half a MiB in fp32, so that they stay in a core's own cache
CALL = 1 << 15  # scores whose arithmetic costs about as much as one more tile's calls


@dataclass(frozen=True)
class Span:
    """One side of a tile: where its segments lie in the token list. width: the longest's length."""

    first_G: Tensor
    length_G: Tensor
    width: int

    def __len__(self) -> int:
        return len(self.first_G)


@dataclass(frozen=True)
class Tile:
    """Queries of some segments and the keys that they see. padded: whether some keys of the block are padding."""

    queries: Span
    keys: Span
    padded: bool


@dataclass(frozen=True)
class Tokens:
    """The real tokens of one side of a batch. row: of the batch; position: in the row. longest: tokens of the longest
    segment. row_length: positions of a row, padding counted."""

    id_N: Tensor
    row_N: Tensor
    position_N: Tensor
    longest: int
    row_length: int

    def __len__(self) -> int:
        return len(self.id_N)


@dataclass(frozen=True)
class Inputs:
    """What the model takes. target.id_N: decoder inputs, that is targets shifted right by one, each segment starting
    with 0. label_M: the targets. every_key: whether each source token is seen by some target."""

    rows: int
    source: Tokens
    target: Tokens
    label_M: Tensor
    encoder: tuple[Tile, ...]
    decoder: tuple[Tile, ...]
    cross: tuple[Tile, ...]
    every_key: bool


def arrange(batch: Batch, device: str | torch.device = "cpu") -> Inputs:
    """A batch as the model takes it, on a device. ValueError if a target segment has no source in its row."""
    source = _segments(batch.source_segment_BS)
    target = _segments(batch.target_segment_BT)
    ids_N = batch.source_BS[source.row_N, source.position_N]
    label_M = batch.target_BT[target.row_N, target.position_N]
    shifted_M = np.roll(label_M, 1)
    shifted_M[target.first_S] = 0
    pair_S = np.searchsorted(source.name_S, target.name_S)
    if len(target.name_S) and (pair_S.max() >= len(source.name_S) or (source.name_S[pair_S] != target.name_S).any()):
        raise ValueError("a target segment without a source segment of its number in its row")
    keys = source.some(pair_S)
    return Inputs(
        rows=len(batch),
        source=source.tokens(ids_N, device),
        target=target.tokens(shifted_M, device),
        label_M=_tensor(label_M, device),
        encoder=_tiles(source, source, device),
        decoder=_tiles(target, target, device),
        cross=_tiles(target, keys, device),
        every_key=int(keys.length_S.sum()) == len(ids_N),
    )


@dataclass(frozen=True)
class _Segments:
    """Tokens of one side, and its segments: first token, length, and a name that its pair shares."""

    row_N: np.ndarray
    position_N: np.ndarray
    first_S: np.ndarray
    length_S: np.ndarray
    name_S: np.ndarray
    row_length: int

    def some(self, which: np.ndarray) -> _Segments:
        return replace(self, first_S=self.first_S[which], length_S=self.length_S[which], name_S=self.name_S[which])

    def tokens(self, id_N: np.ndarray, device: str | torch.device) -> Tokens:
        longest = int(self.length_S.max(initial=0))
        row_N, position_N = _tensor(self.row_N, device), _tensor(self.position_N, device)
        return Tokens(_tensor(id_N, device), row_N, position_N, longest, self.row_length)


def _segments(segment_BL: np.ndarray) -> _Segments:
    row_N, position_N = np.nonzero(segment_BL)
    name_N = row_N * (int(segment_BL.max(initial=0)) + 1) + segment_BL[row_N, position_N]
    first_S = np.flatnonzero(np.diff(name_N, prepend=-1))
    length_S = np.diff(first_S, append=len(name_N))
    return _Segments(row_N, position_N, first_S, length_S, name_N[first_S], segment_BL.shape[1])


def _tiles(queries: _Segments, keys: _Segments, device: str | torch.device) -> tuple[Tile, ...]:
    """Stacks segments of like length. Longest first; a tile ends when it is full, or when its padding has cost as much
    as starting another."""
    q_S, k_S = queries.length_S, keys.length_S
    order_S = np.lexsort((np.arange(len(q_S)), -q_S, -k_S))
    tiles, members = [], []
    width = height = waste = 0
    for s in order_S.tolist():
        q, k = int(q_S[s]), int(k_S[s])
        if members:
            taller = max(height, q)
            more = waste + (taller - height) * width * len(members) + taller * width - q * k
            if (len(members) + 1) * taller * width > TILE or more > CALL:
                tiles.append(_tile(queries, keys, np.array(members), device))
                members = []
        if members:
            waste, height = more, taller
        else:
            width, height, waste = k, q, 0
        members.append(s)
    if members:
        tiles.append(_tile(queries, keys, np.array(members), device))
    return tuple(tiles)


def _tile(queries: _Segments, keys: _Segments, which: np.ndarray, device: str | torch.device) -> Tile:
    q, k = (_span(side.first_S[which], side.length_S[which], device) for side in (queries, keys))
    return Tile(q, k, padded=bool((keys.length_S[which] < k.width).any()))


def _span(first_G: np.ndarray, length_G: np.ndarray, device: str | torch.device) -> Span:
    return Span(_tensor(first_G, device), _tensor(length_G, device), int(length_G.max()))


def _tensor(array: np.ndarray, device: str | torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device, non_blocking=True)
