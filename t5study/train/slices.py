"""Slices: neighbouring ranks keep one model between them, by heads and by hidden columns (tensor parallelism; Shoeybi
et al. 2019, Megatron-LM).

    q, k, v, wi     some rows of each: those of this rank's heads, or hidden columns
    out, wo         the same columns
    bias            this rank's heads
    the others      norms, embedding and head: whole on every rank, and moved there by the same numbers

`spread` makes of a whole model this rank's slice. All ranks of a group see the same rows of a batch. A layer's products
are of slices alone, and what comes of them is added over the group: once a sub-layer, forward and backward, the size of
the residual stream (model/layers.py). No weight is ever put together for it. Groups share out the rows of a batch, and
gradients of slices in the same place are added over the groups: a rank's own numbers, once a step.

What is whole gets the same gradient on every rank of a group, bit for bit: what it is made of are sums that all of them
were given. Optimisers: pieces.py.
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard

from t5study.ground.errors import UserError
from t5study.model import architectures
from t5study.model.initial import first_value
from t5study.model.shapes import Shape
from t5study.train import optim, pieces
from t5study.train.parallel import Ranks
from t5study.train.parts import rows

# The dimension that a weight is cut along, by the last part of its name.
CUT = {"q": 0, "k": 0, "v": 0, "out": 1, "bias": 1, "wi": 0, "wi_0": 0, "wi_1": 0, "wo": 1}


def require(shape: Shape, ranks: int) -> None:
    """UserError if a model of this shape has no slices for so many ranks."""
    for name, found in (("heads", shape.heads), ("d_ff", shape.d_ff), ("adapter", shape.adapter)):
        if found % ranks:
            raise UserError(
                f"machine: tensor: found {ranks} ranks for a model of {name} {found}; give a number that divides it"
            )


@dataclass(frozen=True)
class Group:
    """This rank's place in its group (layers.Group), and the ranks in the same place of the others. mesh: the group as
    a line. own, across: the two as torch has them, `across` None for a group alone. cut: of each of the model's
    weights, the dimension it is cut along."""

    size: int
    place: int
    mesh: DeviceMesh
    own: Any
    across: Any
    cut: tuple[int | None, ...]

    @staticmethod
    def of(ranks: Ranks, device: str, names: Sequence[str]) -> Group:
        mesh = init_device_mesh(device, (ranks.groups, ranks.tensor), mesh_dim_names=("data", "tensor"))
        across = mesh.get_group("data") if ranks.groups > 1 else None
        cut = tuple(CUT.get(name.rpartition(".")[2]) for name in names)
        place = ranks.rank % ranks.tensor
        return Group(ranks.tensor, place, mesh["tensor"], mesh.get_group("tensor"), across, cut)

    def add(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor, group=self.own)
        return tensor


def spread(model: Any, ranks: Ranks, device: str = "cpu", seed: int = 0) -> Any:
    """This rank's slice of a model, on `device`. The model given stays as it is. Of one on the meta device: a slice of
    the first values of (seed, name), each weight being whole for as long as it is drawn."""
    require(model.shape, ranks.tensor)
    with torch.device("meta"):
        found = architectures.build(model.shape, seed, model.architecture)
    weights = dict(model.named_parameters())
    found.group = group = Group.of(ranks, device, list(weights))
    for (name, weight), along in zip(weights.items(), group.cut, strict=True):
        value = weight.detach()
        if value.is_meta:
            value = torch.from_numpy(first_value(name, tuple(weight.shape), model.shape, seed))
        if along is not None:
            mine = rows(value.shape[along], group.place, group.size)
            value = value.narrow(along, mine.start, mine.stop - mine.start)
        owner, _, last = name.rpartition(".")
        own = value.to(device, copy=True, memory_format=torch.contiguous_format)
        setattr(found.get_submodule(owner), last, nn.Parameter(own))
    return found


def wholes(model: Any) -> dict[str, Tensor]:
    """The weights of a slice by name: each as the piece of a whole that it is, or itself where it is whole. They share
    its memory."""
    group: Group = model.group
    found: dict[str, Tensor] = {}
    for (name, weight), along in zip(model.named_parameters(), group.cut, strict=True):
        found[name] = weight
        if along is not None:
            size = [n * (group.size if side == along else 1) for side, n in enumerate(weight.shape)]
            found[name] = pieces.piece(weight.detach(), size, group.mesh, [Shard(along)])
    return found


def add(model: Any, weights: Sequence[nn.Parameter], ranks: Ranks) -> Tensor:
    """Adds gradients over the groups; returns the L2 norm of the whole one. weights: all of the model's, in order."""
    group: Group = model.group
    grads = [(p.grad, along is not None) for p, along in zip(weights, group.cut, strict=True) if p.grad is not None]
    found = [grad for grad, _ in grads]
    if group.across is not None:
        ranks.add_all(found, group.across)
    return pieces.norm(found, [cut for _, cut in grads], group.add)


@dataclass(frozen=True)
class Settings:
    """An optimiser's settings, for a slice."""

    settings: optim.Adafactor | optim.AdamW

    def build(self, model: Any) -> optim.Optimizer:
        weights = optim.movable(model)
        return pieces.optimizer(self.settings, weights, wholes(model), model.group.add)
