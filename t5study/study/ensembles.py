"""Ensembles as stages: several fine-tuned models that answer as one (paper, section 3.6).

Their logits are averaged before the softmax, at every token of an answer. Each model is as it was when its fine-tuning
ended: the paper does not say which checkpoints it took, and of a fine-tuning no other weights are kept. So every score
is of the last step, where a single model has each task at its best checkpoint: an ensemble is judged a little too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from t5study.ground.store import verify, write_json
from t5study.model.shapes import Shape
from t5study.study.material import Chosen
from t5study.study.multitask import MultiTaskTraining
from t5study.study.outcome import learnt_and_scored, scores_at, summaries
from t5study.study.stages import RESULT, Place, Stage, result
from t5study.study.training import Finetune, Start


@dataclass(frozen=True)
class Ensemble(Stage):
    """members: fine-tunings (or multi-task trainings) on the same tasks, scored in the same way."""

    members: tuple[Finetune | MultiTaskTraining, ...]
    kind: ClassVar[str] = "ensemble"

    @property
    def label(self) -> str:
        pretrainings = len({member.start for member in self.members})
        how = "" if pretrainings == len(self.members) else f", {pretrainings} pre-training"
        return f"ensemble of {len(self.members)}{how}: {self.members[0].label}"

    @property
    def parents(self) -> tuple[Stage, ...]:
        rows = tuple(dict.fromkeys(task.rows for task in self.tasks))
        return (self.members[0].vocabulary, *rows, *self.members)

    # What the ledger asks of a last stage: all members have these alike, but for the seed.

    @property
    def tasks(self) -> tuple[Chosen, ...]:
        return self.members[0].tasks

    @property
    def scored(self) -> tuple[str, ...]:
        return self.members[0].scored

    @property
    def start(self) -> Start | None:
        return self.members[0].start

    @property
    def seed(self) -> int:
        return self.members[0].seed

    @property
    def shape(self) -> Shape:
        """Of one model."""
        return self.members[0].shape

    @property
    def architecture(self) -> str:
        return self.members[0].architecture

    @property
    def steps_of_training(self) -> int:
        """Tasks to score: the study goes on without an ensemble that fails, as without a training."""
        return len(self.scored or self.tasks)

    @property
    def work(self) -> float:
        one = self.members[0]
        return 1.0 + len(self.members) * one.scoring / max(1, one.steps // one.evaluate_every)

    def build(self, work: Path, place: Place) -> None:
        from t5study.model import released

        first = self.members[0]
        vocab = first.vocabulary.load(place.store)
        _, tasks = learnt_and_scored(first, place)
        models = []
        for member in self.members:
            verify(place.folder(member))
            models.append(released.load_released(place.folder(member) / "model")[0].to(place.machine.device))
        told = dict[str, Any]()
        for k, task in enumerate(tasks):
            place.progress.update(k + 1)
            told |= summaries(first, models, first.steps, [task], vocab, work, place)
        ran = [result(place.store, member) for member in self.members]
        scores = {name: scores_at({first.steps: one}, first.steps, first.steps) for name, one in told.items()}
        write_json(
            work / RESULT,
            {name: sum(one[name] for one in ran) for name in ("tokens", "target_tokens", "parameters", "trainable")}
            | {name: math.fsum(one[name] for one in ran) / len(ran) for name in ("first_loss", "last_loss")}
            | {"tasks": scores},
        )
