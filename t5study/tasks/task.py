"""Task: rows -> (input text, target text) -> prediction -> metrics, as one value.

Everything in T5 is text in, text out. A task therefore is: texts to give, texts to expect, how an answer is read,
and what it is scored by. A classification task has labels, and an answer that is none of them is unreadable; it
counts as wrong and is counted (paper, section 2.4: "we count the model's output as wrong").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import xxhash

from t5study.ground.errors import UserError
from t5study.ground.store import read_json, write_json
from t5study.metrics import metric as metrics
from t5study.metrics.numbers import as_number

SPLITS = ("train", "validation")
TEST = "test"  # rows without labels, for a benchmark's submission files; neither learnt from nor scored
DATA = "T5STUDY_DATA"  # the environment variable that says where the benchmarks lie, where no folder is given
_SENTINEL = re.compile(r"<extra_id_\d+>")


@dataclass(frozen=True)
class Row:
    """One example as the model meets it.

    id: what a submission file needs to find the row again. references: all acceptable answers, where there are several;
    the first of them is what training aims at, and stands in `target`. group: rows of one group are scored together
    (MultiRC: the question, ReCoRD: the query); "" is a group of its own.

    Where a task's reading is "referent", references are the candidate and whether it is the referent, ("Ann", "True")
    or ("Ann", "False"), or the candidate alone, where that is not known (a test row); no references: it is the target.
    """

    id: str
    input: str
    target: str
    references: tuple[str, ...] = ()
    group: str = ""

    @property
    def answers(self) -> str | tuple[str, ...]:
        """What a prediction is compared with."""
        return self.references or self.target


@dataclass(frozen=True)
class TaskValue:
    """What of a task enters a fingerprint: not where its file lies, but what is in it and how it is scored."""

    name: str
    digest: str
    metric: str
    labels: tuple[str, ...]
    max_eval: int | None


@dataclass(frozen=True)
class Task:
    """name: its address ("pydocs/package", or a file's name). column: its heading in tables. metric: the number that
    its column shows; `metrics` has the others that come with it. rows: "train", "validation" or "test" -> its rows, in
    a fixed order; a split may be empty, "test" has no targets. digest: of the rendered rows of the first two. labels:
    the answers there are ((): any text). input_length, target_length: tokens, EOS counted, that rows are trimmed to
    unless a run says otherwise. max_eval: score only so many rows.

    >>> rows = Rows({"train": (Row("0", "is it? yes", "yes"),), "validation": (Row("1", "is it? no", "no"),)})
    >>> task = make_task("toy", rows, metric="accuracy", labels=("no", "yes"))
    >>> task.parse(" yes "), task.parse("yess")
    ('yes', None)
    >>> task.score(task.rows("validation"), ["no"])
    {'accuracy': 100.0}
    """

    name: str
    column: str
    metric: str
    rows: Callable[[str], Sequence[Row]] = field(repr=False)
    digest: str
    labels: tuple[str, ...] = ()
    input_length: int = 128
    target_length: int = 32
    max_eval: int | None = None

    def __post_init__(self) -> None:
        metric, _ = metrics.find(self.metric)
        if (metric.labels > 0 and len(self.labels) != metric.labels) or (metric.labels < 0 and len(self.labels) < 2):
            raise ValueError(f"task {self.name}: {self.metric} cannot be had from the labels {self.labels}")

    @property
    def metrics(self) -> tuple[str, ...]:
        """All numbers that come with the task's metric."""
        return metrics.find(self.metric)[0].names

    @property
    def primary(self) -> str:
        """The number that counts: what `metric` means, by its own name ("squad" means exact_match)."""
        return metrics.find(self.metric)[1]

    @property
    def choices(self) -> tuple[str, ...]:
        """The fixed labels that an answer is chosen among, so that a model can rank them; (): any text."""
        return self.labels

    @property
    def reading(self) -> str:
        """How an answer is judged: "exact", as its metric says, or "referent" (WSC, DPR, WNLI): the answer names the
        candidate or it does not, and either may be right (see Row)."""
        return "referent" if self.metric == "referent" else "exact"

    @property
    def value(self) -> TaskValue:
        """What enters fingerprints."""
        return TaskValue(self.name, self.digest, self.metric, self.labels, self.max_eval)

    @property
    def evaluation_rows(self) -> Sequence[Row]:
        """The validation rows that are scored."""
        return self.rows("validation")[: self.max_eval]

    def need(self, split: str) -> Sequence[Row]:
        """The rows of a split. UserError if there are none: the task is for evaluation only, or a file is missing."""
        if not (rows := self.rows(split)):
            told = getattr(self.rows, "missing", {}).get(split, f"it has none in its {split} split")
            raise UserError(f"task {self.name}: found no {split} rows; {told}")
        return rows

    def parse(self, text: str) -> str | None:
        """The answer in a decoded text; None if there is none: empty, sentinels only, no label, no number."""
        answer = text.strip()
        if self.labels:
            return answer if answer in self.labels else None
        if "pearson" in self.metrics:
            return answer if as_number(answer) is not None else None
        return answer if _SENTINEL.sub("", answer).strip() else None

    def score(self, rows: Sequence[Row], predictions: Sequence[str | None]) -> dict[str, float]:
        """Predictions as `parse` gave them -> all numbers of the metric, in per cent."""
        groups = [row.group for row in rows]
        return metrics.score(self.metric, [row.answers for row in rows], predictions, self.labels, groups)

    def intervals(self, rows: Sequence[Row], predictions: Sequence[str | None]) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over examples for the same numbers."""
        metric, _ = metrics.find(self.metric)
        groups = [row.group for row in rows]
        return metrics.intervals(metric, [row.answers for row in rows], predictions, self.labels, groups)


class Factory(Protocol):
    """What makes a built-in task. data: the folder that the benchmarks' files lie in."""

    def __call__(self, data: Path | None = None) -> Task: ...


# --- making one -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Rows held in memory: a callable that can be sent to another process. A split that is not there has no rows;
    missing: split -> what to do about it, for who needs it."""

    splits: Mapping[str, tuple[Row, ...]]
    missing: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    def __call__(self, split: str) -> Sequence[Row]:
        if split not in (*SPLITS, TEST):
            raise ValueError(f"split {split!r} is none of {(*SPLITS, TEST)}")
        return self.splits.get(split, ())


def digest_rows(splits: Mapping[str, Iterable[Row]]) -> str:
    """xxh3-128 over every rendered row of the two splits that have targets, in order. A row's group is in it where it
    has one."""
    digest = xxhash.xxh3_128()
    for split in SPLITS:
        for row in splits.get(split, ()):
            fields = [
                split,
                row.id,
                row.input,
                row.target,
                *row.references,
                *([{"group": row.group}] * bool(row.group)),
            ]
            line = json.dumps(fields, ensure_ascii=True)
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def make_task(name: str, rows: Rows, *, metric: str, column: str = "", **settings: Any) -> Task:
    """A Task whose digest is that of its rows; its column is the last part of its name unless given. UserError for an
    unknown metric."""
    metrics.find(metric)
    return Task(name, column or name.rpartition("/")[2], metric, rows, digest_rows(rows.splits), **settings)


# --- keeping rows: rendering a benchmark can take half a minute, reading it back takes a moment ---------------------


def keep(task: Task, folder: Path) -> None:
    """Writes a task's settings and rendered rows into a folder (task.json, train.jsonl, validation.jsonl; test rows are
    not kept)."""
    for split in SPLITS:
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for row in task.rows(split):
                fields = {"id": row.id, "input": row.input, "target": row.target, "references": row.references}
                if row.group:
                    fields["group"] = row.group
                file.write(json.dumps(fields, ensure_ascii=True) + "\n")
    settings = {
        "name": task.name,
        "column": task.column,
        "metric": task.metric,
        "digest": task.digest,
        "labels": task.labels,
        "input_length": task.input_length,
        "target_length": task.target_length,
        "max_eval": task.max_eval,
    }
    write_json(folder / "task.json", settings)


def kept(folder: Path) -> Task:
    """The task that `keep` wrote. UserError if its rows are not those it wrote."""
    settings = read_json(folder / "task.json")
    splits = {}
    for split in SPLITS:
        with open(folder / f"{split}.jsonl", encoding="utf-8") as file:
            fields = [json.loads(line) for line in file]
        splits[split] = tuple(Row(**{**one, "references": tuple(one["references"])}) for one in fields)
    if (found := digest_rows(splits)) != settings["digest"]:
        raise UserError(f"{folder}: found rows of digest {found}, not {settings['digest']}; delete it and run again")
    return Task(rows=Rows(splits), **{**settings, "labels": tuple(settings["labels"])})
