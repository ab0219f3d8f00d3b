"""What the page shows, in its order: rounds, tables, noise, curves and runs, with their figures, ready to be set.

The templates (report.html.j2, report.md.j2) lay these values out and compute nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from t5study.ground.store import code_version
from t5study.study import report_scaling as scaling
from t5study.study import report_text as text
from t5study.study.differences import Difference, differences
from t5study.study.figures import Curve, Panel, curves, forest, gains, paired, windows
from t5study.study.findings import (
    Line,
    PaperRow,
    agreement,
    baseline_runs,
    column_orders,
    line,
    paper_baseline,
    paper_row,
    table_lines,
    variants,
)
from t5study.study.report_differences import RowTest, outcome_sentence, rows_tested
from t5study.study.report_input import Gain, Noise, Round, Run, Study, StudyTable
from t5study.study.report_journals import evaluations, losses
from t5study.study.scores import PAPER_COLUMNS, Column, Measured
from t5study.study.table import Published


@dataclass(frozen=True)
class CandidateView:
    """behind: the winner, in standard deviations. outcome: what became of it, in words."""

    line: Line
    behind: float | None
    outcome: tuple[str, ...]
    paper: PaperRow | None


@dataclass(frozen=True)
class RoundView:
    turn: Round
    candidates: tuple[CandidateView, ...]
    forest: str
    losses: str
    window: int


@dataclass(frozen=True)
class TableView:
    """paper: one for each line, None where the paper has no figures. problems: rows with missing seeds, and why.
    orders: whether the rows stand in the paper's order. differences: of each line, in every column; tests: in the
    column that verdicts rest on, in words; outcome: what they come to."""

    table: StudyTable
    lines: tuple[Line, ...]
    paper: tuple[PaperRow | None, ...]
    forest: str
    problems: tuple[str, ...]
    orders: str
    differences: tuple[dict[str, Difference], ...] = ()
    tests: tuple[RowTest, ...] = ()
    outcome: str = ""

    @property
    def published(self) -> list[tuple[str, Published]]:
        """Row's label and a figure of a later paper."""
        return [(row.label, one) for row in self.table.rows for one in row.published]


@dataclass(frozen=True)
class NoiseView:
    column: Column
    noise: Noise | None
    gain: Gain | None


@dataclass(frozen=True)
class RunView:
    """Seconds and tokens a second are None where costs.json does not tell them."""

    run: Run
    pretrain: float | None
    finetune: float | None
    tokens_per_s: float | None


def page(study: Study) -> dict[str, Any]:
    """Everything a template needs."""
    panels = _panels(study)
    base = baseline_runs(study)
    agreed = agreement(study)
    return {
        "study": study,
        "verdict": study.column(study.verdict_column),
        "mean_metric": study.mean_column("metric"),
        "kinds": _kinds(study),
        "paper_columns": PAPER_COLUMNS,
        "compared": study.compared,
        "paper_deviation": paper_baseline(study)[1],
        "headline": text.headline(study, agreed),
        "groups": text.signal_groups(study),
        "rounds": [_round(study, turn, panels) for turn in study.rounds],
        "tables": [_table(study, table, panels) for table in study.tables],
        "beside": _beside(study),
        "noise": [NoiseView(c, study.noise.get(c.name), study.gain.get(c.name)) for c in study.columns],
        "gains": _gains(study),
        "curves": _curves(study),
        "scaling": _scaling(study),
        "runs": _runs(study, base),
        "run_columns": [c for c in study.columns if c.name in {panel.name for panel in panels}],
        "baseline": study.runs[base[0]].label if base else None,
        "version": code_version(),
    }


def _kinds(study: Study) -> list[tuple[str, str, tuple[Column, ...]]]:
    """(kind, what it is, its columns): what is shown as one table. The tasks that benchmarks are averages of stand
    apart."""
    shown = []
    for kind, said in [
        ("metric", "By metric, on greedy answers: higher is better"),
        ("likelihood", "By likelihood of the targets, in nats a token: lower is better"),
    ]:
        columns = study.of_kind(kind)
        names = {one.name for one in study.benchmarks} | {"mean"}
        inside = tuple(column for column in columns if study.benchmarks and column.task not in names)
        shown.append((kind, said, tuple(column for column in columns if column not in inside)))
        if inside:
            shown.append((kind, f"The tasks that these are averages of. {said}", inside))
    return shown


def _runs(study: Study, base: tuple[str, ...]) -> list[RunView]:
    """The baseline's first, then the variants' in the order of the tables, then whatever else there is."""
    told = [*base, *(key for each in variants(study) for key in each.runs)]
    costs = study.costs.get("runs")
    views = []
    for key in dict.fromkeys([*told, *study.runs]):
        cost = costs.get(key) if isinstance(costs, dict) else None
        found = [cost.get(name) if isinstance(cost, dict) else None for name in _COSTS]
        numbers = [value if isinstance(value, int | float) and value > 0 else None for value in found]
        views.append(RunView(study.runs[key], *numbers))
    return views


_COSTS = ("pretrain_s", "finetune_s", "tokens_per_s")


def _panels(study: Study) -> list[Panel]:
    """The verdict column, and the mean of the other kind."""
    verdict = study.column(study.verdict_column)
    other = study.mean_column("metric" if verdict.kind == "likelihood" else "likelihood")
    shown = [verdict, other] if other else [verdict]
    return [Panel(c.name, _heading(c), c.higher_is_better, study.noise.get(c.name)) for c in shown]


def _heading(column: Column) -> str:
    return "mean of metrics, %" if column.name == "mean" else column.name


# --- rounds and tables ------------------------------------------------------------------------------------------


def _round(study: Study, turn: Round, panels: Sequence[Panel]) -> RoundView:
    behind = text.behind_winner(study, turn)
    candidates = []
    for each in turn.candidates:
        judged = line(study, each.label, each.runs)
        outcome = [
            said
            for said, holds in [
                ("winner" if not turn.ties else "ahead in a tie", each.label == turn.winner),
                ("tie", each.label in turn.ties),
                ("goes on", each.label == turn.goes_on),
                ("failed", judged.cells[study.verdict_column].state == "failed"),
                ("not run", judged.cells[study.verdict_column].state == "absent"),
            ]
            if holds
        ]
        paper = paper_row(study, each.paper)
        candidates.append(CandidateView(judged, behind[each.label], tuple(outcome), paper))
    name = f"round-{turn.number}"
    drawing, window = _loss_figure(study, turn)
    return RoundView(
        turn,
        tuple(candidates),
        forest(f"{name}-forest", f"Round {turn.number}: candidates", [one.line for one in candidates], panels),
        drawing,
        window,
    )


def _loss_figure(study: Study, turn: Round) -> tuple[str, int]:
    """Pre-training losses of a round's candidates; "" if no journal is there."""
    found = []
    longest = 1
    for each in turn.candidates:
        curve, window = _mean_curve(each.label, [losses(study, study.runs[key], "pretrain") for key in each.runs])
        if curve:
            found.append(curve)
            longest = max(longest, window)
    if not found:
        return "", 1
    title = f"Round {turn.number}: pre-training losses"
    return curves(f"round-{turn.number}-losses", title, found, "nats a target token"), longest


def _mean_curve(label: str, seeds: Sequence[Sequence[tuple[float, float]]]) -> tuple[Curve | None, int]:
    """The mean over seeds, at the steps that all of them have, smoothed by windows."""
    told = [dict(rows) for rows in seeds if rows]
    if not told:
        return None, 1
    steps = sorted(set.intersection(*(set(rows) for rows in told)))
    values = [sum(rows[step] for rows in told) / len(told) for step in steps]
    if not steps:
        return None, 1
    middles, means, window = windows(steps, values)
    return Curve(label, tuple(middles), tuple(means)), window


def _table(study: Study, table: StudyTable, panels: Sequence[Panel]) -> TableView:
    lines = table_lines(study, table)
    among = [row.paper for row in table.rows]
    problems = dict.fromkeys(
        f"{each.label}: {problem}"
        for each in lines
        if not each.reference
        for cell in each.cells.values()
        for problem in cell.problems
    )
    found, verdict = differences(study, lines), study.column(study.verdict_column)
    tests = rows_tested(verdict, lines, found)
    return TableView(
        table,
        tuple(lines),
        tuple(None if each.reference else paper_row(study, each.paper, among) for each in lines),
        forest(f"table-{_word(table.number)}", f"Table {table.number}: rows", lines, panels),
        tuple(problems),
        text.orders_sentence(column_orders(study, lines)),
        tuple(found),
        tests,
        outcome_sentence(verdict, tests),
    )


def _word(number: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in number)


# --- beside the paper -------------------------------------------------------------------------------------------


def _beside(study: Study) -> str:
    """Our changes beside the paper's, the paper's worst first."""
    other = study.mean_column("metric")
    rows = []
    for each in variants(study):
        paper, cell = paper_row(study, each.paper), each.cells[study.verdict_column]
        if paper and paper.typical is not None:
            label = each.label if cell.values else f"{each.label} ({cell.state} here)"
            metric = each.cells[other.name].units if other else None
            rows.append((label, paper.typical, cell.units, metric))
    if not rows:
        return ""
    rows.sort(key=lambda row: row[1])
    return paired("beside", "Our changes beside the paper's", rows, study.verdict_column)


def _gains(study: Study) -> str:
    rows = []
    for column in study.columns:
        gain, noise = study.gain.get(column.name), study.noise.get(column.name)
        if gain is None:
            continue
        units = gain.gain / noise.std if noise and noise.std else None
        instead = "baselines all agree" if noise and noise.std == 0 else "no noise known"
        rows.append((column.name, units, gain.above_noise, instead))
    drawn = any(units is not None for _, units, _, _ in rows)
    return gains("gains", "What pre-training brought, by column", rows) if drawn else ""


def _scaling(study: Study) -> dict[str, Any]:
    """The laws, and (caption, drawing) of those that were found."""
    steps, sizes = scaling.by_steps(study, scaling.chosen_runs(study)), scaling.by_size(study)
    drawn = [
        ("Pre-training loss against steps", scaling.drawing("scaling-steps", "Loss by steps", steps, "step")),
        (
            "Likelihood of the tasks' targets against size and compute",
            scaling.drawing("scaling-sizes", "Loss by size", sizes, "times the baseline's"),
        ),
    ]
    return {"laws": [*steps, *sizes], "drawings": [each for each in drawn if each[1]]}


# --- curves -----------------------------------------------------------------------------------------------------


def _curves(study: Study) -> list[tuple[str, str, int]]:
    """(caption, drawing, window) of fine-tuning: the baseline, no pre-training and the rounds' winners."""
    chosen = _chosen(study)
    told = []
    shown: list[tuple[str, str, str, Callable[[Run], list[tuple[float, float]]]]] = [
        ("finetune", "Fine-tuning loss", "nats a target token", lambda run: losses(study, run, "finetune")),
        ("nats", "Likelihood of the validation targets at each checkpoint, mean over tasks", "nats a target token",
         lambda run: evaluations(study, run, "likelihood")),
        ("metrics", "Metrics on the validation rows at each checkpoint, mean over tasks", "mean of metrics, %",
         lambda run: evaluations(study, run, "metric")),
    ]  # fmt: skip
    for name, caption, ylabel, read in shown:
        found, longest = [], 1
        for label, runs in chosen:
            curve, window = _mean_curve(label, [read(study.runs[key]) for key in runs])
            if curve:
                found.append(curve)
                longest = max(longest, window)
        if found:
            told.append((caption, curves(f"curves-{name}", caption, found, ylabel), longest))
    return told


def _chosen(study: Study) -> list[tuple[str, tuple[str, ...]]]:
    """(label, runs), at most six: the baseline, no pre-training, and what won, each once."""
    base = baseline_runs(study)
    found = [(study.runs[base[0]].label + " (baseline)", base)] if base else []
    found += [(each.label, each.runs) for each in variants(study) if not any(study.runs[k].pretrain for k in each.runs)]
    for turn in study.rounds:
        found += [(each.label, each.runs) for each in turn.candidates if each.label == turn.winner]
    unlike: dict[tuple[str, ...], str] = {}
    for label, runs in found:
        if runs:
            unlike.setdefault(runs, label)
    return [(label, runs) for runs, label in unlike.items()][:6]


def cell_values(run: Run, column: str) -> Measured | None:
    """A run's own cell, if it was measured."""
    cell = run.cells[column]
    return cell if isinstance(cell, Measured) else None
