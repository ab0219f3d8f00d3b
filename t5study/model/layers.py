"""T5's layers: attention, feed-forward, and the two stacks they make.

    N  tokens of a batch    D  d_model    F  d_ff    H  heads    K  d_kv    V  rows of the embedding table

Each sub-layer is pre-norm with a residual around it: x + f(norm(x)). There are no biases anywhere.
"""

from __future__ import annotations

import torch
from torch import nn

from t5study.model.initial import ONES, Initial, Weight, glorot, normal, truncated
from t5study.model.shapes import BUCKETS, Shape

Pieces = dict[str, tuple[str, int, Initial]]  # name of a matrix -> parameter that holds it, rows, first value


class SubLayer(nn.Module):
    """A norm's gain and some matrices. `pieces` names the matrices in the order of their rows."""

    def __init__(self, shape: Shape, pieces: Pieces, **sizes: tuple[int, int]):
        super().__init__()
        self.norm = nn.Parameter(torch.empty(shape.d_model))
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(size)))
        self.pieces: Pieces = {"norm": ("norm", shape.d_model, ONES), **pieces}

    def weights(self, prefix: str) -> list[Weight]:
        """The matrices under their names, each once."""
        found, row = [], dict.fromkeys(dict(self.named_parameters()), 0)
        for name, (parameter, rows, initial) in self.pieces.items():
            first = row[parameter]
            row[parameter] = first + rows
            found.append(Weight(f"{prefix}.{name}", getattr(self, parameter), first, first + rows, initial))
        return found


class SelfAttention(SubLayer):
    """qkv (3 H K, D): the rows of q, then of k, then of v. out (D, H K)."""

    def __init__(self, shape: Shape):
        pieces: Pieces = {
            "q": ("qkv", shape.inner, normal(shape.d_model * shape.d_kv)),  # takes the place of a 1 / sqrt(d_kv)
            "k": ("qkv", shape.inner, normal(shape.d_model)),
            "v": ("qkv", shape.inner, normal(shape.d_model)),
            "out": ("out", shape.d_model, normal(shape.inner)),
        }
        super().__init__(shape, pieces, qkv=(3 * shape.inner, shape.d_model), out=(shape.d_model, shape.inner))


class CrossAttention(SubLayer):
    """q (H K, D) of the decoder; kv (2 H K, D) of the encoder's output, k then v; out (D, H K). No relative bias."""

    def __init__(self, shape: Shape):
        pieces: Pieces = {
            "q": ("q", shape.inner, normal(shape.d_model * shape.d_kv)),
            "k": ("kv", shape.inner, normal(shape.d_model)),
            "v": ("kv", shape.inner, normal(shape.d_model)),
            "out": ("out", shape.d_model, normal(shape.inner)),
        }
        narrow, wide = (shape.inner, shape.d_model), (2 * shape.inner, shape.d_model)
        super().__init__(shape, pieces, q=narrow, kv=wide, out=(shape.d_model, shape.inner))


class FeedForward(SubLayer):
    """wi (F, D), or for gated GELU (2 F, D): wi_0, which goes through the GELU, then wi_1. wo (D, F)."""

    def __init__(self, shape: Shape):
        names = ("wi_0", "wi_1") if shape.activation == "gated_gelu" else ("wi",)
        pieces: Pieces = {name: ("wi", shape.d_ff, truncated(shape.d_model)) for name in names}
        pieces["wo"] = ("wo", shape.d_model, truncated(shape.d_ff))
        wide = (len(names) * shape.d_ff, shape.d_model)
        super().__init__(shape, pieces, wi=wide, wo=(shape.d_model, shape.d_ff))


class Layer(nn.Module):
    """One layer of a stack: attention, cross (decoder only), feed."""

    def __init__(self, shape: Shape, decoder: bool):
        super().__init__()
        self.attention = SelfAttention(shape)
        if decoder:
            self.cross = CrossAttention(shape)
        self.feed = FeedForward(shape)

    def weights(self, prefix: str) -> list[Weight]:
        return [weight for name, part in self.named_children() for weight in part.weights(f"{prefix}.{name}")]


class Stack(nn.Module):
    """bias (buckets, H): one table of the relative position bias, shared by all layers. norm (D): after the last."""

    def __init__(self, shape: Shape, layers: int, decoder: bool):
        super().__init__()
        self.bias = nn.Parameter(torch.empty(BUCKETS, shape.heads))
        self.layers = nn.ModuleList(Layer(shape, decoder) for _ in range(layers))
        self.norm = nn.Parameter(torch.empty(shape.d_model))

    def weights(self, prefix: str) -> list[Weight]:
        found = [Weight(f"{prefix}.bias", self.bias, 0, BUCKETS, glorot(*self.bias.shape))]
        for i, layer in enumerate(self.layers):
            found += layer.weights(f"{prefix}.layers.{i}")
        return [*found, Weight(f"{prefix}.norm", self.norm, 0, len(self.norm), ONES)]
