"""The peer: transformers' T5 with the weights of one of our models."""

from __future__ import annotations

import torch
from transformers import T5Config, T5ForConditionalGeneration

from t5study.ground.pairs import Batch
from t5study.model.architectures import EncoderDecoder
from t5study.model.shapes import Shape

PARTS = {"attention": "SelfAttention", "cross": "EncDecAttention", "feed": "DenseReluDense"}


def peer_name(name: str) -> str:
    """Our parameter's name as transformers has it. Written out here, apart from the exporter, so that one checks the
    other."""
    ends = {"embedding": "shared.weight", "head": "lm_head.weight"}
    if name in ends:
        return ends[name]
    stack, *rest = name.split(".")
    if rest == ["bias"]:
        return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    if rest == ["norm"]:
        return f"{stack}.final_layer_norm.weight"
    _, layer, part, matrix = rest
    order = ["attention", "feed"] if stack == "encoder" else ["attention", "cross", "feed"]
    place = f"{stack}.block.{layer}.layer.{order.index(part)}"
    if matrix == "norm":
        return f"{place}.layer_norm.weight"
    return f"{place}.{PARTS[part]}.{'o' if matrix == 'out' else matrix}.weight"


def peer_of(model: EncoderDecoder) -> T5ForConditionalGeneration:
    """transformers' eager T5, no dropout, holding a copy of the model's weights."""
    shape: Shape = model.shape
    config = T5Config(
        vocab_size=shape.table_rows,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_heads=shape.heads,
        num_layers=shape.encoder_layers,
        num_decoder_layers=shape.decoder_layers,
        feed_forward_proj="relu" if shape.activation == "relu" else "gated-gelu",
        tie_word_embeddings=shape.tied,
        scale_decoder_outputs=shape.tied,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        attn_implementation="eager",
    )
    peer = T5ForConditionalGeneration(config).eval()
    if not shape.tied:  # transformers ties it whatever the config says
        peer.lm_head.weight = torch.nn.Parameter(torch.empty_like(peer.shared.weight))
    theirs = dict(peer.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            theirs.pop(peer_name(name)).copy_(weight)
    assert not theirs, f"weights of transformers that ours lacks: {list(theirs)}"
    return peer


def peer_loss(peer: T5ForConditionalGeneration, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss and the logits of the real targets, for unpacked rows."""
    real_BT = torch.from_numpy(batch.target_segment_BT > 0)
    labels_BT = torch.from_numpy(batch.target_BT).long().masked_fill(~real_BT, -100)
    out = peer(
        input_ids=torch.from_numpy(batch.source_BS).long(),
        attention_mask=torch.from_numpy(batch.source_segment_BS > 0).long(),
        labels=labels_BT,
    )
    return out.loss * int(real_BT.sum()), out.logits[real_BT]
