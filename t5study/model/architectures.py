"""Architectures: a shape -> a module.

Parameters, one a matrix as mesh, Adafactor and the published checkpoints know them:

    embedding                                (V, D)
    head                                     (V, D)     untied only
    {encoder,decoder}.bias                   (32, H)
    {encoder,decoder}.norm                   (D,)
    {encoder,decoder}.layers.I.attention.    norm (D,)    q, k, v (H K, D)    out (D, H K)
    decoder.layers.I.cross.                  the same
    {encoder,decoder}.layers.I.feed.         norm (D,)    wi (F, D), or wi_0 and wi_1 where gated    wo (D, F)
"""

from __future__ import annotations

import torch
from torch import nn

from t5study.ground.errors import UserError
from t5study.model.initial import start
from t5study.model.layers import Stack
from t5study.model.shapes import Shape


class EncoderDecoder(nn.Module):
    """The T5 encoder-decoder, v1.0 (ReLU, tied) or v1.1 (gated GELU, untied) by its shape."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.table_rows, shape.d_model))
        self.register_parameter("head", None if shape.tied else nn.Parameter(torch.empty_like(self.embedding)))
        self.encoder = Stack(shape, shape.encoder_layers, decoder=False)
        self.decoder = Stack(shape, shape.decoder_layers, decoder=True)


def build(shape: Shape, seed: int, architecture: str = "encoder_decoder") -> EncoderDecoder:
    """A fresh model with mesh's initialisation; its weights are a function of (seed, name).

    Under `torch.device("meta")` nothing is allocated: for counting, or for weights that come from elsewhere.
    UserError for an architecture that there is none of.
    """
    if architecture != "encoder_decoder":
        raise UserError(f"architecture: found {architecture!r}; give encoder_decoder")
    model = EncoderDecoder(shape)
    start(model, shape, seed)
    return model
