"""Sizes: larger, smaller and differently proportioned models, beside a baseline of any shape.

A Size is one of `model.shapes.SIZES`, read as what it is beside T5-Base: "4x" has 4/3 of Base's width and 8/3 of its
layers. Beside T5-Base it is that shape to the number; beside another baseline (a laptop's) it has the same proportions,
rounded. So a row means the same at every scale.

    Size("4x").shape(size("base")) == size("4x")                     1024 wide, 32 + 32 layers
    Size("4x").shape(LAPTOP.shape)                                   168 wide, 5 + 5 layers, beside 128 and 2 + 2
    Size("small", encoder_layers=16, decoder_layers=16)              Small's width, more layers than Base has

Sources: the paper's sections 3.6 (2x, 4x) and 3.7 (Small to 11B); Tay 2021 (deep and narrow); Xue 2022 (deep encoders).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from t5study.model.shapes import SIZES, Shape, size

_BESIDE = "base"
_GRAIN = {"d_model": 8, "d_ff": 8, "d_kv": 8}  # what widths are rounded to: vector units like multiples of eight


@dataclass(frozen=True)
class Size:
    """name: of `SIZES`. encoder_layers, decoder_layers: instead of that size's own, as many as there would be beside
    Base's 12."""

    name: str = _BESIDE
    encoder_layers: int | None = None
    decoder_layers: int | None = None

    @property
    def label(self) -> str:
        layers = (self.encoder_layers, self.decoder_layers)
        deep = (
            "" if layers == (None, None) else f", {self._at_base.encoder_layers}+{self._at_base.decoder_layers} layers"
        )
        return f"size {self.name}{deep}"

    @property
    def _at_base(self) -> Shape:
        """Its shape beside T5-Base."""
        shape = size(self.name)
        return replace(
            shape,
            encoder_layers=shape.encoder_layers if self.encoder_layers is None else self.encoder_layers,
            decoder_layers=shape.decoder_layers if self.decoder_layers is None else self.decoder_layers,
        )

    def shape(self, baseline: Shape) -> Shape:
        """Its shape beside an encoder-decoder of the shape `baseline`.

        >>> small = Shape(32, 64, 16, 2, 2, 2, 512)
        >>> Size("2x").shape(small)
        Shape(d_model=40, d_ff=88, d_kv=16, heads=3, encoder_layers=3, decoder_layers=3, table_rows=512, \
activation='relu', tied=True, adapter=0)
        """
        ours, base = self._at_base, SIZES[_BESIDE]

        def scaled(name: str) -> int:
            return scale(
                getattr(baseline, name), Fraction(getattr(ours, name), getattr(base, name)), _GRAIN.get(name, 1)
            )

        names = ("d_model", "d_ff", "d_kv", "heads", "encoder_layers", "decoder_layers")
        return replace(baseline, **{name: scaled(name) for name in names})


def gated_shape(shape: Shape) -> Shape:
    """The same with a gated GELU: three matrices instead of two, each two thirds as wide, so that there are as many
    parameters (Shazeer 2020; T5 1.1).

    >>> gated_shape(size("base")) == replace(size("v1.1-base"), tied=True)
    True
    """
    return replace(shape, activation="gated_gelu", d_ff=scale(shape.d_ff, Fraction(2, 3), _GRAIN["d_ff"]))


def scale(number: int, ratio: Fraction, grain: int) -> int:
    """A number in proportion: itself if that is a whole number, else rounded to a multiple of `grain`, never to none.

    >>> scale(768, Fraction(4, 3), 8), scale(128, Fraction(4, 3), 8), scale(2, Fraction(1, 3), 1)
    (1024, 168, 1)
    """
    exact = number * ratio
    if exact.denominator == 1:
        return int(exact)
    return max(1, round(exact / grain)) * grain
