"""Evaluations done once: the fingerprint of weights, rows and settings -> a folder with scores and predictions.

STORE/evaluate/<fingerprint>/             summary.json, predictions.parquet, manifest.json
STORE/.partial/evaluate-<fingerprint>/    one under way: parts-64.jsonl, a line a batch; a killed one goes on there
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from t5study.evaluate.evaluation import Prediction
from t5study.evaluate.methods import Asking
from t5study.evaluate.parts import Parts
from t5study.evaluate.predictions import about, save_predictions
from t5study.evaluate.scoring import evaluate, unlabelled
from t5study.ground.errors import UserError
from t5study.ground.journal import Progress
from t5study.ground.store import Store, read_json, verify, write_json
from t5study.tasks.task import Row, Task, TaskValue
from t5study.vocab import AnyVocab

if TYPE_CHECKING:
    from t5study.model.architectures import Model

SUMMARY, PREDICTIONS = "summary.json", "predictions.parquet"


@dataclass(frozen=True)
class EvaluationValue:
    """What decides an evaluation. weights, vocabulary, rows: digests. The rows a batch and the machine change rounding
    alone and are no part of it."""

    weights: str
    vocabulary: str
    task: TaskValue
    split: str
    rows: str
    source_length: int
    target_length: int
    method: Asking
    kind: str = "evaluate"


def digest_of(rows: Sequence[Row]) -> str:
    """xxh3-128 over all that rows say, in order."""
    digest = xxhash.xxh3_128()
    for row in rows:
        fields = [row.id, row.input, row.target, row.references, row.group]
        digest.update(json.dumps(fields, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def rows_of(task: Task, split: str, limit: int | None = None) -> list[Row]:
    """The rows that are scored ("validation") or answered ("test"). UserError if there are none, or two have the same
    id: answers are told apart by it."""
    task.need(split)
    rows = list(task.evaluation_rows if split == "validation" else task.rows(split))[:limit]
    twins = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twins:
        raise UserError(f"task {task.name}: found id {twins[0][:40]!r} twice; give every row an id of its own")
    return rows


def evaluated(
    store: Store,
    value: EvaluationValue,
    task: Task,
    rows: Sequence[Row],
    load: Callable[[], tuple[Model, AnyVocab]],
    batch_rows: int = 64,
) -> Path:
    """The folder of an evaluation, which is done first if it is not there. load: the model, only asked for then."""

    def build(work: Path) -> None:
        model, vocab = load()
        passes = 1 if value.split == "test" else 2  # likelihoods come before answers
        progress = Progress(passes * len(rows), task.name, unit="row")

        def watch(done: int) -> None:
            if done < progress.total:
                progress.update(done)

        settings: dict[str, Any] = {
            "batch_rows": batch_rows,
            "source_length": value.source_length,
            "target_length": value.target_length,
            "method": value.method,
            "parts": Parts(work / f"parts-{batch_rows}.jsonl", watch),
        }
        try:
            summary, predictions = _scored(model, vocab, task, rows, value.split, settings)
        finally:
            progress.close()
        save_predictions(predictions, work / PREDICTIONS, about(task, value.split))
        write_json(work / SUMMARY, summary)
        for parts in work.glob("parts-*.jsonl"):
            parts.unlink()

    folder = store.make("evaluate", value, build)
    verify(folder)
    return folder


def _scored(
    model: Model, vocab: AnyVocab, task: Task, rows: Sequence[Row], split: str, settings: dict[str, Any]
) -> tuple[dict[str, Any], tuple[Prediction, ...]]:
    if split != "test":
        found = evaluate(model, vocab, task, rows, **settings)
        return found.summary(), found.predictions
    predictions = unlabelled(model, vocab, task, rows, **settings)
    unreadable = sum(one.answer is None for one in predictions)
    return {"task": task.name, "n": len(predictions), "unreadable": unreadable}, predictions


def summary_of(folder: Path) -> dict[str, Any]:
    """The scores of an evaluation's folder."""
    return read_json(folder / SUMMARY)


# --- the folder that a user asked for -----------------------------------------------------------------------------

REQUEST, SCORES = "request.json", "scores.json"


def claim(out: Path, request: dict[str, Any]) -> None:
    """Makes a folder the one of this request (checkpoint and settings; tasks may be added later). UserError if it is
    another's, naming what differs, or somebody else's."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: found a file; give --out a folder")
    if (out / REQUEST).exists():
        found = read_json(out / REQUEST)
        differing = [name for name in request if not isinstance(found, dict) or found.get(name) != request[name]]
        if differing:
            raise UserError(
                f"{out}: holds an evaluation of another {differing[0]}; choose another folder, or delete it"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: exists already and holds no evaluation; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / REQUEST, request)
