"""Training as stages: pre-training on text, fine-tuning on all tasks as one mixture with scores at every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from t5study.decode.methods import Beam
from t5study.ground.fingerprint import fingerprint
from t5study.ground.store import verify
from t5study.model.shapes import Shape, flops
from t5study.study.experiment import Mixing, Objective
from t5study.study.material import Chosen, Tokens, Vocabulary
from t5study.study.outcome import (
    Scores,
    Trains,
    best_scores,
    finish,
    finished,
    learnt_and_scored,
    lengths,
    summaries,
    trained,
)
from t5study.study.stages import IF_SET, UNSIGNED, Place, Stage
from t5study.train.optim import Adafactor, AdamW, Constant, InverseSquareRoot
from t5study.train.tuning import AllParameters, Tuning

_FLOPS_PER_S = 2e10  # of training, on one core of a laptop
_START_S = 1.0  # to build a model, read its data and write it down


class Start(Stage):
    """A stage that leaves a model for fine-tuning to start from. seed: of its weights, order and noise."""

    seed: int

    @property
    def way(self) -> str:
        """What it trained on, in a word or two."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pretrain(Start):
    """A model from fresh weights, or from those of another pre-training, on text. variant: how it departs from the
    baseline otherwise, for people."""

    tokens: Tokens
    objective: Objective
    shape: Shape
    architecture: str
    steps: int
    rows: int
    source_length: int
    optimizer: Adafactor | AdamW
    schedule: InverseSquareRoot
    dropout: float
    z_loss: float
    seed: int
    save_every: int = field(compare=False, metadata=UNSIGNED)
    variant: str = field(default="", compare=False, metadata=UNSIGNED)
    start: Pretrain | None = field(default=None, metadata=IF_SET)
    kind: ClassVar[str] = "pretrain"

    @property
    def label(self) -> str:
        objective = self.objective.label
        way = f"adapt {self.start.objective.label} to {objective}" if self.start else f"pretrain {objective}"
        return way + told(self.variant, self.seed)

    @property
    def way(self) -> str:
        return (self.start or self).objective.label

    @property
    def parents(self) -> tuple[Stage, ...]:
        return (self.tokens.vocabulary, self.tokens, *((self.start,) if self.start else ()))

    @property
    def steps_of_training(self) -> int:
        return self.steps

    @property
    def target_length(self) -> int:
        """Target tokens of a row: as many as the objective makes of the source length."""
        return self.objective.lengths(self.source_length).targets

    @property
    def flops(self) -> int:
        """Of its training."""
        return training_flops(self)

    @property
    def work(self) -> float:
        return training_work(self)

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.tokens import TokenStore
        from t5study.feed.sources import DocumentSource
        from t5study.feed.stream import Stream
        from t5study.model import architectures, released
        from t5study.train.loop import train
        from t5study.train.parallel import ALONE
        from t5study.train.run import TrainRun

        if finished(work):
            return
        vocab = self.tokens.vocabulary.load(place.store)
        store = TokenStore.open(place.folder(self.tokens))
        lengths = self.objective.lengths(self.source_length)
        source = DocumentSource(store.tokens, store.offsets, self.objective, lengths, vocab.ids, self.seed)
        stream = Stream(source, self.rows, self.source_length, lengths.targets)
        shape = replace(self.shape, table_rows=vocab.ids.table_rows)
        run = TrainRun(
            shape=shape,
            architecture=self.architecture,
            steps=self.steps,
            rows=self.rows,
            source_length=self.source_length,
            target_length=lengths.targets,
            optimizer=self.optimizer,
            schedule=self.schedule,
            dropout=self.dropout,
            seed=self.seed,
            save_every=self.save_every,
            data=(self.objective, fingerprint(self.tokens)),
            init=fingerprint(self.start) if self.start else "fresh",
            z_loss=self.z_loss,
        )
        if self.start:
            verify(place.folder(self.start))
            model = released.load_released(place.folder(self.start) / "model")[0]
        else:
            model = architectures.build(shape, self.seed, self.architecture)
        shown = {"label": self.label, "progress": place.progress}
        train(run, model, stream, work, place.machine, **shown, ranks=place.ranks or ALONE)
        if place.ranks and not place.ranks.first:
            return
        finish(work, model, vocab, trained(work, model))


@dataclass(frozen=True)
class Finetune(Stage):
    """A pre-trained model, or fresh weights, on all tasks as one mixture; scored on each at every checkpoint.

    The optimiser starts anew, as in the official code, which restores the weights alone. trained, scored: names of the
    tasks that are, where not all are both (of SuperGLUE, DPR is trained on and not scored). on: the benchmark that
    these tasks are, for people. beam: how tasks whose metric compares texts are answered, None for greedily.
    """

    start: Start | None
    vocabulary: Vocabulary
    tasks: tuple[Chosen, ...]
    mixing: Mixing
    shape: Shape
    architecture: str
    steps: int
    rows: int
    source_length: int
    target_length: int
    optimizer: Adafactor | AdamW
    schedule: Constant
    dropout: float
    z_loss: float
    evaluate_every: int
    evaluation_rows: int | None
    seed: int
    save_every: int = field(compare=False, metadata=UNSIGNED)
    tuning: Tuning = field(default=AllParameters(), metadata=IF_SET)
    variant: str = field(default="", compare=False, metadata=UNSIGNED)
    trained: tuple[str, ...] = field(default=(), metadata=IF_SET)
    scored: tuple[str, ...] = field(default=(), metadata=IF_SET)
    on: str = field(default="", compare=False, metadata=UNSIGNED)
    beam: Beam | None = field(default=None, metadata=IF_SET)
    kind: ClassVar[str] = "finetune"

    @property
    def label(self) -> str:
        start = self.start.way if self.start else "no pre-training"
        again = f" of {self.start.seed}" if self.start and self.start.seed != self.seed else ""
        return f"finetune {start}{' on ' * bool(self.on)}{self.on}" + told(self.variant, self.seed) + again

    @property
    def parents(self) -> tuple[Stage, ...]:
        rows = tuple(dict.fromkeys(task.rows for task in self.tasks))
        return (self.vocabulary, *rows, *((self.start,) if self.start else ()))

    @property
    def steps_of_training(self) -> int:
        return self.steps

    @property
    def scoring(self) -> float:
        """The part of `work` that is scoring. Answers are made token by token: a row scored costs about
        two thirds of a packed row trained."""
        return scoring_work(self)

    @property
    def flops(self) -> int:
        """Of its training."""
        return training_flops(self)

    @property
    def work(self) -> float:
        return training_work(self) + self.scoring

    def build(self, work: Path, place: Place) -> None:
        from t5study.evaluate.rows import task_source
        from t5study.feed.mixing import Mixture
        from t5study.feed.stream import Stream
        from t5study.model import architectures, released
        from t5study.train.loop import train
        from t5study.train.parallel import ALONE
        from t5study.train.run import TrainRun
        from t5study.train.tuning import begin

        if finished(work):
            return
        vocab = self.vocabulary.load(place.store)
        learnt, tasks = learnt_and_scored(self, place)
        if self.start:
            verify(place.folder(self.start))
            model = begin(self.tuning, released.load_released(place.folder(self.start) / "model")[0], self.seed)
        else:
            shape = replace(self.shape, table_rows=vocab.ids.table_rows)
            model = architectures.build(shape, self.seed, self.architecture)
        sources = [task_source(task, vocab, self.seed, *lengths(self, task)) for task in learnt]
        names = [task.name for task in learnt]
        rates = self.mixing.rates([len(source) for source in sources], names)
        mixture = Mixture(sources, rates, self.seed, names if self.trained else ())
        stream = Stream(mixture, self.rows, self.source_length, self.target_length)
        run = TrainRun(
            shape=model.shape,
            architecture=self.architecture,
            steps=self.steps,
            rows=self.rows,
            source_length=self.source_length,
            target_length=self.target_length,
            optimizer=self.optimizer,
            schedule=self.schedule,
            dropout=self.dropout,
            seed=self.seed,
            save_every=self.save_every,
            data=(fingerprint(self.tasks), self.mixing, fingerprint(self.vocabulary), *self.trained),
            init=fingerprint(self.start) if self.start else "fresh",
            z_loss=self.z_loss,
            evaluate_every=self.evaluate_every,
            tuning=self.tuning,
        )

        def score(step: int, model: Any) -> dict[str, Any]:
            return {"tasks": summaries(self, model, step, tasks, vocab, work, place)}

        train(
            run,
            model,
            stream,
            work,
            place.machine,
            label=self.label,
            evaluate=score,
            progress=place.progress,
            ranks=place.ranks or ALONE,
        )
        if place.ranks and not place.ranks.first:
            return
        finish(work, model, vocab, trained(work, model) | {"tasks": best_scores(work, tasks, self.steps)})


# --- for people and for the plan --------------------------------------------------------------------------------------


def _row(stage: Trains) -> int:
    """FLOPs to train on one row."""
    return flops(stage.shape, stage.architecture, stage.source_length, stage.target_length)


def training_flops(stage: Trains) -> int:
    """Of all its steps."""
    return stage.steps * stage.rows * _row(stage)


def training_work(stage: Trains) -> float:
    """The part of `work` that is training."""
    return _START_S + training_flops(stage) / _FLOPS_PER_S


def scoring_work(stage: Scores) -> float:
    """The part of `work` that is scoring, at all checkpoints."""
    rows = stage.steps // stage.evaluate_every * len(stage.scored or stage.tasks) * (stage.evaluation_rows or 1000)
    return rows * _row(stage) * 2 / 3 / _FLOPS_PER_S


def told(variant: str, seed: int) -> str:
    return (f", {variant}" if variant else "") + (f", seed {seed}" if seed else "")
