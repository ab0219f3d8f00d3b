"""One step's gradients: the loss is a sum over labels, divided by the labels of the whole step. Labels are the target
tokens, and a (causal) language model's source tokens too.

So a batch may be cut into micro-batches of any size: each adds its share of the same sum, and a token weighs the same
wherever it stands. (A mean of the micro-batches' means would weigh a token by how empty its micro-batch is.) Several
ranks do the same: each has some rows of the batch, and the sums are added.
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from t5study.ground.errors import UserError
from t5study.ground.machine import Machine
from t5study.ground.pairs import Batch
from t5study.model.architectures import Dropout
from t5study.train.parallel import ALONE, Ranks
from t5study.train.streamed import Streamed


@dataclass(frozen=True)
class Taken:
    """A step before the weights move. loss: nats a label. z: the z-loss a label. grad_norm: L2 norm of the whole
    gradient. tokens: source and target tokens that are not padding. culprits: of several ranks, those whose own part of
    the loss or gradient is not finite (of weights in shards, of the loss)."""

    loss: float
    z: float
    tokens: int
    target_tokens: int
    grad_norm: float
    culprits: tuple[int, ...] = ()

    @property
    def row(self) -> dict[str, float | int]:
        """What the journal has of it: the same on any number of ranks."""
        return {name: getattr(self, name) for name in ("loss", "z", "tokens", "target_tokens", "grad_norm")}

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, (self.loss, self.z, self.grad_norm)))


def gradients(
    model: Any,
    weights: Sequence[nn.Parameter],
    batch: Batch,
    step: int,
    *,
    seed: int,
    dropout: float,
    z_loss: float,
    machine: Machine,
    ranks: Ranks = ALONE,
    streamed: Streamed | None = None,
) -> Taken:
    """Leaves the gradient of the batch's loss in every weight's `.grad`; `step` names the dropout masks.

    weights: all of the model's, listed once for all steps (asking a module for them costs as much as a small layer).
    On the machine's device, in its precision and in micro-batches of its size. One wait for the device, at the end.
    batch: the whole step's, of which each rank takes its rows; what it gets is the whole step's too.
    streamed: an optimiser that moves the weights on the way; no gradient is left then, and if the loss is not finite
    there is no backward pass.
    UserError for a batch without a target token, or one whose rows the ranks cannot share equally.
    """
    if batch.target_tokens == 0:
        raise UserError(f"step {step}: found a batch without a target token; give data that has targets")
    for weight in weights:
        weight.grad = None
    labels = model.labels(batch)
    mine = ranks.rows(len(batch))
    rows = machine.micro_batch or len(batch)
    sums = []
    for first in range(mine.start, mine.stop, rows):
        part = slice(first, min(first + rows, mine.stop))
        inputs = model.arrange(batch if part == slice(0, len(batch)) else batch.rows(part), machine.device)
        share = 1.0
        if not len(inputs.learned):
            if ranks.world == 1:
                continue
            # All ranks have to make as many passes and a gradient for every weight: this one's counts for nothing.
            inputs, share = model.arrange(_labelled(batch), machine.device), 0.0
        masks = Dropout(dropout, seed, step, first_row=first) if dropout else None
        with torch.autocast(machine.device, torch.bfloat16, enabled=machine.precision == "bf16"):
            losses = model.loss_sum(inputs, dropout=masks, z_loss=z_loss)
        if streamed is None or bool(losses.total.isfinite()):
            (losses.total * share / labels).backward()
        sums.append(share * torch.stack((losses.nats.double(), losses.total.detach().double())))
    grads = [p.grad for p in weights if p.grad is not None]
    own = torch.stack(sums).sum(0)
    told = _not_finite_here(own, grads, ranks)
    if ranks.tensor and ranks.rank % ranks.tensor:
        own = torch.zeros_like(own)  # the first of its group has told of the same rows
    if streamed is not None:
        norm = streamed.norm()
    elif ranks.shard:
        from t5study.train import shards

        norm = shards.norm(grads)
    elif ranks.tensor:
        from t5study.train import slices

        norm = slices.add(model, weights, ranks)
    else:
        ranks.add_all(grads)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))).double()
    nats, total, *bad, grad_norm = torch.cat((ranks.add(torch.cat((own, told))), norm[None])).tolist()
    culprits = tuple(rank for rank, found in enumerate(bad) if found)
    return Taken(nats / labels, (total - nats) / labels, batch.tokens, batch.target_tokens, grad_norm, culprits)


def _not_finite_here(sums: Tensor, grads: list[Tensor], ranks: Ranks) -> Tensor:
    """A number a rank: 1 at this one's place if its own sums or gradients are not finite. Empty for one rank alone."""
    told = sums.new_zeros(ranks.world if ranks.world > 1 else 0)
    if ranks.world > 1:
        # Before they are added to the others'; FSDP2 has added them already.
        norms = [] if ranks.shard else torch._foreach_norm(grads)
        told[ranks.rank] = ~torch.isfinite(torch.stack((sums.sum(), *(norm.double() for norm in norms)))).all()
    return told


def _labelled(batch: Batch) -> Batch:
    """The first row that has targets."""
    row = int((batch.target_segment_BT > 0).any(1).argmax())
    return batch.rows(slice(row, row + 1))
