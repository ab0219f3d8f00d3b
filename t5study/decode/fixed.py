"""Fixed: decoding on a GPU by steps that are recorded, all of it on the device: shapes are rounded up to a few, and
what a step knows of the last one lies in buffers that stay where they are.

The host says how many steps there are, and asks every so often whether any row goes on. A step in a later place looks
at a wider part of the answers' places: there is a recording for each of these widths.

    R  rows of the batch    A  answers under way: a row's beams lie side by side, K of them a row    H  heads
    E  d_kv    D  d_model    N  source tokens of the batch    S  source places    P  places for the answer    L  S + P
    G  groups of answers that share their keys: rows    V  vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t5study.decode.ensembles import averaged
from t5study.decode.fixed_search import Search, recorded_of, search_in
from t5study.decode.graphs import Graphs
from t5study.decode.methods import Beam, Method
from t5study.decode.search import Answer
from t5study.decode.steps import Cache, advance, bias_behind, logits, rows_of_source, source_of
from t5study.decode.weights import Ready, sees_source_itself

ASKED_EVERY = 8  # steps: as many less one may be run in vain at a batch's end
LEAST_SOURCE, LEAST_PLACES = 64, 16


def round_rows(rows: int) -> int:
    """Up to a power of two."""
    return 1 << (rows - 1).bit_length()


def round_places(places: int) -> int:
    """Places for answers, and those that a step looks at: 16, 32, 64, ..."""
    return max(LEAST_PLACES, round_rows(places))


def round_source(longest: int) -> int:
    """64, 96, 128, 192, 256, ...: at most half as many again."""
    most = max(LEAST_SOURCE, round_rows(longest))
    return most * 3 // 4 if longest <= most * 3 // 4 and most > LEAST_SOURCE else most


@dataclass(frozen=True)
class Room:
    """Sizes of a batch's buffers."""

    rows: int
    beams: int
    source: int
    places: int


@dataclass(frozen=True)
class Member:
    """A model and its buffers. stream_RD: what its first logits are read from; None if it has to be told a token
    first."""

    ready: Ready[Tensor]
    cache: Cache
    stream_RD: Tensor | None

    @property
    def ahead(self) -> int:
        """Places of its answers that are taken before the first token."""
        return int(self.stream_RD is None)


@dataclass(frozen=True)
class Buffers:
    """All that a step reads and writes but for weights."""

    room: Room
    members: tuple[Member, ...]
    search: Search


def buffers_of(graphs: Graphs, members: Sequence[Ready[Tensor]], room: Room, method: Method) -> Buffers:
    device = members[0].model.embedding.device

    def buffer(name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return graphs.buffer(name, shape, dtype, device)

    found = []
    for i, ready in enumerate(members):
        shape, model = ready.model.shape, ready.model
        rows, heads, e = room.rows, shape.heads, shape.d_kv
        source, answer = [], []
        for layer in range(len(ready.layers)):
            name = f"{i}.{layer}"
            keys_RHES = buffer(f"{name}.keys", (rows, heads, e, room.source), ready.dtype)
            values_RHSE = buffer(f"{name}.values", (rows, heads, room.source, e), ready.dtype)
            source.append((keys_RHES, values_RHSE))
            answer.append(buffer(f"{name}.answers", (2, rows, heads, room.places, room.beams, e), ready.dtype))
        bias_HL = buffer(f"{i}.bias", (heads, room.source + room.places), model.decoder.bias.dtype)
        slot_GKP = None
        if room.beams > 1:
            slot_GKP = buffer(f"{i}.slots", (rows, room.beams, room.places), torch.int64)
        cache = Cache(source, answer, buffer(f"{i}.lengths", (rows,), torch.int64), bias_HL, slot_GKP)
        stream_RD = None
        if sees_source_itself(model):
            stream_RD = buffer(f"{i}.stream", (rows, shape.d_model), model.embedding.dtype)
        found.append(Member(ready, cache, stream_RD))
    return Buffers(room, tuple(found), search_in(buffer, method, room.rows, room.places))


def fill(member: Member, room: Room, kv: Sequence[Tensor], stream_RD: Tensor | None, length_R: np.ndarray) -> None:
    """Puts a batch's sources, as `source_of` has them, into a member's buffers. Rows behind them get no source."""
    cache, rows = member.cache, len(length_R)
    length_R = np.pad(length_R, (0, room.rows - rows))
    blocks = rows_of_source(kv, length_R, room.source, len(cache.bias_HL))
    for (k_RSHE, v_RSHE), (keys_RHES, values_RHSE), answer in zip(blocks, cache.source, cache.answer, strict=True):
        keys_RHES.copy_(k_RSHE.permute(0, 2, 3, 1))
        values_RHSE.copy_(v_RSHE.transpose(1, 2))
        answer.zero_()
    if cache.slot_GKP is not None:
        cache.slot_GKP.zero_()
    cache.source_R.copy_(torch.from_numpy(length_R))
    cache.bias_HL.copy_(bias_behind(member.ready, room.source + room.places))
    if member.stream_RD is not None and stream_RD is not None:
        member.stream_RD.zero_()
        member.stream_RD[:rows] = stream_RD


def first(buffers: Buffers, average: str, width: int) -> None:
    """The first token of each answer: what language models say behind their sources, and others to padding."""
    found = []
    for member in buffers.members:
        if member.stream_RD is None:
            found.append(_said(buffers, member, width))
        else:
            logits_RV = logits(member.ready, member.stream_RD)
            found.append(logits_RV[:, None].expand(-1, buffers.room.beams, -1).flatten(0, 1))
    buffers.search.choose(averaged(found, average))  # all beams of a row are alike still


def step(buffers: Buffers, average: str, width: int) -> None:
    """One more token of each answer, all of whose places are among the first `width`."""
    logits_AV = averaged([_said(buffers, member, width) for member in buffers.members], average)
    parent_RK = buffers.search.choose(logits_AV)
    for member in buffers.members:
        slot_GKP = _within(member.cache, width).slot_GKP
        if parent_RK is not None and slot_GKP is not None:
            slot_GKP.copy_(slot_GKP.gather(1, parent_RK[..., None].expand(-1, -1, width)))


def _said(buffers: Buffers, member: Member, width: int) -> Tensor:
    """A member's logits (A, V) behind the last tokens."""
    search = buffers.search
    place = (search.count_1 + (member.ahead - 1)).squeeze(0)
    return advance(member.ready, _within(member.cache, width), search.token_A, place)


def _within(cache: Cache, width: int) -> Cache:
    slot_GKP = None if cache.slot_GKP is None else cache.slot_GKP[:, :, :width]
    return replace(cache, answer=[x[:, :, :, :width] for x in cache.answer], slot_GKP=slot_GKP)


def decoded(
    graphs: Graphs,
    members: Sequence[Ready[Tensor]],
    source_RS: np.ndarray,
    row_R: np.ndarray,
    max_length: int,
    method: Method,
    average: str,
) -> list[Answer]:
    """A batch's answers. row_R: the rows' numbers among all sources."""
    sources = [source_of(member, source_RS) for member in members]
    longest = max(int(length_R.max()) for _, _, length_R in sources)
    beams = method.beams if isinstance(method, Beam) else 1
    room = Room(round_rows(len(row_R)), beams, round_source(longest), round_places(max_length))
    # What is recorded depends on the members alone, which know what they compute in, not on who records it.
    with graphs.taken_by(members), torch.autocast(members[0].model.embedding.device.type, enabled=False):
        buffers = buffers_of(graphs, members, room, method)
        for member, source in zip(buffers.members, sources, strict=True):
            fill(member, room, *source)
        buffers.search.start(row_R, max_length)
        shapes: tuple[Any, ...] = (room, average, *recorded_of(method))
        width = min(room.places, LEAST_PLACES)
        graphs.run((first, width, *shapes), partial(first, buffers, average, width))
        for count in range(1, max_length):
            if count % ASKED_EVERY == 0 and buffers.search.over():
                break
            width = round_places(count + 1)
            graphs.run((step, width, *shapes), partial(step, buffers, average, width))
        return buffers.search.answers(len(row_R), max_length)
