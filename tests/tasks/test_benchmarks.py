"""The averages are the paper's: every printed row of Table 16 and of Table 14's GLUE part, to the rounding."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from t5study.ground.errors import UserError
from t5study.tasks.benchmarks import BENCHMARKS, CNNDM, GLUE, GLUE_TEST, SQUAD, SUPERGLUE, find_benchmark

PAPER = Path(__file__).parents[1] / "paper"
# Address -> the printed columns that its own value is the mean of.
GLUE_COLUMNS = {
    "glue/cola": ("CoLA MCC",),
    "glue/sst2": ("SST-2 Acc",),
    "glue/mrpc": ("MRPC F1", "MRPC Acc"),
    "glue/stsb": ("STS-B PCC", "STS-B SCC"),
    "glue/qqp": ("QQP F1", "QQP Acc"),
    "glue/mnli_matched": ("MNLI-m Acc",),
    "glue/mnli_mismatched": ("MNLI-mm Acc",),
    "glue/qnli": ("QNLI Acc",),
    "glue/rte": ("RTE(GLUE) Acc",),
}
SUPERGLUE_COLUMNS = {
    "superglue/boolq": ("BoolQ Acc",),
    "superglue/cb": ("CB F1", "CB Acc"),
    "superglue/copa": ("COPA Acc",),
    "superglue/multirc": ("MultiRC F1", "MultiRC EM"),
    "superglue/record": ("ReCoRD F1", "ReCoRD EM"),
    "superglue/rte": ("RTE(SGLUE) Acc",),
    "superglue/wic": ("WiC Acc",),
    "superglue/wsc": ("WSC Acc",),
}


def printed(name: str) -> list[dict[str, str]]:
    with open(PAPER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def values(row: dict[str, str], columns: dict[str, tuple[str, ...]]) -> dict[str, float]:
    return {address: statistics.fmean(float(row[name]) for name in names) for address, names in columns.items()}


def test_every_average_of_table_16():
    rows = printed("table_16_averages.csv")
    assert len(rows) == 68
    for row in rows:
        glue, superglue = values(row, GLUE_COLUMNS), values(row, SUPERGLUE_COLUMNS)
        assert GLUE.average(glue) == pytest.approx(float(row["GLUE average"]), abs=0.011), row["row"]
        assert SUPERGLUE.average(superglue) == pytest.approx(float(row["SuperGLUE average"]), abs=0.011), row["row"]


def test_every_glue_average_of_table_14_with_wnli():  # of the five T5 models; the one before them is the site's own
    rows = printed("table_14_glue.csv")
    assert len(rows) == 5
    for row in rows:
        found = values(row, GLUE_COLUMNS | {"glue/wnli": ("WNLI Acc",)})
        assert GLUE_TEST.average(found) == pytest.approx(float(row["GLUE average"]), abs=0.051), row["row"]


def test_a_missing_score_is_named_and_never_left_out():
    with pytest.raises(UserError, match=r"glue: found no score of glue/rte; "):
        GLUE.average(dict.fromkeys(GLUE.tasks[:-1], 50.0))


def test_the_two_sets_of_mnli_count_as_one_task():
    scores = dict.fromkeys(GLUE.tasks, 0.0) | {"glue/mnli_matched": 80.0, "glue/mnli_mismatched": 80.0}
    assert GLUE.average(scores) == 10.0


def test_rates_are_the_official_ones():
    assert sum(dict(GLUE.training).values()) == 949_101
    assert GLUE.rates["glue/mnli_mismatched"] == 0
    assert GLUE.rates["glue/qqp"] == 363_849
    assert SUPERGLUE.rates["superglue/dpr"] == 1_322
    assert SUPERGLUE.rates["superglue/wsc"] == 259
    assert "superglue/dpr" in SUPERGLUE.addresses
    assert "superglue/dpr" not in SUPERGLUE.tasks


def test_lengths_are_the_official_ones():
    assert {name: one.target_length for name, one in BENCHMARKS.items()} == {
        "glue": 84, "cnndm": 512, "squad": 97, "superglue": 62, "ende": 512, "enfr": 512, "enro": 512,
    }  # fmt: skip
    assert {one.source_length for one in BENCHMARKS.values()} == {512}


def test_found_by_name_and_by_column():
    assert find_benchmark("CNNDM") is CNNDM
    assert find_benchmark("squad") is SQUAD
    with pytest.raises(UserError, match=r"found 'superglu'; did you mean superglue\?"):
        find_benchmark("superglu")
