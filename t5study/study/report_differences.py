"""Tested differences in words: an interval, p as corrected, how it was tested; what a table's rows come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from t5study.study.differences import Corrected, Difference
from t5study.study.findings import Line
from t5study.study.paired import Contrast
from t5study.study.report_numbers import listed, plural, signed
from t5study.study.scores import Column

OUTCOMES = {
    "better": "better",
    "worse": "worse",
    "tie": "a tie",
    "one seed": "one seed: open",
    "not tested": "not tested",
}
SAID = (
    "Ours minus our baseline, tested. Over seeds: runs of equal seeds, paired; over examples: the same runs, example "
    "by example, which says nothing about other seeds. In brackets 95 %, then p, corrected for the table’s rows "
    "(Holm). A row is better or worse if p over seeds is below 0.05, else it is a tie; with one seed that stays open."
)


@dataclass(frozen=True)
class RowTest:
    """A row of a table in one column, in words. outcome: a key of OUTCOMES, or the state of a row without a number."""

    label: str
    seeds: str
    examples: str
    outcome: str

    @property
    def said(self) -> str:
        return OUTCOMES.get(self.outcome, self.outcome)


def rows_tested(
    column: Column, lines: Sequence[Line], found: Sequence[Mapping[str, Difference]]
) -> tuple[RowTest, ...]:
    """The rows of a table but its baseline; () where none could be tested."""
    rows = []
    for line, differences in zip(lines, found, strict=True):
        if difference := differences.get(column.name):
            told = words(difference.seeds, column), words(difference.examples, column)
            rows.append(RowTest(line.label, *told, difference.outcome))
        elif not line.starred and not line.reference:
            state = line.cells[column.name].state
            rows.append(RowTest(line.label, "–", "–", "not tested" if state == "measured" else state))
    return tuple(rows) if any(map(len, found)) else ()


def words(told: Corrected, column: Column) -> str:
    """A test in a line, or why there is none."""
    if not isinstance(told.found, Contrast):
        return told.found
    found = told.found
    ends = f"{signed(found.low, column)}, {signed(found.high, column)}"
    return f"{signed(found.mean, column)} [{ends}], {chance(told.holm)} ({found.how}, {found.pairs:,} pairs)"


def chance(p: float | None) -> str:
    """
    >>> chance(0.0004), chance(0.034), chance(1.0), chance(None)
    ('p < 0.001', 'p 0.034', 'p 1.0', '–')
    """
    return "–" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.2g}" if p < 0.995 else "p 1.0"


def outcome_sentence(column: Column, rows: Iterable[RowTest]) -> str:
    """What the rows come to; "" where none was tested."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.outcome, []).append(row.label)
    told = [f"{OUTCOMES[name]}: {listed(groups[name])}" for name in ("better", "worse", "tie") if name in groups]
    if alone := groups.get("one seed"):
        told.append(f"open, as {plural(len(alone), 'row')} of one seed {'has' if len(alone) == 1 else 'have'} no test")
    return f"On {column.name}, over seeds: {'; '.join(told)}." if told else ""
