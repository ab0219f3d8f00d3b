"""The paper's benchmarks in a study: which of their tasks are there, and what is not official about them.

    studied = find_studied(("all",), data=Path("data"), split_missing=True)

Files are often there in part. A task without rows is left out of its group and told; a benchmark of which a whole group
cannot be scored is absent, and its column says why. With `split_missing` a split that is not there is cut out of the
other one (tasks/splits.py), which the report tells too: a number of it is no number on the official split.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from t5study.ground.errors import Missing, UserError
from t5study.study.material import Chosen, GivenRows
from t5study.tasks.addresses import find
from t5study.tasks.benchmarks import BENCHMARKS, Benchmark, find_benchmark
from t5study.tasks.splits import complete
from t5study.tasks.task import DATA, Task


@dataclass(frozen=True)
class Studied:
    """One benchmark as a study runs it. benchmark: with those of its members that are there. trained: names of the
    tasks that are trained on. notes: (task, what is not official about it). absent: why it cannot be run, "" if it
    can; it has no tasks then."""

    benchmark: Benchmark
    tasks: tuple[Chosen, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    absent: str = ""

    @property
    def trained(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.benchmark.training)


def find_studied(names: Sequence[str], data: Path | None, split_missing: bool) -> tuple[Studied, ...]:
    """Benchmarks by name ("all": the seven columns), their tasks read and rendered. UserError for an unknown name, for
    damaged files, and if no benchmark at all can be run."""
    told = [part.strip() for name in names for part in name.split(",") if part.strip()]
    wanted = list(BENCHMARKS.values()) if "all" in told else [find_benchmark(name) for name in told]
    found = tuple(_studied(one, data, split_missing) for one in dict.fromkeys(wanted))
    if not any(one.tasks for one in found):
        raise UserError(f"--benchmarks: found none that can be run; {found[0].absent if found else 'give a name'}")
    return found


def _studied(benchmark: Benchmark, data: Path | None, split_missing: bool) -> Studied:
    tasks, missing, cut = dict[str, Task](), dict[str, str](), dict[str, str]()
    trains = dict(benchmark.training)
    for address in benchmark.addresses:
        try:
            tasks[address] = find(address, data=data)
        except Missing as told:
            missing[address] = _nameless(told, data)
            continue
        # A set to evaluate with alone (MNLI's mismatched one) needs no training rows, and DPR none to score.
        wanted = [split for split, these in (("train", trains), ("validation", benchmark.tasks)) if address in these]
        if split_missing and len(wanted) == 2 and not all(map(tasks[address].rows, wanted)):
            tasks[address], cut[address] = complete(tasks[address])

    def lacks(address: str, split: str) -> str:
        """Why a task has no rows of a split; "" if it has some."""
        return missing.get(address) or _why(tasks[address], split, data)

    unscored = {address: why for address in benchmark.tasks if (why := lacks(address, "validation"))}
    untrained = {address: why for address in trains if (why := lacks(address, "train"))}
    notes = cut | {address: f"not trained on: {why}" for address, why in untrained.items()}
    notes |= {address: f"not scored: {why}" for address, why in unscored.items()}
    told = tuple((address, notes[address]) for address in benchmark.addresses if address in notes)
    groups = tuple(tuple(address for address in group if address not in unscored) for group in benchmark.members)
    lost = next((group[0] for group, left in zip(benchmark.members, groups, strict=True) if not left), None)
    if lost is None and len(untrained) == len(trains):
        lost = next(iter(trains))
    if lost:
        remedy = "" if split_missing else "; or let --split-missing cut it out of what is there"
        return Studied(benchmark, notes=told, absent=f"{lost} is {notes[lost]}{remedy}")
    training = tuple((address, rate) for address, rate in benchmark.training if address not in untrained)
    there = replace(benchmark, members=groups, training=training)
    chosen = (GivenRows(tasks[name].value, name, None, data, completed=name in cut) for name in there.addresses)
    return Studied(there, tuple(map(Chosen, chosen)), told)


def _why(task: Task, split: str, data: Path | None) -> str:
    """What a task says of a split that has no rows; "" if it has some."""
    try:
        task.need(split)
    except UserError as told:
        return _nameless(told, data)
    return ""


def _nameless(told: UserError, data: Path | None) -> str:
    """A mistake in words that are the same wherever the benchmarks lie: they go into scores.json."""
    folder = str(data or os.environ.get(DATA, ""))
    return str(told).replace(f"{folder}/", "").replace(folder, "the folder of the benchmarks") if folder else str(told)
