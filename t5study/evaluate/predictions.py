"""Predictions kept: a Parquet file a task, which comparing, submitting and looking need no model for.

    id, input, target     the row
    prediction            as decoded
    readable              whether the task could read it
    nats, tokens          of the target; null where there is none
    answer                as the task read it; null if it could not
    references, group     the row's further acceptable answers, and what it is scored together with
    choices               nats of each of the task's choices, where they were ranked

The file's own metadata says of which task they are and how it is scored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t5study.evaluate.evaluation import Evaluation, Prediction
from t5study.ground.errors import UserError
from t5study.ground.store import whole_file
from t5study.tasks.task import Row, Task

ABOUT = b"t5study"


@dataclass(frozen=True)
class About:
    """Of which task a file's predictions are: its name, split, metric, labels."""

    task: str
    metric: str
    labels: tuple[str, ...]
    split: str = "validation"


@dataclass(frozen=True)
class Kept:
    """A file as it was read."""

    path: Path
    about: About
    predictions: tuple[Prediction, ...]


def about(task: Task, split: str = "validation") -> About:
    """What a task's file says of itself."""
    return About(task.name, task.metric, tuple(task.labels), split)


def save_predictions(found: Evaluation | Sequence[Prediction], path: Path, told: About | None = None) -> None:
    """Writes every prediction, the file whole or not at all. told: of which task they are, for `read_predictions`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    predictions = found.predictions if isinstance(found, Evaluation) else found
    table = pa.table(
        {
            "id": pa.array([one.row.id for one in predictions], pa.string()),
            "input": pa.array([one.row.input for one in predictions], pa.string()),
            "target": pa.array([one.row.target for one in predictions], pa.string()),
            "prediction": pa.array([one.text for one in predictions], pa.string()),
            "readable": pa.array([one.answer is not None for one in predictions], pa.bool_()),
            "nats": pa.array([one.nats for one in predictions], pa.float64()),
            "tokens": pa.array([one.tokens if one.nats is not None else None for one in predictions], pa.int32()),
            "answer": pa.array([one.answer for one in predictions], pa.string()),
            "references": pa.array([one.row.references for one in predictions], pa.list_(pa.string())),
            "group": pa.array([one.row.group for one in predictions], pa.string()),
            "choices": pa.array([one.choices for one in predictions], pa.list_(pa.float64())),
        }
    )
    if told is not None:
        table = table.replace_schema_metadata({ABOUT: json.dumps(asdict(told)).encode()})
    with whole_file(path) as beside:
        pq.write_table(table, beside, compression="zstd", write_page_checksum=True)


def read_predictions(path: Path) -> Kept:
    """A file that `save_predictions` wrote. UserError if it is missing, damaged or something else, or if two of its
    rows have the same id: then nothing says which row an answer belongs to."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path}: no such file; give predictions that `t5study evaluate --out` wrote")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            told = (file.schema_arrow.metadata or {}).get(ABOUT)
            if told is None:
                raise UserError(f"{path}: does not say which task it is of; run `t5study evaluate --out` again")
            columns = [column.to_pylist() for column in _columns(path, file.read())]
        kept = Kept(
            path, _about(json.loads(told)), tuple(_prediction(*values) for values in zip(*columns, strict=True))
        )
    except (pa.ArrowException, UnicodeDecodeError, ValueError, KeyError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: found damaged predictions ({reason}); run `t5study evaluate --out` again") from None
    twins = [name for name, count in Counter(one.row.id for one in kept.predictions).items() if count > 1]
    if twins:
        raise UserError(f"{path}: found {len(twins)} ids twice, {twins[0][:40]!r} first; give every row its own id")
    return kept


_COLUMNS = ("id", "input", "target", "prediction", "answer", "nats", "tokens", "references", "group", "choices")


def _columns(path: Path, table: Any) -> list[Any]:
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise UserError(f"{path}: has no column {missing[0]}; run `t5study evaluate --out` again")
    return [table.column(name) for name in _COLUMNS]


def _about(told: Any) -> About:
    return About(**{**told, "labels": tuple(told["labels"])})


def _prediction(
    name: str,
    source: str,
    target: str,
    text: str,
    answer: str | None,
    nats: float | None,
    tokens: int | None,
    references: Sequence[str],
    group: str,
    choices: Sequence[float],
) -> Prediction:
    row = Row(name, source, target, tuple(references or ()), group or "")
    return Prediction(row, text, answer, nats, tokens or 0, tuple(choices or ()))
