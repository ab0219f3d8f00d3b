"""Stages: what an experiment unfolds into, each a frozen value whose fingerprint names a folder of the store.

    corpus -> vocabulary -> tokens -> pretrain -> finetune        task rows -> finetune

A stage holds the stages before it, so its fingerprint says all that went into it: text, vocabulary, objective, shape,
steps, seed. What two experiments share is one value, and is done once. Where files lie, how often a run saves, and the
machine are in none.

    stage = unfold(BASELINE.but(objective=PrefixLM()), setting)      the last stage; `needed(stage)` lists all
    build(stage, place)                                              makes it, if its parents are there
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from t5study.corpus.build import PageSource
from t5study.ground.errors import UserError
from t5study.ground.machine import Machine
from t5study.ground.store import MANIFEST, Store, fingerprint, read_json, verify, write_json
from t5study.model.shapes import Shape
from t5study.study.experiment import Experiment, Mixing, Objective
from t5study.study.scales import Scale
from t5study.tasks.task import TaskValue
from t5study.train.optim import Adafactor, AdamW, Constant, InverseSquareRoot

if TYPE_CHECKING:
    from t5study.evaluate import Evaluation
    from t5study.tasks.task import Task
    from t5study.vocab import Vocab

RESULT, COST = "result.json", "cost.json"
_FLOPS_PER_S = 2e10  # of training, on one core of a laptop
_START_S = 1.0  # to build a model, read its data and write it down
_PREPARATION_S = 5.0
_UNSIGNED: Any = {"fingerprint": False}  # metadata of a field that is in no fingerprint


class Progress(Protocol):
    """Who is told how a stage is getting on."""

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where stages are built: the store they go to, the machine, and who is told."""

    store: Store
    machine: Machine
    progress: Progress

    def folder(self, stage: Stage) -> Path:
        """The finished stage's folder."""
        return folder(self.store, stage)


class Stage:
    """One piece of work. kind: its shelf in the store."""

    kind: ClassVar[str]

    @property
    def label(self) -> str:
        """For people."""
        return self.kind

    @property
    def parents(self) -> tuple[Stage, ...]:
        """What must be in the store before."""
        return ()

    @property
    def steps_of_training(self) -> int:
        """0 if it is none."""
        return 0

    @property
    def work(self) -> float:
        """Seconds or so, on a core that nobody has measured: for what to begin with, and what part is done."""
        return _PREPARATION_S

    def build(self, work: Path, place: Place) -> None:
        """Fills the folder `work`, which may hold what a process that was killed had done."""
        raise NotImplementedError


# --- text -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus(Stage):
    """Documents out of a source of pages. value: the source's own, which says which pages those are."""

    value: Any
    source: PageSource = field(repr=False, compare=False, metadata=_UNSIGNED)
    kind: ClassVar[str] = "corpus"

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.build import build_corpus

        _empty(work)
        build_corpus(self.source, work, seed=0)


@dataclass(frozen=True)
class Vocabulary(Stage):
    """pieces: as many as asked for, or as many as the text can give."""

    corpus: Corpus
    pieces: int
    characters: int
    kind: ClassVar[str] = "vocabulary"

    @property
    def parents(self) -> tuple[Stage, ...]:
        return (self.corpus,)

    @property
    def work(self) -> float:
        return 1.0 + 2e-6 * self.characters

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.build import read_documents
        from t5study.vocab import TextTooSmall, Vocab, train_vocab

        texts = list(_first_characters(read_documents(place.folder(self.corpus)), self.characters))
        try:
            train_vocab(texts, self.pieces, work / "spiece.model")
        except TextTooSmall as small:  # of whoever brings a small text: told in scores.json, and no reason to stop
            train_vocab(texts, small.most, work / "spiece.model")
        vocab = Vocab.load(work / "spiece.model")
        write_json(work / RESULT, {"pieces": vocab.ids.pieces, "asked": self.pieces, "digest": vocab.digest})

    def load(self, store: Store) -> Vocab:
        """The vocabulary, its file checked."""
        from t5study.vocab import Vocab

        verify(folder(store, self))
        return Vocab.load(folder(store, self) / "spiece.model")


@dataclass(frozen=True)
class Tokens(Stage):
    """The first `max_tokens` tokens of a corpus, whose documents are in a drawn order already."""

    corpus: Corpus
    vocabulary: Vocabulary
    max_tokens: int | None
    kind: ClassVar[str] = "tokens"

    @property
    def parents(self) -> tuple[Stage, ...]:
        return (self.corpus, self.vocabulary)

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.build import read_documents
        from t5study.corpus.tokens import write_tokens_into

        _empty(work)
        documents = read_documents(place.folder(self.corpus))
        write_tokens_into(documents, self.vocabulary.load(place.store), work, max_tokens=self.max_tokens)


# --- tasks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EmbeddedRows(Stage):
    """The rendered rows of all families of the embedded benchmark. They follow from the installed packages and from
    how they are read and rendered, so a second study reads no package again."""

    versions: tuple[tuple[str, str], ...]
    reading: int
    rendering: int
    kind: ClassVar[str] = "tasks"

    @property
    def work(self) -> float:
        return 20.0  # packages are read anew, in another process than the corpus is

    def build(self, work: Path, place: Place) -> None:
        from t5study.tasks import pydocs
        from t5study.tasks.task import keep

        _empty(work)
        for name, task in pydocs.TASKS.items():
            (work / name).mkdir()
            keep(task(), work / name)


@dataclass(frozen=True)
class GivenRows(Stage):
    """The rows of one task that was given by its address: a file, or a task of another benchmark."""

    value: TaskValue
    address: str = field(compare=False, metadata=_UNSIGNED)
    metric: str | None = field(compare=False, metadata=_UNSIGNED)
    kind: ClassVar[str] = "tasks"

    @property
    def label(self) -> str:
        return f"task {self.value.name}"

    def build(self, work: Path, place: Place) -> None:
        from t5study.tasks.task import find, keep

        _empty(work)
        task = find(self.address, self.metric)
        if task.value != self.value:
            raise UserError(f"{self.address}: was changed while the study ran; run the same command again")
        keep(task, work)


@dataclass(frozen=True)
class Chosen:
    """A task of a stage of rows. name: of its folder there, "" where the stage is one task."""

    rows: EmbeddedRows | GivenRows
    name: str = ""

    def load(self, store: Store) -> Task:
        """The task, its rows checked."""
        from t5study.tasks.task import kept

        return kept(folder(store, self.rows) / self.name)


# --- training ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pretrain(Stage):
    """A model from fresh weights on text."""

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
    save_every: int = field(compare=False, metadata=_UNSIGNED)
    kind: ClassVar[str] = "pretrain"

    @property
    def label(self) -> str:
        return f"pretrain {self.objective.label}" + _seed(self.seed)

    @property
    def parents(self) -> tuple[Stage, ...]:
        return (self.tokens.vocabulary, self.tokens)

    @property
    def steps_of_training(self) -> int:
        return self.steps

    @property
    def target_length(self) -> int:
        """Target tokens of a row: as many as the objective makes of the source length."""
        return self.objective.lengths(self.source_length).targets

    @property
    def work(self) -> float:
        flops = self.steps * self.rows * self.shape.flops(self.source_length, self.target_length)
        return _START_S + flops / _FLOPS_PER_S

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.tokens import TokenStore
        from t5study.feed.sources import DocumentSource
        from t5study.feed.stream import Stream
        from t5study.model import architectures
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
            init="fresh",
            z_loss=self.z_loss,
        )
        model = architectures.build(shape, self.seed, self.architecture)
        train(run, model, stream, work, place.machine, label=self.label, progress=place.progress)
        _finish(work, model, vocab, _trained(work) | {"parameters": shape.parameters})


@dataclass(frozen=True)
class Finetune(Stage):
    """A pre-trained model, or fresh weights, on all tasks as one mixture; scored on each at every checkpoint.

    The optimiser starts anew, as in the official code, which restores the weights alone.
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
    save_every: int = field(compare=False, metadata=_UNSIGNED)
    kind: ClassVar[str] = "finetune"

    @property
    def label(self) -> str:
        return f"finetune {self.start.objective.label if self.start else 'no pre-training'}" + _seed(self.seed)

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
        rows = self.steps // self.evaluate_every * len(self.tasks) * (self.evaluation_rows or 1000)
        return rows * self.shape.flops(self.source_length, self.target_length) / _FLOPS_PER_S

    @property
    def work(self) -> float:
        flops = self.steps * self.rows * self.shape.flops(self.source_length, self.target_length)
        return _START_S + flops / _FLOPS_PER_S + self.scoring

    def build(self, work: Path, place: Place) -> None:
        from t5study import evaluate as room
        from t5study.feed.mixing import Mixture
        from t5study.feed.stream import Stream
        from t5study.model import architectures, released
        from t5study.train.loop import TrainRun, train

        if _finished(work):
            return
        vocab = self.vocabulary.load(place.store)
        tasks = [task.load(place.store) for task in self.tasks]
        if self.start:
            verify(place.folder(self.start))
            model, shape = released.load_released(place.folder(self.start) / "model")
        else:
            shape = replace(self.shape, table_rows=vocab.ids.table_rows)
            model = architectures.build(shape, self.seed, self.architecture)
        sources = [room.task_source(task, vocab, self.seed, *self._lengths(task)) for task in tasks]
        rates = self.mixing.rates([len(source) for source in sources])
        stream = Stream(Mixture(sources, rates, self.seed), self.rows, self.source_length, self.target_length)
        run = TrainRun(
            shape=shape,
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
            data=(fingerprint(self.tasks), self.mixing, fingerprint(self.vocabulary)),
            init=fingerprint(self.start) if self.start else "fresh",
            z_loss=self.z_loss,
            evaluate_every=self.evaluate_every,
        )

        def score(step: int, model: Any) -> dict[str, Any]:
            summaries = {}
            for k, task in enumerate(tasks):
                place.progress.say(f"scoring {task.column}, {k + 1} of {len(tasks)}")
                rows = task.evaluation_rows[: self.evaluation_rows]
                source_length, target_length = self._lengths(task)
                found = room.evaluate(
                    model, vocab, task, rows, source_length=source_length, target_length=target_length
                )
                path = _predictions(work, step, k, task.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                room.save_predictions(found, path)
                summaries[task.name] = found.summary()
            return {"tasks": summaries}

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
        _finish(work, model, vocab, _trained(work) | {"parameters": shape.parameters, "tasks": scores})

    def _lengths(self, task: Task) -> tuple[int, int]:
        """Tokens that a task's rows are trimmed to: the task's, but no more than a packed row holds."""
        return min(task.input_length, self.source_length), min(task.target_length, self.target_length)


def _seed(seed: int) -> str:
    return f", seed {seed}" if seed else ""


def _trained(work: Path) -> dict[str, Any]:
    """What a run's journal comes to."""
    with open(work / "journal.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "tokens": sum(row["tokens"] for row in rows),
        "target_tokens": sum(row["target_tokens"] for row in rows),
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
    from t5study.evaluate import best, best_likelihood

    with open(work / "evaluations.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    scores, steps = {}, set()
    for name in names:
        told = {row["step"]: row["tasks"][name] for row in rows}
        found = {step: _recalled(summary) for step, summary in told.items()}
        by_metric, by_nats = best(found), best_likelihood(found)
        metric, nats = found[by_metric], found[by_nats]
        scores[name] = {
            "metric": _score(metric.value, by_metric, metric.intervals[metric.metric], told[by_metric]),
            "nats": _score(nats.nats_per_token, by_nats, nats.intervals["nats"], told[by_nats]) | {"unreadable": 0},
            "metrics": metric.metrics,
        }
        steps |= {by_metric, by_nats}
    return scores, steps


def _recalled(summary: dict[str, Any]) -> Evaluation:
    """An evaluation from what a run wrote of it; its predictions lie in files."""
    from t5study.evaluate import Evaluation

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


# --- an experiment -> stages --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What all runs of a study share."""

    scale: Scale
    corpus: Corpus
    tasks: tuple[Chosen, ...]

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.corpus, self.scale.pieces, self.scale.vocabulary_characters)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.corpus, self.vocabulary, self.scale.max_tokens)


def unfold(experiment: Experiment, setting: Setting) -> Finetune:
    """An experiment -> its last stage, which holds those before it."""
    scale = setting.scale
    if experiment.tuning != "all" or experiment.corpus != "study":
        raise ValueError(f"tuning {experiment.tuning!r} of corpus {experiment.corpus!r}: nothing here can do that")
    steps = round(scale.pretrain_steps * experiment.pretraining)
    start = Pretrain(
        tokens=setting.tokens,
        objective=experiment.objective,
        shape=scale.shape,
        architecture=experiment.architecture,
        steps=steps,
        rows=scale.pretrain_rows,
        source_length=scale.source_length,
        optimizer=scale.optimizer,
        schedule=scale.pretrain_schedule,
        dropout=scale.dropout,
        z_loss=scale.z_loss,
        seed=experiment.seed,
        save_every=scale.save_every,
    )
    return Finetune(
        start=start if steps else None,
        vocabulary=setting.vocabulary,
        tasks=setting.tasks,
        mixing=experiment.mixing,
        shape=scale.shape,
        architecture=experiment.architecture,
        steps=round(scale.finetune_steps * experiment.finetuning),
        rows=scale.finetune_rows,
        source_length=scale.source_length,
        target_length=scale.finetune_target_length,
        optimizer=scale.optimizer,
        schedule=scale.finetune_schedule,
        dropout=scale.dropout,
        z_loss=scale.z_loss,
        evaluate_every=scale.evaluate_every,
        evaluation_rows=scale.evaluation_rows,
        seed=experiment.seed,
        save_every=scale.save_every,
    )


@lru_cache(maxsize=1 << 14)
def stage_id(stage: Stage) -> str:
    """The stage's folder in the store, as text: what tells stages apart."""
    return f"{stage.kind}/{fingerprint(stage)}"


def folder(store: Store, stage: Stage) -> Path:
    """Where the stage lies in a store, or would lie."""
    return store.root / stage_id(stage)


def has(store: Store, stage: Stage) -> bool:
    """Whether the stage is in a store, whole."""
    return (folder(store, stage) / MANIFEST).is_file()


def needed(stages: Iterable[Stage]) -> dict[str, Stage]:
    """Stages with all that they need, each once, parents first, by their ids."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        name = stage_id(stage)
        if name not in found:
            for parent in stage.parents:
                visit(parent)
            found[name] = stage

    for stage in stages:
        visit(stage)
    return found


def build(stage: Stage, place: Place) -> Path:
    """Makes a stage whose parents are there, and notes what it cost (cost.json: seconds of wall-clock in the process
    that finished it; work that a killed process had done before is not in it)."""

    def timed(work: Path) -> None:
        began = time.monotonic()
        stage.build(work, place)
        write_json(work / COST, {"seconds": round(time.monotonic() - began, 3)})

    parents = [stage_id(parent) for parent in stage.parents]
    return place.store.make(stage.kind, stage, timed, parents)


def result(store: Store, stage: Stage) -> dict[str, Any]:
    """The numbers of a finished stage."""
    return read_json(folder(store, stage) / RESULT)


# --- small things -------------------------------------------------------------------------------------------------


def _empty(work: Path) -> None:
    """A stage that cannot be resumed begins again."""
    for path in work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _first_characters(texts: Iterable[str], characters: int) -> Iterator[str]:
    """Whole texts until there are so many characters."""
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return
