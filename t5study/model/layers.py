"""T5's layers: attention, feed-forward, and the two stacks they make.

    N  tokens of a batch    D  d_model    F  d_ff    H  heads    K  d_kv    V  rows of the embedding table

Each sub-layer is pre-norm with a residual around it: x + f(norm(x)). There are no biases anywhere. Weights lie as
torch's Linear has them: (columns out, columns in).
"""

from __future__ import annotations

import torch
from torch import nn

from t5study.model.shapes import BUCKETS, Shape


def _weight(*size: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(size))


class Attention(nn.Module):
    """norm (D,); q, k, v (H K, D); out (D, H K). Cross-attention takes k and v from the encoder's output."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.norm = _weight(shape.d_model)
        self.q = _weight(shape.inner, shape.d_model)
        self.k = _weight(shape.inner, shape.d_model)
        self.v = _weight(shape.inner, shape.d_model)
        self.out = _weight(shape.d_model, shape.inner)


class FeedForward(nn.Module):
    """norm (D,); wi (F, D), or wi_0 (which goes through the GELU) and wi_1 where it is gated; wo (D, F)."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.norm = _weight(shape.d_model)
        if shape.activation == "gated_gelu":
            self.wi_0 = _weight(shape.d_ff, shape.d_model)
            self.wi_1 = _weight(shape.d_ff, shape.d_model)
        else:
            self.wi = _weight(shape.d_ff, shape.d_model)
        self.wo = _weight(shape.d_model, shape.d_ff)


class Layer(nn.Module):
    """One layer of a stack: attention, cross (decoder only), feed."""

    def __init__(self, shape: Shape, decoder: bool):
        super().__init__()
        self.attention = Attention(shape)
        if decoder:
            self.cross = Attention(shape)
        self.feed = FeedForward(shape)


class Stack(nn.Module):
    """bias (buckets, H): one table of the relative position bias for all layers. norm (D,): after the last of them."""

    def __init__(self, shape: Shape, layers: int, decoder: bool):
        super().__init__()
        self.bias = _weight(BUCKETS, shape.heads)
        self.layers = nn.ModuleList(Layer(shape, decoder) for _ in range(layers))
        self.norm = _weight(shape.d_model)
