"""A model made ready: its decoder's matrices laid out for single tokens.

q, k and v lie side by side, each norm's gain is multiplied into the matrix behind it (so that a norm is one factor a
row), and a matrix is stored (columns in, columns out), which for a few rows is up to twice as fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from t5study.decode.rows import Model
from t5study.ground.errors import UserError
from t5study.model.layers import compute_dtype

PRECISIONS = ("float32", "int8")


@dataclass(frozen=True)
class Layer:
    """One decoder layer. cross_q, cross_out: None where there is no encoder. adapter_wi, adapter_wo: None without."""

    qkv: Tensor
    out: Tensor
    cross_q: Tensor | None
    cross_out: Tensor | None
    wi: Tensor
    wo: Tensor
    adapter_wi: Tensor | None
    adapter_wo: Tensor | None


@dataclass(frozen=True)
class Ready:
    """A model and what decoding needs of it, copied: make it anew when the weights have changed."""

    model: Model
    dtype: torch.dtype
    layers: list[Layer]
    head_DV: Tensor


def sees_source_itself(model: Model) -> bool:
    """Whether the source lies before the answer in one stack (a language model), not in an encoder."""
    return getattr(model, "architecture", "encoder_decoder") in ("language_model", "prefix_lm")


def ready(model: Model | Ready, precision: str = "float32") -> Ready:
    """Takes as long as some tokens do, so a server does it once. UserError for a precision that there is none of."""
    if precision not in PRECISIONS:
        raise UserError(f"precision: found {precision!r}; give one of {', '.join(PRECISIONS)}")
    if isinstance(model, Ready):
        return model
    dtype = compute_dtype(model.embedding)

    def stored(weight: Tensor, gain: Tensor | None = None) -> Tensor:
        return (weight if gain is None else weight * gain).to(dtype).t().contiguous()

    with torch.no_grad():
        layers = []
        for layer in model.decoder:
            own, cross, feed, adapter = layer.attention, layer.cross, layer.feed, getattr(layer, "adapter", None)
            wi = torch.cat((feed.wi_0, feed.wi_1)) if feed.gated else feed.wi
            layers.append(
                Layer(
                    qkv=stored(torch.cat((own.q, own.k, own.v)), own.norm),
                    out=stored(own.out),
                    cross_q=None if cross is None else stored(cross.q, cross.norm),
                    cross_out=None if cross is None else stored(cross.out),
                    wi=stored(wi, feed.norm),
                    wo=stored(feed.wo),
                    adapter_wi=None if adapter is None else stored(adapter.wi, adapter.norm),
                    adapter_wo=None if adapter is None else stored(adapter.wo),
                )
            )
        head = model.embedding if model.head is None else model.head
        return Ready(model, dtype, layers, stored(head, model.decoder.norm * model.shape.logit_scale))
