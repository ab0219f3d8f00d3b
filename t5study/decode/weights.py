"""A model made ready: its matrices laid out for decoding.

q, k and v lie side by side, each norm's gain is multiplied into the matrix behind it (so that a norm is one factor a
row). On a CPU in fp32 a matrix is laid out in panels for the compiled loops; elsewhere, and for a compiler, it is
stored (columns in, columns out), which for a few rows is up to twice as fast as the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from t5study.decode.graphs import Graphs, graphs_on
from t5study.decode.panels import Panels
from t5study.ground.errors import UserError
from t5study.model.architectures import EncoderDecoder, LanguageModel, Model
from t5study.model.layers import compute_dtype
from t5study.model.stacks import DecoderLayer, EncoderLayer

PRECISIONS = ("float32", "int8")
Matrix = TypeVar("Matrix", Tensor, Panels)


@dataclass(frozen=True)
class Layer(Generic[Matrix]):
    """One layer of either stack. cross_q, cross_out: None without cross-attention. adapter_wi, adapter_wo: likewise."""

    qkv: Matrix
    out: Matrix
    cross_q: Matrix | None
    cross_out: Matrix | None
    wi: Matrix
    wo: Matrix
    adapter_wi: Matrix | None
    adapter_wo: Matrix | None
    gated: bool


@dataclass(frozen=True)
class Ready(Generic[Matrix]):
    """A model and what decoding needs of it, copied: make it anew when the weights have changed.

    encoder, memory: in int8, an encoder's layers and the matrix (columns of k and v of every decoder layer, D) behind
    its final norm; otherwise the model's own encoder does. graphs: where steps are recorded, and recorded steps live as
    long as this does; None, `replace(ready(model), graphs=None)`, launches their kernels one by one.
    """

    model: Model
    precision: str
    dtype: torch.dtype
    layers: list[Layer[Matrix]]
    head: Matrix
    encoder: list[Layer[Matrix]]
    memory: Matrix | None
    graphs: Graphs | None = None

    @property
    def in_panels(self) -> bool:
        return isinstance(self.head, Panels)


def sees_source_itself(model: Model) -> bool:
    """Whether the source lies before the answer in one stack (a language model), not in an encoder."""
    return isinstance(model, LanguageModel)


def ready(model: Model | Ready, precision: str = "float32", *, tensors: bool = False) -> Ready:
    """Takes as long as some tokens do, so a server does it once. tensors: not in panels, even on a CPU.

    precision: "float32" (the model's own, or autocast's) or, on a CPU in fp32, "int8". UserError for any other.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision: found {precision!r}; give one of {', '.join(PRECISIONS)}")
    if isinstance(model, Ready):
        if not (tensors and model.in_panels):
            return model
        model = model.model
    dtype = compute_dtype(model.embedding)
    panels = model.embedding.device.type == "cpu" and dtype == torch.float32 and not tensors
    if precision == "int8" and not panels:
        raise UserError("precision: found int8 on a GPU, in bf16 or with `compiled`; give float32 there")

    def stored(weight: Tensor, gain: Tensor | None = None) -> Tensor:
        return (weight if gain is None else weight * gain).to(dtype).t().contiguous()

    def laid_out(weight: Tensor, gain: Tensor | None = None) -> Panels:
        return Panels.of((weight if gain is None else weight * gain).numpy(), precision)

    with torch.no_grad():
        return _ready(model, precision, dtype, laid_out if panels else stored)


def _ready(model: Model, precision: str, dtype: torch.dtype, stored: Callable[..., Any]) -> Ready:
    head = model.embedding if model.head is None else model.head
    head_VD = stored(head, model.decoder.norm * model.shape.logit_scale)
    encoder, memory = [], None
    if precision == "int8" and isinstance(model, EncoderDecoder):
        encoder = [_layer(layer, stored) for layer in model.encoder]
        pairs: list[Tensor] = [
            w for layer in model.decoder if layer.cross is not None for w in (layer.cross.k, layer.cross.v)
        ]
        memory = stored(torch.cat(pairs), model.encoder.norm) if pairs else None
    layers = [_layer(layer, stored) for layer in model.decoder]
    return Ready(model, precision, dtype, layers, head_VD, encoder, memory, graphs_on(model.embedding.device))


def _layer(layer: EncoderLayer | DecoderLayer, stored: Callable[..., Any]) -> Layer:
    own, feed, adapter = layer.attention, layer.feed, layer.adapter
    cross = layer.cross if isinstance(layer, DecoderLayer) else None
    return Layer(
        qkv=stored(torch.cat((own.q, own.k, own.v)), own.norm),
        out=stored(own.out),
        cross_q=None if cross is None else stored(cross.q, cross.norm),
        cross_out=None if cross is None else stored(cross.out),
        wi=stored(torch.cat((feed.wi_0, feed.wi_1)) if feed.gated else feed.wi, feed.norm),
        wo=stored(feed.wo),
        adapter_wi=None if adapter is None else stored(adapter.wi, adapter.norm),
        adapter_wo=None if adapter is None else stored(adapter.wo),
        gated=feed.gated,
    )
