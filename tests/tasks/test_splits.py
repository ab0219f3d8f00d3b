"""Splits cut out of what is there: by document, official splits left alone, every cut said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.ground.errors import UserError
from t5study.tasks.splits import complete, documents, parted
from t5study.tasks.task import Row, Rows, Task, make_task

steady = settings(derandomize=True, deadline=None, max_examples=60)


def question(passage: int, k: int) -> Row:
    return Row(f"{passage}-{k}", f"question: what is {k} ? context: the passage with the number {passage}", str(k))


def asked(**splits: tuple[Row, ...]) -> Task:
    return make_task("squad/v1", Rows(splits), metric="squad")


ROWS = tuple(question(passage, k) for passage in range(40) for k in range(3))


def test_official_splits_are_left_alone():
    task = asked(train=ROWS[:60], validation=ROWS[60:])
    assert complete(task) == (task, "")


def test_training_rows_out_of_validation_rows():
    task, note = complete(asked(validation=ROWS))
    assert note == "no training rows there: the first 90 validation rows are trained on, the last 30 scored"
    assert (*task.rows("train"), *task.rows("validation")) == ROWS
    assert task.digest != asked(validation=ROWS).digest
    assert task.rows("test") == ()


def test_scored_rows_out_of_training_rows():
    many = tuple(question(passage, k) for passage in range(2000) for k in range(3))
    task, note = complete(asked(train=many))
    assert len(task.rows("validation")) == 1000
    assert len(task.rows("train")) == 4998  # the passage that the cut went through is on the scored side alone
    assert note == ("no validation rows there: the last 1,000 training rows are scored, 4,998 of the others trained on")


@steady
@given(passages=st.lists(st.integers(0, 9), min_size=1, max_size=60), n=st.integers(0, 60))
def test_no_document_is_on_both_sides(passages: list[int], n: int):
    rows = [question(passage, k) for k, passage in enumerate(passages)]
    trained, scored = parted(rows, min(n, len(rows)))
    assert list(scored) == rows[len(rows) - min(n, len(rows)) :]
    about = [set().union(*map(documents, side)) for side in (trained, scored)]
    assert not about[0] & about[1]
    held = [row for row in rows if documents(row) & about[1]]
    assert set(rows) == {*trained, *held}  # and nothing else is lost


def test_rows_of_a_group_stay_on_one_side():
    rows = [
        Row(str(i), f"multirc answer: {i}", "True", group=f"question number {i // 4} of the paragraph")
        for i in range(8)
    ]
    trained, scored = parted(rows, 2)
    assert [row.id for row in trained] == ["0", "1", "2", "3"]
    assert [row.id for row in scored] == ["6", "7"]


def test_too_few_rows_or_none_are_refused():
    with pytest.raises(UserError, match="squad/v1: found 3 validation rows, too few to part"):
        complete(asked(validation=ROWS[:3]))
    with pytest.raises(UserError, match="squad/v1: found no validation rows"):
        complete(asked())
