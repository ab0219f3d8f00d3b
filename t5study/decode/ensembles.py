"""Several models as one: their logits, or their probabilities, averaged at every step.

The paper (section 3.7) averages logits; mesh's code averages probabilities unless told otherwise. Both are here by
name. Models may be of different shapes and architectures; their vocabularies must be the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from t5study.decode.steps import Steps
from t5study.ground.errors import UserError

AVERAGES = ("logits", "probabilities")


def check_average(average: str) -> None:
    if average not in AVERAGES:
        raise UserError(f"average: found {average!r}; give one of {', '.join(AVERAGES)}")


def averaged(logits: Sequence[Tensor], average: str) -> Tensor:
    """Logits (A, V) of each model -> logits of all: their mean, or the logarithm of the mean probability."""
    if len(logits) == 1:
        return logits[0]
    together = torch.stack([x.float() for x in logits])
    if average == "logits":
        return together.mean(0)
    return together.log_softmax(2).logsumexp(0) - math.log(len(logits))


class Together:
    """The steps of several models, token by token the same."""

    def __init__(self, members: Sequence[Steps], average: str):
        self.members, self.average = members, average

    def first(self) -> Tensor:
        return averaged([steps.first() for steps in self.members], self.average)

    def select(self, parent_A: np.ndarray, beams: int) -> None:
        for steps in self.members:
            steps.select(parent_A, beams)

    def next(self, token_A: np.ndarray) -> Tensor:
        return averaged([steps.next(token_A) for steps in self.members], self.average)
