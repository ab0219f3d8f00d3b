"""T5 as one would write it first: dense rows, segment masks, dropout as mesh describes it, autograd for the rest.

B  rows    Q  queries    L  keys or positions    S  source positions    T  target positions    H  heads    K  d_kv
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t5study.ground.pairs import Batch
from t5study.model.architectures import Model
from t5study.model.dropout import Dropout, sites


def bucket(distance: int, causal: bool) -> int:
    """The bucket of key - query, by the formula in whole numbers: the logarithm's floor is the largest k with
    (d / half)^half >= (128 / half)^k."""
    buckets = 32 if causal else 16
    first = 0 if causal or distance <= 0 else 16
    d = max(-distance, 0) if causal else abs(distance)
    half = buckets // 2
    if d < half:
        return first + d
    k = 0
    while k + 1 <= half - 1 and d**half * half ** (k + 1) >= half**half * 128 ** (k + 1):
        k += 1
    return first + half + k


@dataclass(frozen=True)
class Reference:
    """total: nats of what is learned, and z-loss. logits_MV: of what is learned. answers_M: which of it are targets.
    nats: of what is learned."""

    total: Tensor
    nats: Tensor
    logits_MV: Tensor
    answers_M: Tensor


def reference(
    model: Model,
    batch: Batch,
    dropout: Dropout | None = None,
    z_loss: float = 0.0,
    weights: dict[str, Tensor] | None = None,
) -> Reference:
    """weights: others than the model's own."""
    t5 = _T5(model, batch, dropout, dict(model.named_parameters()) if weights is None else weights)
    if model.architecture in ("encoder_decoder", "shared_encoder_decoder"):
        x_BLD, label_BL, learned_BL, answer_BL = t5.two_stacks(batch, model.architecture.startswith("shared"))
    else:
        x_BLD, label_BL, learned_BL, answer_BL = t5.one_stack(batch, model.architecture == "prefix_lm")
    x_BLD = t5.drop(t5.norm(x_BLD, "decoder.norm"), "decoder.norm") * model.shape.logit_scale
    logits_MV = x_BLD[learned_BL] @ t5.weights["embedding" if model.shape.tied else "head"].t()
    labels_M = label_BL[learned_BL]
    normaliser_M = logits_MV.logsumexp(1)
    nats_M = normaliser_M - logits_MV.gather(1, labels_M[:, None]).squeeze(1)
    total = nats_M.sum() + z_loss * normaliser_M.square().sum()
    return Reference(total, nats_M.sum(), logits_MV, answer_BL[learned_BL])


class _T5:
    def __init__(self, model: Model, batch: Batch, dropout: Dropout | None, weights: dict[str, Tensor]):
        self.shape, self.weights, self.rows = model.shape, weights, len(batch)
        self.masks = None
        if dropout:
            source, target = batch.source_BS.shape[1], batch.target_BT.shape[1]
            if model.architecture in ("language_model", "prefix_lm"):
                target += 2 * source  # as wide as any row may be: a place's bits are the same however wide a site is
            self.masks = dropout.masks(self.rows, sites(model.shape, source, target, model.architecture))

    def drop(self, x_BLW: Tensor, site: str) -> Tensor:
        return x_BLW if self.masks is None else x_BLW * self.masks[site][:, None]

    def norm(self, x: Tensor, name: str) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.weights[name]

    def attention(
        self, name: str, site: str, x_BQD: Tensor, memory_BLD: Tensor | None, seen_BQL: Tensor, bias_HQL: Tensor | None
    ) -> Tensor:
        def heads(x: Tensor, matrix: str) -> Tensor:
            return (x @ self.weights[f"{name}.{matrix}"].t()).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)

        normed = self.norm(x_BQD, f"{name}.norm")
        memory = normed if memory_BLD is None else memory_BLD
        scores_BHQL = heads(normed, "q") @ heads(memory, "k").transpose(2, 3)
        if bias_HQL is not None:
            scores_BHQL = scores_BHQL + bias_HQL
        p_BHQL = scores_BHQL.masked_fill(~seen_BQL[:, None], -1e9).softmax(-1)
        if self.masks is not None:
            keep_BLH = self.masks[f"{site}.weights"].unflatten(1, (-1, self.shape.heads))[:, : p_BHQL.shape[-1]]
            p_BHQL = p_BHQL * keep_BLH.permute(0, 2, 1)[:, :, None]
        out = (p_BHQL @ heads(memory, "v")).transpose(1, 2).flatten(2) @ self.weights[f"{name}.out"].t()
        return x_BQD + self.drop(out, site)

    def feed(self, name: str, site: str, x: Tensor) -> Tensor:
        y, w = self.norm(x, f"{name}.norm"), self.weights
        if f"{name}.wi" in w:
            h = (y @ w[f"{name}.wi"].t()).relu()
        else:
            h = torch.nn.functional.gelu(y @ w[f"{name}.wi_0"].t(), approximate="tanh")
            h = h * (y @ w[f"{name}.wi_1"].t())
        return x + self.drop(self.drop(h, f"{site}.hidden") @ w[f"{name}.wo"].t(), site)

    def feeds(self, name: str, site: str, x: Tensor) -> Tensor:
        x = self.feed(f"{name}.feed", f"{site}.feed", x)
        return self.feed(f"{site}.adapter", f"{site}.adapter", x) if self.shape.adapter else x

    def bias(self, stack: str, length: int, causal: bool) -> Tensor:
        table = [[bucket(k - q, causal) for k in range(length)] for q in range(length)]
        return self.weights[f"{stack}.bias"][torch.tensor(table)].permute(2, 0, 1)

    def embed(self, ids_BL: np.ndarray, site: str) -> Tensor:
        return self.drop(self.weights["embedding"][torch.from_numpy(ids_BL).long()], site)

    def two_stacks(self, batch: Batch, shared: bool) -> tuple[Tensor, ...]:
        source_segment_BS, target_segment_BT = map(torch.from_numpy, (batch.source_segment_BS, batch.target_segment_BT))
        seen_BSS = source_segment_BS[:, :, None] == source_segment_BS[:, None]
        seen_BTT = (target_segment_BT[:, :, None] == target_segment_BT[:, None]).tril()
        seen_BTS = target_segment_BT[:, :, None] == source_segment_BS[:, None]
        x, bias = self.embed(batch.source_BS, "encoder.embedding"), self.bias("encoder", seen_BSS.shape[1], False)
        for i in range(self.shape.encoder_layers):
            layer = f"encoder.layers.{i}"
            x = self.attention(f"{layer}.attention", f"{layer}.attention", x, None, seen_BSS, bias)
            x = self.feeds(layer, layer, x)
        memory = self.drop(self.norm(x, "encoder.norm"), "encoder.norm")
        shifted_BT = np.roll(batch.target_BT, 1, axis=1)
        shifted_BT[batch.target_position_BT == 0] = 0
        x, bias = self.embed(shifted_BT, "decoder.embedding"), self.bias("decoder", seen_BTT.shape[1], True)
        for i in range(self.shape.decoder_layers):
            layer = f"decoder.layers.{i}"
            own = f"encoder.layers.{i}" if shared else layer
            x = self.attention(f"{own}.attention", f"{layer}.attention", x, None, seen_BTT, bias)
            x = self.attention(f"{layer}.cross", f"{layer}.cross", x, memory, seen_BTS, None)
            x = self.feeds(own, layer, x)
        real_BT = target_segment_BT > 0
        return x, torch.from_numpy(batch.target_BT).long(), real_BT, real_BT

    def one_stack(self, batch: Batch, prefix: bool) -> tuple[Tensor, ...]:
        """Rows of joined segments, written token by token."""
        rows = []
        for b in range(self.rows):
            row = []
            for s in range(1, batch.source_segment_BS[b].max() + 1):
                source = batch.source_BS[b][batch.source_segment_BS[b] == s].tolist()
                target = batch.target_BT[b][batch.target_segment_BT[b] == s].tolist()
                labels = [*source, *target]
                reads = [0, *labels[:-1]] if target else [0, *source]
                for i, read in enumerate(reads):
                    label = labels[i] if i < len(labels) else -1
                    row.append((read, label, s, i <= len(source), len(source) <= i < len(labels)))
            rows.append(row)
        longest = max(map(len, rows))
        table_BL5 = np.array([row + [(0, -1, 0, False, False)] * (longest - len(row)) for row in rows])
        reads, labels, segment, visible, answer = (table_BL5[:, :, c] for c in range(5))
        seen_BLL = segment[:, :, None] == segment[:, None]
        before_BLL = np.tri(longest, dtype=bool)
        both_BLL = (visible[:, :, None] & visible[:, None]).astype(bool) if prefix else np.zeros_like(before_BLL)
        seen_BLL = torch.from_numpy(seen_BLL & (before_BLL | both_BLL))
        x, bias = self.embed(reads, "decoder.embedding"), self.bias("decoder", longest, not prefix)
        for i in range(self.shape.decoder_layers):
            layer = f"decoder.layers.{i}"
            x = self.attention(f"{layer}.attention", f"{layer}.attention", x, None, seen_BLL, bias)
            x = self.feeds(layer, layer, x)
        answer_BL = torch.from_numpy(answer > 0)
        learned_BL = answer_BL if prefix else torch.from_numpy(labels >= 0)
        return x, torch.from_numpy(labels), learned_BL, answer_BL


def reference_loss(
    model: Model, batch: Batch, dropout: Dropout | None = None, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(sum of nats and z-loss, logits of what is learned)."""
    found = reference(model, batch, dropout, z_loss)
    return found.total, found.logits_MV
