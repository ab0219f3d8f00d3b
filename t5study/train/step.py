"""One step's gradients: the loss is a sum over labels, divided by the labels of the whole step. Labels are the target
tokens, and a (causal) language model's source tokens too.

So a batch may be cut into micro-batches of any size: each adds its share of the same sum, and a token weighs the same
wherever it stands. (A mean of the micro-batches' means would weigh a token by how empty its micro-batch is.)
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from t5study.ground.errors import UserError
from t5study.ground.machine import Machine
from t5study.ground.pairs import Batch
from t5study.model.architectures import Dropout


@dataclass(frozen=True)
class Taken:
    """A step before the weights move. loss: nats a label. z: the z-loss a label. grad_norm: L2 norm of the whole
    gradient. tokens: source and target tokens that are not padding."""

    loss: float
    z: float
    tokens: int
    target_tokens: int
    grad_norm: float

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
) -> Taken:
    """Leaves the gradient of the batch's loss in every weight's `.grad`; `step` names the dropout masks.

    weights: all of the model's, listed once for all steps (asking a module for them costs as much as a small layer).
    On the machine's device, in its precision and in micro-batches of its size. One wait for the device, at the end.
    UserError for a batch without a target token.
    """
    if batch.target_tokens == 0:
        raise UserError(f"step {step}: found a batch without a target token; give data that has targets")
    for weight in weights:
        weight.grad = None
    rows = machine.micro_batch or len(batch)
    parts = {}
    for first in range(0, len(batch), rows):
        part = batch if rows >= len(batch) else batch.rows(slice(first, first + rows))
        inputs = model.arrange(part, machine.device)
        if len(inputs.learned):
            parts[first] = inputs
    labels = sum(len(inputs.learned) for inputs in parts.values())
    sums = []
    for first, inputs in parts.items():
        masks = Dropout(dropout, seed, step, first_row=first) if dropout else None
        with torch.autocast(machine.device, torch.bfloat16, enabled=machine.precision == "bf16"):
            losses = model.loss_sum(inputs, dropout=masks, z_loss=z_loss)
        (losses.total / labels).backward()
        sums.append(torch.stack((losses.nats.double(), losses.total.detach().double())))
    norms = torch._foreach_norm([p.grad for p in weights if p.grad is not None])
    norm = torch.linalg.vector_norm(torch.stack(norms)).double()
    nats, total, grad_norm = torch.cat((torch.stack(sums).sum(0), norm[None])).tolist()
    return Taken(nats / labels, (total - nats) / labels, batch.tokens, batch.target_tokens, grad_norm)
