"""Pieces: tensors that are cut over ranks, by rows or by columns, and optimisers that see the piece that is here.

A tensor of which each rank has a piece is a DTensor with one `Shard` among its placements: it has the size of the
whole, so that whoever asks for sizes, names or bytes need not know of it. What is not cut is a tensor like any other,
and the same on every rank.

AdamW takes each number by itself. Adafactor needs means over whole weights: two calls a step add all weights' sums over
the ranks that have a whole between them. The state of a matrix that is cut by rows is its rows' means, cut too, and its
columns', whole on each; of one that is cut by columns the other way round.

    R  rows of a matrix, C  columns: those that are here
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Shard

from t5study.train import optim
from t5study.train.adafactor import Rule, by_name
from t5study.train.parallel import Ranks
from t5study.train.parts import rows

Add = Callable[[Tensor], Tensor]  # the sum of a tensor over the ranks that have a whole between them, in place


def piece(local: Tensor, size: Sequence[int], mesh: DeviceMesh, placements: Sequence[Placement]) -> DTensor:
    """What is here of a tensor of a size, as a part of it. Shares its memory."""
    stride = torch.empty(tuple(size), device="meta").stride()
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=torch.Size(size), stride=stride)


def alike(local: Tensor, whole: Tensor, side: int | None = None) -> Tensor:
    """What is here of a tensor that is cut as another is. side: of a vector along that dimension of the other."""
    if not isinstance(whole, DTensor) or side not in (None, along(whole)):
        return local
    if side is None:
        return piece(local, whole.shape, whole.device_mesh, whole.placements)
    ways = [Shard(0) if isinstance(way, Shard) else way for way in whole.placements]
    return piece(local, whole.shape[side : side + 1], whole.device_mesh, ways)


def along(tensor: Tensor) -> int | None:
    """The dimension that it is cut along; None if it is not."""
    ways = tensor.placements if isinstance(tensor, DTensor) else ()
    return next((way.dim for way in ways if isinstance(way, Shard)), None)


def place(tensor: Tensor) -> tuple[slice, ...]:
    """Where what is here lies in the whole. As torch.chunk cuts: the last ranks' piece may be smaller, or empty."""
    found = [slice(0, size) for size in tensor.shape]
    if isinstance(tensor, DTensor):
        mesh = tensor.device_mesh
        for line, way in enumerate(tensor.placements):
            if isinstance(way, Shard):
                found[way.dim] = rows(tensor.shape[way.dim], mesh.get_local_rank(line), mesh.size(line))
    return tuple(found)


def here(tensor: Tensor) -> Tensor:
    """The piece that is on this rank; all of a tensor that is not cut."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


def whole(tensor: Tensor) -> Tensor:
    """All of it, on every rank: all have to ask."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


def fill(tensor: Tensor, value: Tensor) -> None:
    """Gives a tensor, of which a piece may be here, the numbers of a whole one."""
    here(tensor).copy_(value[place(tensor)])


def gather(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """All of each, one after another, on the first rank's processor; elsewhere nothing is kept."""
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if ranks.first:
            found[name] = value.cpu()
    return found


def norm(grads: Sequence[Tensor], cut: Sequence[bool], ranks: int, add: Add) -> Tensor:
    """The L2 norm of all gradients together. cut: of which of them each of so many ranks has a piece; what all have
    counts once, a part from each, so that all see it if one of them has a number that is not finite."""
    squares = torch.zeros((), dtype=torch.float64, device=grads[0].device)
    for grad, is_cut in zip(grads, cut, strict=True):
        squares += here(grad).double().square().sum() / (1 if is_cut else ranks)
    return add(squares).sqrt()


# --- optimisers ---------------------------------------------------------------------------------------------------


def optimizer(
    settings: optim.Adafactor | optim.AdamW,
    weights: Mapping[str, nn.Parameter],
    wholes: Mapping[str, Tensor],
    add: Add,
) -> optim.Optimizer:
    """weights: whose gradients are taken. wholes: what each is a piece of, or itself where it is not cut."""
    if isinstance(settings, optim.AdamW):
        return AdamWOptimizer(settings, weights, wholes)
    return AdafactorOptimizer(settings.rule, weights, wholes, add)


class AdamWOptimizer:
    """optim.py's, of the pieces that are here."""

    def __init__(self, settings: optim.AdamW, weights: Mapping[str, nn.Parameter], wholes: Mapping[str, Tensor]):
        self.weights, self.wholes = dict(weights), dict(wholes)
        self.mine = {name: nn.Parameter(here(p)) for name, p in self.weights.items()}
        self.optimizer = optim.AdamWOptimizer(settings, self.mine)

    def admit(self, weights: Mapping[str, nn.Parameter], done: int) -> None:
        raise NotImplementedError("weights that begin to move later, of which a piece is here")

    def step(self, rate: float) -> None:
        for name, p in self.weights.items():
            self.mine[name].grad = None if p.grad is None else here(p.grad)
        self.optimizer.step(rate)

    def state_tensors(self) -> dict[str, Tensor]:
        return {
            key: tensor if key.endswith("/step") else alike(tensor, self.wholes[key.rpartition("/")[0]])
            for key, tensor in self.optimizer.state_tensors().items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """From whole tensors."""
        for key, own in self.state_tensors().items():
            fill(own, tensors[key])


class AdafactorOptimizer:
    """adafactor.py's rule for weights of which every rank has a piece. The names of its state are the same."""

    def __init__(self, rule: Rule, weights: Mapping[str, nn.Parameter], wholes: Mapping[str, Tensor], add: Add):
        self.rule, self.add, self.count = rule, add, 0
        self.weights, self.shapes = dict(weights), {name: wholes[name].shape for name in weights}
        self.along = {name: along(wholes[name]) for name in weights}
        self.state: dict[str, dict[str, Tensor]] = {}
        for name, p in self.weights.items():
            value = here(p)
            if rule.sides(self.shapes[name]) is None:
                self.state[name] = {"square": alike(torch.zeros_like(value), wholes[name])}
            else:
                means = [alike(value.new_zeros(value.shape[side]), wholes[name], side) for side in (0, 1)]
                self.state[name] = dict(zip(("rows", "columns"), means, strict=True))

    def admit(self, weights: Mapping[str, nn.Parameter], done: int) -> None:
        raise NotImplementedError("weights that begin to move later, of which a piece is here")

    @torch.no_grad()
    def step(self, rate: float) -> None:
        self.count += 1
        new = self.count**-self.rule.decay
        grads = {name: here(p.grad) for name, p in self.weights.items() if p.grad is not None}
        values = {name: here(self.weights[name]) for name in grads}
        state = {name: {part: here(tensor) for part, tensor in self.state[name].items()} for name in grads}
        # First sums: of every squared weight, and of a factored one's squared gradient along the side that is cut.
        sums = []
        for name, grad_RC in grads.items():
            sums.append((name, values[name].double().square().sum()[None]))
            if "rows" in state[name]:
                square_RC = grad_RC.square() + self.rule.epsilon
                if self.along[name] == 1:
                    state[name]["columns"].lerp_(square_RC.mean(0), new)
                    sums.append((name, square_RC.double().sum(1)))
                else:
                    rows_R = state[name]["rows"]
                    rows_R.lerp_(square_RC.mean(1), new)
                    sums += [(name, rows_R.double().sum()[None]), (name, square_RC.double().sum(0))]
        added = iter(self._added(sums))
        weight_squares, updates = [], []
        for name, grad_RC in grads.items():
            weight_squares.append(next(added))
            if "rows" in state[name]:
                rows_R, columns_C = state[name]["rows"], state[name]["columns"]
                if self.along[name] == 1:
                    rows_R.lerp_((next(added) / self.shapes[name][1]).float(), new)
                    mean = rows_R.mean()
                else:
                    mean = (next(added) / self.shapes[name][0]).float()
                    columns_C.lerp_((next(added) / self.shapes[name][0]).float(), new)
                updates.append(grad_RC * (rows_R / mean).rsqrt()[:, None] * columns_C.rsqrt())
            else:
                square = state[name]["square"]
                square.lerp_(grad_RC.square() + self.rule.epsilon, new)
                updates.append(grad_RC * square.rsqrt())
        # Second sums: of every squared update.
        squares = [update.double().square().sum()[None] for update in updates]
        update_squares = torch.cat(self._added(list(zip(grads, squares, strict=True))))
        n = torch.tensor([self.shapes[name].numel() for name in grads], device=update_squares.device)
        weight_rms, update_rms = (torch.cat(weight_squares) / n).sqrt(), (update_squares / n).sqrt()
        scale = -rate * weight_rms.clamp(min=self.rule.smallest) / (update_rms / self.rule.clip).clamp(min=1.0)
        for value, update, factor in zip(values.values(), updates, scale.float().unbind(), strict=True):
            value.add_(update * factor)

    def _added(self, sums: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """Sums by weight: of pieces, added over the ranks in one call; of what is not cut, as they are."""
        cut = [found for name, found in sums if self.along[name] is not None]
        added = iter(self.add(torch.cat(cut)).split([len(found) for found in cut]) if cut else ())
        return [found if self.along[name] is None else next(added) for name, found in sums]

    def state_tensors(self) -> dict[str, Tensor]:
        return {"step": torch.tensor(self.count), **by_name(self.state)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """From whole tensors."""
        self.count = int(tensors["step"])
        for key, own in by_name(self.state).items():
            fill(own, tensors[key])
