"""`study plan`: what can be asked for, what fits into a budget, what was promised."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_study import NoText, toy_setting

from t5study.study.experiment import STUDY
from t5study.study.material import Corpus
from t5study.study.plans import stages_of
from t5study.study.runner import chosen_tables, experiments_of
from t5study.study.setting import absent
from t5study.study.table import Table
from t5study.study.tables.declared import EVERY


@pytest.mark.parametrize("table", EVERY, ids=lambda table: table.number)
def test_every_row_of_every_table_comes_to_stages(table: Table):
    """tests/laws/test_tables.py: these are all of the paper's experiments."""
    names = sorted({row.experiment.corpus for row in table.rows} - {STUDY})
    setting = replace(toy_setting(), texts=tuple((name, Corpus(name, NoText(name))) for name in names))
    planned = experiments_of(chosen_tables(table.number), 10)
    for row in table.rows:
        assert row.experiment in planned
        assert stages_of(row.experiment, setting)
        # Where a text has to be brought, the plan says which.
        assert (row.experiment.corpus in absent(row.experiment, toy_setting())) == (row.experiment.corpus != STUDY)
