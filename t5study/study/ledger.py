"""The ledger: scores.json and costs.json, out of what the store holds.

scores.json is a function of the question and of the stages in the store, nothing else: the same bytes however often
the study was interrupted and in whatever order its runs ended. costs.json holds what is never the same twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.fingerprint import fingerprint
from t5study.ground.machine import describe
from t5study.ground.store import Store, read_json, read_manifest, write_json
from t5study.study import promised
from t5study.study.baseline import BASELINE
from t5study.study.benchmarks import Studied
from t5study.study.cells import cells_of, columns
from t5study.study.experiment import VARIED, Experiment
from t5study.study.material import Tokens
from t5study.study.multitask import MultiTaskTraining
from t5study.study.noise import gain, spread
from t5study.study.plans import Last, relative
from t5study.study.question import Question
from t5study.study.scores import Cell, Column, Failed, cell_json, value_of
from t5study.study.stages import COST, Stage, folder, has, needed, result, stage_id
from t5study.study.starts import tokens_read
from t5study.study.table import Row, Table
from t5study.study.tables.declared import SEARCH, row_of
from t5study.study.tables.later import LATER
from t5study.study.training import Finetune, Start
from t5study.tasks.splits import first
from t5study.tasks.task import Task

SCORES, COSTS = "scores.json", "costs.json"
FORMAT = 1
SCALED = {"size", "batch", "ensemble", "gated", "tied", "finetuning"}  # axes of tables that tell sizes and costs
Reason = Callable[[Stage], str | None]


def seeds_of(experiment: Experiment, seeds: int) -> list[Experiment]:
    """The same experiment from one seed after another."""
    return [experiment.but(seed=experiment.seed + i) for i in range(seeds)]


def repeats(baseline: Experiment, seeds: int) -> list[Experiment]:
    """What noise is known from, and what pre-training brought: the baseline, and fine-tuning without pre-training."""
    return [*seeds_of(baseline, seeds), *seeds_of(baseline.but(pretraining=0.0), seeds)]


class Ledger:
    """Reads runs out of a store, each once: make a new one when there are more. reason: why a stage failed in this
    session, None if it did not. most_seeds: of an experiment that are looked for, where that is more than the scale's
    (rounds that are played until they are decided)."""

    def __init__(self, question: Question, store: Store, reason: Reason = lambda stage: None, most_seeds: int = 0):
        self.question, self.store, self._reason = question, store, reason
        self.seeds = max(question.scale.seeds, most_seeds)
        self._cells: dict[tuple[Last, ...], dict[str, Cell] | None] = {}

    @cached_property
    def tasks(self) -> list[Task]:
        return self.question.load_tasks(self.store)

    @cached_property
    def columns(self) -> list[Column]:
        return columns(self.tasks, self.question.setting.benchmarks)

    def cells(self, experiment: Experiment) -> dict[str, Cell] | None:
        """The cells of one experiment; None if it has neither been run nor failed, or cannot be run here."""
        stages = self.question.stages(experiment)
        if not stages:
            return None
        if stages not in self._cells:
            self._cells[stages] = self._read(stages)
        return self._cells[stages]

    def _read(self, stages: Sequence[Last]) -> dict[str, Cell] | None:
        scores, lost = dict[str, Any](), dict[str, Cell]()
        for stage in stages:
            if has(self.store, stage):
                scores |= result(self.store, stage)["tasks"]
            elif reason := self._reason(stage):
                lost |= {task.name: Failed(reason) for task in self._of(stage)}
            else:
                return None
        return cells_of(scores, self.tasks, self.question.setting.benchmarks, lost)

    def _of(self, stage: Last) -> list[Task]:
        """The tasks of a stage."""
        mine = set(stage.tasks)
        return [task for chosen, task in zip(self.question.setting.tasks, self.tasks, strict=True) if chosen in mine]

    def values(self, experiments: Iterable[Experiment], column: str) -> list[float]:
        """The numbers in a column of those experiments that have one."""
        found = (value_of(self.cells(one) or {}, column) for one in experiments)
        return [value for value in found if value is not None]

    def runs_of(self, experiment: Experiment) -> list[str]:
        """Fingerprints of the runs of an experiment, over its seeds."""
        return [
            _key(self.question.stages(one)) for one in seeds_of(experiment, self.seeds) if self.cells(one) is not None
        ]

    # --- scores.json ----------------------------------------------------------------------------------------------

    def scores(self, experiments: Iterable[Experiment], rounds: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """scores.json as a value: these experiments (those that have not been run are left out), and the rounds."""
        question, setting = self.question, self.question.setting
        told = self.columns
        seeds = self.seeds
        declared = [one for table in question.tables for row in table.rows for one in seeds_of(row.experiment, seeds)]
        runs: dict[str, Any] = {}
        asked = set(experiments)
        for experiment in [*experiments, *declared]:
            cells = self.cells(experiment)
            if cells is not None and (key := _key(question.stages(experiment))) not in runs:
                runs[key] = self._run(experiment, cells)
        baselines, fresh = seeds_of(setting.baseline, seeds), seeds_of(setting.baseline.but(pretraining=0.0), seeds)
        noise, brought = {}, {}
        for column in told:
            with_it, without = self.values(baselines, column.name), self.values(fresh, column.name)
            if with_it:
                noise[column.name] = asdict(spread(with_it))
            if with_it and without:
                found = gain(with_it, without, column.higher_is_better)
                brought[column.name] = {**asdict(found), "above_noise": found.above_noise}
        studied = [_studied(one) for one in setting.benchmarks]
        texts = {name: self._text(setting.tokens_of(name)) for name, _ in setting.texts}
        texts = {name: told for name, told in texts.items() if told}
        return (
            ({"benchmarks": studied} if studied else {})
            | ({"texts": texts} if texts else {})
            | {
                "format": FORMAT,
                "scale": question.scale.flat(),
                "corpus": {"name": question.corpus_name} | self._text(setting.tokens),
                "vocab": result(self.store, setting.vocabulary),
                "tasks": [self._task(task) for task in self.tasks],
                "columns": [asdict(column) for column in told],
                "verdict_column": question.scale.verdict_column,
                "runs": runs,
                "noise": noise,
                "gain": brought,
                "tables": [self._table(table, asked) for table in question.tables if self._told(table, asked)],
                "rounds": list(rounds),
            }
        )

    def _text(self, tokens: Tokens) -> dict[str, Any]:
        """A text that is in the store; {} if it is not."""
        if not has(self.store, tokens):
            return {}
        counts = read_json(folder(self.store, tokens) / "tokens.json")
        corpus = read_manifest(folder(self.store, tokens.corpus))
        contents = sorted((name, file["xxh3"]) for name, file in corpus["files"].items() if name != COST)
        return {"documents": counts["documents"], "tokens": counts["tokens"], "digest": fingerprint(contents)}

    def _run(self, experiment: Experiment, cells: Mapping[str, Cell]) -> dict[str, Any]:
        stages = self.question.stages(experiment)
        tuned = [result(self.store, stage) for stage in stages if has(self.store, stage)]
        start, before = stages[0].start, starts_of(stages)
        trained = result(self.store, start) if start and has(self.store, start) else None
        read = [result(self.store, stage)["tokens"] for stage in before if has(self.store, stage)]
        whole = tuned if len(tuned) == len(stages) else []
        first, last = trained or next(iter(tuned), None), next(iter(tuned), None) or trained
        ids = [stage_id(stage) for stage in stages]
        several = {"finetunes": ids} if len(ids) > 1 else {}
        several |= {"pretrains": [stage_id(stage) for stage in before]} if len(before) > 1 else {}
        return (
            several
            | self._repeats(experiment)
            | {
                "experiment": experiment.flat(),
                "label": label(experiment, self.question.setting.baseline),
                "seed": experiment.seed,
                "cells": {name: cell_json(cell) for name, cell in cells.items()},
                # Multi-task training is both: the report draws its losses beside pre-training's.
                "pretrain": stage_id(start) if start else ids[0] if isinstance(stages[0], MultiTaskTraining) else None,
                "finetune": ids[0],
                "tokens": {
                    "pretrain": sum(read) if len(read) == len(before) else None,
                    "finetune": sum(one["tokens"] for one in whole) if whole else None,
                },
                "parameters": last["parameters"] if last else None,
                "trainable": tuned[0].get("trainable", tuned[0]["parameters"]) if tuned else None,
                "first_loss": first["first_loss"] if first else None,
            }
        )

    def _repeats(self, experiment: Experiment) -> dict[str, Any]:
        """How often pre-training goes through a text that was cut for that: it is never cut below one example."""
        if not experiment.repeats:
            return {}
        tokens = next(
            (one for one in needed(self.question.stages(experiment)).values() if isinstance(one, Tokens)), None
        )
        there = self._text(tokens).get("tokens") if tokens else None
        read = tokens_read(experiment, self.question.setting)
        return {"text": {"tokens": there, "repeats": round(read / there, 1)}} if there else {}

    def _task(self, task: Task) -> dict[str, Any]:
        return {
            "name": task.name,
            "column": task.column,
            "metric": task.primary,
            "digest": task.digest,
            "train_rows": len(task.rows("train")),
            "validation_rows": len(first(task.evaluation_rows, self.question.scale.evaluation_rows)),
        }

    def _told(self, table: Table, asked: set[Experiment]) -> bool:
        """Whether a table stands in the scores. Of an own study its own do, once a row was asked, and of the others
        those of which all has been run."""
        if not self.question.own:
            return table in SEARCH or self._begun(table, asked)
        if table in self.question.own.tables:
            return any(row.experiment in asked and not table.starred(row) for row in table.rows)
        return all(self.runs_of(row.experiment) for row in table.rows)

    def _begun(self, table: Table, asked: set[Experiment]) -> bool:
        """Whether anything has been run, or asked for in vain, that no table before it has. Of a later paper's table it
        must be all such rows: the rounds come by some of them (25% in spans of 3), and no study may change for that."""
        own = [row.experiment for row in table.rows if row_of(row.experiment) is row]
        enough = all if table in LATER else any
        return enough(self.runs_of(one) or (one in asked and self.question.absent(one)) for one in own)

    def _absent(self, row: Row, asked: set[Experiment]) -> dict[str, Any]:
        """Why a row that was asked for could not be run."""
        why = self.question.absent(row.experiment) if row.experiment in asked else ""
        return {"absent": why} if why else {}

    def _table(self, table: Table, asked: set[Experiment]) -> dict[str, Any]:
        return {
            "number": table.number,
            "caption": table.caption,
            "axes": list(table.axes),
            "rows": [
                self._absent(row, asked)
                | self._relative(table, row)
                | ({"published": [asdict(one) for one in row.published]} if row.published else {})
                | {
                    "label": row.label,
                    "starred": table.starred(row),
                    "paper": row.paper,
                    "erratum": row.erratum,
                    "runs": self.runs_of(row.experiment),
                }
                for row in table.rows
            ],
            "deviation": table.deviation,
        }

    def _relative(self, table: Table, row: Row) -> dict[str, Any]:
        """Size and cost beside the baseline's, where the table is about them."""
        if not SCALED & set(table.axes):
            return {}
        if self.question.absent(row.experiment):
            return {}
        size, cost = relative(row.experiment, self.question.setting)
        return {"relative": {"parameters": round(size, 3), "cost": round(cost, 3)}}

    # --- costs.json -----------------------------------------------------------------------------------------------

    def costs(self, experiments: Iterable[Experiment]) -> dict[str, Any]:
        """Seconds of wall-clock by run, and all stages' together (their sum: workers ran side by side). precision: all
        that they trained in, as far as they say."""
        runs, counted, trained = {}, dict[str, float](), set[str]()
        setting = self.question.setting
        for stage in (setting.corpus, setting.vocabulary, setting.tokens, *(task.rows for task in setting.tasks)):
            counted[stage_id(stage)] = self._cost(stage).get("seconds", 0.0)
        for experiment in experiments:
            stages = self.question.stages(experiment)
            costs = {stage_id(one): cost for one in needed(stages).values() if (cost := self._cost(one))}
            took = {name: cost["seconds"] for name, cost in costs.items()}
            # An ensemble's fine-tunings are a part of what it cost.
            ends = [stage_id(one) for one in needed(stages).values() if one in stages or isinstance(one, Finetune)]
            if not stages or any(end not in took for end in ends):
                continue
            counted |= took
            trained |= {cost["precision"] for cost in costs.values() if "precision" in cost}
            before = [one for one in starts_of(stages) if stage_id(one) in took]
            pretrained = math.fsum(took[stage_id(one)] for one in before)
            read = sum(result(self.store, one)["tokens"] for one in before)
            speed = read / pretrained if pretrained else None
            runs[_key(stages)] = {
                "pretrain_s": round(pretrained, 3),
                "finetune_s": round(math.fsum(took[end] for end in ends), 3),
                "tokens_per_s": None if speed is None else round(speed, 1),
            }
        total_s = round(sum(counted.values()), 1)
        return {"machine": describe(), "precision": sorted(trained), "runs": runs, "total_s": total_s}

    def _cost(self, stage: Stage) -> dict[str, Any]:
        return read_json(folder(self.store, stage) / COST) if has(self.store, stage) else {}


def starts_of(stages: Sequence[Last]) -> list[Start]:
    """The stages before fine-tuning that the last ones rest on, each once."""
    return [one for one in needed(stages).values() if isinstance(one, Start) and one not in stages]


def _key(stages: Sequence[Last]) -> str:
    """The fingerprint by which scores.json knows a run: of its one fine-tuning, or of all of them."""
    if len(stages) == 1:
        return stage_id(stages[0]).rpartition("/")[2]
    return fingerprint([stage_id(stage) for stage in stages])


def _studied(one: Studied) -> dict[str, Any]:
    """A benchmark as scores.json has it. groups: what its average is over. notes: what is not official about it."""
    benchmark = one.benchmark
    return {
        "name": benchmark.name,
        "column": benchmark.column,
        "groups": [list(group) for group in benchmark.members] if one.tasks else [],
        "trained": list(one.trained) if one.tasks else [],
        "notes": [list(note) for note in one.notes],
        "absent": one.absent or None,
    }


def label(experiment: Experiment, baseline: Experiment = BASELINE) -> str:
    """What a run is called: what pre-training hid, and how else it departs from the baseline."""
    if not experiment.pretraining:
        experiment, start = experiment.but(pretraining=baseline.pretraining), "no pre-training"
    else:
        start = experiment.objective.label
    return ", ".join(filter(None, (start, experiment.variant(baseline, *VARIED))))


def write(out: Path, ledger: Ledger, experiments: Sequence[Experiment], rounds: Sequence[dict[str, Any]] = ()) -> None:
    """Writes scores.json and costs.json, each whole; leaves them alone if they say so already."""
    for name, value in [
        (SCORES, ledger.scores(experiments, rounds)),
        (COSTS, ledger.costs(experiments) | promised.told(out)),
    ]:
        path = out / name
        try:
            same = path.is_file() and read_json(path) == value
        except UserError:
            same = False  # damaged: written anew
        if not same:
            write_json(path, value)
