"""Recomputation: layers keep for the backward pass what goes into them, and are run again there (activation
checkpointing, Chen et al. 2016). A third more work; of every layer one tensor the size of the residual stream stays.

From outside: while `recomputed(model, True)` holds, each layer's `forward` is torch's checkpoint of itself. A layer
run again is the same layer: dropout is counted from the step and the row, not drawn. Decoder layers make their keys
and values of the source themselves (`model.late`), or those of all layers would be kept; without recomputation such a
model gives the same bytes.

Under FSDP2 a sub-layer's joined copies of weights (q, k, v as one matrix) then live as long as its layer is at work,
since they too are made again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(model: Any, wanted: bool, late: bool = False) -> Iterator[None]:
    """Lets training passes of a model recompute its layers, or be `late` without that; passes without gradients are as
    ever."""
    layers, before = layers_of(model) if wanted else (), model.late
    for layer in layers:
        layer.forward = functools.partial(_again, layer.forward)
    model.late = before or wanted or late
    try:
        yield
    finally:
        model.late = before
        for layer in layers:
            del layer.forward


def layers_of(model: Any) -> list[Any]:
    """A model's layers, the encoder's before the decoder's."""
    return [*(model.encoder if hasattr(model, "encoder") else ()), *model.decoder]


def _again(forward: Callable[..., Tensor], *args: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*args)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False)
