"""Training as stages: pre-training on text, fine-tuning on all tasks as one mixture with scores at every checkpoint."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from t5study.decode.methods import Beam
from t5study.ground.journal import read_journal
from t5study.ground.store import fingerprint, verify, write_json
from t5study.model.shapes import Shape, flops
from t5study.study.experiment import Mixing, Objective
from t5study.study.material import Chosen, Tokens, Vocabulary
from t5study.study.stages import IF_SET, RESULT, UNSIGNED, Place, Stage
from t5study.train.optim import Adafactor, AdamW, Constant, InverseSquareRoot
from t5study.train.tuning import AllParameters, Tuning

if TYPE_CHECKING:
    from t5study.evaluate.evaluation import Evaluation
    from t5study.tasks.task import Task
    from t5study.vocab import Vocab

_FLOPS_PER_S = 2e10  # of training, on one core of a laptop
TEXT_METRICS = ("bleu", "rouge1", "rouge2", "rougeLsum")  # of tasks that section 3.7 answers with beams
_START_S = 1.0  # to build a model, read its data and write it down


@dataclass(frozen=True)
class Pretrain(Stage):
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
        told = f"adapt {self.start.objective.label} to {objective}" if self.start else f"pretrain {objective}"
        return told + _told(self.variant, self.seed)

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
        return self.steps * self.rows * _row(self)

    @property
    def work(self) -> float:
        return _START_S + self.flops / _FLOPS_PER_S

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.tokens import TokenStore
        from t5study.feed.sources import DocumentSource
        from t5study.feed.stream import Stream
        from t5study.model import architectures, released
        from t5study.train.loop import TrainRun, train

        if _finished(work):
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
        train(run, model, stream, work, place.machine, label=self.label, progress=place.progress)
        _finish(work, model, vocab, _trained(work, model))


@dataclass(frozen=True)
class Finetune(Stage):
    """A pre-trained model, or fresh weights, on all tasks as one mixture; scored on each at every checkpoint.

    The optimiser starts anew, as in the official code, which restores the weights alone. trained, scored: names of the
    tasks that are, where not all are both (of SuperGLUE, DPR is trained on and not scored). on: the benchmark that
    these tasks are, for people. beam: how tasks whose metric compares texts are answered, None for greedily.
    """

    start: Pretrain | None
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
        first = self.start.start or self.start if self.start else None
        start = first.objective.label if first else "no pre-training"
        again = f" of {self.start.seed}" if self.start and self.start.seed != self.seed else ""
        return f"finetune {start}{' on ' * bool(self.on)}{self.on}" + _told(self.variant, self.seed) + again

    @property
    def parents(self) -> tuple[Stage, ...]:
        rows = tuple(dict.fromkeys(task.rows for task in self.tasks))
        return (self.vocabulary, *rows, *((self.start,) if self.start else ()))

    @property
    def steps_of_training(self) -> int:
        return self.steps

    @property
    def scoring(self) -> float:
        """The part of `work` that is scoring. Answers are made token by token: a row scored costs about what a packed
        row trained does."""
        rows = self.steps // self.evaluate_every * len(self.scored or self.tasks) * (self.evaluation_rows or 1000)
        return rows * _row(self) / _FLOPS_PER_S

    @property
    def flops(self) -> int:
        """Of its training."""
        return self.steps * self.rows * _row(self)

    @property
    def work(self) -> float:
        return _START_S + self.flops / _FLOPS_PER_S + self.scoring

    def build(self, work: Path, place: Place) -> None:
        from t5study.evaluate.rows import task_source
        from t5study.feed.mixing import Mixture
        from t5study.feed.stream import Stream
        from t5study.model import architectures, released
        from t5study.train.loop import TrainRun, train
        from t5study.train.tuning import begin

        if _finished(work):
            return
        vocab = self.vocabulary.load(place.store)
        tasks = [task.load(place.store) for task in self.tasks]
        learnt = [task for task in tasks if not self.trained or task.name in self.trained]
        tasks = [task for task in tasks if not self.scored or task.name in self.scored]
        if self.start:
            verify(place.folder(self.start))
            model = begin(self.tuning, released.load_released(place.folder(self.start) / "model")[0], self.seed)
        else:
            shape = replace(self.shape, table_rows=vocab.ids.table_rows)
            model = architectures.build(shape, self.seed, self.architecture)
        sources = [task_source(task, vocab, self.seed, *self._lengths(task)) for task in learnt]
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
            return {"tasks": self.summaries(model, step, tasks, vocab, work, place)}

        train(
            run,
            model,
            stream,
            work,
            place.machine,
            label=self.label,
            evaluate=score,
            progress=place.progress,
        )
        scores, steps = _scores(work, [task.name for task in tasks])
        _keep_predictions(work, steps | {self.steps})
        _finish(work, model, vocab, _trained(work, model) | {"tasks": scores})

    def summaries(
        self, model: Any, step: int, tasks: list[Task], vocab: Vocab, work: Path, place: Place
    ) -> dict[str, Any]:
        """Scores a model, or several as one, on some tasks; the predictions are kept in the folder `work`."""
        from t5study.evaluate.predictions import about, save_predictions
        from t5study.evaluate.scoring import evaluate
        from t5study.tasks.splits import first

        found = {}
        for k, task in enumerate(tasks):
            place.progress.say(f"scoring {task.column}, {k + 1} of {len(tasks)}")
            rows = first(task.evaluation_rows, self.evaluation_rows)
            source_length, target_length = self._lengths(task)
            scored = evaluate(
                model,
                vocab,
                task,
                rows,
                source_length=source_length,
                target_length=target_length,
                method=self.beam if self.beam and task.primary in TEXT_METRICS else "greedy",
            )
            path = _predictions(work, step, k, task.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_predictions(scored, path, about(task))
            found[task.name] = scored.summary()
        return found

    def _lengths(self, task: Task) -> tuple[int, int]:
        """Tokens that a task's rows are trimmed to: the task's, but no more than a packed row holds."""
        return min(task.input_length, self.source_length), min(task.target_length, self.target_length)


def _row(stage: Pretrain | Finetune) -> int:
    """FLOPs to train on one row."""
    return flops(stage.shape, stage.architecture, stage.source_length, stage.target_length)


def _told(variant: str, seed: int) -> str:
    return (f", {variant}" if variant else "") + (f", seed {seed}" if seed else "")


def _trained(work: Path, model: Any) -> dict[str, Any]:
    """What a run came to. trainable: of its parameters, those that the last step moved. examples: of each member of a
    mixture that tells them."""
    rows = read_journal(work / "journal.jsonl")
    examples = {"examples": rows[-1]["examples"]} if "examples" in rows[-1] else {}
    return examples | {
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "tokens": sum(row["tokens"] for row in rows),
        "target_tokens": sum(row["target_tokens"] for row in rows),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable": rows[-1]["trainable"],
    }


def _finish(work: Path, model: Any, vocab: Vocab, result: dict[str, Any]) -> None:
    """Weights and numbers stay; the checkpoints to resume from, optimiser and all, go."""
    from t5study.model import released

    shutil.rmtree(work / "model", ignore_errors=True)  # of a process that died after the last step
    released.save_released(model, work / "model", vocab_path=vocab.path)
    write_json(work / RESULT, result)
    _finished(work)


def _finished(work: Path) -> bool:
    """Whether a run is done but for tidying up, which is then done: also after a kill in the midst of it."""
    if done := (work / RESULT).is_file():
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
    return done


# --- from evaluations to scores -----------------------------------------------------------------------------------


def _scores(work: Path, names: list[str]) -> tuple[dict[str, Any], set[int]]:
    """Each task at its best checkpoint, by its metric and by its targets' likelihood apart; and the steps of these."""
    from t5study.evaluate.evaluation import best, best_likelihood

    rows = read_journal(work / "evaluations.jsonl")
    scores, steps = {}, set()
    for name in names:
        told = {row["step"]: row["tasks"][name] for row in rows}
        found = {step: _recalled(summary) for step, summary in told.items()}
        by_metric, by_nats = best(found), best_likelihood(found)
        scores[name] = scores_at(told, by_metric, by_nats)
        steps |= {by_metric, by_nats}
    return scores, steps


def scores_at(told: dict[int, dict[str, Any]], by_metric: int, by_nats: int) -> dict[str, Any]:
    """A task's summaries by step -> its scores at one step by its metric, and at one by likelihood."""
    metric, nats = _recalled(told[by_metric]), _recalled(told[by_nats])
    return {
        "metric": _score(metric.value, by_metric, metric.intervals[metric.metric], told[by_metric]),
        "nats": _score(nats.nats_per_token, by_nats, nats.intervals["nats"], told[by_nats]) | {"unreadable": 0},
        "metrics": metric.metrics,
    }


def _recalled(summary: dict[str, Any]) -> Evaluation:
    """An evaluation from what a run wrote of it; its predictions lie in files."""
    from t5study.evaluate.evaluation import Evaluation

    return Evaluation(
        task=summary["task"],
        metric=summary["metric"],
        metrics=summary["metrics"],
        nats_per_token=summary["nats_per_token"],
        intervals={name: (low, high) for name, (low, high) in summary["intervals"].items()},
        predictions=(),
    )


def _score(value: float, step: int, interval: tuple[float, float], summary: dict[str, Any]) -> dict[str, Any]:
    low, high = interval
    counts = {"n": summary["n"], "unreadable": summary["unreadable"]}
    return {"value": value, "step": step, "low": low, "high": high, **counts}


def _predictions(work: Path, step: int, k: int, name: str) -> Path:
    clean = re.sub(r"[^\w.-]+", "-", name).strip(".")[:80]
    return work / "predictions" / f"{step:07d}" / f"{k:02d}-{clean}.parquet"


def _keep_predictions(work: Path, steps: set[int]) -> None:
    for kept in (work / "predictions").iterdir():
        if int(kept.name) not in steps:
            shutil.rmtree(kept)
