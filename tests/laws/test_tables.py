"""Laws 1 and 3: rows differ on their table's axes alone, the starred row is derived, figures are the paper's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from t5study.objectives import Deshuffle, PrefixLM, ReplaceSpans, SpanCorruption
from t5study.study.baseline import BASELINE
from t5study.study.experiment import Architecture
from t5study.study.scores import PAPER_COLUMNS, figures
from t5study.study.table import Row, Table, find_row
from t5study.study.tables.declared import TABLES, row_of
from t5study.study.tables.later import LATER

PAPER = Path(__file__).parents[1] / "paper"


def transcribed(number: str) -> dict[str, dict[str, float]]:
    """Label as printed -> figures, from the transcription of the paper."""
    rows: dict[str, dict[str, float]] = {}
    with open(PAPER / f"table_{number}.csv", encoding="utf-8", newline="") as file:
        for cell in csv.DictReader(file):
            rows.setdefault(cell["row"], {})[cell["column"]] = float(cell["value"])
    return rows


def plain(label: str) -> str:
    """A printed label without its star and its citation."""
    return label.removesuffix(" *").partition(" (Devlin")[0].partition(" (Song")[0]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.number)
class TestEveryTable:
    def test_its_figures_are_the_papers(self, table: Table):
        printed = transcribed(table.number)
        deviation = printed.pop("Baseline standard deviation", None)
        assert table.deviation == deviation
        assert [row.label for row in table.rows] == [plain(label) for label in printed]
        for row, (label, found) in zip(table.rows, printed.items(), strict=True):
            assert (row.paper == found) == (row.erratum is None), label

    def test_the_starred_row_is_derived_and_is_the_papers(self, table: Table):
        printed = [plain(label) for label in transcribed(table.number) if label.endswith(" *")]
        assert [row.label for row in table.rows if table.starred(row)] == printed

    def test_rows_differ_on_its_axes_alone(self, table: Table):
        for row in table.rows:
            assert set(row.experiment.differs(BASELINE)) <= set(table.axes)
            assert row.experiment.seed == BASELINE.seed

    def test_every_axis_is_used(self, table: Table):
        assert {axis for row in table.rows for axis in row.experiment.differs(BASELINE)} == set(table.axes)


def test_the_one_slip_in_these_tables():
    """Table 10 prints the figures of d=128 twice; Table 16 has those of d=2048."""
    slips = [(table.number, row) for table in TABLES for row in table.rows if row.erratum]
    assert [(number, row.label) for number, row in slips] == [("10", "Adapter layers, d=2048")]
    assert slips[0][1].paper == transcribed("16_d2048")["Adapter layers, d=2048"]
    printed = transcribed("10")
    assert printed["Adapter layers, d=2048"] == printed["Adapter layers, d=128"]


def test_prefix_language_modelling_has_two_sets_of_figures_and_the_rounds_table_4s():
    both = [row for table in TABLES for row in table.rows if row.experiment == BASELINE.but(objective=PrefixLM())]
    assert [row.paper and row.paper["GLUE"] for row in both] == [79.56, 80.69]
    assert row_of(BASELINE.but(objective=PrefixLM(), seed=2)) is both[1]
    assert row_of(BASELINE.but(architecture=Architecture("prefix_lm"))) is not None


def test_a_row_off_its_axes_is_refused():
    with pytest.raises(ValueError, match="also differs in \\['objective'\\]"):
        Table("0", "", ("pretraining",), (Row("stray", BASELINE.but(objective=PrefixLM())),))
    with pytest.raises(ValueError, match="also differs in \\['seed'\\]"):
        Table("0", "", ("objective",), (Row("lucky", BASELINE.but(seed=3)),))


def test_twins_are_refused():
    with pytest.raises(ValueError, match="one label"):
        Table("0", "", ("objective",), (Row("a", BASELINE), Row("a", BASELINE.but(objective=PrefixLM()))))
    with pytest.raises(ValueError, match="one experiment"):
        Table("0", "", ("objective",), (Row("a", BASELINE), Row("b", BASELINE.but(objective=ReplaceSpans(0.15)))))


def test_figures_are_seven():
    assert tuple(figures(1, 2, 3, 4, 5, 6, 7)) == PAPER_COLUMNS
    with pytest.raises(ValueError, match="6 figures"):
        figures(1, 2, 3, 4, 5, 6)


def test_a_row_is_found_by_its_experiment_whatever_the_seed():
    row = find_row(TABLES, BASELINE.but(objective=SpanCorruption(mean_span=3), seed=2))
    assert row is not None
    assert (row.label, row.paper and row.paper["SGLUE"]) == ("3", 72.53)
    assert find_row(TABLES, BASELINE.but(objective=SpanCorruption(0.25, 3))) is None
    assert find_row(TABLES, BASELINE.but(objective=Deshuffle(), pretraining=0.5)) is None


@pytest.mark.parametrize("table", LATER, ids=lambda table: table.number)
class TestEveryLaterTable:
    def test_its_figures_are_those_of_the_later_papers(self, table: Table):
        with open(PAPER / "later.csv", encoding="utf-8", newline="") as file:
            transcript = {
                (cell["source"], cell["table"], cell["row"], cell["column"]): cell["value"]
                for cell in csv.DictReader(file)
            }
        for row in table.rows:
            assert row.paper is None  # they would be compared with the T5 paper's baseline
            for one in row.published:
                assert float(transcript[one.source, one.table, one.row, one.column]) == one.value

    def test_rows_differ_on_its_axes_alone_and_every_axis_is_used(self, table: Table):
        assert {axis for row in table.rows for axis in row.experiment.differs(BASELINE)} == set(table.axes)
        assert sum(table.starred(row) for row in table.rows) == 1
