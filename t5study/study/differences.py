"""Every row's difference to the baseline, tested: over seeds, over examples, corrected for how many there are.

    over seeds     runs of equal seeds, the row's and the baseline's: would training again have said the same?
    over examples  the same runs, example by example: would other examples have said the same of these very models?
    Holm           over a table's comparisons: the verdict column's rows among themselves, as it was named before
                   anything was run; all other columns together

Only the test over seeds speaks of an experiment. A row of one seed has none, whatever its examples say, and is called
neither better nor worse. What is not told from the baseline at 0.05 is called a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from t5study.evaluate.compare import holm
from t5study.study.examples import compared
from t5study.study.findings import Line, baseline_runs
from t5study.study.paired import Contrast, by_seed
from t5study.study.report_input import Run, Study
from t5study.study.scores import Column, Measured

LEVEL = 0.05


@dataclass(frozen=True)
class Corrected:
    """A test, or why there is none; holm: its p among all of its table."""

    found: Contrast | str
    holm: float | None = None

    @property
    def told_apart(self) -> bool:
        """Whether it is signal."""
        return self.holm is not None and self.holm < LEVEL


@dataclass(frozen=True)
class Difference:
    """A row against the baseline in a column: ours minus the baseline's."""

    column: Column
    seeds: Corrected
    examples: Corrected

    @property
    def outcome(self) -> str:
        """ "better", "worse", "tie"; "one seed" where no test speaks of seeds; "not tested" where none could be."""
        if isinstance(self.seeds.found, Contrast):
            if not self.seeds.told_apart:
                return "tie"
            return "better" if (self.seeds.found.mean > 0) == self.column.higher_is_better else "worse"
        return "one seed" if isinstance(self.examples.found, Contrast) else "not tested"


def differences(study: Study, lines: Sequence[Line]) -> list[dict[str, Difference]]:
    """Of each line of one table, by column; {} for the baseline, where it stands for reference, and unmeasured rows."""
    base = [study.runs[key] for key in baseline_runs(study)]
    told = [{} if skipped(each, base) else _of(study, each, base) for each in lines]
    for verdict in (True, False):
        for name in ("seeds", "examples"):
            _correct(told, name, {c.name for c in study.columns if (c.name == study.verdict_column) == verdict})
    return told


def skipped(line: Line, base: Sequence[Run]) -> bool:
    """Whether a line has nothing to be told from the baseline."""
    return line.starred or line.reference or not base or set(line.runs) == {run.fingerprint for run in base}


def _of(study: Study, line: Line, base: Sequence[Run]) -> dict[str, Difference]:
    runs = [study.runs[key] for key in line.runs]
    told = {}
    for column in study.columns:
        pairs = [(run, other) for run in runs for other in base if run.seed == other.seed and _both(run, other, column)]
        if pairs:
            seeds = by_seed([_value(run, column) - _value(other, column) for run, other in pairs])
            told[column.name] = Difference(column, Corrected(seeds), Corrected(compared(study, column, pairs)))
    return told


def _both(run: Run, other: Run, column: Column) -> bool:
    return all(isinstance(one.cells[column.name], Measured) for one in (run, other))


def _value(run: Run, column: Column) -> float:
    cell = run.cells[column.name]
    assert isinstance(cell, Measured)
    return cell.value


def _correct(told: list[dict[str, Difference]], name: str, columns: set[str]) -> None:
    """Holm's p of all that were tested in these columns, in place."""
    places = [(row, key) for row in told for key, each in row.items() if key in columns]
    tested = [
        (row, key, found.p) for row, key in places if isinstance(found := getattr(row[key], name).found, Contrast)
    ]
    for (row, key, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        row[key] = replace(row[key], **{name: replace(getattr(row[key], name), holm=p)})
