"""Table and Row: the paper's tables as values, and the laws they keep.

1. A row differs from its table's baseline only on its table's axes. (The seed is never an axis: it is noise.)
2. The starred row is derived: the row that equals the baseline.
3. The paper's figures stand beside the row as printed; where the paper slips, the right ones do, and `erratum` says
   what was printed.
"""

from __future__ import annotations

from dataclasses import dataclass

from t5study.study.baseline import BASELINE
from t5study.study.experiment import Experiment


@dataclass(frozen=True)
class Published:
    """A figure of another paper than T5's, as transcribed: which paper, its table and row, what it measured."""

    source: str
    table: str
    row: str
    column: str
    value: float


@dataclass(frozen=True)
class Row:
    """One experiment under the paper's label for it. paper: the figures it printed, by its column names. published:
    figures of later papers beside it, which are of other baselines and so enter no comparison."""

    label: str
    experiment: Experiment
    paper: dict[str, float] | None = None
    erratum: str | None = None
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table of the paper. axes: the fields of Experiment it varies. deviation: the standard deviations the paper
    measured over ten baseline runs (Table 1 only). baseline: what its rows are compared with; the paper's, but in a
    study of one's own."""

    number: str
    caption: str
    axes: tuple[str, ...]
    rows: tuple[Row, ...]
    deviation: dict[str, float] | None = None
    baseline: Experiment = BASELINE

    def __post_init__(self) -> None:
        for row in self.rows:
            strays = set(row.experiment.differs(self.baseline)) - set(self.axes)
            if strays:
                raise ValueError(f"table {self.number}: row {row.label!r} also differs in {sorted(strays)}")
        if len({row.label for row in self.rows}) < len(self.rows):
            raise ValueError(f"table {self.number}: two rows of one label")
        if len({row.experiment for row in self.rows}) < len(self.rows):
            raise ValueError(f"table {self.number}: two rows of one experiment")

    def starred(self, row: Row) -> bool:
        """Whether a row is the baseline."""
        return row.experiment == self.baseline

    def row(self, label: str) -> Row:
        """The row of that label."""
        return next(row for row in self.rows if row.label == label)


def in_order(number: str) -> tuple[bool, int, str]:
    """What sorts tables by number: the paper's first, then those that later papers, or you, named otherwise.

    >>> sorted(["L1", "10", "2"], key=in_order)
    ['2', '10', 'L1']
    """
    return not number.isdecimal(), int(number) if number.isdecimal() else 0, number


def find_row(tables: tuple[Table, ...], experiment: Experiment) -> Row | None:
    """The first row of these tables that is this experiment (whatever its seed): where the paper's figures are."""
    wanted = experiment.but(seed=BASELINE.seed)
    return next((row for table in tables for row in table.rows if row.experiment == wanted), None)
