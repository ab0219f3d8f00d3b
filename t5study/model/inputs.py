"""Inputs: a batch of packed rows as lists of real tokens, and the tiles that attention works through.

Norms, projections and the loss know no rows: they run over the N source tokens and M target tokens that are not
padding. Attention never leaves a segment, so it needs no masks over rows either. Segments of like length are stacked
into tiles; inside a tile the only padding is that of its shorter segments. A batch of full rows of one segment each,
as pre-training has it, gives tiles without padding that are views of the token list.

A language model reads one sequence a segment, its source and then its target (`arrange_joined`): the same lists and
tiles, with the target's side taking both.

    B  rows    S  source positions    T  target positions    N  source tokens    M  tokens with a label    G  segments
    P  tokens of the joined sequences
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t5study.ground.pairs import Batch
from t5study.model import gpu

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
    """Queries of some segments and the keys that they see. padded: whether some keys of the block are padding.
    prefix_G: in causal attention, keys from the segment's first on that every query sees, if any."""

    queries: Span
    keys: Span
    padded: bool
    prefix_G: Tensor | None = None


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
class Labels:
    """What some places of the decoder should say. place_M: which of its tokens, None for all in order; id_M: the
    labels; row_M: their rows."""

    place_M: Tensor | None
    id_M: Tensor
    row_M: Tensor

    def __len__(self) -> int:
        return len(self.id_M)


@dataclass(frozen=True)
class Inputs:
    """What the model takes. source: the source tokens (a language model reads them in `target`). target: what the
    decoder reads, that is its labels shifted right by one, each segment starting with 0. learned: labels that the
    training loss is over. answers: those of the targets alone, which `nats` scores. every_key: whether each source
    token is seen by some target."""

    rows: int
    source: Tokens
    target: Tokens
    learned: Labels
    answers: Labels
    encoder: tuple[Tile, ...]
    decoder: tuple[Tile, ...]
    cross: tuple[Tile, ...]
    every_key: bool

    @property
    def label_M(self) -> Tensor:
        """The target tokens, in the order of `nats`."""
        return self.answers.id_M

    @property
    def target_row_M(self) -> Tensor:
        """The row of each."""
        return self.answers.row_M


def arrange(batch: Batch, device: str | torch.device = "cpu") -> Inputs:
    """A batch as an encoder-decoder takes it, on a device. ValueError if a target segment has no source in its row."""
    source, target, pair_S = _paired(batch)
    ids_N = batch.source_BS[source.row_N, source.position_N]
    label_M = batch.target_BT[target.row_N, target.position_N]
    shifted_M = np.roll(label_M, 1)
    shifted_M[target.first_S] = 0
    keys = source.some(pair_S)
    read = target.tokens(shifted_M)
    labels = Labels(None, _tensor(label_M), read.row_N)
    large = gpu.why_not(device) is None  # flash.py makes no scores of a whole tile
    found = Inputs(
        rows=len(batch),
        source=source.tokens(ids_N),
        target=read,
        learned=labels,
        answers=labels,
        encoder=_tiles(source, source, large),
        decoder=_tiles(target, target, large),
        cross=_tiles(target, keys, large),
        every_key=int(keys.length_S.sum()) == len(ids_N),
    )
    return moved(found, device)


def arrange_joined(batch: Batch, device: str | torch.device = "cpu", *, prefix: bool) -> Inputs:
    """A batch as a language model takes it: of each segment one sequence, its source of n tokens and then its target.

    The model reads 0, s1 .. sn, t1 .. t(m-1) and should say s1 .. sn, t1 .. tm. prefix: its first n + 1 places, up to
    the one that reads the source's last token and says t1, see each other, and the loss is over targets only, since
    the places before that have read what they should say; else each sees what is before it, and the loss is over all.
    A source without target is read to its end too, which is where decoding begins. ValueError as `arrange`.

    >>> batch = Batch(*(np.array([x], np.int32) for x in ([7, 1], [1, 1], [0, 1], [8, 9, 1], [1, 1, 1], [0, 1, 2])))
    >>> found = arrange_joined(batch, prefix=True)
    >>> found.target.id_N.tolist(), found.learned.place_M.tolist(), found.learned.id_M.tolist()
    ([0, 7, 1, 8, 9], [2, 3, 4], [8, 9, 1])
    """
    source, target, pair_S = _paired(batch)
    n_S, m_S = source.length_S, np.zeros_like(source.length_S)
    m_S[pair_S] = target.length_S
    length_S = n_S + np.maximum(m_S, 1)
    first_S = np.cumsum(length_S) - length_S
    place_N = _places(first_S, n_S)
    place_M = _places((first_S + n_S)[pair_S], target.length_S)
    ids_N = batch.source_BS[source.row_N, source.position_N]
    label_M = batch.target_BT[target.row_N, target.position_N]
    label_P = np.zeros(int(length_S.sum()), np.int64)
    label_P[place_N], label_P[place_M] = ids_N, label_M
    read_P = np.roll(label_P, 1)
    read_P[first_S] = 0
    row_P = np.repeat(source.row_N[source.first_S], length_S)
    position_P = np.arange(len(row_P)) - np.searchsorted(row_P, row_P)
    row_length = max(source.row_length + target.row_length, int(position_P.max(initial=-1)) + 1)
    joined = _Segments(row_P, position_P, first_S, length_S, source.name_S, row_length)
    read = joined.tokens(read_P)

    def labels(place_L: np.ndarray) -> Labels:
        place = _tensor(place_L)
        return Labels(place, _tensor(label_P[place_L]), read.row_N[place])

    answers = labels(place_M)
    large = gpu.why_not(device) is None  # flash.py makes no scores of a whole tile
    found = Inputs(
        rows=len(batch),
        source=source.tokens(ids_N),
        target=read,
        learned=answers if prefix else labels(np.sort(np.concatenate((place_N, place_M)))),
        answers=answers,
        encoder=(),
        decoder=_tiles(joined, joined, large, n_S + 1 if prefix else None),
        cross=(),
        every_key=True,
    )
    return moved(found, device)


def moved(inputs: Inputs, device: str | torch.device) -> Inputs:
    """The same on a device: one copy of all that there is. To a GPU it is made from memory that the system does not
    move, so that whoever asks need not wait for it; a tensor that stands in two places is copied once."""
    device = torch.device(device)
    if device == inputs.source.id_N.device:
        return inputs
    tensors = {id(tensor): tensor for tensor in _tensors(inputs)}
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
    if device.type == "cuda":
        flat = flat.pin_memory()
    parts = flat.to(device, non_blocking=True).split([tensor.numel() for tensor in tensors.values()])
    there = {at: part.view(tensor.shape) for (at, tensor), part in zip(tensors.items(), parts, strict=True)}
    return _put(inputs, there)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of a dataclass, of those in it, and of tuples of them. They are all int64."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _put(value: Any, there: dict[int, Tensor]) -> Any:
    """The same with other tensors in the places of its own."""
    if isinstance(value, Tensor):
        return there[id(value)]
    if isinstance(value, tuple):
        return tuple(_put(each, there) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _put(getattr(value, field.name), there) for field in fields(value)})
    return value


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

    def tokens(self, id_N: np.ndarray) -> Tokens:
        longest = int(self.length_S.max(initial=0))
        return Tokens(_tensor(id_N), _tensor(self.row_N), _tensor(self.position_N), longest, self.row_length)


def _paired(batch: Batch) -> tuple[_Segments, _Segments, np.ndarray]:
    """Both sides, and of each target segment which source segment is its pair."""
    numbers = 1 + max(int(side.max(initial=0)) for side in (batch.source_segment_BS, batch.target_segment_BT))
    source, target = (_segments(side, numbers) for side in (batch.source_segment_BS, batch.target_segment_BT))
    pair_S = np.searchsorted(source.name_S, target.name_S)
    if len(target.name_S) and (pair_S.max() >= len(source.name_S) or (source.name_S[pair_S] != target.name_S).any()):
        raise ValueError("a target segment without a source segment of its number in its row")
    return source, target, pair_S


def _segments(segment_BL: np.ndarray, numbers: int) -> _Segments:
    row_N, position_N = np.nonzero(segment_BL)
    name_N = row_N * numbers + segment_BL[row_N, position_N]
    first_S = np.flatnonzero(np.diff(name_N, prepend=-1))
    length_S = np.diff(first_S, append=len(name_N))
    return _Segments(row_N, position_N, first_S, length_S, name_N[first_S], segment_BL.shape[1])


def _places(first_S: np.ndarray, length_S: np.ndarray) -> np.ndarray:
    """first, first + 1, ... of each segment, one segment after another."""
    ends_S = np.cumsum(length_S)
    return np.arange(int(length_S.sum())) + np.repeat(first_S - (ends_S - length_S), length_S)


def _tiles(queries: _Segments, keys: _Segments, large: bool, prefix_S: np.ndarray | None = None) -> tuple[Tile, ...]:
    """Stacks segments of like length. Longest first; a tile ends when it is full, or when its padding has cost as much
    as starting another. large: for a device that is busy with thousands of segments at once and skips what is padding;
    a tile ends only where segments are less than half as long as its first."""

    def tile() -> Tile:
        which = np.array(members)
        q, k = (_span(side.first_S[which], side.length_S[which]) for side in (queries, keys))
        padded = bool((keys.length_S[which] < k.width).any())
        return Tile(q, k, padded, None if prefix_S is None else _tensor(prefix_S[which]))

    q_S, k_S = queries.length_S, keys.length_S
    order_S = np.lexsort((np.arange(len(q_S)), -q_S, -k_S))
    tiles, members = [], []
    width = height = waste = 0
    for s in order_S.tolist():
        q, k = int(q_S[s]), int(k_S[s])
        if members:
            taller = max(height, q)
            more = waste + (taller - height) * width * len(members) + taller * width - q * k
            full = (len(members) + 1) * taller * width > TILE or more > CALL
            if 2 * k < width if large else full:
                tiles.append(tile())
                members = []
        if members:
            waste, height = more, taller
        else:
            width, height, waste = k, q, 0
        members.append(s)
    if members:
        tiles.append(tile())
    return tuple(tiles)


def _span(first_G: np.ndarray, length_G: np.ndarray) -> Span:
    return Span(_tensor(first_G), _tensor(length_G), int(length_G.max()))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
