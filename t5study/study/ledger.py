"""The ledger: scores.json and costs.json, out of what the store holds.

scores.json is a function of the question and of the stages in the store, nothing else: the same bytes however often
the study was interrupted and in whatever order its runs ended. costs.json holds what is never the same twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.machine import describe
from t5study.ground.store import Store, fingerprint, read_json, read_manifest, write_json
from t5study.study.baseline import BASELINE
from t5study.study.experiment import Experiment
from t5study.study.noise import gain, spread
from t5study.study.question import Question
from t5study.study.scores import Cell, Column, Failed, Measured, cell_json, mean_cell, value_of
from t5study.study.stages import COST, Stage, folder, has, result, stage_id
from t5study.study.table import Table
from t5study.study.tables.declared import SEARCH, TABLES, row_of
from t5study.study.training import Finetune
from t5study.tasks.task import Task

SCORES, COSTS = "scores.json", "costs.json"
FORMAT = 1
NO_PRETRAINING = BASELINE.but(pretraining=0.0)
Reason = Callable[[Stage], str | None]


def columns(tasks: Sequence[Task]) -> list[Column]:
    """A column a task for its metric, their mean; then the same for the likelihood of the targets."""
    metric = [Column(task.column, task.name, task.primary, "metric", True, "%") for task in tasks]
    nats = [Column(f"{task.column} nats", task.name, "nats", "likelihood", False, "nats/token") for task in tasks]
    return [
        *metric,
        Column("mean", "mean", "mean", "metric", True, "%"),
        *nats,
        Column("mean nats", "mean", "nats", "likelihood", False, "nats/token"),
    ]


def cells_of(scores: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, Cell]:
    """A finished run's scores -> its cells, by column."""
    metric = {task.column: Measured(**scores[task.name]["metric"]) for task in tasks}
    nats = {f"{task.column} nats": Measured(**scores[task.name]["nats"]) for task in tasks}
    return {**metric, "mean": mean_cell(list(metric.values())), **nats, "mean nats": mean_cell(list(nats.values()))}


def seeds_of(experiment: Experiment, seeds: int) -> list[Experiment]:
    """The same experiment from one seed after another."""
    return [experiment.but(seed=experiment.seed + i) for i in range(seeds)]


class Ledger:
    """Reads runs out of a store, each once: make a new one when there are more. reason: why a stage failed in this
    session, None if it did not."""

    def __init__(self, question: Question, store: Store, reason: Reason = lambda stage: None):
        self.question, self.store, self._reason = question, store, reason
        self._cells: dict[Finetune, dict[str, Cell] | None] = {}

    @cached_property
    def tasks(self) -> list[Task]:
        return self.question.load_tasks(self.store)

    def cells(self, experiment: Experiment) -> dict[str, Cell] | None:
        """The cells of one experiment; None if it has neither been run nor failed."""
        stage = self.question.stage(experiment)
        if stage not in self._cells:
            self._cells[stage] = self._read(stage)
        return self._cells[stage]

    def _read(self, stage: Finetune) -> dict[str, Cell] | None:
        if has(self.store, stage):
            return cells_of(result(self.store, stage)["tasks"], self.tasks)
        if reason := self._reason(stage):
            return {column.name: Failed(reason) for column in columns(self.tasks)}
        return None

    def values(self, experiments: Iterable[Experiment], column: str) -> list[float]:
        """The numbers in a column of those experiments that have one."""
        found = (value_of(self.cells(one) or {}, column) for one in experiments)
        return [value for value in found if value is not None]

    def runs_of(self, experiment: Experiment) -> list[str]:
        """Fingerprints of the runs of an experiment, over its seeds."""
        return [
            _key(self.question.stage(one))
            for one in seeds_of(experiment, self.question.scale.seeds)
            if self.cells(one) is not None
        ]

    # --- scores.json ----------------------------------------------------------------------------------------------

    def scores(self, experiments: Iterable[Experiment], rounds: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """scores.json as a value: these experiments (those that have not been run are left out), and the rounds."""
        question, setting = self.question, self.question.setting
        told = columns(self.tasks)
        seeds = question.scale.seeds
        declared = [one for table in TABLES for row in table.rows for one in seeds_of(row.experiment, seeds)]
        runs: dict[str, Any] = {}
        for experiment in [*experiments, *declared]:
            cells = self.cells(experiment)
            key = _key(question.stage(experiment))
            if cells is not None and key not in runs:
                runs[key] = self._run(experiment, cells)
        baselines, fresh = seeds_of(BASELINE, seeds), seeds_of(NO_PRETRAINING, seeds)
        noise, brought = {}, {}
        for column in told:
            with_it, without = self.values(baselines, column.name), self.values(fresh, column.name)
            if with_it:
                noise[column.name] = asdict(spread(with_it))
            if with_it and without:
                found = gain(with_it, without, column.higher_is_better)
                brought[column.name] = {**asdict(found), "above_noise": found.above_noise}
        tokens = read_json(folder(self.store, setting.tokens) / "tokens.json")
        corpus = read_manifest(folder(self.store, setting.corpus))
        contents = sorted((name, file["xxh3"]) for name, file in corpus["files"].items() if name != COST)
        return {
            "format": FORMAT,
            "scale": question.scale.flat(),
            "corpus": {
                "name": question.corpus_name,
                "documents": tokens["documents"],
                "tokens": tokens["tokens"],
                "digest": fingerprint(contents),
            },
            "vocab": result(self.store, setting.vocabulary),
            "tasks": [self._task(task) for task in self.tasks],
            "columns": [asdict(column) for column in told],
            "verdict_column": question.scale.verdict_column,
            "runs": runs,
            "noise": noise,
            "gain": brought,
            "tables": [self._table(table) for table in TABLES if table in SEARCH or self._begun(table)],
            "rounds": list(rounds),
        }

    def _run(self, experiment: Experiment, cells: Mapping[str, Cell]) -> dict[str, Any]:
        stage = self.question.stage(experiment)
        tuned = result(self.store, stage) if has(self.store, stage) else None
        start = stage.start
        trained = result(self.store, start) if start and has(self.store, start) else None
        first, last = trained or tuned, tuned or trained
        return {
            "experiment": experiment.flat(),
            "label": label(experiment),
            "seed": experiment.seed,
            "cells": {name: cell_json(cell) for name, cell in cells.items()},
            "pretrain": stage_id(start) if start else None,
            "finetune": stage_id(stage),
            "tokens": {
                "pretrain": trained["tokens"] if trained else None if start else 0,
                "finetune": tuned["tokens"] if tuned else None,
            },
            "parameters": last["parameters"] if last else None,
            "trainable": tuned.get("trainable", tuned["parameters"]) if tuned else None,
            "first_loss": first["first_loss"] if first else None,
        }

    def _task(self, task: Task) -> dict[str, Any]:
        return {
            "name": task.name,
            "column": task.column,
            "metric": task.primary,
            "digest": task.digest,
            "train_rows": len(task.rows("train")),
            "validation_rows": len(task.evaluation_rows[: self.question.scale.evaluation_rows]),
        }

    def _begun(self, table: Table) -> bool:
        """Whether anything has been run that no table before it has."""
        return any(self.runs_of(row.experiment) for row in table.rows if row_of(row.experiment) is row)

    def _table(self, table: Table) -> dict[str, Any]:
        return {
            "number": table.number,
            "caption": table.caption,
            "axes": list(table.axes),
            "rows": [
                {
                    "label": row.label,
                    "starred": row.starred,
                    "paper": row.paper,
                    "erratum": row.erratum,
                    "runs": self.runs_of(row.experiment),
                }
                for row in table.rows
            ],
            "deviation": table.deviation,
        }

    # --- costs.json -----------------------------------------------------------------------------------------------

    def costs(self, experiments: Iterable[Experiment]) -> dict[str, Any]:
        """Seconds of wall-clock by run, and all stages' together (their sum: workers ran side by side)."""
        runs, counted = {}, dict[str, float]()
        setting = self.question.setting
        for stage in (setting.corpus, setting.vocabulary, setting.tokens, *(task.rows for task in setting.tasks)):
            counted[stage_id(stage)] = self._seconds(stage) or 0.0
        for experiment in experiments:
            stage = self.question.stage(experiment)
            pretrained, tuned = self._seconds(stage.start) if stage.start else 0.0, self._seconds(stage)
            if tuned is None:
                continue
            speed = None
            if stage.start and pretrained:
                counted[stage_id(stage.start)] = pretrained
                speed = result(self.store, stage.start)["tokens"] / pretrained
            counted[stage_id(stage)] = tuned
            runs[_key(stage)] = {
                "pretrain_s": pretrained,
                "finetune_s": tuned,
                "tokens_per_s": None if speed is None else round(speed, 1),
            }
        return {"machine": describe(), "runs": runs, "total_s": round(sum(counted.values()), 1)}

    def _seconds(self, stage: Stage) -> float | None:
        if not has(self.store, stage):
            return None
        return read_json(folder(self.store, stage) / COST)["seconds"]


def _key(stage: Finetune) -> str:
    """The fingerprint by which scores.json knows a run."""
    return stage_id(stage).rpartition("/")[2]


def label(experiment: Experiment) -> str:
    """What a run is called: what pre-training hid, and how else it departs from the baseline."""
    start = experiment.objective.label if experiment.pretraining else "no pre-training"
    return ", ".join(filter(None, (start, experiment.variant(BASELINE, "architecture", "tuning"))))


def paper_figures(experiment: Experiment) -> dict[str, float] | None:
    """The paper's figures of an experiment, if it ran it."""
    row = row_of(experiment)
    return row.paper if row else None


def write(out: Path, ledger: Ledger, experiments: Sequence[Experiment], rounds: Sequence[dict[str, Any]] = ()) -> None:
    """Writes scores.json and costs.json, each whole; leaves them alone if they say so already."""
    for name, value in [
        (SCORES, ledger.scores(experiments, rounds)),
        (COSTS, ledger.costs(experiments)),
    ]:
        path = out / name
        try:
            same = path.is_file() and read_json(path) == value
        except UserError:
            same = False  # damaged: written anew
        if not same:
            write_json(path, value)
