"""A study's numbers as CSV: unrounded, long, one fact a line, for whoever wants to compute with them.

table_N.csv   every row of table N, ours and the paper's figures beside it (source: ours | paper |
              published, in a later paper); of ours the paired tests over seeds and over examples, p as it is and
              corrected (Holm), or why there is none
runs.csv      every run in every column
rounds.csv    every candidate of every round
noise.csv     every column: the repeated baselines, and what pre-training brought
scaling.csv   every law of loss and size: its numbers, and what more would bring; or why there is none
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from t5study.study.differences import Difference
from t5study.study.paired import Contrast
from t5study.study.report_input import Study
from t5study.study.report_scaling import Scaled
from t5study.study.report_view import NoiseView, RoundView, TableView
from t5study.study.scaling import Fit
from t5study.study.scores import Measured

_TABLE = (
    "row", "starred", "source", "column", "kind", "state", "value", "std_over_seeds", "seeds", "low", "high", "n",
    "unreadable", "change", "change_in_std", "mark", "bold", "note",
    "seed_pairs", "seed_change", "seed_low", "seed_high", "seed_p", "seed_holm", "seed_test",
    "examples", "example_change", "example_low", "example_high", "example_p", "example_holm", "example_test", "outcome",
)  # fmt: skip
_RUNS = (
    "run", "label", "seed", "column", "kind", "state", "value", "low", "high", "n", "unreadable", "step", "reason",
    "pretrain", "finetune",
)  # fmt: skip
_ROUNDS = (
    "round", "title", "table", "candidate", "column", "state", "value", "low", "high", "seeds", "change",
    "change_in_std", "mark", "std_behind_winner", "outcome", "paper_change_in_std",
)  # fmt: skip
_NOISE = (
    "column", "kind", "unit", "higher_is_better", "baseline_runs", "mean", "std", "gain_of_pretraining",
    "gain_must_exceed", "above_noise",
)  # fmt: skip
_SCALING = (
    "of", "what", "points", "floor", "factor", "exponent", "exponent_low", "exponent_high", "times", "now", "then",
    "saved_low", "saved_high", "straight_p", "note",
)  # fmt: skip


def tables(study: Study, shown: dict[str, Any]) -> dict[str, str]:
    """File name -> content. shown: as report_view.page gives it."""
    found = {
        f"table_{re.sub(r'[^A-Za-z0-9]+', '-', view.table.number)}.csv": _csv(_TABLE, _table(study, view))
        for view in shown["tables"]
    }
    return found | {
        "runs.csv": _csv(_RUNS, _runs(study)),
        "rounds.csv": _csv(_ROUNDS, _rounds(study, shown["rounds"])),
        "noise.csv": _csv(_NOISE, _noise(shown["noise"])),
        "scaling.csv": _csv(_SCALING, _scaling(shown["scaling"]["laws"])),
    }


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """None is empty; numbers keep all their digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return out.getvalue()


def _truth(value: bool) -> str:
    return "yes" if value else "no"


def _table(study: Study, view: TableView) -> Iterable[Sequence[Any]]:
    for each, paper, tested in zip(view.lines, view.paper, view.differences, strict=True):
        if each.reference:
            continue
        for column in study.columns:
            cell = each.cells[column.name]
            yield (
                each.label, _truth(each.starred), "ours", column.name, column.kind, cell.state, cell.value, cell.std,
                len(cell.values), cell.low, cell.high, cell.n, cell.unreadable, cell.delta, cell.units, cell.mark,
                _truth(cell.bold), "; ".join(cell.problems), *_tested(tested.get(column.name)),
            )  # fmt: skip
        for name, value in (paper.figures if paper else {}).items():
            assert paper is not None
            yield (
                each.label, _truth(each.starred), "paper", name, "metric", "measured", value, None, None, None, None,
                None, None, paper.deltas.get(name), paper.units.get(name), None, _truth(name in paper.bold),
                each.erratum, *_tested(None),
            )  # fmt: skip
    starred = {row.label: _truth(row.starred) for row in view.table.rows}
    for label, one in view.published:
        blank = [None] * 9
        yield (
            label, starred[label], "published", one.column, None, "measured", one.value, *blank,
            _truth(False), f"{one.source}, {one.table}, {one.row}", *_tested(None),
        )  # fmt: skip


def _tested(found: Difference | None) -> Sequence[Any]:
    """The paired tests over seeds and over examples: where there is none, why."""
    if found is None:
        return [None] * 15
    told: list[Any] = []
    for each in (found.seeds, found.examples):
        test = each.found
        if isinstance(test, Contrast):
            told += [test.pairs, test.mean, test.low, test.high, test.p, each.holm, test.how]
        else:
            told += [None, None, None, None, None, None, test]
    return [*told, found.outcome]


def _runs(study: Study) -> Iterable[Sequence[Any]]:
    for run in study.runs.values():
        for column in study.columns:
            cell = run.cells[column.name]
            state = type(cell).__name__.lower()
            measured = (
                (cell.value, cell.low, cell.high, cell.n, cell.unreadable, cell.step, None)
                if isinstance(cell, Measured)
                else (None, None, None, None, None, None, cell.reason)
            )
            head = (run.fingerprint, run.label, run.seed, column.name, column.kind, state)
            yield (*head, *measured, run.pretrain, run.finetune)


def _rounds(study: Study, views: Iterable[RoundView]) -> Iterable[Sequence[Any]]:
    for view in views:
        for each in view.candidates:
            cell = each.line.cells[study.verdict_column]
            yield (
                view.turn.number, view.turn.title, view.turn.table, each.line.label, study.verdict_column, cell.state,
                cell.value, cell.low, cell.high, len(cell.values), cell.delta, cell.units, cell.mark, each.behind,
                "; ".join(each.outcome), each.paper.typical if each.paper else None,
            )  # fmt: skip


def _noise(views: Iterable[NoiseView]) -> Iterable[Sequence[Any]]:
    for view in views:
        column, noise, gain = view.column, view.noise, view.gain
        yield (
            column.name, column.kind, column.unit, _truth(column.higher_is_better),
            noise.runs if noise else None, noise.mean if noise else None, noise.std if noise else None,
            gain.gain if gain else None, gain.noise if gain else None, _truth(gain.above_noise) if gain else None,
        )  # fmt: skip


def _scaling(laws: Iterable[Scaled]) -> Iterable[Sequence[Any]]:
    for each in laws:
        found = each.found
        if isinstance(found, Fit):
            law = found.law
            yield (
                each.label, each.what, found.points, law.floor, law.factor, law.exponent, *found.exponent, found.times,
                found.now, found.then, *found.saved, found.straight, None,
            )  # fmt: skip
        else:
            yield (each.label, each.what, len(each.points), *[None] * 11, found)
