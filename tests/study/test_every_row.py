"""Every row of every table, run at the SMOKE scale from text to report: `make study-smoke`, the nightly part.

The text and the tasks are the embedded ones; the five texts of Table 8 are made up. What a row measures at this scale
means nothing. That it runs, alone and beside all others, and that each of its cells has a number, is what is tested.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from t5study.study import runner
from t5study.study.asked import Asked
from t5study.study.report import write_report
from t5study.study.report_input import Study, read_study
from t5study.study.scores import Measured
from t5study.study.tables.datasets import TABLE_8
from t5study.study.tables.declared import EVERY

pytestmark = pytest.mark.slow
SYLLABLES = ["ba", "do", "ki", "lu", "mer", "nal", "pos", "rit", "sun", "tav", "wen", "yor"]


def made_up(folder: Path, seed: int) -> str:
    """A file of sentences of made-up words; its path."""
    chance = random.Random(seed)
    words = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(400)]
    sentences = (f"The {' '.join(chance.choices(words, k=30))} sleeps." for _ in range(800))
    path = folder / f"{seed}.txt"
    path.write_text("\n".join(sentences), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("every-row")
    names = [row.experiment.corpus for row in TABLE_8.rows if not TABLE_8.starred(row)]
    texts = [(name, made_up(folder, seed)) for seed, name in enumerate(names)]
    asked = Asked("smoke", corpora=texts)
    runner.run_tables(asked, folder / "study", workers=2, tables="all,final,later")
    write_report(folder / "study")
    return read_study(folder / "study")


def test_every_row_has_been_run(study: Study):
    told = {(table.number, row.label): row for table in study.tables for row in table.rows}
    assert list(told) == [(table.number, row.label) for table in EVERY for row in table.rows]
    assert [where for where, row in told.items() if not row.runs] == []
    assert [where for where, row in told.items() if row.absent] == []


def test_every_cell_is_measured(study: Study):
    columns = {column.name for column in study.columns}
    lost = [
        (run.label, name, cell) for run in study.runs.values() for name, cell in run.cells.items()
        if not isinstance(cell, Measured)
    ]  # fmt: skip
    assert lost == []
    assert all(set(run.cells) == columns for run in study.runs.values())


def test_rows_that_are_one_experiment_are_one_run_and_others_are_not(study: Study):
    """But for Table 9: of a text that is so small, no part is left that could be read 256 times."""
    told = {(table.number, row.label): row.runs for table in study.tables for row in table.rows}
    first = {row.experiment: (table.number, row.label) for table in EVERY for row in table.rows}
    assert all(told[table.number, row.label] == told[first[row.experiment]] for table in EVERY for row in table.rows)
    others = [told[where] for experiment, where in first.items() if not experiment.repeats]
    assert len(set(others)) == len(others)


def test_the_report_shows_every_table(study: Study):
    page = (study.folder / "report.md").read_text(encoding="utf-8")
    assert [table.number for table in EVERY if f"Table {table.number}" not in page] == []
    assert "failed" not in page
