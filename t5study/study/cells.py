"""Columns and cells: what stands in a study's tables, out of its tasks' scores.

Without benchmarks: a column a task for its metric, their mean; then the same for the likelihood of the targets. With
benchmarks: a column a benchmark (the paper's seven), their mean, and beside them a column a task of those that have
several; then the same for likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from t5study.study.benchmarks import Studied
from t5study.study.scores import Absent, Cell, Column, Measured, mean_cell
from t5study.tasks.task import Task

MEAN = "mean"


def columns(tasks: Sequence[Task], studied: Sequence[Studied] = ()) -> list[Column]:
    """The columns of a study, those of greedy answers first."""
    metric = [Column(name, task, metric, "metric", True, "%") for name, task, metric in _headings(tasks, studied)]
    nats = [Column(f"{column.name} nats", column.task, "nats", "likelihood", False, "nats/token") for column in metric]
    return [*metric, *nats]


def cells_of(
    scores: Mapping[str, Any], tasks: Sequence[Task], studied: Sequence[Studied] = (), lost: Mapping[str, Cell] = {}
) -> dict[str, Cell]:
    """Runs' scores by task -> the cells of one experiment, by column. lost: tasks without scores -> why."""

    def of(kind: str) -> Callable[[str], Cell]:
        return lambda name: lost[name] if name in lost else Measured(**scores[name][kind])

    metric = _cells(tasks, studied, of("metric"))
    return metric | {f"{name} nats": cell for name, cell in _cells(tasks, studied, of("nats")).items()}


def _headings(tasks: Sequence[Task], studied: Sequence[Studied]) -> Iterator[tuple[str, str, str]]:
    """(column, task or benchmark, metric) of the columns of greedy answers."""
    if not studied:
        yield from ((task.column, task.name, task.primary) for task in tasks)
        yield MEAN, MEAN, MEAN
        return
    primary = {task.name: task.primary for task in tasks}
    for one in studied:
        alone = one.benchmark.tasks[0] if len(one.benchmark.tasks) == 1 else None
        yield one.benchmark.column, one.benchmark.name, primary.get(alone or "", "average")
    yield MEAN, MEAN, MEAN
    yield from ((column, name, primary[name]) for name, column in task_columns(tasks, studied).items())


def task_columns(tasks: Sequence[Task], studied: Sequence[Studied]) -> dict[str, str]:
    """Scored task -> its column, of the benchmarks that have several: its own heading, with the benchmark's before it
    where two would be the same (RTE). A task that is a benchmark by itself has that one's column."""
    own = {task.name: task.column for task in tasks}
    several = [one.benchmark for one in studied if one.tasks and len(one.benchmark.tasks) > 1]
    taken = [*(one.benchmark.column for one in studied), *(own[name] for bench in several for name in bench.tasks)]
    return {
        name: own[name] if taken.count(own[name]) == 1 else f"{bench.column} {own[name]}"
        for bench in several
        for name in bench.tasks
    }


def _cells(tasks: Sequence[Task], studied: Sequence[Studied], of: Callable[[str], Cell]) -> dict[str, Cell]:
    """The cells of one kind, by the names of the columns of greedy answers."""
    if not studied:
        found = {task.column: of(task.name) for task in tasks}
        return found | {MEAN: mean_cell(list(found.values()))}
    found = {
        one.benchmark.column: Absent(one.absent)
        if one.absent
        else mean_cell([mean_cell([of(name) for name in group]) for group in one.benchmark.members])
        for one in studied
    }
    mean = mean_cell([found[one.benchmark.column] for one in studied if not one.absent])
    return found | {MEAN: mean} | {column: of(name) for name, column in task_columns(tasks, studied).items()}
