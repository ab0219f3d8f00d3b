"""Evaluation: what became of a task's rows under a model, and which of several checkpoints is the best.

Every task is scored twice. Its own metric is taken on the model's answers, as in the paper (section 2.4), and the
log-likelihood of its targets is taken under the model, in nats a target token with EOS counted. Where compute is
small, greedy answers are noise long after the likelihood has begun to tell models apart.

An answer that cannot be read (no label, no number, empty) counts as wrong, is counted, and is kept with the others.

    N  rows of the task    R  resamples
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t5study.tasks.task import Row, Task
from t5study.train.best import best_step

Interval = tuple[float, float]


@dataclass(frozen=True)
class Prediction:
    """What became of one row. text: as decoded. answer: as the task reads it, None if it cannot. nats: of the target
    under the model, over `tokens` target tokens, EOS counted; None where the row has no target (a test row).
    choices: nats of each of the task's choices, where they were ranked."""

    row: Row
    text: str
    answer: str | None
    nats: float | None
    tokens: int
    choices: tuple[float, ...] = ()


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


def judged(
    task: Task,
    rows: Sequence[Row],
    texts: Sequence[str],
    nats_N: np.ndarray,
    tokens_N: np.ndarray,
    choices: Sequence[Sequence[float]] = (),
) -> Evaluation:
    """Decoded texts and likelihoods -> scores. choices: nats of every choice of a row, where they were ranked."""
    answers = [task.parse(text) for text in texts]
    intervals = task.intervals(rows, answers)
    ranked = choices or [()] * len(rows)
    return Evaluation(
        task=task.name,
        metric=task.primary,
        metrics=task.score(rows, answers),
        nats_per_token=float(nats_N.sum() / tokens_N.sum()),
        intervals={**intervals, "nats": ratio_interval(nats_N, tokens_N)},
        predictions=tuple(
            Prediction(row, text, answer, float(nats), int(tokens), tuple(each))
            for row, text, answer, nats, tokens, each in zip(
                rows, texts, answers, nats_N, tokens_N, ranked, strict=True
            )
        ),
    )


def ratio_interval(nats_N: np.ndarray, tokens_N: np.ndarray, resamples: int = 500) -> Interval:
    """95 % bootstrap interval over examples for nats a token: a ratio of sums, resampled together."""
    n = len(nats_N)
    weights_RN = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    low, high = np.quantile((weights_RN @ nats_N) / (weights_RN @ tokens_N), [0.025, 0.975])
    return float(low), float(high)


# --- which checkpoint -------------------------------------------------------------------------------------------


def best(evaluations: Mapping[int, Evaluation]) -> int:
    """The step of the best checkpoint of one task by its metric, the earliest of equals (paper, section 3.1.2: the
    best validation score is reported, for each task apart)."""
    return best_step({step: found.value for step, found in evaluations.items()})


def best_likelihood(evaluations: Mapping[int, Evaluation]) -> int:
    """The step whose targets are likeliest, the earliest of equals. It need not be the step of the best answers."""
    return min(evaluations, key=lambda step: (evaluations[step].nats_per_token, step))
