"""Contamination: which of a task's rows does a corpus hold already?

The paper does not ask. Two published rules are here, and any in between:

    gpt3    Brown et al. 2020, appendix C: a row is dirty if any run of n words of it is in the corpus; n is the number
            of words that 5 % of the task's rows stay below, from 8 to 13; runs that the corpus has more than ten times
            are common phrases and do not count
    palm    Chowdhery et al. 2022, section 8: a row is dirty if 70 % of its runs of 8 words are in the corpus

The corpus is read once, a document at a time, for all tasks together; what is held is the rows, their runs, and
nothing of the corpus. A row's fields (question, context, ...) are told apart, so that no run goes from one into the
next and the words of the task's own template are none of the row's. Where answers are free text they are looked for,
too. A row with too few words for a single run cannot be told, and is counted apart.

    N  rows    G  runs of a task, row after row    U  places of runs that are not the same
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t5study.corpus.page import Page
from t5study.evaluate import ngrams
from t5study.ground.errors import UserError
from t5study.tasks.task import Row, Task

_SEEN = 4096  # runs of one document whose place is noted; more of them are counted all the same
_NOTED = 100_000  # runs of a whole corpus whose first document is remembered
_TEMPLATE = re.compile(r"\S+:(?=\s|$)")


@dataclass(frozen=True)
class Rule:
    """When a row counts as dirty. n: words of a run; 0: as gpt3 finds it. share: the least part of the row's runs that
    must be in the corpus; 0: any one. common: runs that the corpus has more often than this do not count; 0: all do."""

    n: int
    share: float
    common: int


RULES = {"gpt3": Rule(n=0, share=0.0, common=10), "palm": Rule(n=8, share=0.7, common=0)}


@dataclass(frozen=True)
class Example:
    """A dirty row: the first of its runs that was found, and the document it was first found in."""

    id: str
    run: str
    document: str


@dataclass(frozen=True)
class Contamination:
    """Of one task. n: words of a run. share_N: the part of each row's runs that is in the corpus, nan where it has
    none. dirty_N: which rows count as dirty."""

    task: str
    rule: Rule
    n: int
    ids: tuple[str, ...]
    share_N: np.ndarray
    dirty_N: np.ndarray
    examples: tuple[Example, ...]

    @property
    def short(self) -> int:
        """Rows that are too short to be told."""
        return int(np.isnan(self.share_N).sum())

    @property
    def dirty(self) -> int:
        return int(self.dirty_N.sum())

    def summary(self) -> dict[str, Any]:
        """All but the rows, as JSON."""
        told = self.share_N[~np.isnan(self.share_N)]
        return {
            "task": self.task,
            "rule": {"n": self.n, "share": self.rule.share, "common": self.rule.common},
            "rows": len(self.ids),
            "too_short": self.short,
            "dirty": self.dirty,
            "dirty_per_cent": 100 * self.dirty / len(self.ids),
            "mean_share": float(told.mean()) if len(told) else None,
            "examples": [{"id": one.id, "run": one.run, "document": one.document} for one in self.examples],
        }


def contamination(
    tasks: Sequence[tuple[Task, Sequence[Row]]], pages: Iterable[Page], rule: Rule
) -> list[Contamination]:
    """Each task's rows against a corpus. UserError for a task without rows, or a corpus without a document."""
    asked = [_Asked.of(task, rows, rule) for task, rows in tasks]
    tables = {
        n: ngrams.Table.of(np.concatenate([one.run_G for one in asked if one.n == n]), n) for n in _lengths(asked)
    }
    first: dict[int, dict[int, str]] = {n: {} for n in tables}
    seen, documents = np.empty(_SEEN, np.int64), 0
    for page in pages:
        documents += 1
        number_W = ngrams.word_numbers(page.text)
        for n, table in tables.items():
            new = table.see(number_W, seen)
            if new and len(first[n]) < _NOTED:
                first[n].update(dict.fromkeys(seen[:new].tolist(), page.url))
    if not documents:
        raise UserError("corpus: found no document; give text that has some")
    return [_judged(one, tables[one.n], first[one.n], rule) for one in asked]


# --- one task -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A task's rows as runs. row_G: the row that each is of."""

    task: Task
    rows: Sequence[Row]
    texts: list[list[str]]
    n: int
    run_G: np.ndarray
    row_G: np.ndarray

    @staticmethod
    def of(task: Task, rows: Sequence[Row], rule: Rule) -> _Asked:
        if not rows:
            raise UserError(f"task {task.name}: found no rows to look for; give another split")
        texts = fields(task, rows)
        numbers = [[ngrams.word_numbers(text) for text in each] for each in texts]
        n = rule.n or run_length([sum(map(len, each)) for each in numbers])
        runs = [[ngrams.runs(number_W, n) for number_W in each] for each in numbers]
        flat = [run_G for each in runs for run_G in each]
        count_N = np.array([sum(map(len, each)) for each in runs])
        run_G = np.concatenate([np.zeros(0, np.uint64), *flat])
        return _Asked(task, rows, texts, n, run_G, np.repeat(np.arange(len(rows)), count_N))


def _lengths(asked: Sequence[_Asked]) -> list[int]:
    return sorted({one.n for one in asked})


def run_length(words_N: Sequence[int]) -> int:
    """gpt3's n: the number of words that 5 % of the rows stay below, from 8 to 13.

    >>> run_length([5, 9, 30, 40]), run_length([11] * 20), run_length([500] * 20)
    (8, 11, 13)
    """
    return int(np.clip(np.floor(np.percentile(words_N, 5)), 8, 13))


def fields(task: Task, rows: Sequence[Row]) -> list[list[str]]:
    """Each row's own texts: its input without the words of the template, cut where they stand; its answers, where they
    are free text. The template is what every row has: words that end in a colon, and what stands before the first."""
    marks = [mark for mark in dict.fromkeys(_TEMPLATE.findall(rows[0].input)) if all(mark in row.input for row in rows)]
    if marks:
        cut = re.compile("|".join(rf"(?<!\S){re.escape(mark)}(?=\s|$)" for mark in marks))
        parts = [cut.split(row.input) for row in rows]
        if len(rows) > 1 and len({each[0] for each in parts}) == 1:
            parts = [each[1:] for each in parts]
    else:
        parts = [[row.input] for row in rows]
    if not task.labels:
        parts = [[*each, *dict.fromkeys((row.target, *row.references))] for each, row in zip(parts, rows, strict=True)]
    return parts


def _judged(one: _Asked, table: ngrams.Table, first: dict[int, str], rule: Rule) -> Contamination:
    place_G = table.places(one.run_G)
    count_G = table.count_T[place_G]
    there_G = count_G > 0
    if rule.common:
        there_G &= count_G <= rule.common
    total_N = np.bincount(one.row_G, minlength=len(one.rows))
    found_N = np.bincount(one.row_G, there_G, minlength=len(one.rows))
    share_N = np.full(len(one.rows), np.nan)
    share_N[total_N > 0] = found_N[total_N > 0] / total_N[total_N > 0]
    dirty_N = (found_N > 0) & (np.nan_to_num(share_N) >= rule.share)
    examples = []
    for row in np.flatnonzero(dirty_N)[:5]:
        of_row = np.flatnonzero(one.row_G == row)
        at = int(np.flatnonzero(there_G[of_row])[0])
        run = _run_at(one.texts[row], at, one.n)
        examples.append(Example(one.rows[row].id, run, first.get(int(place_G[of_row[at]]), "")))
    ids = tuple(row.id for row in one.rows)
    return Contamination(one.task.name, rule, one.n, ids, share_N, dirty_N, tuple(examples))


def _run_at(texts: Sequence[str], at: int, n: int) -> str:
    """The words of a row's run of that number."""
    for text in texts:
        words = ngrams.words(text)
        if at < (there := max(0, len(words) - n + 1)):
            return " ".join(words[at : at + n])
        at -= there
    raise ValueError(f"run {at} of a row that has fewer")
