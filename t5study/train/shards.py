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

Optimisers see the rows that are here. AdamW takes each number by itself. Adafactor needs means over whole weights:
two calls a step add all weights' sums over the ranks of a group.

A model on the meta device is never whole anywhere: each rank makes the first values of its own rows.
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from t5study.model.initial import first_value
from t5study.train import optim
from t5study.train.adafactor import Rule
from t5study.train.parallel import Ranks
from t5study.train.parts import rows as rows_of
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
            part = first_value(name, tuple(weight.shape), spread.shape, seed, _rows(weight))
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


def _rows(tensor: DTensor) -> slice:
    """Which rows are here. As torch.chunk cuts: the last ranks' may be fewer, or none."""
    line = tensor.device_mesh["shard"]
    return rows_of(tensor.shape[0], line.get_local_rank(), line.size())


def _add(tensor: Tensor, over: DeviceMesh) -> Tensor:
    """The sum over the ranks that keep a whole model between them, in place."""
    dist.all_reduce(tensor, group=over.get_group("shard"))
    return tensor


def here(tensor: Tensor) -> Tensor:
    """The rows that are on this rank; all of a tensor that is not cut."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


def whole(tensor: Tensor) -> Tensor:
    """All of it, on every rank: all have to ask."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


def fill(tensor: Tensor, value: Tensor) -> None:
    """Gives a tensor, of which rows may be here, the numbers of a whole one."""
    here(tensor).copy_(value[_rows(tensor)] if isinstance(tensor, DTensor) else value)


def gather(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """All of each, one after another, on the first rank's processor; elsewhere nothing is kept."""
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if ranks.first:
            found[name] = value.cpu()
    return found


def norm(grads: Sequence[Tensor]) -> Tensor:
    """The L2 norm of gradients of which every rank has its rows."""
    assert isinstance(grads[0], DTensor)
    squares = torch.stack([here(grad).double().square().sum() for grad in grads]).sum()
    return _add(squares, grads[0].device_mesh).sqrt()


@dataclass(frozen=True)
class Settings:
    """An optimiser's settings, for weights of which every rank has its rows."""

    settings: optim.Adafactor | optim.AdamW

    def build(self, model: nn.Module) -> optim.Optimizer:
        weights, s = optim.movable(model), self.settings
        if isinstance(s, optim.AdamW):
            return AdamWOptimizer(s, weights)
        rule = Rule(s.decay, s.epsilon, s.clip, s.smallest, s.min_dim_to_factor)
        return AdafactorOptimizer(rule, weights)


class AdamWOptimizer:
    """optim.py's, of the rows that are here."""

    def __init__(self, settings: optim.AdamW, weights: Mapping[str, nn.Parameter]):
        self.weights = dict(weights)
        self.mine = {name: nn.Parameter(here(p)) for name, p in self.weights.items()}
        self.optimizer = optim.AdamWOptimizer(settings, self.mine)

    def admit(self, weights: Mapping[str, nn.Parameter], done: int) -> None:
        raise NotImplementedError("weights that begin to move later have no part in FSDP2's hooks")

    def step(self, rate: float) -> None:
        for name, p in self.weights.items():
            self.mine[name].grad = None if p.grad is None else here(p.grad)
        self.optimizer.step(rate)

    def state_tensors(self) -> dict[str, Tensor]:
        return {
            key: tensor if key.endswith("/step") else _cut(tensor, self.weights[key.rpartition("/")[0]])
            for key, tensor in self.optimizer.state_tensors().items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """From whole tensors."""
        for key, own in self.state_tensors().items():
            fill(own, tensors[key])


def _cut(rows: Tensor, like: Tensor) -> Tensor:
    """The rows that are here as a part of a whole that is cut as another is."""
    if not isinstance(like, DTensor):
        return rows
    shape = torch.Size((like.shape[0], *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(rows, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride)


class AdafactorOptimizer:
    """adafactor.py's rule for weights of which every rank has its rows. The names of its state are the same."""

    def __init__(self, rule: Rule, weights: Mapping[str, nn.Parameter]):
        self.rule, self.count = rule, 0
        self.weights = dict(weights)
        first = next(iter(self.weights.values()))
        assert isinstance(first, DTensor)
        self.mesh = first.device_mesh
        self.state: dict[str, dict[str, Tensor]] = {}
        for name, p in self.weights.items():
            if rule.sides(p.shape) is None:
                self.state[name] = {"square": torch.zeros_like(p, requires_grad=False)}
            else:
                rows = _cut(torch.zeros(len(here(p)), device=p.device), p)
                self.state[name] = {"rows": rows, "columns": torch.zeros(p.shape[1], device=p.device)}

    def admit(self, weights: Mapping[str, nn.Parameter], done: int) -> None:
        raise NotImplementedError("weights that begin to move later have no part in FSDP2's hooks")

    @torch.no_grad()
    def step(self, rate: float) -> None:
        self.count += 1
        new = self.count**-self.rule.decay
        names = [name for name, p in self.weights.items() if p.grad is not None]
        values = [here(self.weights[name]) for name in names]
        grads = [here(grad) for name in names if (grad := self.weights[name].grad) is not None]
        # First sums: of every squared weight; of a factored one's rows' means, and of its squared gradient by column.
        sums = []
        for name, value, grad in zip(names, values, grads, strict=True):
            sums.append(value.double().square().sum()[None])
            if "rows" in self.state[name]:
                square = grad.square() + self.rule.epsilon
                rows = here(self.state[name]["rows"])
                rows.lerp_(square.mean(1), new)
                sums += [rows.double().sum()[None], square.double().sum(0)]
        added = _add(torch.cat(sums), self.mesh)
        at, weight_squares, updates = 0, [], []
        for name, grad in zip(names, grads, strict=True):
            state, shape = self.state[name], self.weights[name].shape
            weight_squares.append(added[at])
            at += 1
            if "rows" in state:
                mean = (added[at] / shape[0]).float()
                by_column = (added[at + 1 : at + 1 + shape[1]] / shape[0]).float()
                at += 1 + shape[1]
                state["columns"].lerp_(by_column, new)
                by_row = (here(state["rows"]) / mean).rsqrt()
                updates.append(grad * by_row[:, None] * state["columns"].rsqrt())
            else:
                square = here(state["square"])
                square.lerp_(grad.square() + self.rule.epsilon, new)
                updates.append(grad * square.rsqrt())
        # Second sums: of every squared update.
        update_squares = _add(torch.stack([update.double().square().sum() for update in updates]), self.mesh)
        n = torch.tensor([self.weights[name].numel() for name in names], device=update_squares.device)
        weight_rms, update_rms = (torch.stack(weight_squares) / n).sqrt(), (update_squares / n).sqrt()
        scale = -rate * weight_rms.clamp(min=self.rule.smallest) / (update_rms / self.rule.clip).clamp(min=1.0)
        for value, update, factor in zip(values, updates, scale.float().unbind(), strict=True):
            value.add_(update * factor)

    def state_tensors(self) -> dict[str, Tensor]:
        tensors = {f"{name}/{part}": t for name, parts in self.state.items() for part, t in parts.items()}
        return {"step": torch.tensor(self.count), **tensors}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """From whole tensors."""
        self.count = int(tensors["step"])
        for name, parts in self.state.items():
            for part, tensor in parts.items():
                fill(tensor, tensors[f"{name}/{part}"])
