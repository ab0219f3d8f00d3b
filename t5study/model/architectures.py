"""Architectures: a shape -> a module.

Parameter names (a `Weight` is some rows of one, under the name mesh knows):

    parameter                           shape        weights
    embedding                           (V, D)       embedding
    head                                (V, D)       head                      (untied only)
    {encoder,decoder}.bias              (32, H)      the same
    ....layers.I.attention.norm         (D,)         the same                  (every sub-layer has a norm)
    ....layers.I.attention.qkv          (3 H K, D)   ....attention.q, .k, .v
    ....layers.I.attention.out          (D, H K)     the same
    decoder.layers.I.cross.q            (H K, D)     the same
    decoder.layers.I.cross.kv           (2 H K, D)   ....cross.k, .v
    decoder.layers.I.cross.out          (D, H K)     the same
    ....layers.I.feed.wi                (F, D)       the same; gated (2 F, D): ....feed.wi_0, .wi_1
    ....layers.I.feed.wo                (D, F)       the same
    {encoder,decoder}.norm              (D,)         the same
"""

from __future__ import annotations

import torch
from torch import nn

from t5study.ground.errors import UserError
from t5study.model.initial import Initial, Weight, start, truncated
from t5study.model.layers import Stack
from t5study.model.shapes import Shape


class EncoderDecoder(nn.Module):
    """The T5 encoder-decoder, v1.0 (ReLU, tied) or v1.1 (gated GELU, untied) by its shape."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.table_rows, shape.d_model))
        self.head = None if shape.tied else nn.Parameter(torch.empty(shape.table_rows, shape.d_model))
        self.encoder = Stack(shape, shape.encoder_layers, decoder=False)
        self.decoder = Stack(shape, shape.decoder_layers, decoder=True)

    def weights(self) -> list[Weight]:
        """Every matrix under its name, each once, in a fixed order."""
        rows = self.shape.table_rows
        found = [Weight("embedding", self.embedding, 0, rows, Initial("normal"))]
        if self.head is not None:
            found.append(Weight("head", self.head, 0, rows, truncated(self.shape.d_model)))
        return [*found, *self.encoder.weights("encoder"), *self.decoder.weights("decoder")]


def build(shape: Shape, seed: int, architecture: str = "encoder_decoder") -> EncoderDecoder:
    """A fresh model with mesh's initialisation.

    The weights are a function of (seed, weight name). Under `torch.device("meta")` nothing is allocated: for counting.
    UserError for an architecture that there is none of.
    """
    if architecture != "encoder_decoder":
        raise UserError(f"architecture: found {architecture!r}; give encoder_decoder")
    model = EncoderDecoder(shape)
    start(model.weights(), seed)
    return model
