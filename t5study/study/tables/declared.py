"""All tables that can be run: the paper's in its order, its final models, then those of later papers.

Table 3 has no figures: it shows what each objective makes of one sentence, which `t5study show` prints. Table 16 has
the tasks one by one of the rows of all others.
"""

from __future__ import annotations

from t5study.study.experiment import Experiment
from t5study.study.table import Row, find_row, in_order
from t5study.study.tables.architectures import TABLE_2
from t5study.study.tables.datasets import TABLES as DATASETS
from t5study.study.tables.final import TABLE_15
from t5study.study.tables.final import TABLES as FINAL
from t5study.study.tables.later import LATER
from t5study.study.tables.objectives import TABLES as SEARCH
from t5study.study.tables.scaling import TABLE_13
from t5study.study.tables.strategies import TABLES as STRATEGIES

TABLES = tuple(sorted((*SEARCH, TABLE_2, *DATASETS, *STRATEGIES, TABLE_13), key=lambda table: in_order(table.number)))
EVERY = (*TABLES, *FINAL, *LATER)
GROUPS = {"search": SEARCH, "all": TABLES, "final": FINAL, "later": LATER}  # search: those that the rounds go through


def row_of(experiment: Experiment) -> Row | None:
    """The row that is this experiment (whatever its seed), with the paper's figures of it. Prefix language modelling
    stands in Tables 2 and 4 with two sets of figures: Table 4's is taken, beside which the rounds stand. Of T5-Base,
    Table 15's are: they are of validation sets, as all others'."""
    return find_row((*SEARCH, TABLE_15, *EVERY), experiment)


def paper_figures(experiment: Experiment) -> dict[str, float] | None:
    """The paper's figures of an experiment, if it ran it."""
    row = row_of(experiment)
    return row.paper if row else None
