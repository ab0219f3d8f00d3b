"""Shapes: how large a T5 is, a line a size. Parameters and FLOPs follow from a shape by arithmetic.

Sources: the released gin configurations (SIZES), the paper's sections 3.1.1 (Base) and 3.6 (2x, 4x).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace

from t5study.ground.errors import UserError

BUCKETS = 32  # of the relative position bias, for every released model
MAX_DISTANCE = 128  # keys further away share the last bucket


@dataclass(frozen=True)
class Shape:
    """d_model: width of the residual stream. d_ff: of the feed-forward's hidden layer. d_kv: of one head.
    encoder_layers, decoder_layers: layers of each stack. table_rows: rows of the embedding table (`Ids.table_rows`).
    activation: "relu" (v1.0) or "gated_gelu" (v1.1). tied: whether softmax and embedding share one matrix (v1.0; the
    decoder's output is then scaled by d_model^-0.5). adapter: inner size of the adapter after each feed-forward of
    both stacks, 0 for none (paper, section 3.5.1).

    >>> size("base", 32_128).parameters / 1e6
    222.903552
    """

    d_model: int
    d_ff: int
    d_kv: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    table_rows: int
    activation: str = "relu"
    tied: bool = True
    adapter: int = field(default=0, metadata={"fingerprint": "if set"})

    def __post_init__(self) -> None:
        for name in ("d_model", "d_ff", "d_kv", "heads", "table_rows"):
            if getattr(self, name) < 1:
                raise UserError(f"shape: {name}: found {getattr(self, name)}; give at least 1")
        for name in ("encoder_layers", "decoder_layers", "adapter"):
            if getattr(self, name) < 0:
                raise UserError(f"shape: {name}: found {getattr(self, name)}; give at least 0")
        if self.activation not in ("relu", "gated_gelu"):
            raise UserError(f"shape: activation: found {self.activation!r}; give relu or gated_gelu")

    @property
    def inner(self) -> int:
        """Columns of all heads together. Not d_model in every size."""
        return self.heads * self.d_kv

    @property
    def logit_scale(self) -> float:
        """What the decoder's output is multiplied by before the softmax matrix."""
        return self.d_model**-0.5 if self.tied else 1.0

    @property
    def _attention(self) -> int:
        return 4 * self.d_model * self.inner  # q, k, v, out

    @property
    def _feed(self) -> int:
        return (3 if self.activation == "gated_gelu" else 2) * self.d_model * self.d_ff

    @property
    def _adapter(self) -> int:
        return 2 * self.d_model * self.adapter

    @property
    def parameters(self) -> int:
        """Trained numbers, the embedding table counted once if it is tied."""
        feed = self._feed + self._adapter + (self.d_model if self.adapter else 0)
        encoder = self.encoder_layers * (self._attention + feed + 2 * self.d_model)
        decoder = self.decoder_layers * (2 * self._attention + feed + 3 * self.d_model)
        ends = 2 * (self.d_model + BUCKETS * self.heads)  # final norm and bias table of each stack
        return encoder + decoder + ends + (1 if self.tied else 2) * self.table_rows * self.d_model

    def flops(self, source: int, target: int) -> int:
        """FLOPs to train on one pair of `source` and `target` tokens: three times the forward pass's matrix products.

        A multiplication and an addition are two. The causal half of decoder attention is counted, as is usual.

        >>> round(128 * size("base", 32_128).flops(512, 114) / 1e12, 1)  # one step of the paper's baseline, in TFLOP
        54.5
        """
        feed = self._feed + self._adapter
        encoder = self.encoder_layers * (source * (self._attention + feed) + 2 * source**2 * self.inner)
        decoder = self.decoder_layers * (
            target * (self._attention + feed + self._attention // 2)  # cross-attention's q and out
            + source * self._attention // 2  # its k and v
            + 2 * target * (target + source) * self.inner
        )
        return 3 * 2 * (encoder + decoder + target * self.table_rows * self.d_model)


def _v1_1(d_model: int, d_ff: int, heads: int, layers: int) -> Shape:
    return Shape(d_model, d_ff, 64, heads, layers, layers, 32_128, "gated_gelu", tied=False)


#                d_model  d_ff  d_kv heads enc dec  rows
SIZES: dict[str, Shape] = {
    "pico": Shape(64, 256, 16, 4, 2, 2, 32_128),  # ours: seconds on one core
    "tiny": Shape(128, 512, 32, 4, 2, 2, 32_128),  # ours: minutes on one core
    "mini": Shape(256, 1024, 64, 4, 4, 4, 32_128),  # ours: hours on one core
    "small": Shape(512, 2048, 64, 8, 6, 6, 32_128),
    "base": Shape(768, 3072, 64, 12, 12, 12, 32_128),
    "large": Shape(1024, 4096, 64, 16, 24, 24, 32_128),
    "3b": Shape(1024, 16384, 128, 32, 24, 24, 32_128),
    "11b": Shape(1024, 65536, 128, 128, 24, 24, 32_128),
    "2x": Shape(1024, 4096, 64, 16, 16, 16, 32_128),
    "4x": Shape(1024, 4096, 64, 16, 32, 32, 32_128),
    "v1.1-small": _v1_1(512, 1024, 6, 8),
    "v1.1-base": _v1_1(768, 2048, 12, 12),
    "v1.1-large": _v1_1(1024, 2816, 16, 24),
    "v1.1-xl": _v1_1(2048, 5120, 32, 24),
    "v1.1-xxl": _v1_1(4096, 10240, 64, 24),
}


def size(name: str, table_rows: int) -> Shape:
    """A line of the table with the embedding rows of a vocabulary. UserError, with the nearest name, if there is none.

    >>> size("tiny", 4096).d_model
    128
    """
    if name not in SIZES:
        near = difflib.get_close_matches(name.lower(), SIZES, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}? Give" if near else "give"
        raise UserError(f"size: found {name!r}; {hint} one of {', '.join(SIZES)}")
    return replace(SIZES[name], table_rows=table_rows)
