"""Splits that a benchmark's files do not give: cut out of those that are there, by document, and said so.

    task, note = complete(task)
    note        "no training rows there: the first 4,272 validation rows are trained on, the last 1,424 scored"

Official files are often there in part: a set without its training half, or training rows without any to score. What is
then cut is no official split, so whoever prints a number of it prints the note beside it. Rows are never invented, and
no document (passage, premise, source sentence) lies on both sides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from t5study.ground.errors import UserError
from t5study.tasks.task import SPLITS, Row, Rows, Task, digest_rows

SHARE = 4  # one row in so many is scored
MOST = 1000  # rows that are scored of a training set
_SHORTEST = 20  # characters from which a text that two rows share counts as a document


def complete(task: Task) -> tuple[Task, str]:
    """The task with both splits, and what is not official about them ("" if they are the files' own).

    The last quarter of the rows is scored (of training rows no more than 1,000), and rows that share a document with
    it are neither scored nor trained on. Files keep documents together, so this parts them as they stand. Training rows
    that ask the same and differ in their answer (ReCoRD's) are scored once, against all of these. UserError if there
    are no rows at all, or too few to part.
    """
    rows = {split: tuple(task.rows(split)) for split in SPLITS}
    if all(rows.values()):
        return task, ""
    split = "train" if rows["train"] else "validation"
    found = rows[split]
    if not found:
        task.need("validation")
    most = MOST if split == "train" else len(found)
    trained, scored = parted(found, min(most, len(found) // SHARE))
    scored = merged(scored) if split == "train" else scored
    if not trained or not scored:
        raise UserError(f"task {task.name}: found {len(found)} {split} rows, too few to part; bring the other split")
    splits = {"train": trained, "validation": scored}
    if split == "train":
        note = f"no validation rows there: the last {len(scored):,} training rows are scored, {len(trained):,} of the "
        note += "others trained on"
    else:
        note = f"no training rows there: the first {len(trained):,} validation rows are trained on, the last "
        note += f"{len(scored):,} scored"
    return dataclasses.replace(task, rows=Rows(splits), digest=digest_rows(splits)), note


def parted(rows: Sequence[Row], n: int) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The rows before the last n, and these; without those before that share a document with one of these.

    >>> rows = [Row(str(i), f"sum up: a text of some length, number {i // 2}", "x") for i in range(6)]
    >>> [[row.id for row in side] for side in parted(rows, 1)]
    [['0', '1', '2', '3'], ['5']]
    """
    kept = tuple(rows[len(rows) - n :])
    held = set[str]().union(*map(documents, kept))
    return tuple(row for row in rows[: len(rows) - n] if not held & documents(row)), kept


def merged(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows of one input as one row, whose references are the targets of all of them.

    >>> merged([Row("0", "who?", "Ann"), Row("1", "who?", "Bo")])
    (Row(id='0', input='who?', target='Ann', references=('Ann', 'Bo'), group=''),)
    """
    targets: dict[str, dict[str, None]] = {}
    for row in rows:
        targets.setdefault(row.input, {})[row.target] = None
    first = {row.input: row for row in reversed(rows)}
    return tuple(
        dataclasses.replace(first[text], references=tuple(these)) if len(these) > 1 else first[text]
        for text, these in targets.items()
    )


def first(rows: Sequence[Row], n: int | None) -> Sequence[Row]:
    """At most n rows from the beginning, None for all. Of a group that this would cut (the answers of one MultiRC
    question, of which only all together can be right) none is taken, unless it is the only one.

    >>> rows = [Row(str(i), "", "", group="ab"[i // 3]) for i in range(6)]
    >>> [len(first(rows, n)) for n in (2, 3, 4, 6, None)]
    [2, 3, 3, 6, 6]
    """
    if n is None or n >= len(rows):
        return rows
    cut = n
    while cut and rows[n].group and rows[cut - 1].group == rows[n].group:
        cut -= 1
    return rows[: cut or n]


def documents(row: Row) -> set[str]:
    """What an example is about: its longer fields, and its group. Inputs are "task key: text key: text", so between
    two colons stands a text with the next key behind it.

    >>> sorted(documents(Row("0", "mnli hypothesis: It rains. premise: Umbrellas are up all over town.", "entailment")))
    ['Umbrellas are up all over town.']
    """
    *before, last = row.input.split(": ")
    texts = [*(text.rpartition(" ")[0] for text in before[1:]), last, row.group]
    return {text for text in texts if len(text) >= _SHORTEST}
