"""All tables that can be run: the paper's in its order, then those of later papers."""

from __future__ import annotations

from t5study.study.experiment import Experiment
from t5study.study.table import Row, find_row, in_order
from t5study.study.tables.architectures import TABLE_2
from t5study.study.tables.datasets import TABLES as DATASETS
from t5study.study.tables.later import LATER
from t5study.study.tables.objectives import TABLES as SEARCH
from t5study.study.tables.scaling import TABLE_13
from t5study.study.tables.strategies import TABLES as STRATEGIES

TABLES = tuple(sorted((*SEARCH, TABLE_2, *DATASETS, *STRATEGIES, TABLE_13), key=lambda table: in_order(table.number)))
EVERY = (*TABLES, *LATER)


def row_of(experiment: Experiment) -> Row | None:
    """The row that is this experiment (whatever its seed), with the paper's figures of it. Prefix language modelling
    stands in Tables 2 and 4 with two sets of figures: Table 4's is taken, beside which the rounds stand."""
    return find_row((*SEARCH, *EVERY), experiment)
