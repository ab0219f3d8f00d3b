"""Decode: a model and sources -> answers, and how likely given targets are.

Rows are sorted by length and taken in batches, so rows that share a batch end at about the same time. A row that has
said EOS leaves the batch at once: the steps that are left cost only what the rows that are left cost.

    N  rows given    R  rows of a batch    A  rows still open    S  source tokens    T  target tokens    L  either
    D  d_model    H  heads    E  d_kv    I  H E, the columns of all heads    V  vocabulary rows
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
from t5study.model.inputs import Span
from t5study.model.layers import Pass, compute_dtype


def greedy(model: EncoderDecoder, source_NS: np.ndarray, max_length: int, batch_rows: int = 64) -> list[np.ndarray]:
    """The likeliest next token, again and again, until EOS or `max_length` tokens: int32 ids without EOS and padding,
    in the order of the sources, whose padding is 0.

    ValueError if a source is empty.
    """
    answers: list[np.ndarray] = [np.zeros(0, np.int32)] * len(source_NS)
    if max_length < 1 or not len(source_NS):
        return answers
    with torch.no_grad():
        weights = _Weights.of(model)
        for rows in _by_length(_lengths(source_NS), batch_rows):
            for row, ids in zip(rows, _greedy(weights, source_NS[rows], max_length), strict=True):
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


def _greedy(weights: _Weights, source_RS: np.ndarray, max_length: int) -> list[np.ndarray]:
    rows, device = len(source_RS), weights.model.embedding.device
    step = _Step.of(weights, source_RS, max_length)
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
    return [row[(row != EOS) & (row != PAD)].astype(np.int32) for row in said_RT.cpu().numpy()]


@dataclass(frozen=True)
class _LayerWeights:
    qkv: Tensor
    out: Tensor
    cross_q: Tensor
    cross_out: Tensor
    wi: Tensor
    wo: Tensor


@dataclass(frozen=True)
class _Weights:
    """The decoder's matrices for single tokens: q, k and v side by side, each norm's gain multiplied into the matrix
    behind it, and stored (columns in, columns out), which for a few rows is up to twice as fast."""

    model: EncoderDecoder
    dtype: torch.dtype
    layers: list[_LayerWeights]
    head_DV: Tensor

    @staticmethod
    def of(model: EncoderDecoder) -> _Weights:
        dtype = compute_dtype(model.embedding)

        def stored(weight: Tensor, gain: Tensor | None = None) -> Tensor:
            return (weight if gain is None else weight * gain).to(dtype).t().contiguous()

        layers = []
        for layer in model.decoder:
            own, cross, feed = layer.attention, layer.cross, layer.feed
            wi = torch.cat((feed.wi_0, feed.wi_1)) if feed.gated else feed.wi
            layers.append(
                _LayerWeights(
                    qkv=stored(torch.cat((own.q, own.k, own.v)), own.norm),
                    out=stored(own.out),
                    cross_q=stored(cross.q, cross.norm),
                    cross_out=stored(cross.out),
                    wi=stored(wi, feed.norm),
                    wo=stored(feed.wo),
                )
            )
        head = model.embedding if model.head is None else model.head
        return _Weights(model, dtype, layers, stored(head, model.decoder.norm * model.shape.logit_scale))


@dataclass(frozen=True)
class _Step:
    """One decoding step of a batch: for each layer keys (H, R, E, L) and values (H, R, L, E), of the sources and, with
    room for all that will be said, of the answers."""

    weights: _Weights
    ops: ModuleType
    own: list[tuple[Tensor, Tensor]]
    cross: list[tuple[Tensor, Tensor]]
    length_R: Tensor
    bias_HT: Tensor

    @staticmethod
    def of(weights: _Weights, source_RS: np.ndarray, max_length: int) -> _Step:
        model, shape = weights.model, weights.model.shape
        inputs = _inputs(model, source_RS, np.zeros((len(source_RS), 0), np.int32))
        ops = Pass.of(shape, inputs, model.embedding).ops
        length_R = torch.bincount(inputs.source.row_N, minlength=inputs.rows)
        rows = Span(length_R.cumsum(0) - length_R, length_R, inputs.source.longest)
        cross, own = [], []
        for kv_NW in model.memory(inputs):
            k_HRSE, v_HRSE = ops.split(kv_NW, 2, shape.heads, rows, None).unbind(0)
            cross.append((k_HRSE.transpose(2, 3).contiguous(), v_HRSE))
            room = shape.heads, inputs.rows, shape.d_kv, max_length
            own.append((kv_NW.new_zeros(room), kv_NW.new_zeros(room[0], room[1], room[3], room[2])))
        behind_T = buckets(max_length, True)[:max_length].flip(0).to(length_R.device)  # of the key 0, 1, ... behind
        return _Step(weights, ops, own, cross, length_R, model.decoder.bias.t()[:, behind_T].contiguous())

    def __call__(self, token_A: Tensor, open_A: Tensor, t: int) -> Tensor:
        """The tokens before, which rows they belong to, and how many came before them -> the next tokens."""
        attend, shape, dtype = self.ops.attend_one, self.weights.model.shape, self.weights.dtype
        inner, length_A, source_A = shape.inner, torch.full_like(open_A, t + 1), self.length_R[open_A]
        x_AD = self.weights.model.embedding[token_A]
        for w, (k, v), (source_k, source_v) in zip(self.weights.layers, self.own, self.cross, strict=True):
            q_AI, *new = (_normed(x_AD, dtype) @ w.qkv).split(inner, 1)
            k[:, open_A, :, t], v[:, open_A, t] = (x.unflatten(1, (shape.heads, -1)).transpose(0, 1) for x in new)
            x_AD = x_AD + attend(q_AI.contiguous(), k, v, open_A, length_A, self.bias_HT) @ w.out
            q_AI = _normed(x_AD, dtype) @ w.cross_q
            x_AD = x_AD + attend(q_AI, source_k, source_v, open_A, source_A, None) @ w.cross_out
            h_AF = _normed(x_AD, dtype) @ w.wi
            if shape.activation == "gated_gelu":
                gate_AF, line_AF = h_AF.chunk(2, 1)
                h_AF = torch.nn.functional.gelu(gate_AF, approximate="tanh") * line_AF
            else:
                h_AF = h_AF.relu_()
            x_AD = x_AD + h_AF @ w.wo
        return (_normed(x_AD, dtype) @ self.weights.head_DV).argmax(1)


def _normed(x_AD: Tensor, dtype: torch.dtype) -> Tensor:
    """RMS norm without its gain, which the matrix behind it has taken in."""
    return (x_AD * (x_AD.square().mean(-1, keepdim=True) + 1e-6).rsqrt()).to(dtype)
