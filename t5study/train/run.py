"""A run as a value: all that its bytes depend on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.seeds import check_seed
from t5study.model.shapes import Shape
from t5study.train.guard import Guard
from t5study.train.optim import Adafactor, AdamW, Constant, InverseSquareRoot
from t5study.train.tuning import AllParameters, Tuning


@dataclass(frozen=True)
class TrainRun:
    """A training stage as a value: equal runs give equal bytes on one machine.

    rows, source_length, target_length: of the packed batch. data: what names the stream (objective and token digest,
    or tasks). init: "fresh", or the digest of the weights it starts from. z_loss: weight of (log Z)^2 a target token
    (T5: 1e-4). evaluate_every: steps between evaluations, 0 for one at the end. tuning: which weights move. guard: what
    becomes of bad steps. weights: "fp32", or "bf16" for matrices that are kept so and rounded at random. save_every:
    steps between checkpoints; it changes nothing but what an interruption costs, so it is no part of the fingerprint.
    """

    shape: Shape
    architecture: str
    steps: int
    rows: int
    source_length: int
    target_length: int
    optimizer: Adafactor | AdamW
    schedule: InverseSquareRoot | Constant
    dropout: float
    seed: int
    save_every: int = field(metadata={"fingerprint": False})
    data: Any
    init: str
    z_loss: float = 1e-4
    evaluate_every: int = 0
    tuning: Tuning = field(default=AllParameters(), metadata={"fingerprint": "if set"})
    guard: Guard = field(default=Guard(), metadata={"fingerprint": "if set"})
    weights: str = field(default="fp32", metadata={"fingerprint": "if set"})

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, least in (("steps", 1), ("rows", 1), ("save_every", 1), ("evaluate_every", 0), ("z_loss", 0)):
            if not getattr(self, name) >= least:
                raise UserError(f"run: {name}: found {getattr(self, name)}; give at least {least}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"run: dropout: found {self.dropout}; give a number from 0 to below 1")
        if self.weights not in ("fp32", "bf16"):
            raise UserError(f"run: weights: found {self.weights!r}; give fp32 or bf16")
        if self.weights == "bf16" and not isinstance(self.optimizer, Adafactor):
            raise UserError("run: weights: found bf16 with AdamW, which would round to nothing; give Adafactor")
        if self.tuning.shape(self.shape) != self.shape:
            raise UserError(f"run: shape: found no adapters for {self.tuning.label}; give the shape that has them")
        if self.guard.action == "skip" and len(self.tuning.changes(self.steps)) > 1:
            # An update that is left out is none: an optimiser's count would no longer be the run's steps.
            raise UserError(f"run: guard: found skip with {self.tuning.label}; give stop or rewind")
