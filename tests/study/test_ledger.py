"""Which tables stand in scores.json: those of the search always, the others once something of theirs was run."""

from __future__ import annotations

from pathlib import Path

from toy_study import put_run, toy_question

from t5study.ground.store import Store
from t5study.study.baseline import BASELINE
from t5study.study.experiment import Experiment
from t5study.study.ledger import Ledger
from t5study.study.tables.architectures import TABLE_2
from t5study.study.tables.datasets import TABLE_8
from t5study.study.tables.declared import SEARCH
from t5study.study.tables.later import DENOISERS, RATES

ALWAYS = [table.number for table in SEARCH]


def told(store: Store, run: list[Experiment], asked: list[Experiment] | None = None) -> list[str]:
    """Numbers of the tables in the scores, beside those of the search, once these experiments are in the store."""
    question = toy_question()
    for experiment in run:
        for stage in question.stages(experiment):
            put_run(store, stage, 2.0)
    scores = Ledger(question, store).scores(run if asked is None else asked)
    return [table["number"] for table in scores["tables"] if table["number"] not in ALWAYS]


def test_a_table_stands_there_once_a_row_of_its_own_was_run(tmp_path: Path):
    store = Store(tmp_path)
    baseline, shared = BASELINE, TABLE_2.row("Denoising: Enc-dec, shared").experiment
    prefix_lm = TABLE_2.row("LM: Encoder-decoder").experiment
    assert told(store, [baseline, prefix_lm]) == []  # rows of Table 2 that Tables 1 and 4 have, too
    assert told(store, [baseline, shared]) == ["2"]


def test_a_row_that_was_asked_for_in_vain_counts(tmp_path: Path):
    books = TABLE_8.row("Wikipedia + TBC").experiment
    assert told(Store(tmp_path), [BASELINE], asked=[BASELINE]) == []
    assert told(Store(tmp_path), [BASELINE], asked=[BASELINE, books]) == ["8"]


def test_a_later_table_waits_for_all_rows_of_its_own(tmp_path: Path):
    """The rounds come by some of them, and no study may change for that."""
    own = [row.experiment for row in RATES.rows if row.experiment not in {one.experiment for one in DENOISERS.rows}]
    tables_7 = [row.experiment for table in SEARCH for row in table.rows]
    before = [one for one in own if one in tables_7]
    after = [one for one in own if one not in tables_7]
    assert (len(before), len(after)) == (1, 10)  # 15 % in spans of 10 stands in Table 7
    assert told(Store(tmp_path), [BASELINE, *before, *after[:-1]]) == []
    assert told(Store(tmp_path), after[-1:]) == [RATES.number]
