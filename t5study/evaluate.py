"""Evaluate: a task and a model -> predictions and scores.

Every task is scored twice. Its own metric is taken on greedy answers, as in the paper (section 2.4), and the
log-likelihood of its targets is taken under the model, in nats a target token with EOS counted. Where compute is
small, greedy answers are noise long after the likelihood has begun to tell models apart.

An answer that cannot be read (no label, no number, empty) counts as wrong, is counted, and is kept with the others.

    N  rows of the task    S  source tokens    T  target tokens    R  resamples
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t5study.decode import generate, scores
from t5study.feed.sources import PairSource
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, Pair, pad_rows
from t5study.tasks.task import Row, Task
from t5study.vocab import AnyVocab

if TYPE_CHECKING:
    from t5study.model.architectures import Model

Interval = tuple[float, float]


@dataclass(frozen=True)
class Prediction:
    """What became of one row. text: as decoded. answer: as the task reads it, None if it cannot. nats: of the target
    under the model, over `tokens` target tokens, EOS counted."""

    row: Row
    text: str
    answer: str | None
    nats: float
    tokens: int


@dataclass(frozen=True)
class Evaluation:
    """metrics: all numbers of the task's metric, in per cent; intervals: 95 % over examples, for each of them and for
    "nats". metric: the name of the one that counts, `value` is it."""

    task: str
    metric: str
    metrics: dict[str, float]
    nats_per_token: float
    intervals: dict[str, Interval]
    predictions: tuple[Prediction, ...]

    @property
    def value(self) -> float:
        """The number that the task's column shows."""
        return self.metrics[self.metric]

    @property
    def n(self) -> int:
        """Rows scored."""
        return len(self.predictions)

    @property
    def unreadable(self) -> int:
        """Answers that were none; they count as wrong."""
        return sum(prediction.answer is None for prediction in self.predictions)

    def summary(self) -> dict[str, Any]:
        """All but the predictions, as JSON."""
        return {
            "task": self.task,
            "metric": self.metric,
            "metrics": self.metrics,
            "nats_per_token": self.nats_per_token,
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "n": self.n,
            "unreadable": self.unreadable,
        }


def evaluate(
    model: Model,
    vocab: AnyVocab,
    task: Task,
    rows: Sequence[Row] | None = None,
    *,
    batch_rows: int = 64,
    source_length: int | None = None,
    target_length: int | None = None,
) -> Evaluation:
    """Scores a model on a task's validation rows, or on the rows given.

    source_length, target_length: tokens that rows are trimmed to, EOS kept, for the likelihood and the answers alike
    (default: the task's). Answers are decoded no longer than the longest target of these rows; metrics compare them
    with the whole targets. UserError if there are no rows or the model is not finite on one.
    """
    rows = list(task.evaluation_rows if rows is None else rows)
    if not rows:
        raise UserError(f"task {task.name}: found no rows to score; give it validation rows")
    pairs = encoded(vocab, rows, source_length or task.input_length, target_length or task.target_length)
    source_NS, _ = pad_rows([pair.source for pair in pairs])
    target_NT, _ = pad_rows([pair.target for pair in pairs])
    nats_N, tokens_N = scores.target_scores(model, source_NS, target_NT, batch_rows=batch_rows)
    for row, nats in zip(rows, nats_N, strict=True):
        if not math.isfinite(nats):
            raise UserError(f"task {task.name}: row {row.id}: found a likelihood of {nats}; the weights are not usable")
    texts = [vocab.decode(ids) for ids in generate.greedy(model, source_NS, target_NT.shape[1], batch_rows=batch_rows)]
    return judged(task, rows, texts, nats_N, tokens_N)


def judged(
    task: Task, rows: Sequence[Row], texts: Sequence[str], nats_N: np.ndarray, tokens_N: np.ndarray
) -> Evaluation:
    """Decoded texts and likelihoods -> scores."""
    answers = [task.parse(text) for text in texts]
    intervals = task.intervals(rows, answers)
    return Evaluation(
        task=task.name,
        metric=task.primary,
        metrics=task.score(rows, answers),
        nats_per_token=float(nats_N.sum() / tokens_N.sum()),
        intervals={**intervals, "nats": _ratio_interval(nats_N, tokens_N)},
        predictions=tuple(
            Prediction(row, text, answer, float(nats), int(tokens))
            for row, text, answer, nats, tokens in zip(rows, texts, answers, nats_N, tokens_N, strict=True)
        ),
    )


def _ratio_interval(nats_N: np.ndarray, tokens_N: np.ndarray, resamples: int = 500) -> Interval:
    """95 % bootstrap interval over examples for nats a token: a ratio of sums, resampled together."""
    n = len(nats_N)
    weights_RN = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    low, high = np.quantile((weights_RN @ nats_N) / (weights_RN @ tokens_N), [0.025, 0.975])
    return float(low), float(high)


# --- rows -> pairs ----------------------------------------------------------------------------------------------


def encoded(vocab: AnyVocab, rows: Sequence[Row], source_length: int, target_length: int) -> list[Pair]:
    """Rows as ids that end in EOS. What is too long is cut, EOS kept, as T5 does.

    Sentinels in a row's text stay text: a task cannot speak the vocabulary's private tokens by accident.
    """

    def ids(texts: list[str], length: int) -> list[np.ndarray]:
        return [np.append(one[: length - 1], EOS).astype(np.int32) for one in vocab.encode_batch(texts)]

    sources = ids([row.input for row in rows], source_length)
    targets = ids([row.target for row in rows], target_length)
    return [Pair(source, target) for source, target in zip(sources, targets, strict=True)]


def task_source(task: Task, vocab: AnyVocab, seed: int, source_length: int, target_length: int) -> PairSource:
    """A task's training rows as a source to fine-tune on."""
    pairs = encoded(vocab, task.rows("train"), source_length, target_length)
    return PairSource(pairs, seed, source_length, target_length)


# --- which checkpoint -------------------------------------------------------------------------------------------


def best(evaluations: Mapping[int, Evaluation]) -> int:
    """The step of the best checkpoint of one task by its metric, the earliest of equals (paper, section 3.1.2: the
    best validation score is reported, for each task apart)."""
    return min(evaluations, key=lambda step: (-evaluations[step].value, step))


def best_likelihood(evaluations: Mapping[int, Evaluation]) -> int:
    """The step whose targets are likeliest, the earliest of equals. It need not be the step of the best answers."""
    return min(evaluations, key=lambda step: (evaluations[step].nats_per_token, step))


# --- predictions kept -------------------------------------------------------------------------------------------


def save_predictions(evaluation: Evaluation, path: Path) -> None:
    """Writes every prediction as Parquet, whole or not at all: id, input, target, prediction (as decoded), readable,
    nats, tokens."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = evaluation.predictions
    table = pa.table(
        {
            "id": pa.array([one.row.id for one in found], pa.string()),
            "input": pa.array([one.row.input for one in found], pa.string()),
            "target": pa.array([one.row.target for one in found], pa.string()),
            "prediction": pa.array([one.text for one in found], pa.string()),
            "readable": pa.array([one.answer is not None for one in found], pa.bool_()),
            "nats": pa.array([one.nats for one in found], pa.float64()),
            "tokens": pa.array([one.tokens for one in found], pa.int32()),
        }
    )
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
