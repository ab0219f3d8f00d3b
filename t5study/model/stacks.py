"""The modules: a stack is layers of sub-layers, a bias table and a final norm; what two stacks share is one module.

N  tokens (source or target, without padding)    D  d_model    F  d_ff    H  heads    K  d_kv    I  H K
A  inner size of an adapter    C  distances
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from t5study.model.attention import Diagonals
from t5study.model.inputs import Tokens
from t5study.model.layers import (
    CrossAttention,
    EncoderEnd,
    GatedFeed,
    KeysValues,
    MakeMemory,
    Pass,
    ReluFeed,
    SelfAttention,
)
from t5study.model.shapes import BUCKETS, Shape


def weight(*size: int) -> nn.Parameter:
    """A parameter without values: `initial.start` gives them."""
    return nn.Parameter(torch.empty(size))


class Attention(nn.Module):
    """norm (D,); q, k, v (H K, D); out (D, H K). Cross-attention takes k and v from the encoder's output."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.norm = weight(shape.d_model)
        self.q = weight(shape.inner, shape.d_model)
        self.k = weight(shape.inner, shape.d_model)
        self.v = weight(shape.inner, shape.d_model)
        self.out = weight(shape.d_model, shape.inner)


class FeedForward(nn.Module):
    """norm (D,); wi (F, D), or wi_0 (which goes through the GELU) and wi_1 where it is gated; wo (D, F)."""

    def __init__(self, d_model: int, d_ff: int, gated: bool):
        super().__init__()
        self.norm = weight(d_model)
        self.gated = gated
        if gated:
            self.wi_0 = weight(d_ff, d_model)
            self.wi_1 = weight(d_ff, d_model)
        else:
            self.wi = weight(d_ff, d_model)
        self.wo = weight(d_model, d_ff)

    def forward(self, x_ND: Tensor, run: Pass, site: str, tokens: Tokens) -> Tensor:
        if self.gated:
            return GatedFeed.apply(x_ND, self.norm, self.wi_0, self.wi_1, self.wo, run, site, tokens)
        return ReluFeed.apply(x_ND, self.norm, self.wi, self.wo, run, site, tokens)


class Layer(nn.Module):
    """What layers of all stacks have: attention, feed and, where the shape has adapters, adapter: a ReLU feed-forward
    of A columns behind the feed-forward, in gated models too.

    like: a layer whose attention and feed are this one's too.
    """

    attention: Attention
    feed: FeedForward
    adapter: FeedForward | None

    def __init__(self, shape: Shape, like: Layer | None = None):
        super().__init__()
        if like is None:
            self.attention = Attention(shape)
            self.feed = FeedForward(shape.d_model, shape.d_ff, shape.activation == "gated_gelu")
        else:  # past Module's own setter, so that a parameter has one name, in a checkpoint as in an optimiser
            self.__dict__.update(attention=like.attention, feed=like.feed)
        self.adapter = FeedForward(shape.d_model, shape.adapter, gated=False) if shape.adapter else None

    def attend(self, x_ND: Tensor, diagonal_HC: Tensor, run: Pass, site: str, decoder: bool) -> Tensor:
        a = self.attention
        site = f"{site}.attention"
        return SelfAttention.apply(x_ND, a.norm, a.q, a.k, a.v, a.out, diagonal_HC, run, site, decoder)

    def think(self, x_ND: Tensor, run: Pass, site: str, tokens: Tokens) -> Tensor:
        x_ND = self.feed(x_ND, run, f"{site}.feed", tokens)
        return x_ND if self.adapter is None else self.adapter(x_ND, run, f"{site}.adapter", tokens)


class EncoderLayer(Layer):
    def forward(self, x_ND: Tensor, diagonal_HC: Tensor, run: Pass, site: str) -> Tensor:
        x_ND = self.attend(x_ND, diagonal_HC, run, site, decoder=False)
        return self.think(x_ND, run, site, run.inputs.source)


class DecoderLayer(Layer):
    """attention, cross, feed, adapter. cross: None in a language model."""

    cross: Attention | None

    def __init__(self, shape: Shape, cross: bool = True, like: Layer | None = None):
        super().__init__(shape, like)
        self.cross = Attention(shape) if cross else None

    def forward(
        self, x_ND: Tensor, memory: Tensor | None, diagonal_HC: Tensor, run: Pass, site: str, late: bool = False
    ) -> Tensor:
        """memory: this layer's keys beside values (M, 2 I); late: the encoder's output (M, D), to make them of."""
        x_ND = self.attend(x_ND, diagonal_HC, run, site, decoder=True)
        if self.cross is not None:
            c = self.cross
            kv_M2I = KeysValues.apply(memory, run, c.k, c.v) if late else memory
            x_ND = CrossAttention.apply(x_ND, c.norm, c.q, c.out, kv_M2I, run, f"{site}.cross", len(diagonal_HC))
        return self.think(x_ND, run, site, run.inputs.target)


class Encoder(nn.Module):
    """bias (buckets, H): one table of the relative position bias for all layers. norm (D,): after the last of them."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.bias = weight(BUCKETS, shape.heads)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.encoder_layers))
        self.norm = weight(shape.d_model)

    def __iter__(self) -> Iterator[EncoderLayer]:
        return iter(self.layers)  # type: ignore[return-value]

    def forward(self, x_ND: Tensor, run: Pass, decoder: Decoder, late: bool = False) -> tuple[Tensor, ...]:
        """Embedded source tokens -> for every decoder layer k and v, (N, 2 I); late: what it makes them of, (N, D)."""
        diagonal_HC = Diagonals.apply(self.bias, run.inputs.source.longest, False)
        for i, layer in enumerate(self):
            x_ND = layer(x_ND, diagonal_HC, run, f"encoder.layers.{i}")
        if late:
            return (EncoderEnd.apply(x_ND, self.norm, run),) * len(decoder.layers)
        pairs = [w for layer in decoder if layer.cross is not None for w in (layer.cross.k, layer.cross.v)]
        return MakeMemory.apply(x_ND, self.norm, run, *pairs)


class Decoder(nn.Module):
    """bias and norm as the encoder's; the norm is applied where the loss is taken.

    cross: whether it reads an encoder. two_ways: whether bias buckets tell keys ahead from keys behind, as an
    encoder's do. like: an encoder whose layers are this stack's too, but for cross-attention.
    """

    def __init__(self, shape: Shape, cross: bool = True, two_ways: bool = False, like: Encoder | None = None):
        super().__init__()
        self.two_ways = two_ways
        self.bias = weight(BUCKETS, shape.heads)
        theirs = [None] * shape.decoder_layers if like is None else [*like]
        self.layers = nn.ModuleList(DecoderLayer(shape, cross, layer) for layer in theirs)
        self.norm = weight(shape.d_model)

    def __iter__(self) -> Iterator[DecoderLayer]:
        return iter(self.layers)  # type: ignore[return-value]

    def forward(self, x_ND: Tensor, memory: tuple[Tensor, ...], run: Pass, late: bool = False) -> Tensor:
        """Embedded decoder inputs -> what the final norm takes. memory: what the encoder gives, () without one."""
        diagonal_HC = Diagonals.apply(self.bias, run.inputs.target.longest, not self.two_ways)
        for i, layer in enumerate(self):
            x_ND = layer(x_ND, memory[i] if memory else None, diagonal_HC, run, f"decoder.layers.{i}", late)
        return x_ND
