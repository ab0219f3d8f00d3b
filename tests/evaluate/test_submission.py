"""Submission: names, headers and labels as the sites have them, and what is refused."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kept_predictions import kept

from t5study.evaluate.predictions import Kept
from t5study.evaluate.submission import GLUE, SUPERGLUE, Site, submit
from t5study.ground.errors import UserError

LABELS = {
    "glue/cola": ("unacceptable", "acceptable"),
    "glue/sst2": ("negative", "positive"),
    "glue/mrpc": ("not_equivalent", "equivalent"),
    "glue/qqp": ("not_duplicate", "duplicate"),
    "glue/mnli_matched": ("entailment", "neutral", "contradiction"),
    "glue/mnli_mismatched": ("entailment", "neutral", "contradiction"),
    "glue/ax": ("entailment", "neutral", "contradiction"),
    "glue/qnli": ("entailment", "not_entailment"),
    "glue/rte": ("entailment", "not_entailment"),
    "superglue/boolq": ("False", "True"),
    "superglue/multirc": ("False", "True"),
    "superglue/wic": ("False", "True"),
    "superglue/cb": ("entailment", "contradiction", "neutral"),
    "superglue/copa": ("choice1", "choice2"),
    "superglue/rte": ("entailment", "not_entailment"),
    "superglue/axb": ("entailment", "not_entailment"),
    "superglue/axg": ("entailment", "not_entailment"),
}


def _answered(task: str, answers: list[str | None], ids: list[str] | None = None, **more: Any) -> Kept:
    ids = ids or [str(i) for i in range(len(answers))]
    labels = LABELS.get(task, ())
    return kept(answers, [""] * len(answers), task=task, labels=labels, ids=ids, split="test", **more)


def _archive(site: Site, files: list[Kept], path: Path) -> dict[str, str]:
    submit(site, files, path, partial=True)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_glue_by_its_own_labels(tmp_path: Path):
    files = [
        _answered("glue/cola", ["acceptable", "unacceptable", None]),
        _answered("glue/sst2", ["positive", "negative"]),
        _answered("glue/mrpc", ["equivalent", "not_equivalent"]),
        _answered("glue/qqp", ["duplicate", None]),
        _answered("glue/stsb", ["3.2", "7.3", "-1.0", None, "5.0"]),
        _answered("glue/mnli_matched", ["neutral", "contradiction", None]),
        _answered("glue/mnli_mismatched", ["entailment"]),
        _answered("glue/qnli", ["not_entailment"]),
        _answered("glue/rte", ["entailment"]),
        _answered("glue/wnli", ["the cup", "a fish", None], references=[("the cup",), ("the cup",), ("the cup",)]),
        _answered("glue/ax", ["neutral"]),
    ]
    found = _archive(GLUE, files, tmp_path / "glue.zip")
    assert list(found) == [
        "CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "QNLI.tsv", "RTE.tsv",
        "WNLI.tsv", "AX.tsv",
    ]  # fmt: skip
    assert found["CoLA.tsv"] == "index\tprediction\n0\t1\n1\t0\n2\t0\n"
    assert found["SST-2.tsv"] == "index\tprediction\n0\t1\n1\t0\n"
    assert found["MRPC.tsv"] == "index\tprediction\n0\t1\n1\t0\n"
    assert found["QQP.tsv"] == "index\tprediction\n0\t1\n1\t0\n"
    assert found["STS-B.tsv"] == "index\tprediction\n0\t3.200\n1\t5.000\n2\t0.000\n3\t0.000\n4\t5.000\n"
    assert found["MNLI-m.tsv"] == "index\tprediction\n0\tneutral\n1\tcontradiction\n2\tentailment\n"
    assert found["MNLI-mm.tsv"] == "index\tprediction\n0\tentailment\n"
    assert found["QNLI.tsv"] == "index\tprediction\n0\tnot_entailment\n"
    assert found["RTE.tsv"] == "index\tprediction\n0\tentailment\n"
    assert found["WNLI.tsv"] == "index\tprediction\n0\t1\n1\t0\n2\t0\n"
    assert found["AX.tsv"] == "index\tprediction\n0\tneutral\n"


def test_superglue_by_its_own_labels(tmp_path: Path):
    places = ["0/1/2", "0/1/3", "0/4/5", "1/6/7"]
    files = [
        _answered("superglue/boolq", ["True", "False", None]),
        _answered("superglue/cb", ["neutral"]),
        _answered("superglue/copa", ["choice2", "choice1"]),
        _answered("superglue/multirc", ["True", "False", "True", None], places, groups=[p[:3] for p in places]),
        _answered("superglue/record", ["Ann \u00c4", None], ["0/8", "0/9"], groups=["0/8", "0/9"]),
        _answered("superglue/rte", ["not_entailment"]),
        _answered("superglue/wic", ["False", "True"]),
        _answered("superglue/wsc", ["Ann", "the dog", None], references=[("Ann",), ("Ann",), ("Ann",)]),
        _answered("superglue/axb", ["entailment"]),
        _answered("superglue/axg", ["not_entailment"]),
    ]
    found = _archive(SUPERGLUE, files, tmp_path / "superglue.zip")
    lines = {name: [json.loads(line) for line in text.splitlines()] for name, text in found.items()}
    assert list(found) == [
        "BoolQ.jsonl", "CB.jsonl", "COPA.jsonl", "MultiRC.jsonl", "ReCoRD.jsonl", "RTE.jsonl", "WiC.jsonl", "WSC.jsonl",
        "AX-b.jsonl", "AX-g.jsonl",
    ]  # fmt: skip
    assert found["BoolQ.jsonl"].splitlines()[0] == '{"idx": 0, "label": "true"}'
    assert [one["label"] for one in lines["BoolQ.jsonl"]] == ["true", "false", "false"]
    assert lines["CB.jsonl"] == [{"idx": 0, "label": "neutral"}]
    assert lines["COPA.jsonl"] == [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]
    assert lines["MultiRC.jsonl"] == [
        {
            "idx": 0,
            "passage": {
                "questions": [
                    {"idx": 1, "answers": [{"idx": 2, "label": 1}, {"idx": 3, "label": 0}]},
                    {"idx": 4, "answers": [{"idx": 5, "label": 1}]},
                ]
            },
        },
        {"idx": 1, "passage": {"questions": [{"idx": 6, "answers": [{"idx": 7, "label": 0}]}]}},
    ]
    assert lines["ReCoRD.jsonl"] == [{"idx": 8, "label": "Ann \u00c4"}, {"idx": 9, "label": ""}]
    assert lines["WiC.jsonl"] == [{"idx": 0, "label": "false"}, {"idx": 1, "label": "true"}]
    assert [one["label"] for one in lines["WSC.jsonl"]] == ["True", "False", "False"]
    assert lines["AX-g.jsonl"] == [{"idx": 0, "label": "not_entailment"}]


def test_rows_come_in_the_sites_order_and_equal_answers_make_equal_bytes(tmp_path: Path):
    answers: list[str | None] = ["acceptable", "unacceptable", "acceptable"]
    one = _answered("glue/cola", answers, ["10", "9", "0"])
    other = replace(one, predictions=one.predictions[::-1])
    found = _archive(GLUE, [one], tmp_path / "one.zip")
    assert found["CoLA.tsv"] == "index\tprediction\n0\t1\n9\t0\n10\t1\n"
    submit(GLUE, [other], tmp_path / "other.zip", partial=True)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_a_whole_submission_is_asked_for_and_unreadable_answers_are_counted(tmp_path: Path):
    full = [
        _answered(file.task, [LABELS[file.task][0]] * file.rows if file.task in LABELS else ["1.0"] * file.rows)
        for file in SUPERGLUE.files
        if file.task not in ("superglue/multirc", "superglue/record", "superglue/axb", "superglue/axg")
    ]
    full.append(_answered("superglue/multirc", ["True"] * 9_693, [f"0/{i}/0" for i in range(9_693)]))
    record: list[str | None] = [None] * 7 + ["Ann"] * 9_993
    full.append(_answered("superglue/record", record))
    written = submit(SUPERGLUE, full, tmp_path / "whole.zip")
    assert (written[0].file, written[0].rows) == ("BoolQ.jsonl", 3_245)
    assert {one.file: one.unreadable for one in written if one.unreadable} == {"ReCoRD.jsonl": 7}
    with pytest.raises(UserError, match="no answers to superglue/boolq; `t5study"):
        submit(SUPERGLUE, full[1:], tmp_path / "part.zip")
    short = replace(full[0], predictions=full[0].predictions[:-1])
    with pytest.raises(UserError, match="found 3,244 rows, but the site's BoolQ has 3,245"):
        submit(SUPERGLUE, [short, *full[1:]], tmp_path / "part.zip")
    with pytest.raises(UserError, match="exists already"):
        submit(SUPERGLUE, full, tmp_path / "whole.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.zip"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "found no predictions"),
        ([_answered("superglue/cb", ["neutral"])], "superglue/cb, which the glue site does not have"),
        ([_answered("glue/rte", ["entailment"])] * 2, "a second file of glue/rte"),
        ([kept(["entailment"], [""], task="glue/rte", labels=LABELS["glue/rte"])], "found answers to validation rows"),
        ([_answered("glue/rte", ["entailment"], ["dev-3"])], "row 'dev-3', whose id is no index"),
    ],
)
def test_what_is_no_submission_is_refused(tmp_path: Path, files: list[Kept], says: str):
    with pytest.raises(UserError) as told:
        submit(GLUE, files, tmp_path / "glue.zip", partial=True)
    assert says in str(told.value)
    assert not list(tmp_path.iterdir())
