"""Predictions made up for tests: a task, answers, likelihoods -> a file as it is read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t5study.evaluate.evaluation import Prediction
from t5study.evaluate.predictions import About, Kept
from t5study.tasks.task import Row


def kept(
    answers: Sequence[str | None],
    targets: Sequence[str],
    *,
    task: str = "toy/tone",
    metric: str = "accuracy",
    labels: tuple[str, ...] = (),
    nats: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    references: Sequence[tuple[str, ...]] | None = None,
    ids: Sequence[str] | None = None,
    split: str = "validation",
    path: str = "made-up.parquet",
) -> Kept:
    """ids: "r0", "r1", ... unless given."""
    n = len(answers)
    groups, references = groups or [""] * n, references or [()] * n
    ids = ids or [f"r{i}" for i in range(n)]
    rows = [Row(ids[i], f"text {ids[i]}", targets[i], references[i], groups[i]) for i in range(n)]
    nats = nats or [1.0] * n
    predictions = [Prediction(rows[i], answers[i] or "", answers[i], nats[i], 2) for i in range(n)]
    return Kept(Path(path), About(task, metric, labels, split), tuple(predictions))
