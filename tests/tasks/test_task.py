"""Task: what is read as an answer, what enters a fingerprint, rows kept and found again."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from t5study.ground.errors import UserError
from t5study.ground.fingerprint import fingerprint
from t5study.tasks.addresses import find, names
from t5study.tasks.task import Row, Rows, Task, keep, kept, make_task

TRAIN = tuple(Row(str(i), f"tone: text {i}", ("sad", "glad")[i % 2]) for i in range(8))
VALIDATION = tuple(Row(str(i), f"tone: text {i}", ("sad", "glad")[i % 2]) for i in range(8, 12))


def toy(metric: str = "accuracy", train: tuple[Row, ...] = TRAIN, **settings: Any) -> Task:
    return make_task("toy/tone", Rows({"train": train, "validation": VALIDATION}), metric=metric, **settings)


def test_a_class_is_read_exactly_and_nothing_else_is_an_answer() -> None:
    task = toy(labels=("sad", "glad"))
    assert task.column == "tone"
    assert task.parse("glad") == "glad"
    assert task.parse(" sad\n") == "sad"
    for text in ("Glad", "gladly", "", "<extra_id_0>", "glad sad", "g" * 10_000_000):
        assert task.parse(text) is None


def test_any_text_is_read_but_no_empty_one() -> None:
    task = toy("rouge1")
    assert task.parse("  two words ") == "two words"
    assert [task.parse(text) for text in ("", " \n", "<extra_id_0> <extra_id_17>")] == [None] * 3
    assert task.parse("<extra_id_0> word") == "<extra_id_0> word"


def test_a_number_is_read() -> None:
    task = toy("pearson")
    assert [task.parse(text) for text in ("3.2", "-1", "three", "nan")] == ["3.2", "-1", None, None]


def test_the_oracle_has_100_and_a_constant_the_share_of_its_label() -> None:
    task = toy(labels=("sad", "glad"))
    rows = task.rows("validation")
    assert task.score(rows, [task.parse(row.target) for row in rows]) == {"accuracy": 100.0}
    assert task.score(rows, ["sad"] * 4) == {"accuracy": 50.0}
    assert task.score(rows, [None] * 4) == {"accuracy": 0.0}
    assert task.metrics == ("accuracy",)


def test_several_references() -> None:
    row = Row("q", "question: who? context: Ann and Bob", "Ann", ("Ann", "Ann and Bob"))
    task = make_task("toy/qa", Rows({"train": TRAIN, "validation": (row,)}), metric="squad")
    assert task.score([row], ["ann and bob"]) == {"exact_match": 100.0, "token_f1": 100.0}


def test_fingerprint_follows_what_is_learnt_and_scored() -> None:
    base = fingerprint(toy().value)
    assert fingerprint(toy().value) == base
    changed = (*TRAIN[:-1], Row("7", "tone: text 7", "sad"))
    assert fingerprint(toy(train=changed).value) != base
    assert fingerprint(toy(labels=("sad", "glad")).value) != base
    assert fingerprint(toy(max_eval=2).value) != base
    assert fingerprint(toy(column="Tone").value) == base


def test_max_eval_takes_the_first_rows() -> None:
    assert toy(max_eval=3).evaluation_rows == VALIDATION[:3]
    assert toy().evaluation_rows == VALIDATION


def test_kept_rows_come_back(tmp_path: Path) -> None:
    odd = (Row("é", "tone: \u2028\ttab\nline", "glad", ("glad", "happy")),)
    task = toy(labels=("sad", "glad", "happy"), train=odd, input_length=64, max_eval=2)
    keep(task, tmp_path)
    again = kept(tmp_path)
    assert again == task
    assert again.rows("train") == odd
    assert pickle.loads(pickle.dumps(again)).rows("validation") == VALIDATION
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(UserError, match=r"found rows of digest .*; delete it"):
        kept(tmp_path)


def test_labels_that_cannot_give_the_metric_are_our_own_bug() -> None:
    with pytest.raises(ValueError, match="cannot be had from the labels"):
        toy("f1", labels=("a", "b", "c"))
    with pytest.raises(ValueError, match="cannot be had"):
        toy("matthews")


def test_an_unknown_address_lists_the_known_ones(tmp_path: Path) -> None:
    for address in ("pydocs/packages", "glue", "", "task/find", str(tmp_path / "nothing")):
        with pytest.raises(
            UserError, match=r"found neither a file nor a task of that name; give a \.jsonl or"
        ) as caught:
            find(address)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        find(str(tmp_path / "nothing.jsonl"), "accuracy")
    assert all("/" in name for name in names())


def test_a_digest_is_what_it_was_and_follows_a_group() -> None:
    assert toy().digest == "e477126ac6f37edb74badcad27444ed1"
    grouped = (*TRAIN[:-1], Row("7", TRAIN[-1].input, TRAIN[-1].target, group="0-1"))
    assert toy(train=grouped).digest != toy().digest


def test_test_rows_are_neither_learnt_nor_scored() -> None:
    rows = {"train": TRAIN, "validation": VALIDATION, "test": (Row("t", "tone: who knows", ""),)}
    task = make_task("toy/tone", Rows(rows), metric="accuracy")
    assert [row.id for row in task.rows("test")] == ["t"]
    assert task.value == toy().value
    assert toy().rows("test") == ()
    with pytest.raises(ValueError, match="split 'dev' is none of"):
        task.rows("dev")


def test_an_empty_split_is_told_to_who_needs_it(tmp_path: Path) -> None:
    rows = Rows({"validation": VALIDATION}, missing={"train": "it is for evaluation only"})
    task = make_task("toy/tone", rows, metric="accuracy")
    assert task.rows("train") == ()
    assert task.need("validation") == VALIDATION
    with pytest.raises(UserError, match="^task toy/tone: found no train rows; it is for evaluation only$"):
        task.need("train")
    keep(task, tmp_path)
    with pytest.raises(UserError, match="^task toy/tone: found no train rows; it has none in its train split$"):
        kept(tmp_path).need("train")


def test_a_group_is_kept(tmp_path: Path) -> None:
    grouped = tuple(Row(row.id, row.input, row.target, (), "q") for row in VALIDATION)
    task = make_task("toy/tone", Rows({"train": TRAIN, "validation": grouped}), metric="accuracy")
    keep(task, tmp_path)
    assert kept(tmp_path).rows("validation") == grouped


def test_choices_are_the_labels_and_reading_is_the_metrics() -> None:
    assert toy(labels=("sad", "glad")).choices == ("sad", "glad")
    assert (toy("rouge1").choices, toy("rouge1").reading) == ((), "exact")
