"""From scores to findings: means over seeds, differences to the baseline in units of noise, what is bold or signal.

Pure functions over a Study. Our differences are to our baseline and in units of our own noise; the paper's are to its
own (law 5). The unit of noise is the standard deviation of the repeated baselines in that column.

A difference carries one of these marks:

    baseline       the baseline itself
    sure_better    above noise, also when it is counted that a few runs say little about their spread (95 %, Student)
    better         more than two standard deviations: the paper's rule (section 3.1.3), and no more than that
    noise          cannot be told from the baseline
    worse          as better, for the worse
    sure_worse     as sure_better, for the worse
    unknown        no spread to go by: the baseline was not repeated, or its runs agree to the last digit
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from t5study.evaluate.compare import holm
from t5study.study.noise import difference_noise, spread, within_two
from t5study.study.ranks import RankAgreement, rank_agreement
from t5study.study.report_input import Figures, Run, Study, StudyTable, TableRow
from t5study.study.scores import PAPER_COLUMNS, Column, Failed, Measured

SURE = {"sure_better", "sure_worse"}
BETTER = {"better", "sure_better"}
WORSE = {"worse", "sure_worse"}
SIGNAL = BETTER | WORSE


@dataclass(frozen=True)
class Judged:
    """One row in one column. state: "measured" if any seed was. values: of the seeds measured. low, high: the 95 %
    interval over examples (mean over seeds, which see the same examples). n, unreadable: summed over the seeds.
    problems: why seeds are missing. delta: to the baseline, as it is; units: the same in standard deviations, positive
    when better."""

    column: Column
    state: str
    values: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    n: int = 0
    unreadable: int = 0
    problems: tuple[str, ...] = ()
    delta: float | None = None
    units: float | None = None
    mark: str = "unknown"
    bold: bool = False

    @property
    def value(self) -> float | None:
        """The mean over seeds."""
        return spread(self.values).mean if self.values else None

    @property
    def std(self) -> float | None:
        """Over seeds; None below two."""
        return spread(self.values).std if self.values else None


@dataclass(frozen=True)
class Line:
    """A row of a table or a candidate of a round, judged in every column. reference: the baseline, shown where a
    table has it not."""

    label: str
    runs: tuple[str, ...]
    cells: Mapping[str, Judged]
    starred: bool = False
    paper: Figures | None = None
    erratum: str | None = None
    reference: bool = False


# --- ours -------------------------------------------------------------------------------------------------------


def baseline_runs(study: Study) -> tuple[str, ...]:
    """Fingerprints of the repeated baseline: the starred row's runs."""
    starred = (row.runs for table in study.tables for row in table.rows if row.starred)
    return next((runs for runs in starred if runs), ())


def model_size(study: Study) -> int | None:
    """Parameters of the baseline's model; of the largest if the baseline has not been run. None if nothing has."""
    of = [study.runs[key] for key in baseline_runs(study)] or list(study.runs.values())
    return max((run.parameters for run in of if run.parameters), default=None)


def line(study: Study, label: str, runs: tuple[str, ...], row: TableRow | None = None) -> Line:
    """Judges one row in every column."""
    base = baseline_runs(study)
    found = [study.runs[key] for key in runs]
    why = row.absent if row else ""
    cells = {column.name: _judged(study, column, found, base, why or "not run") for column in study.columns}
    if row is None:
        return Line(label, runs, cells, starred=bool(runs) and runs == base)
    return Line(label, runs, cells, row.starred, row.paper, row.erratum)


def _judged(study: Study, column: Column, found: Sequence[Run], base: tuple[str, ...], absent: str) -> Judged:
    cells = [run.cells[column.name] for run in found]
    measured = [cell for cell in cells if isinstance(cell, Measured)]
    problems = tuple(
        f"seed {run.seed} {'failed' if isinstance(cell, Failed) else 'absent'}: {cell.reason}"
        for run, cell in zip(found, cells, strict=True)
        if not isinstance(cell, Measured)
    )
    if not measured:
        failed = any(isinstance(cell, Failed) for cell in cells)
        return Judged(column, "failed" if failed else "absent", problems=problems or (absent,))
    judged = Judged(
        column,
        "measured",
        values=tuple(cell.value for cell in measured),
        low=math.fsum(cell.low for cell in measured) / len(measured),
        high=math.fsum(cell.high for cell in measured) / len(measured),
        n=sum(cell.n for cell in measured),
        unreadable=sum(cell.unreadable for cell in measured),
        problems=problems,
    )
    if {run.fingerprint for run in found} == set(base):
        return replace(judged, delta=0.0, units=0.0, mark="baseline")
    return _compared(study, judged, [study.runs[key] for key in base])


def _compared(study: Study, judged: Judged, base: Sequence[Run]) -> Judged:
    """With its difference to the baseline and what to think of it."""
    name = judged.column.name
    before = [cell.value for run in base if isinstance(cell := run.cells[name], Measured)]
    noise = study.noise.get(name)
    mean = noise.mean if noise else spread(before).mean if before else None
    if mean is None or judged.value is None:
        return judged
    delta = judged.value - mean
    std = noise.std if noise else None
    if not std:
        return replace(judged, delta=delta)
    units = (delta if judged.column.higher_is_better else -delta) / std
    needed = difference_noise(judged.values, before) if before else None
    if needed is not None and abs(delta) > needed:
        mark = "sure_better" if units > 0 else "sure_worse"
    elif abs(units) > 2:
        mark = "better" if units > 0 else "worse"
    else:
        mark = "noise"
    return replace(judged, delta=delta, units=units, mark=mark)


def table_lines(study: Study, table: StudyTable) -> list[Line]:
    """The table's rows, the bold rule applied; then the baseline for reference, where the table has it not."""
    lines = [line(study, row.label, row.runs, row) for row in table.rows]
    bold = {column.name: _bold(study, column, lines) for column in study.columns}
    judged = [
        replace(
            each,
            cells={name: replace(cell, bold=i in bold[name]) for name, cell in each.cells.items()},
        )
        for i, each in enumerate(lines)
    ]
    base = baseline_runs(study)
    if base and not any(row.starred for row in table.rows):
        judged.append(replace(line(study, "Baseline, for reference", base), reference=True))
    return judged


def _bold(study: Study, column: Column, lines: Sequence[Line]) -> set[int]:
    """Which rows are within two standard deviations of the best of their column in their table, on unrounded numbers.
    None at all if the baseline was not repeated: then there is no rule to apply."""
    noise = study.noise.get(column.name)
    if noise is None or noise.std is None:
        return set()
    values = {str(i): value for i, each in enumerate(lines) if (value := each.cells[column.name].value) is not None}
    return {int(label) for label in within_two(values, noise.std, column.higher_is_better)}


def variants(study: Study) -> list[Line]:
    """Every experiment of the study but the baseline, once, under its objective's label; rounds' own ones after the
    tables'. Rows that were not run are left out."""
    base = set(baseline_runs(study))
    paper = {row.runs: row.paper for table in study.tables for row in table.rows}
    asked = [(row.label, row.runs) for table in study.tables for row in table.rows]
    asked += [(each.label, each.runs) for turn in study.rounds for each in turn.candidates]
    found: dict[tuple[str, ...], Line] = {}
    for label, runs in asked:
        if runs and set(runs) != base and runs not in found:
            name = study.runs[runs[0]].label or label
            found[runs] = replace(line(study, name, runs), paper=paper.get(runs))
    return list(found.values())


# --- the paper's ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PaperRow:
    """The paper's figures of one row against its own baseline. typical: the median over its columns of the change in
    units of its own standard deviations (ten baseline runs): the paper gives no deviation for a mean over columns."""

    figures: Figures
    deltas: Figures
    units: Figures
    bold: frozenset[str]
    typical: float | None


def paper_baseline(study: Study) -> tuple[Figures, Figures]:
    """The paper's figures of its baseline, and its standard deviations; {} where the study's tables have them not."""
    starred = (row.paper for table in study.tables for row in table.rows if row.starred and row.paper)
    deviations = (table.deviation for table in study.tables if table.deviation)
    return next(starred, {}), next(deviations, {})


def paper_row(study: Study, figures: Figures | None, among: Iterable[Figures | None] = ()) -> PaperRow | None:
    """A row of the paper judged by the paper's own baseline. among: the figures of its table, for the bold rule."""
    if not figures:
        return None
    base, deviation = paper_baseline(study)
    names = [name for name in PAPER_COLUMNS if name in figures]
    deltas = {name: figures[name] - base[name] for name in names if name in base}
    units = {name: delta / deviation[name] for name, delta in deltas.items() if deviation.get(name)}
    rows = [each for each in among if each]
    bold = set()
    for name in names:
        values = {str(i): each[name] for i, each in enumerate(rows) if name in each}
        near = within_two(values, deviation.get(name))
        if deviation.get(name) and any(rows[int(i)] == figures for i in near):
            bold.add(name)
    typical = statistics.median(units.values()) if units else None
    return PaperRow(figures, deltas, units, frozenset(bold), typical)


@dataclass(frozen=True)
class Agreement:
    """Our changes beside the paper's, over the variants that both have. told: those the paper tells from its baseline
    (median column beyond two standard deviations); same, opposite, unseen: what became of them here. order: whether
    ours rank the variants as the paper's do; None below four of them."""

    compared: int
    told: int
    same: int
    opposite: int
    unseen: int
    order: RankAgreement | None


def agreement(study: Study) -> Agreement | None:
    """None without at least one variant that both have."""
    pairs = []
    for each in variants(study):
        cell, paper = each.cells[study.verdict_column], paper_row(study, each.paper)
        if cell.units is not None and paper and paper.typical is not None:
            pairs.append((cell, paper.typical))
    if not pairs:
        return None
    told = [(cell, typical) for cell, typical in pairs if abs(typical) > 2]
    seen = [(cell, typical) for cell, typical in told if cell.mark in SIGNAL]
    same = sum((typical > 0) == (cell.mark in BETTER) for cell, typical in seen)
    # In units of the baseline's deviation, a mean over n seeds has the deviation 1/sqrt(n).
    ours = [(cell.units or 0.0, 1 / math.sqrt(len(cell.values))) for cell, _ in pairs]
    order = rank_agreement([units for units, _ in ours], [typical for _, typical in pairs], [std for _, std in ours])
    return Agreement(len(pairs), len(told), same, len(seen) - same, len(told) - len(seen), order)


@dataclass(frozen=True)
class ColumnOrder:
    """How far a column of ours orders a table's rows as the paper does. against: its figures of the same column, or,
    for the column that verdicts rest on, its median change. holm: p corrected for all columns of the table."""

    column: Column
    against: str
    found: RankAgreement
    holm: float


def column_orders(study: Study, lines: Sequence[Line]) -> list[ColumnOrder]:
    """Of one table, whose baseline counts as a row; columns with fewer than four rows that both have are left out."""
    rows = [(each, paper_row(study, each.paper)) for each in lines if not each.reference]
    verdict = study.column(study.verdict_column)
    asked = [(verdict, "median change", [(each, paper.typical if paper else None) for each, paper in rows])]
    for column in study.compared:
        theirs = [(each, paper.figures.get(column.name) if paper else None) for each, paper in rows]
        asked.append((column, column.name, theirs))
    found = [(column, against, _order(study, column, pairs)) for column, against, pairs in asked]
    told = [(column, against, order) for column, against, order in found if order is not None]
    corrected = holm([order.p for _, _, order in told])
    return [ColumnOrder(*each, p) for each, p in zip(told, corrected, strict=True)]


def _order(study: Study, column: Column, pairs: Sequence[tuple[Line, float | None]]) -> RankAgreement | None:
    """A row's deviation is the repeated baseline's over the root of the row's seeds, as everywhere here."""
    sign = 1 if column.higher_is_better else -1
    both = [(cell, paper) for each, paper in pairs if (cell := each.cells[column.name]).values and paper is not None]
    noise = study.noise.get(column.name)
    ours = [sign * cell.value for cell, _ in both if cell.value is not None]
    deviations = [noise.std / math.sqrt(len(cell.values)) for cell, _ in both] if noise and noise.std else None
    return rank_agreement(ours, [paper for _, paper in both], deviations)
