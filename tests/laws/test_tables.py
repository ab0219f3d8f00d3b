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
from t5study.study.tables.declared import EVERY, TABLES, row_of
from t5study.study.tables.final import TABLE_14, TABLE_15, final
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


@pytest.mark.parametrize("table", [*TABLES, TABLE_15], ids=lambda table: table.number)
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


def test_table_14_has_the_final_models_figures_on_test_sets_which_are_compared_with_nothing():
    printed = transcribed("14")
    assert [row.label for row in TABLE_14.rows] == list(printed)
    for row in TABLE_14.rows:
        assert row.paper is None
        assert {one.column: one.value for one in row.published} == printed[row.label]
        assert {one.row for one in row.published} == {row.label}
        assert set(row.experiment.differs(BASELINE)) <= set(TABLE_14.axes)
    assert {axis for row in TABLE_14.rows for axis in row.experiment.differs(BASELINE)} == set(TABLE_14.axes)


def test_the_slip_in_table_14():
    """Its SuperGLUE average of the largest model is not the mean of the tasks beside it, where two metrics of a task
    count half each; those of the other models are."""
    groups = [
        ["BoolQ Acc"], ["CB F1", "CB Acc"], ["COPA Acc"], ["MultiRC F1a", "MultiRC EM"], ["ReCoRD F1", "ReCoRD Acc"],
        ["RTE(SGLUE) Acc"], ["WiC Acc"], ["WSC Acc"],
    ]  # fmt: skip
    for row in TABLE_14.rows:
        figures_ = {one.column: one.value for one in row.published}
        mean = sum(sum(figures_[name] for name in group) / len(group) for group in groups) / len(groups)
        slips = abs(mean - figures_["SuperGLUE average"]) > 0.06
        assert slips == (row.erratum is not None)
        assert not slips or f"{mean:.2f}" in str(row.erratum)


def test_t5_base_is_one_run_with_table_15s_figures():
    row = row_of(final("base"))
    assert row is TABLE_15.row("T5-Base")
    assert row.experiment == TABLE_14.row("T5-Base").experiment


def test_every_experiment_of_the_paper_is_a_row():
    """The 77 lines of the transcription: 76 rows, and the deviation over repeated baselines."""
    with open(PAPER / "experiments.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    declared = {(table.number, row.label) for table in EVERY for row in table.rows if table not in LATER}
    asked = [(line["table"], plain(line["row"]), line["group"]) for line in lines]
    asked = [(table, f"{group}: {row}" if table == "2" else row) for table, row, group in asked]
    assert len(asked) == 77
    assert set(asked) - declared == {("1", "Baseline standard deviation")}
    assert declared <= set(asked)
    starred = {(line["table"], plain(line["row"])) for line in lines if line["baseline"] == "yes"}
    assert {
        (t.number, row.label.rpartition(": ")[2]) for t in EVERY if t not in LATER for row in t.rows if t.starred(row)
    } == starred


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
