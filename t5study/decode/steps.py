"""Steps: one model, a batch of sources, and the tokens said so far -> logits of the next tokens, with a cache.

    R  rows of the batch    A  answers under way: a row's beams lie side by side, B of them a row    H  heads
    E  d_kv    I  H E    D  d_model    N  source tokens of the batch    S  source places    P  places for the answer
    G  groups of K answers that share their keys    L  places that a query may see, P K    V  vocabulary

Keys are of two kinds: those of the source, which all beams of a row share, and those of the answer, in room made
beforehand. An encoder-decoder sees the first by cross-attention and the second by its own; a language model sees both
by its own, the answer behind the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from t5study.decode.encode import memory
from t5study.decode.rows import inputs_of, real_lengths
from t5study.decode.weights import Layer, Ready, sees_source_itself
from t5study.model.architectures import EncoderDecoder, LanguageModel
from t5study.model.attention import buckets
from t5study.model.passes import HIDDEN, wide

Compiler = Callable[[Callable[..., Tensor]], Callable[..., Any]]


class Steps(Protocol):
    """first() gives the logits (R, V) of the first tokens. Then, again and again: select() says which answers go on,
    each as often as it is named, the `beams` of a row side by side, and next() takes their last tokens and gives the
    logits (A, V) of the next."""

    def first(self) -> Tensor: ...

    def select(self, parent_A: np.ndarray, beams: int) -> None: ...

    def next(self, token_A: np.ndarray) -> Tensor: ...


def source_of(ready: Ready, source_RS: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor | None, np.ndarray]:
    """The source's keys beside values (N, 2 I) by layer, row after row; the stream (R, D) that the first token is read
    from, if there is one already; and each row's places."""
    model, length_R = ready.model, real_lengths(source_RS)
    inputs = inputs_of(model, source_RS)
    if isinstance(model, LanguageModel):
        kv, stream_RD = model.prefix(inputs)
        return kv, stream_RD, length_R + 1  # mesh's position 0 holds the token 0
    assert isinstance(model, EncoderDecoder)
    return model.memory(inputs) if ready.memory is None else memory(ready, inputs), None, length_R


def rows_of_source(
    kv: Sequence[Tensor], length_R: np.ndarray, widest: int, heads: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """By layer: keys and values (R, S, H, E) of `source_of`, rows apart; 0 behind a row's places, S = widest."""
    along_S = np.arange(widest)
    seen_RS = along_S < length_R[:, None]
    at_RS = torch.from_numpy(np.where(seen_RS, (np.cumsum(length_R) - length_R)[:, None] + along_S, 0))
    hidden_RS1 = torch.from_numpy(~seen_RS)[..., None]
    if kv:
        at_RS, hidden_RS1 = at_RS.to(kv[0].device), hidden_RS1.to(kv[0].device)
    for kv_NW in kv:
        k_RSHE, v_RSHE = kv_NW[at_RS].masked_fill(hidden_RS1, 0).unflatten(2, (2, heads, -1)).unbind(2)
        yield k_RSHE, v_RSHE


def bias_behind(ready: Ready, places: int) -> Tensor:
    """The decoder's position bias (H, L) by how far a key lies behind the query."""
    model = ready.model
    behind_L = buckets(places, not model.two_ways)[:places].flip(0)
    return model.decoder.bias.detach().t()[:, behind_L.to(model.embedding.device)].contiguous()


@dataclass(frozen=True)
class Cache:
    """By layer: keys (R, H, E, S) and values (R, H, S, E) of the source, both (2, G, H, P, K, E) of the answers.
    source_R: real places of the source. bias_HL: by how far a key lies behind the query. slot_GKP: which of its group
    each answer goes on from at each place, so that beams need not move their keys; None where each has its own, K = 1.
    """

    source: list[tuple[Tensor, Tensor]]
    answer: list[Tensor]
    source_R: Tensor
    bias_HL: Tensor
    slot_GKP: Tensor | None = None


class TensorSteps:
    """In torch's operators: for a GPU, for bf16, and with static shapes for a compiler.

    advance: `advance`, or what a compiler made of it. static: shapes stay the same from step to step, and mostly from
    batch to batch, since a source's places are rounded up to a multiple of 64; rows must then not leave.
    """

    def __init__(
        self, ready: Ready[Tensor], source_RS: np.ndarray, places: int, run: Callable[..., Tensor] | None = None
    ):
        kv, self.stream_RD, length_R = source_of(ready, source_RS)
        self.ready, self.static, self.run = ready, run is not None, run or advance
        self.places, self.place = places, 0
        heads, device = ready.model.shape.heads, ready.model.embedding.device
        widest = int(length_R.max()) if not self.static else -(-int(length_R.max()) // 64) * 64
        source, answer = [], []
        for k_RSHE, v_RSHE in rows_of_source(kv, length_R, widest, heads):
            source.append((k_RSHE.permute(0, 2, 3, 1).contiguous(), v_RSHE.transpose(1, 2).contiguous()))
            answer.append(k_RSHE.new_zeros(2, len(length_R), heads, places, 1, ready.model.shape.d_kv))
        bias_HL = bias_behind(ready, widest + places)
        self.cache = Cache(source, answer, torch.from_numpy(length_R).to(device), bias_HL)

    def first(self) -> Tensor:
        if self.stream_RD is not None:
            return logits(self.ready, self.stream_RD)
        return self.next(np.zeros(len(self.cache.source_R), np.int64))

    def select(self, parent_A: np.ndarray, beams: int) -> None:
        cache = self.cache
        before = cache.answer[0].shape[1] // len(cache.source_R)
        row_R = parent_A[::beams] // before
        parent = torch.from_numpy(parent_A).to(cache.source_R.device)
        cache = replace(cache, answer=[x.index_select(1, parent) for x in cache.answer])
        if len(row_R) != len(cache.source_R):
            row = torch.from_numpy(row_R).to(cache.source_R.device)
            source = [(k.index_select(0, row), v.index_select(0, row)) for k, v in cache.source]
            cache = replace(cache, source=source, source_R=cache.source_R[row])
        self.cache = cache

    def next(self, token_A: np.ndarray) -> Tensor:
        device, cache = self.cache.source_R.device, self.cache
        if not self.static:
            cache = replace(cache, answer=[x[:, :, :, : self.place + 1] for x in cache.answer])
        place = torch.full((), self.place, dtype=torch.int64, device=device)
        self.place += 1
        return self.run(self.ready, cache, torch.from_numpy(token_A).to(device), place)


@dataclass(frozen=True)
class _Offsets:
    """What is added to scores before the softmax: the position bias where the decoder's own attention looks, HIDDEN
    where there is nothing to see. source (R, H or 1, 1, S). answer (G or 1, H, K, L). Every layer's are the same."""

    source: Tensor
    answer: Tensor

    @staticmethod
    def of(cache: Cache, own: bool, source_places: int, answer_places: int, place: Tensor) -> _Offsets:
        """own: whether the source, too, is seen by the decoder's own attention."""
        device, bias_HL = place.device, cache.bias_HL.to(wide(cache.bias_HL.dtype))
        along_S = torch.arange(source_places, device=device)
        source = bias_HL.new_zeros(len(cache.source_R), 1, 1, source_places)
        if own:
            behind_RS = (place + cache.source_R[:, None] - along_S).clamp(min=0)
            source = bias_HL[:, behind_RS].transpose(0, 1)[:, :, None]
        source = source.masked_fill((along_S >= cache.source_R[:, None])[:, None, None], HIDDEN)
        behind_P = place - torch.arange(answer_places, device=device)
        answer_1H1P = bias_HL[:, behind_P.clamp(min=0)].masked_fill(behind_P < 0, HIDDEN)[None, :, None]
        if cache.slot_GKP is None:
            return _Offsets(source, answer_1H1P)
        other_GKPK = cache.slot_GKP[..., None] != torch.arange(cache.slot_GKP.shape[1], device=device)
        return _Offsets(source, answer_1H1P[..., None].masked_fill(other_GKPK[:, None], HIDDEN).flatten(3, 4))


def advance(ready: Ready[Tensor], cache: Cache, token_A: Tensor, place: Tensor) -> Tensor:
    """Puts the tokens at this place of their answers -> logits (A, V). All shapes are the arguments'; the cache's
    answers are written to."""
    model, dtype = ready.model, ready.dtype
    own = sees_source_itself(model)
    x_AD = model.embedding.detach()[token_A]
    place_1 = place[None]
    if cache.slot_GKP is not None:
        groups, each, _ = cache.slot_GKP.shape
        own_GK1 = torch.arange(each, device=place.device).expand(groups, -1)[..., None]
        cache.slot_GKP.index_copy_(2, place_1, own_GK1)
    offsets = _Offsets.of(cache, own, cache.source[0][0].shape[3], cache.answer[0].shape[3], place)
    for w, source, answer in zip(ready.layers, cache.source, cache.answer, strict=True):
        q_AI, kv_AW = (_normed(x_AD, dtype) @ w.qkv).split((w.out.shape[0], 2 * w.out.shape[0]), 1)
        new_GK2HE = kv_AW.unflatten(1, (2, answer.shape[2], -1)).unflatten(0, (answer.shape[1], -1))
        answer.index_copy_(3, place_1, new_GK2HE.permute(2, 0, 3, 1, 4)[:, :, :, None].to(answer.dtype))
        x_AD = x_AD + _attend(q_AI, source if own else None, answer, offsets) @ w.out
        if w.cross_q is not None and w.cross_out is not None:
            x_AD = x_AD + _attend(_normed(x_AD, dtype) @ w.cross_q, source, None, offsets) @ w.cross_out
        x_AD = _feed(x_AD, w, dtype)
    return logits(ready, x_AD)


def logits(ready: Ready[Tensor], x_AD: Tensor) -> Tensor:
    return _normed(x_AD, ready.dtype) @ ready.head


def _feed(x_AD: Tensor, w: Layer[Tensor], dtype: torch.dtype) -> Tensor:
    h_AF = _normed(x_AD, dtype) @ w.wi
    if w.gated:
        gate_AF, line_AF = h_AF.chunk(2, 1)
        h_AF = torch.nn.functional.gelu(gate_AF, approximate="tanh") * line_AF
    else:
        h_AF = h_AF.relu()
    x_AD = x_AD + h_AF @ w.wo
    if w.adapter_wi is not None and w.adapter_wo is not None:
        x_AD = x_AD + (_normed(x_AD, dtype) @ w.adapter_wi).relu() @ w.adapter_wo
    return x_AD


def _normed(x_AD: Tensor, dtype: torch.dtype) -> Tensor:
    """RMS norm without its gain, which the matrix behind it has taken in."""
    return torch.nn.functional.rms_norm(x_AD, x_AD.shape[1:], eps=1e-6).to(dtype)  # on a GPU one kernel, not five


def _attend(q_AI: Tensor, source: tuple[Tensor, Tensor] | None, answer: Tensor | None, offsets: _Offsets) -> Tensor:
    """One query of each answer over the source's keys, the answer's, or both; (A, I)."""
    q_AHE = q_AI.unflatten(1, (offsets.answer.shape[1], -1))
    parts = []  # keys (., H, E, L), values (., H, L, E) and offsets of both kinds; ".": rows, or groups
    if source is not None:
        parts.append((*source, offsets.source))
    if answer is not None:
        k_GHLE, v_GHLE = answer.flatten(3, 4).unbind(0)
        parts.append((k_GHLE.transpose(2, 3), v_GHLE, offsets.answer))
    scores = []
    for keys, _, offset in parts:
        scores_GHBL = (_grouped(q_AHE, len(keys)) @ keys).to(offset.dtype) + offset
        scores.append(_apart(scores_GHBL))
    p_AHL = (torch.cat(scores, 2) if len(scores) > 1 else scores[0]).softmax(2).to(q_AI.dtype)
    out_AHE, seen = None, 0
    for _, values, _ in parts:
        p_GHBL = _grouped(p_AHL[:, :, seen : seen + values.shape[2]], len(values))
        part_AHE = _apart(p_GHBL @ values)
        out_AHE, seen = part_AHE if out_AHE is None else out_AHE + part_AHE, seen + values.shape[2]
    assert out_AHE is not None
    return out_AHE.flatten(1)


def _grouped(x_AHL: Tensor, groups: int) -> Tensor:
    """(groups, H, answers of each, L)."""
    return x_AHL.unflatten(0, (groups, -1)).transpose(1, 2)


def _apart(x_GHBL: Tensor) -> Tensor:
    return x_GHBL.transpose(1, 2).flatten(0, 1)
