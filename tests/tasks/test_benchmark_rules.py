"""The rules of GLUE's and SuperGLUE's texts, each with its numbers, and what bad rows of them are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented_benchmarks import DPR_FILES, GLUE_FILES, SUPERGLUE_FILES, official

from t5study.ground.errors import UserError
from t5study.tasks.addresses import find
from t5study.tasks.glue import similarity
from t5study.tasks.task import Task

Rows = dict[str, Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official(tmp_path_factory.mktemp("official"))


# --- labels and their order -------------------------------------------------------------------------------------

LABELS = {
    "glue/cola": ("unacceptable", "acceptable"),
    "glue/sst2": ("negative", "positive"),
    "glue/mrpc": ("not_equivalent", "equivalent"),
    "glue/stsb": (),
    "glue/qqp": ("not_duplicate", "duplicate"),
    "glue/mnli_matched": ("entailment", "neutral", "contradiction"),
    "glue/mnli_mismatched": ("entailment", "neutral", "contradiction"),
    "glue/ax": ("entailment", "neutral", "contradiction"),
    "glue/qnli": ("entailment", "not_entailment"),
    "glue/rte": ("entailment", "not_entailment"),
    "glue/wnli": (),
    "superglue/boolq": ("False", "True"),
    "superglue/cb": ("entailment", "contradiction", "neutral"),
    "superglue/copa": ("choice1", "choice2"),
    "superglue/multirc": ("False", "True"),
    "superglue/record": (),
    "superglue/rte": ("entailment", "not_entailment"),
    "superglue/wic": ("False", "True"),
    "superglue/wsc": (),
    "superglue/dpr": (),
    "superglue/axb": ("entailment", "not_entailment"),
    "superglue/axg": ("entailment", "not_entailment"),
}


@pytest.mark.parametrize("address", LABELS)
def test_labels_stand_in_the_order_of_their_numbers(data: Path, address: str) -> None:
    task = find(address, data=data)
    assert task.choices == task.labels == LABELS[address]
    assert (task.name, task.input_length) == (address, 512)
    assert task.target_length == (84 if address.startswith("glue") else 62)
    for text in ("", "<extra_id_0>", "<extra_id_0> <extra_id_1>", " "):
        assert task.parse(text) is None
    if task.labels:
        assert [task.parse(label) for label in task.labels] == list(task.labels)
        assert [task.parse(text) for text in (task.labels[0].upper() + "x", "x" * 10_000_000)] == [None, None]


def test_both_rtes_have_a_column_of_their_own(data: Path) -> None:
    assert [find(name, data=data).column for name in ("glue/rte", "superglue/rte")] == ["rte", "rte (SuperGLUE)"]


# --- STS-B ------------------------------------------------------------------------------------------------------


def test_stsb_rounds_halves_to_the_even_fifth_in_float32() -> None:
    told = {0.5: "0.4", 2.5: "2.4", 3.7: "3.6", 1.5: "1.6", 0.1: "0.0", 0.3: "0.4", 4.9: "4.8", 5.0: "5.0", 0.0: "0.0"}
    assert {score: similarity(score) for score in told} == told
    every = {similarity(score) for score in np.linspace(0, 5, 5001)}
    assert sorted(every, key=float) == [f"{i / 5:.1f}" for i in range(26)]
    assert all(abs(float(similarity(score)) - score) <= 0.1 + 1e-6 for score in np.linspace(0, 5, 5001))
    assert (similarity(0.100000001), f"{round(0.100000001 * 5) / 5:.1f}") == ("0.0", "0.2")  # a half in float32 alone


def test_stsb_reads_numbers_and_what_is_none_counts_as_minus_one(data: Path) -> None:
    task = find("glue/stsb", data=data)
    assert [task.parse(text) for text in ("3.4", " 3", "7.3", "abc", "nan", "inf")] == [
        "3.4",
        "3",
        "7.3",
        None,
        None,
        None,
    ]
    rows = task.rows("validation")
    assert task.score(rows, ["0.4", None]) == pytest.approx({"mean": -100, "pearson": -100, "spearman": -100})


# --- MultiRC and ReCoRD -----------------------------------------------------------------------------------------


def test_multirc_is_scored_by_answers_and_by_questions(data: Path) -> None:
    task = find("superglue/multirc", data=data)
    rows = task.rows("validation")
    assert [row.group for row in rows] == ["0/0", "0/0", "0/1"]
    # one false positive: F1 of the answers 2 * 1/2 * 1 / 1.5; one of the two questions is right whole
    assert task.score(rows, ["True", "True", "False"]) == pytest.approx(
        {"mean": 58.3333, "f1a": 66.6667, "em": 50}, 1e-5
    )


def test_record_has_a_training_row_an_answer_and_is_scored_once_a_query(data: Path) -> None:
    task = find("superglue/record", data=data)
    assert [(row.id, row.target) for row in task.rows("train")] == [("5/9/0", "Ann Lee"), ("5/9/1", "Bo")]
    rows = task.rows("validation")
    assert [(row.id, row.references) for row in rows] == [("0/0", ("Sea Rose",)), ("0/1", ("Ann Lee", "Bo"))]
    assert task.score(rows, ["the sea rose", "Bo"]) == {"mean": 100.0, "f1": 100.0, "em": 100.0}
    assert task.score(rows, ["sea", "Cy"]) == pytest.approx({"mean": 16.6667, "f1": 33.3333, "em": 0}, 1e-5)


# --- the pronoun form -------------------------------------------------------------------------------------------


def test_wsc_trains_on_the_referents_alone_and_scores_all(data: Path) -> None:
    task = find("superglue/wsc", data=data)
    assert [row.id for row in task.rows("train")] == ["0"]  # row 1's candidate is not the referent
    rows = task.rows("validation")
    assert [row.references for row in rows] == [("Tom", "True"), ("the boys", "False")]
    for answers, right in {
        ("Tom", "Ida"): 100,
        ("tom", "the boys"): 50,
        ("old Tom", "boys"): 50,
        ("Tom's", "coin"): 50,  # an apostrophe in one of the two
        ("the", "The"): 0,  # no word is left: wrong even where the candidate is not meant
    }.items():
        assert task.score(rows, [task.parse(answer) for answer in answers])["accuracy"] == right
    assert task.score(rows, [None, None])["accuracy"] == 0


def test_wnli_is_never_trained_on_and_is_judged_as_wsc(data: Path) -> None:
    task = find("glue/wnli", data=data)
    assert task.reading == "referent"
    with pytest.raises(
        UserError, match=r"^task glue/wnli: found no train rows; .* train on superglue/wsc and superglue"
    ):
        task.need("train")
    rows = task.rows("validation")
    assert task.score(rows, ["trunk", "Eva"])["accuracy"] == 100
    assert task.score(rows, ["car", "Mia"])["accuracy"] == 0


def test_dpr_joins_wsc_and_its_answer_is_the_candidate_as_written(data: Path) -> None:
    task = find("superglue/dpr", data=data)
    assert task.score(task.rows("validation"), ["Per"])["accuracy"] == 100
    assert task.score(task.rows("validation"), ["per"])["accuracy"] == 0


def test_tasks_without_training_rows_say_where_to_train(data: Path) -> None:
    for address, other in (
        ("glue/ax", "glue/mnli_matched"),
        ("glue/mnli_mismatched", "glue/mnli_matched"),
        ("superglue/axb", "superglue/rte"),
        ("superglue/axg", "superglue/rte"),
    ):
        task = find(address, data=data)
        assert task.rows("validation")
        with pytest.raises(UserError, match=f"found no train rows; it is for evaluation only: train on {other}$"):
            task.need("train")


# --- bad rows ---------------------------------------------------------------------------------------------------


def glue_with(folder: Path, task: str, column: str, value: str) -> Path:
    """The official files of one GLUE task, a field of the first development row changed."""
    name = "dev.tsv" if task != "MNLI" else "dev_matched.tsv"
    header, row, *others = GLUE_FILES[task][name]
    changed = tuple(value if title == column else cell for title, cell in zip(header, row, strict=True))
    path = folder / "glue" / task / name
    path.parent.mkdir(parents=True)
    path.write_text("".join("\t".join(one) + "\n" for one in (header, changed, *others)), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("address", "task", "column", "value", "told"),
    [
        ("glue/sst2", "SST-2", "label", "2", "field label: found 2; give one of negative, positive"),
        ("glue/sst2", "SST-2", "label", "good", "field label: found 'good'; give one of negative, positive"),
        ("glue/mrpc", "MRPC", "Quality", "-1", "field Quality: found -1, a hidden test label"),
        (
            "glue/mnli_matched",
            "MNLI",
            "gold_label",
            "-",
            "field gold_label: found '-'; give one of entailment, neutral",
        ),
        ("glue/rte", "RTE", "label", "contradiction", "found 'contradiction'; give one of entailment, not_entailment"),
        ("glue/sst2", "SST-2", "sentence", " ", "field sentence: found an empty text"),
        ("glue/stsb", "STS-B", "score", "abc", "field score: found 'abc'; give a number from 0 to 5"),
        ("glue/stsb", "STS-B", "score", "7.3", "field score: found '7.3'; give a number from 0 to 5"),
        ("glue/stsb", "STS-B", "score", "nan", "field score: found 'nan'; give a number from 0 to 5"),
        ("glue/stsb", "STS-B", "score", "-1", "field score: found -1, a hidden test label"),
        ("glue/qnli", "QNLI", "index", "1", "field id: found '1' again, first in row 2 of dev.tsv"),
        ("glue/wnli", "WNLI", "sentence1", "No word for it here", "Unable"),
        ("glue/wnli", "WNLI", "sentence1", "The owl ate.", "field sentence1: found none of he, her, him"),
    ],
)
def test_a_bad_row_of_glue_is_one_line(
    tmp_path: Path, address: str, task: str, column: str, value: str, told: str
) -> None:
    if told == "Unable":  # a pronoun is there, and the two sentences have nothing in common: no noun, no error
        assert find(address, data=glue_with(tmp_path, task, column, value)).rows("validation")[0].target == ""
        return
    with pytest.raises(UserError) as caught:
        find(address, data=glue_with(tmp_path, task, column, value))
    assert told in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_text_of_a_pair_may_be_empty_as_in_qqp_but_not_both(tmp_path: Path) -> None:
    task = find("glue/rte", data=glue_with(tmp_path / "one", "RTE", "sentence2", ""))
    assert task.rows("validation")[0].input == "rte sentence1: He owns two boats. sentence2: "
    path = tmp_path / "RTE" / "dev.tsv"
    path.parent.mkdir()
    path.write_text("index\tsentence1\tsentence2\tlabel\n0\t\t \tentailment\n")
    with pytest.raises(UserError, match="row 2: field sentence1: found an empty text, and an empty one beside it"):
        find("glue/rte", data=tmp_path)


def superglue_with(folder: Path, task: str, change: Callable[[Rows], Any]) -> Path:
    """The official validation file of one SuperGLUE task, its first row changed."""
    lines = json.loads(json.dumps(SUPERGLUE_FILES[task]["val.jsonl"]))
    change(lines[0])
    path = folder / "superglue" / task / "val.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def put(*keys: str | int, value: Any) -> Callable[[Rows], None]:
    def change(row: Any) -> None:
        for key in keys[:-1]:
            row = row[key]
        if value is None:
            del row[keys[-1]]
        else:
            row[keys[-1]] = value

    return change


QUESTION = ("passage", "questions", 0)


@pytest.mark.parametrize(
    ("task", "change", "told"),
    [
        ("BoolQ", put("label", value="maybe"), "field label: found 'maybe'; give one of False, True"),
        ("BoolQ", put("label", value=-1), "field label: found -1, a hidden test label"),
        ("BoolQ", put("label", value=None), "field label: missing: rows without labels are for the test split"),
        ("BoolQ", put("passage", value=7), "field passage: found 7; give a text"),
        ("BoolQ", put("idx", value=1), "field id: found '1' again, first in row 1 of val.jsonl"),
        ("CB", put("label", value="unsure"), "found 'unsure'; give one of entailment, contradiction, neutral"),
        ("COPA", put("choice2", value=None), "field choice2: missing, found 'premise', 'choice1'"),
        ("MultiRC", put(*QUESTION, "answers", value=[]), "field answers: found []; give a list of one object or more"),
        ("MultiRC", put(*QUESTION, "answers", value=None), "field answers: found None; give a list of one object"),
        ("MultiRC", put(*QUESTION, "answers", 0, "text", value=None), "field answer: missing"),
        ("MultiRC", put(*QUESTION, "answers", 0, "label", value=None), "field label: missing: rows without labels"),
        ("MultiRC", put(*QUESTION, "answers", 0, "idx", value=None), "field idx: found None for answer; give a whole"),
        ("MultiRC", put(*QUESTION, "answers", 0, "idx", value=1), "field id: found '0/0/1' again, first in row 1"),
        ("MultiRC", put("passage", "questions", value={}), "field questions: found {}; give a list of one object"),
        ("MultiRC", put("passage", value="text"), "field passage: found 'text'; give an object"),
        ("ReCoRD", put("passage", "entities", value=[]), "field entities: found []; give a list of one object or more"),
        ("ReCoRD", put("passage", "entities", 0, "end", value=999), "which lies not in the passage of 83 characters"),
        ("ReCoRD", put("qas", 0, "answers", value=[]), "field answers: found []; give a list of one text or more"),
        ("ReCoRD", put("qas", 0, "query", value=None), "field query: missing"),
        ("WiC", put("word", value=""), "field word: found an empty text"),
        ("WSC", put("target", "span1_text", value="the queen"), "field span1_text: found 'the queen', whose words"),
        ("WSC", put("target", "span2_text", value="they"), "field span2_text: found no word 'they' in the text"),
        ("WSC", put("target", "span2_index", value="3"), "field span2_index: found '3'; give a whole number"),
        ("WSC", put("target", value=[]), "field target: found []; give an object"),
    ],
)
def test_a_bad_row_of_superglue_is_one_line(
    tmp_path: Path, task: str, change: Callable[[Rows], Any], told: str
) -> None:
    with pytest.raises(UserError) as caught:
        find(f"superglue/{task.lower()}", data=superglue_with(tmp_path, task, change))
    assert told in str(caught.value)
    assert "val.jsonl: row " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("One line.\nit\n\n", "train.c.txt: row 1: found 2 lines in one piece, not four"),
        ("Ivo saw it.\nit\nIvo,Per\nIvo\n\nOne.\nit\na,b", "row last: found 3 lines in one piece, not four"),
        ("Ivo saw it .\nit\nIvo,Per\nEva\n", "field label: found 'Eva'; give one of Ivo, Per"),
        ("Ivo saw it .\nthey\nIvo,Per\nIvo\n", "field pronoun: found no 'they' in the sentence"),
        ("Ivo saw it .\nit\nIvo\nIvo\n", "field candidates: found ['Ivo']; give two texts"),
    ],
)
def test_a_bad_file_of_dpr_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "DPR").mkdir()
    (tmp_path / "DPR" / "train.c.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        find("superglue/dpr", data=tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dpr_is_read_packed_and_with_more_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "DPR").mkdir()
    (tmp_path / "DPR" / "train.c.txt").write_text("\n\n" + DPR_FILES["train.c.txt"].replace("\n\n", "\r\n \r\n\n"))
    assert [row.target for row in find("superglue/dpr", data=tmp_path).rows("train")] == ["The bees", "Cats"]


@pytest.mark.parametrize(
    ("address", "task", "given"),
    [
        ("glue/rte", "RTE", "MRPC"),
        ("glue/rte", "RTE", "WNLI"),
        ("glue/sst2", "SST-2", "QQP"),
        ("glue/qqp", "QQP", "QNLI"),
    ],
)
def test_the_file_of_another_task_is_told(tmp_path: Path, address: str, task: str, given: str) -> None:
    official(tmp_path / "all")
    there = tmp_path / "glue" / task
    there.parent.mkdir()
    (tmp_path / "all" / "glue" / given).rename(there)
    with pytest.raises(UserError, match=r"is this the file of another task\?$"):
        find(address, data=tmp_path)


def test_rows_are_the_same_for_equal_files_and_follow_a_change(data: Path, tmp_path: Path) -> None:
    def loaded(folder: Path) -> Task:
        return find("glue/rte", data=folder)

    official(tmp_path)
    assert loaded(tmp_path).value == loaded(data).value
    test = tmp_path / "glue" / "RTE" / "test.tsv"
    test.unlink()  # what is neither learnt nor scored counts for nothing
    assert loaded(tmp_path).value == loaded(data).value
    train = tmp_path / "glue" / "RTE" / "train.tsv"
    train.write_text(train.read_text().replace("burned", "burnt"))
    assert loaded(tmp_path).value != loaded(data).value
