"""The embedded benchmark: rows exactly as rendered from known records, and its laws on the real documentation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from t5study import pydocs
from t5study.pydocs import Documented, Parameter
from t5study.tasks import pydocs as tasks
from t5study.tasks.addresses import find
from t5study.tasks.task import Task

BODY = """The mean is taken over the *flattened* array, unless ``axis`` says otherwise, as in
:func:`~numpy.average` without weights.

>>> mean([1, 2])
1.5

Parameters
----------
axis : int, optional
    Not prose.
"""
MEAN = Documented(
    package="numpy",
    module="numpy.toy",
    name="Toy.mean",
    kind="function",
    signature="(a, axis=None)",
    summary="Compute the ``arithmetic`` mean along one given axis.",
    body=BODY,
    parameters=(
        Parameter("a", "array_like", "", "Numbers to take\nthe mean of."),
        Parameter("axis", "int, optional, default None", "None", "Axis to go along."),
        Parameter("out", "ndarray", "", "Where to put it."),
    ),
)


def item(record: Documented = MEAN) -> tasks.Item:
    return tasks.Item(record, tasks.plain(record.summary), tasks.prose_of(record.body))


def test_prose_is_what_stands_before_the_sections() -> None:
    prose = tasks.prose_of(BODY)
    assert prose.startswith(
        "The mean is taken over the flattened array, unless axis says otherwise, as in numpy.average"
    )
    assert prose.endswith("without weights. 1.5")
    assert tasks.prose_of("What it does.\n\nArgs:\n    x: not prose") == "What it does."
    assert tasks.prose_of("Parameters\n----------\nx : int") == ""


def test_rows_as_rendered() -> None:
    summary = "Compute the arithmetic mean along one given axis."
    prose = item().prose
    (row,) = tasks.package_rows([item()])
    assert (row.input, row.target) == (f"package text: {summary} {prose}", "numpy")
    (row,) = tasks.summarize_rows([item()])
    assert (row.input, row.target) == (f"summarize: {prose}", summary)
    (row,) = tasks.describe_rows([item()])
    assert (row.input, row.target) == ("describe numpy: Toy.mean(a, axis=None)", summary)
    (row,) = tasks.answer_rows([item()])
    assert (row.input, row.target) in {
        ("answer question: what type of a? context: " + EACH["a"] + " " + EACH["axis"], "array_like"),
        ("answer question: what type of axis? context: " + " ".join(EACH.values()), "int"),
        ("answer question: what is the default of axis? context: " + " ".join(EACH.values()), "None"),
        ("answer question: what type of out? context: " + EACH["axis"] + " " + EACH["out"], "ndarray"),
    }


EACH = {
    "a": "a : array_like . Numbers to take the mean of.",
    "axis": "axis : int, optional, default None . Axis to go along.",
    "out": "out : ndarray . Where to put it.",
}


def test_every_question_comes_up_and_its_answer_stands_in_the_context() -> None:
    found = Counter()
    for i in range(200):
        (row,) = tasks.answer_rows([item(replace(MEAN, name=f"mean{i}"))])
        assert row.target in row.input.partition("context: ")[2]
        found[row.target] += 1
    assert set(found) == {"array_like", "int", "None", "ndarray"}


def test_a_shuffled_sentence_has_the_same_words_in_another_order() -> None:
    found = Counter()
    for i in range(200):
        (row,) = tasks.intact_rows([item(replace(MEAN, name=f"mean{i}"))])
        words, moved = item().summary.rstrip(".").split(), row.input.removeprefix("intact sentence: ").split()
        assert sorted(words) == sorted(moved)
        assert words[0] == moved[0]
        assert (words == moved) == (row.target == "intact")
        found[row.target] += 1
    assert 70 < found["intact"] < 130


def test_entailment_pairs_a_summary_with_its_own_text_or_anothers() -> None:
    others = [
        item(replace(MEAN, package=package, name=f"f{i}", summary=f"Number {i} of the functions in {package}."))
        for i in range(40)
        for package in ("numpy", "torch")
    ]
    rows = list(tasks.entails_rows(others))
    assert {row.target for row in rows} == {"entailment", "not_entailment"}
    for row, one in zip(rows, others, strict=True):
        if row.target == "entailment":
            assert f"summary: {one.summary} text:" in row.input
        else:
            assert f"functions in {one.record.package}. text:" not in row.input


def test_a_summary_that_its_text_repeats_is_no_task() -> None:
    repeated = replace(
        MEAN, body="As said: compute the arithmetic mean along one given axis. " + "And on it goes. " * 5
    )
    assert not list(tasks.summarize_rows([item(repeated)]))


def test_a_training_record_that_shares_a_long_sentence_with_validation_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pydocs, "split", lambda module: "validation" if module == "held" else "train")
    held = replace(MEAN, module="held")
    same_text = replace(MEAN, name="other", summary="Another summary line for the same description.")
    same_summary = replace(MEAN, name="third", body="Nothing alike.", parameters=())
    apart = Documented("numpy", "numpy.x", "x", "class", "", "Something that is quite different.", "Its own text.", ())
    found = tasks.items([apart, same_text, same_summary, held])
    assert [one.record for one in found["validation"]] == [held]
    assert [one.record for one in found["train"]] == [apart]


# --- on the documentation of this machine ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records() -> tuple[Documented, ...]:
    return pydocs.records()


@pytest.fixture(scope="module")
def here(records: tuple[Documented, ...]) -> dict[str, Task]:
    return tasks.tasks_of(records)


def test_sizes_balance_and_lengths(here: dict[str, Task]) -> None:
    assert list(here) == list(tasks.TASKS)
    for name, task in here.items():
        for split, at_least in (("train", 1500), ("validation", 100)):
            rows = task.rows(split)
            assert at_least <= len(rows) <= tasks.MOST[split], (name, split)
            assert len({row.input for row in rows}) == len({row.id for row in rows}) == len(rows)
            counts = Counter(row.target for row in rows)
            if task.labels:
                assert set(counts) == set(task.labels)
                assert len(set(counts.values())) == 1
            assert max(len(row.input) for row in rows) < 400
            assert max(len(row.target) for row in rows) <= 110


def test_the_oracle_has_100_and_a_constant_what_the_metric_says(here: dict[str, Task]) -> None:
    constant = {"package": 100 / 6, "intact": 0.0, "entails": 50.0}
    for name, task in here.items():
        rows = task.rows("validation")
        assert task.score(rows, [task.parse(row.target) for row in rows])[task.primary] == pytest.approx(100), name
        lazy = task.score(rows, [task.parse(rows[0].target)] * len(rows))[task.primary]
        if name in constant:
            assert lazy == pytest.approx(constant[name]), name
        else:
            assert 0 <= lazy < 35, name


def test_no_text_of_a_validation_row_is_trained_on(here: dict[str, Task]) -> None:
    """Across all families at once: no input, no written target, no long sentence of a summary or a description."""
    train = [row for task in here.values() for row in task.rows("train")]
    validation = [row for task in here.values() for row in task.rows("validation")]
    assert not {row.input for row in train} & {row.input for row in validation}
    written = [name for name in ("summarize", "describe")]
    asked = {row.target.lower() for name in written for row in here[name].rows("validation")}
    assert len(asked) > 400
    learnt = "\n".join(f"{row.input}\n{row.target}" for row in train).lower()
    assert not [target for target in asked if len(target) >= 40 and f"\n{target}\n" in learnt]
    assert not [target for target in asked if len(target) >= 40 and f" {target}" in learnt]
    modules = {row.id.rpartition(":")[0] for row in train}
    assert not modules & {row.id.rpartition(":")[0] for row in validation}


def test_the_same_records_give_the_same_rows_in_any_order(
    records: tuple[Documented, ...], here: dict[str, Task]
) -> None:
    again = tasks.tasks_of(records[::-1])
    assert {name: task.digest for name, task in again.items()} == {name: task.digest for name, task in here.items()}
    assert len({task.digest for task in here.values()}) == len(here)


def test_found_by_their_address(here: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_here", lambda: here)
    task = find("pydocs/package")
    assert task is here["package"]
    assert (task.name, task.column, task.metric) == ("pydocs/package", "package", "accuracy")
