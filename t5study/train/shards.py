"""Shards: each rank keeps a part of every weight, of its gradient and of the optimiser's state (FSDP2).

`spread` makes of a whole model one whose weights lie cut into rows over the ranks (DTensors, Shard(0)). A layer's
weights are put together while it is at work, forward and backward, and gradients are summed into the rank that keeps
the rows. The model's code is the same: torch does it in hooks around modules, from outside.

What is together when: each layer while it works (a decoder's makes its keys and values of the source itself), the
tables and final norms throughout a pass. A shared encoder-decoder, whose layers work in two stacks, is together
throughout. What a sub-layer keeps for the backward pass is joined too: recompute.py keeps it short.

Hybrid: with `ranks.shard` below the world, groups of so many neighbours keep a whole model between them. Weights are
put together within a group, gradients are summed in it and then over the groups: between hosts goes a gradient's
share, once a step.

Optimisers see the rows that are here (pieces.py).

A model on the meta device is never whole anywhere: each rank makes the first values of its own rows.
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from t5study.model.initial import first_value
from t5study.train import optim, pieces
from t5study.train.parallel import Ranks
from t5study.train.pieces import here, place
from t5study.train.recompute import layers_of


def spread(model: Any, ranks: Ranks, device: str = "cpu", seed: int = 0) -> Any:
    """A model of the same weights, each rank with its rows of them. The one given stays as it is.

    Of a model on the meta device: one with the first values of (seed, name), on `device`.
    """
    spread, fresh = copy.deepcopy(model), model.embedding.is_meta
    mesh = _mesh(device if fresh else spread.embedding.device.type, ranks)
    if spread.architecture != "shared_encoder_decoder":
        spread.late = True
        for layer in layers_of(spread):
            fully_shard(layer, mesh=mesh)
    fully_shard(spread, mesh=mesh)
    if fresh:
        spread.to_empty(device=device)
        for name, weight in spread.named_parameters():
            part = first_value(name, tuple(weight.shape), spread.shape, seed, place(weight)[0])
            here(weight).copy_(torch.from_numpy(part))
    for module in spread.modules():
        if isinstance(module, FSDPModule):  # sums, not means: the loss is divided by the whole step's labels
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(spread, "_loss")
    return spread


def _mesh(device: str, ranks: Ranks) -> DeviceMesh:
    """Ranks as a line, or as copies of a line."""
    if ranks.shard == ranks.world:
        return init_device_mesh(device, (ranks.world,), mesh_dim_names=("shard",))
    return init_device_mesh(device, (ranks.world // ranks.shard, ranks.shard), mesh_dim_names=("replicate", "shard"))


def _add(tensor: Tensor, over: DeviceMesh) -> Tensor:
    """The sum over the ranks that keep a whole model between them, in place."""
    dist.all_reduce(tensor, group=over.get_group("shard"))
    return tensor


def norm(grads: Sequence[Tensor]) -> Tensor:
    """The L2 norm of gradients of which every rank has its rows."""
    assert isinstance(grads[0], DTensor)
    return pieces.norm(grads, [True] * len(grads), partial(_add, over=grads[0].device_mesh))


@dataclass(frozen=True)
class Settings:
    """An optimiser's settings, for weights of which every rank has its rows."""

    settings: optim.Adafactor | optim.AdamW

    def build(self, model: nn.Module) -> optim.Optimizer:
        weights = optim.movable(model)
        first = next(iter(weights.values()))
        assert isinstance(first, DTensor)
        return pieces.optimizer(self.settings, weights, weights, partial(_add, over=first.device_mesh))
