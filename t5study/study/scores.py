"""Scores: the cells of a table. A cell is Measured, Absent or Failed, and says which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PAPER_COLUMNS = ("GLUE", "CNNDM", "SQuAD", "SGLUE", "EnDe", "EnFr", "EnRo")


def figures(*values: float) -> dict[str, float]:
    """The paper's seven figures of a row, typed in its column order.

    >>> figures(83.28, 19.24, 80.88, 71.36, 26.98, 39.82, 27.65)["SGLUE"]
    71.36
    """
    if len(values) != len(PAPER_COLUMNS):
        raise ValueError(f"{len(values)} figures for {len(PAPER_COLUMNS)} columns")
    return dict(zip(PAPER_COLUMNS, values, strict=True))


@dataclass(frozen=True)
class Column:
    """One column of our tables. kind: "metric" (greedy answers) or "likelihood" (nats a target token)."""

    name: str
    task: str
    metric: str
    kind: str
    higher_is_better: bool
    unit: str


@dataclass(frozen=True)
class Measured:
    """value over n examples, of which `unreadable` answers were no answer at all (and counted as wrong), at the
    checkpoint of fine-tuning step `step`; low and high: the 95 % interval over examples (not over seeds)."""

    value: float
    n: int
    unreadable: int
    step: int
    low: float
    high: float


@dataclass(frozen=True)
class Absent:
    """Not measured in this study, and why."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """Tried and failed, and why."""

    reason: str


Cell = Measured | Absent | Failed


def cell_json(cell: Cell) -> dict[str, Any]:
    """
    >>> cell_json(Absent("not run"))
    {'state': 'absent', 'reason': 'not run'}
    """
    return {"state": type(cell).__name__.lower(), **asdict(cell)}


def mean_cell(cells: Sequence[Cell]) -> Cell:
    """The mean over tasks; its interval takes the tasks' examples as independent. One missing cell and it is missing,
    because a mean over other tasks would be another column."""
    for kind in (Failed, Absent):
        for cell in cells:
            if isinstance(cell, kind):
                return cell
    measured = [cell for cell in cells if isinstance(cell, Measured)]
    if not measured:
        return Absent("no task")
    k = len(measured)
    value = math.fsum(cell.value for cell in measured) / k
    below = math.sqrt(math.fsum((cell.value - cell.low) ** 2 for cell in measured)) / k
    above = math.sqrt(math.fsum((cell.high - cell.value) ** 2 for cell in measured)) / k
    return Measured(
        value,
        n=sum(cell.n for cell in measured),
        unreadable=sum(cell.unreadable for cell in measured),
        step=max(cell.step for cell in measured),
        low=value - below,
        high=value + above,
    )


def value_of(cells: Mapping[str, Cell], column: str) -> float | None:
    """The number in a column, or None where there is none."""
    cell = cells.get(column)
    return cell.value if isinstance(cell, Measured) else None
