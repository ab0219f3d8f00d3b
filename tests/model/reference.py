"""T5 as one would write it first: dense rows, segment masks, dropout as mesh describes it, autograd for the rest.

B  rows    Q  queries    L  keys or positions    H  heads    K  d_kv
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t5study.ground.pairs import Batch
from t5study.model.architectures import EncoderDecoder
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


def reference_loss(
    model: EncoderDecoder, batch: Batch, dropout: Dropout | None = None, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(sum of nats and z-loss, logits of the real targets)."""
    shape = model.shape
    weights = dict(model.named_parameters())
    rows, source_length, target_length = len(batch), batch.source_BS.shape[1], batch.target_BT.shape[1]
    masks = dropout.masks(rows, sites(shape, source_length, target_length)) if dropout else None

    def drop(x_BLW: Tensor, site: str) -> Tensor:
        return x_BLW if masks is None else x_BLW * masks[site][:, None]

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * gain

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (shape.heads, -1)).transpose(1, 2)

    def attention(name: str, x_BQD: Tensor, y_BLD: Tensor, seen_BQL: Tensor, bias_HQL: Tensor | None) -> Tensor:
        normed = norm(x_BQD, weights[f"{name}.norm"])
        from_ = normed if y_BLD is x_BQD else y_BLD
        q, k, v = (heads(a @ weights[f"{name}.{m}"].t()) for a, m in ((normed, "q"), (from_, "k"), (from_, "v")))
        scores_BHQL = q @ k.transpose(2, 3)
        if bias_HQL is not None:
            scores_BHQL = scores_BHQL + bias_HQL
        p_BHQL = scores_BHQL.masked_fill(~seen_BQL[:, None], -1e9).softmax(-1)
        if masks is not None:
            keep_BLH = masks[f"{name}.weights"].unflatten(1, (-1, shape.heads))
            p_BHQL = p_BHQL * keep_BLH.permute(0, 2, 1)[:, :, None]
        out = (p_BHQL @ v).transpose(1, 2).flatten(2) @ weights[f"{name}.out"].t()
        return x_BQD + drop(out, name)

    def feed(name: str, x: Tensor) -> Tensor:
        y = norm(x, weights[f"{name}.norm"])
        if shape.activation == "relu":
            h = (y @ weights[f"{name}.wi"].t()).relu()
        else:
            h = torch.nn.functional.gelu(y @ weights[f"{name}.wi_0"].t(), approximate="tanh")
            h = h * (y @ weights[f"{name}.wi_1"].t())
        return x + drop(drop(h, f"{name}.hidden") @ weights[f"{name}.wo"].t(), name)

    def bias(stack: str, length: int) -> Tensor:
        table = [[bucket(k - q, stack == "decoder") for k in range(length)] for q in range(length)]
        return weights[f"{stack}.bias"][torch.tensor(table)].permute(2, 0, 1)

    source_segment_BS, target_segment_BT = (
        torch.from_numpy(s) for s in (batch.source_segment_BS, batch.target_segment_BT)
    )
    seen_BSS = source_segment_BS[:, :, None] == source_segment_BS[:, None]
    seen_BTT = (target_segment_BT[:, :, None] == target_segment_BT[:, None]).tril()
    seen_BTS = target_segment_BT[:, :, None] == source_segment_BS[:, None]
    x = drop(weights["embedding"][torch.from_numpy(batch.source_BS).long()], "encoder.embedding")
    for i in range(shape.encoder_layers):
        x = attention(f"encoder.layers.{i}.attention", x, x, seen_BSS, bias("encoder", source_length))
        x = feed(f"encoder.layers.{i}.feed", x)
    memory = drop(norm(x, weights["encoder.norm"]), "encoder.norm")
    shifted_BT = np.roll(batch.target_BT, 1, axis=1)
    shifted_BT[batch.target_position_BT == 0] = 0
    x = drop(weights["embedding"][torch.from_numpy(shifted_BT).long()], "decoder.embedding")
    for i in range(shape.decoder_layers):
        x = attention(f"decoder.layers.{i}.attention", x, x, seen_BTT, bias("decoder", target_length))
        x = attention(f"decoder.layers.{i}.cross", x, memory, seen_BTS, None)
        x = feed(f"decoder.layers.{i}.feed", x)
    x = drop(norm(x, weights["decoder.norm"]), "decoder.norm") * shape.logit_scale
    real_BT = target_segment_BT > 0
    logits_MV = x[real_BT] @ (weights["embedding"] if shape.tied else weights["head"]).t()
    labels_M = torch.from_numpy(batch.target_BT).long()[real_BT]
    normaliser_M = logits_MV.logsumexp(1)
    nats_M = normaliser_M - logits_MV.gather(1, labels_M[:, None]).squeeze(1)
    return nats_M.sum() + z_loss * normaliser_M.square().sum(), logits_MV
