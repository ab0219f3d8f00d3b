"""Decode: a model and sources -> answers, and how likely given targets are.

Rows are sorted by length and taken in batches, so rows that share a batch end at about the same time. A row that has
said EOS leaves the batch at once: the steps that are left cost only what the rows that are left cost.

    N  rows given    R  rows of a batch    A  rows still open    S  source tokens    T  target tokens
    D  d_model    I  H K, the columns of all heads    H  heads    V  vocabulary rows    C  distances
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from t5study.ground.pairs import EOS, PAD, Batch
from t5study.model.architectures import EncoderDecoder, Inputs, arrange
from t5study.model.attention import buckets
from t5study.model.layers import Pass


def greedy(model: EncoderDecoder, source_NS: np.ndarray, max_length: int, batch_rows: int = 64) -> list[np.ndarray]:
    """The likeliest next token, again and again, until EOS or `max_length` tokens: int32 ids without EOS and padding,
    in the order of the sources, whose padding is 0.

    ValueError if a source is empty.
    """
    answers: list[np.ndarray] = [np.zeros(0, np.int32)] * len(source_NS)
    if max_length < 1:
        return answers
    with torch.inference_mode():
        for rows in _by_length(_lengths(source_NS), batch_rows):
            for row, ids in zip(rows, _greedy(model, source_NS[rows], max_length), strict=True):
                answers[row] = ids
    return answers


def target_scores(
    model: EncoderDecoder, source_NS: np.ndarray, target_NT: np.ndarray, batch_rows: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """-log p(target | source) of each row in nats, float64, and the target tokens it is a sum over, EOS counted.

    ValueError if a source is empty.
    """
    source_N, tokens_N = _lengths(source_NS), _lengths(target_NT, least=0)
    nats_N = np.zeros(len(source_NS))
    for rows in _by_length(source_N + tokens_N, batch_rows):
        inputs = _inputs(model, source_NS[rows], target_NT[rows])
        nats_M = model.nats(inputs).double().cpu().numpy()
        nats_N[rows] = np.bincount(inputs.target.row_N.cpu().numpy(), nats_M, minlength=len(rows))
    return nats_N, tokens_N


def _lengths(ids_NL: np.ndarray, least: int = 1) -> np.ndarray:
    """Up to the last id that is not padding."""
    length_N = ((ids_NL != PAD) * np.arange(1, ids_NL.shape[1] + 1)).max(1, initial=0)
    if (length_N < least).any():
        raise ValueError(f"row {int((length_N < least).argmax())} is empty: it has no token to start from")
    return length_N


def _by_length(length_N: np.ndarray, batch_rows: int) -> Iterator[np.ndarray]:
    order_N = np.argsort(-length_N, kind="stable")
    yield from (order_N[first : first + batch_rows] for first in range(0, len(order_N), batch_rows))


def _inputs(model: EncoderDecoder, source_RS: np.ndarray, target_RT: np.ndarray) -> Inputs:
    """Rows of one pair each."""

    def side(ids_RL: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        length_R = _lengths(ids_RL, least)
        position_RL = np.broadcast_to(
            np.arange(length_R.max(initial=0), dtype=np.int32), (len(ids_RL), length_R.max(initial=0))
        )
        return ids_RL[:, : position_RL.shape[1]], (position_RL < length_R[:, None]).astype(np.int32), position_RL

    return arrange(Batch(*side(source_RS, 1), *side(target_RT, 0)), model.embedding.device)


# --- one batch --------------------------------------------------------------------------------------------------------


def _greedy(model: EncoderDecoder, source_RS: np.ndarray, max_length: int) -> list[np.ndarray]:
    rows, device = len(source_RS), model.embedding.device
    inputs = _inputs(model, source_RS, np.zeros((rows, 0), np.int32))
    step = _Step.of(model, inputs, max_length)
    said_RT = torch.zeros(rows, max_length, dtype=torch.int64, device=device)
    open_A = torch.arange(rows, device=device)
    token_A = torch.zeros(rows, dtype=torch.int64, device=device)
    for t in range(max_length):
        token_A = step(token_A, open_A, t)
        said_RT[open_A, t] = token_A
        going_A = token_A != EOS
        if not going_A.all():
            open_A, token_A = open_A[going_A], token_A[going_A]
            if not len(open_A):
                break
    said = said_RT.cpu().numpy()
    return [row[(row != EOS) & (row != PAD)].astype(np.int32) for row in said]


@dataclass(frozen=True)
class _LayerWeights:
    """A decoder layer's matrices, fused, each norm's gain multiplied into the matrix behind it."""

    qkv: Tensor
    out: Tensor
    cross_q: Tensor
    cross_out: Tensor
    wi: Tensor
    wo: Tensor


@dataclass(frozen=True)
class _Step:
    """One decoding step for a batch: the weights, what the layers see of the sources, and room for the keys and values
    of all tokens to come."""

    ops: ModuleType
    model: EncoderDecoder
    layers: list[_LayerWeights]
    head_VD: Tensor
    bias_HC: Tensor
    memory: tuple[Tensor, ...]
    first_R: Tensor
    length_R: Tensor
    cache: list[Tensor]
    max_length: int

    @staticmethod
    def of(model: EncoderDecoder, inputs: Inputs, max_length: int) -> _Step:
        shape = model.shape
        run = Pass.of(shape, inputs, model.embedding)
        layers = []
        for layer in model.decoder:
            own, cross, feed = layer.attention, layer.cross, layer.feed
            wi = torch.cat((feed.wi_0, feed.wi_1)) if feed.gated else feed.wi
            matrices = (
                torch.cat((own.q, own.k, own.v)) * own.norm,
                own.out,
                cross.q * cross.norm,
                cross.out,
                wi * feed.norm,
                feed.wo,
            )
            layers.append(_LayerWeights(*(m.to(run.dtype) for m in matrices)))
        head = model.embedding if model.head is None else model.head
        distance_C = buckets(max_length, True)[:max_length].flip(0)  # of the key 0, 1, ... behind the query
        length_R = torch.bincount(inputs.source.row_N, minlength=inputs.rows)
        room = (inputs.rows * max_length, 2 * shape.inner)
        return _Step(
            ops=run.ops,
            model=model,
            layers=layers,
            head_VD=(head * (model.decoder.norm * shape.logit_scale)).to(run.dtype),
            bias_HC=model.decoder.bias.t()[:, distance_C.to(head.device)].contiguous(),
            memory=model.memory(inputs),
            first_R=length_R.cumsum(0) - length_R,
            length_R=length_R,
            cache=[torch.empty(room, dtype=run.dtype, device=head.device) for _ in layers],
            max_length=max_length,
        )

    def __call__(self, token_A: Tensor, open_A: Tensor, t: int) -> Tensor:
        """The tokens before, which of the rows they belong to, and how many came before them -> the next tokens."""
        attend, heads, inner = self.ops.attend_one, self.model.shape.heads, self.model.shape.inner
        first_A, length_A = open_A * self.max_length, torch.full_like(open_A, t + 1)
        memory_first_A, memory_length_A = self.first_R[open_A], self.length_R[open_A]
        x_AD = self.model.embedding[token_A]
        for w, cache, memory in zip(self.layers, self.cache, self.memory, strict=True):
            qkv_A3I = _times(_normed(x_AD, w.qkv.dtype), w.qkv)
            cache[first_A + t] = qkv_A3I[:, inner:]
            own_AI = attend(qkv_A3I[:, :inner].contiguous(), cache, first_A, length_A, heads, self.bias_HC)
            x_AD = x_AD + _times(own_AI, w.out)
            q_AI = _times(_normed(x_AD, w.qkv.dtype), w.cross_q).contiguous()
            x_AD = x_AD + _times(attend(q_AI, memory, memory_first_A, memory_length_A, heads, None), w.cross_out)
            h_AF = _times(_normed(x_AD, w.qkv.dtype), w.wi)
            if self.model.shape.activation == "gated_gelu":
                gate_AF, line_AF = h_AF.chunk(2, 1)
                h_AF = torch.nn.functional.gelu(gate_AF, approximate="tanh") * line_AF
            else:
                h_AF = h_AF.relu()
            x_AD = x_AD + _times(h_AF, w.wo)
        return _times(_normed(x_AD, self.head_VD.dtype), self.head_VD).argmax(1)


def _normed(x_AD: Tensor, dtype: torch.dtype) -> Tensor:
    """RMS norm without its gain, which the matrix behind it has taken in."""
    return (x_AD * (x_AD.square().mean(-1, keepdim=True) + 1e-6).rsqrt()).to(dtype)


def _times(x_AI: Tensor, w_OI: Tensor) -> Tensor:
    """x w'. With few rows on a CPU the product is faster from the other side."""
    return (w_OI @ x_AI.t()).t()
