"""The encoder in int8 by panels.py's compiled loops, for decoding only. (In fp32 the model's own is as fast.)

N  source tokens of a batch, without padding    D  d_model    F  d_ff    I  H E
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t5study.decode.panels import Panels, gated_gelu
from t5study.decode.weights import Layer, Ready
from t5study.model.architectures import EncoderDecoder, Inputs
from t5study.model.attention import Diagonals, attend
from t5study.model.layers import Pass


def memory(ready: Ready[Panels], inputs: Inputs) -> tuple[Tensor, ...]:
    """What `EncoderDecoder.memory` gives: for each decoder layer keys beside values (N, 2 I)."""
    model = ready.model
    assert isinstance(model, EncoderDecoder)
    assert ready.memory is not None
    ops, heads = Pass.of(model.shape, inputs, model.embedding).ops, model.shape.heads
    diagonal_HC = Diagonals.apply(model.encoder.bias, inputs.source.longest, False)
    x_ND = model.embedding.detach()[inputs.source.id_N].numpy()
    for w in ready.encoder:
        qkv_N3I = torch.from_numpy(w.qkv.times(x_ND, normed=True))
        c_NI, _ = attend(ops, qkv_N3I, None, None, diagonal_HC, inputs.encoder, heads, causal=False)
        w.out.add_to(x_ND, c_NI.numpy())
        feed(x_ND, w)
    return torch.from_numpy(ready.memory.times(x_ND, normed=True)).split(2 * model.shape.inner, 1)


def feed(x_ND: np.ndarray, w: Layer[Panels]) -> None:
    """x += the feed-forward's output, and then the adapter's."""
    h_NF = w.wi.times(x_ND, normed=True, relu=not w.gated)
    w.wo.add_to(x_ND, gated_gelu(h_NF) if w.gated else h_NF)
    if w.adapter_wi is not None and w.adapter_wo is not None:
        w.adapter_wo.add_to(x_ND, w.adapter_wi.times(x_ND, normed=True, relu=True))
