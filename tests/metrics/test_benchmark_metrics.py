"""What GLUE, SuperGLUE and SQuAD 2.0 are scored by: T5's rules with their numbers, and the official scripts' sums
written down again in the plainest way."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.ground.errors import UserError
from t5study.metrics import metric as metrics
from t5study.metrics.answers import NO_ANSWER, means, normalise_answer, token_f1

BOOLEANS = ("False", "True")
CB = ("entailment", "contradiction", "neutral")


# --- two numbers and their mean -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "of", "labels"),
    [
        ("f1_accuracy", ("f1", "accuracy"), ("not_equivalent", "equivalent")),
        ("cb", ("mean_f1", "accuracy"), CB),
        ("correlations", ("pearson", "spearman"), ()),
    ],
)
def test_the_mean_comes_first_and_the_numbers_are_those_of_the_metrics_alone(
    name: str, of: tuple[str, str], labels: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(5)
    options = labels or ("0.0", "1.4", "2.6", "5.0")
    targets = [options[i] for i in rng.integers(0, len(options), 60)]
    answers = [target if rng.random() < 0.6 else options[rng.integers(len(options))] for target in targets]
    predictions = [None if i % 13 == 0 else answer for i, answer in enumerate(answers)]
    found = metrics.score(name, targets, predictions, labels)
    assert list(found) == ["mean", *of]
    for one in of:
        assert found[one] == pytest.approx(metrics.score(one, targets, predictions, labels)[one]), one
    assert found["mean"] == pytest.approx((found[of[0]] + found[of[1]]) / 2)
    assert metrics.find(name)[1] == "mean"


def test_names_that_mean_several_things_are_no_metric() -> None:
    for name in ("mean", "em"):
        with pytest.raises(UserError, match=f"metric: found '{name}', which several have; give one of .*multirc"):
            metrics.find(name)
    assert metrics.find("f1a")[0] is metrics.METRICS["multirc"]
    assert metrics.find("pearson")[0] is metrics.METRICS["correlation"]
    assert metrics.find("exact_match")[0] is metrics.METRICS["squad"]


def test_cb_counts_three_classes_whichever_are_asked() -> None:
    """2 of 3 right, no neutral asked or answered: F1 is 1, 0 and 0 (none) by class, and 2 * 1 / 3 for one of two."""
    found = metrics.score("cb", [CB[0], CB[0], CB[1]], [CB[0], CB[0], CB[0]], CB)
    assert found["accuracy"] == pytest.approx(200 / 3)
    assert found["mean_f1"] == pytest.approx(100 * (2 * 2 / 5) / 3)


def test_stsb_answers_that_are_no_numbers_are_minus_one() -> None:
    targets = ["0.0", "2.6", "5.0", "3.8"]
    for odd in ("abc", "nan", "inf", "", None):
        assert metrics.score("correlations", targets, ["0.4", odd, "4.8", "3.6"]) == metrics.score(
            "correlations", targets, ["0.4", "-1", "4.8", "3.6"]
        ), odd
    out_of_range = metrics.score("correlations", targets, ["0.4", "7.3", "4.8", "3.6"])
    assert 0 < out_of_range["pearson"] < 100
    assert metrics.score("correlations", targets, ["3"] * 4) == {"mean": 0.0, "pearson": 0.0, "spearman": 0.0}


# --- MultiRC ------------------------------------------------------------------------------------------------------


def test_multirc_by_hand() -> None:
    """Question a is all right, b has one answer wrong, c's only answer is no answer. F1 of True: 2 hits, 1 missed (c)
    and 1 too many (b): 2 * 2 / (2 * 2 + 2) = 66.7. One question of three: 33.3."""
    groups = ("a", "a", "b", "b", "c")
    targets = ["True", "False", "True", "False", "True"]
    found = metrics.score("multirc", targets, ["True", "False", "True", "True", None], BOOLEANS, groups)
    assert found == pytest.approx({"mean": 50.0, "f1a": 200 / 3, "em": 100 / 3})


answers = st.lists(
    st.tuples(st.sampled_from(BOOLEANS), st.sampled_from([*BOOLEANS, None]), st.integers(0, 5)), min_size=1, max_size=40
)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(answers)
def test_multirc_is_the_plain_sum(rows: list[tuple[str, str | None, int]]) -> None:
    """Groups need not lie together."""
    flipped = {"True": "False", "False": "True"}
    read = [(target, prediction or flipped[target], group) for target, prediction, group in rows]
    hits = sum(target == said == "True" for target, said, _ in read)
    told, true = sum(said == "True" for _, said, _ in read), sum(target == "True" for target, _, _ in read)
    questions: dict[int, list[bool]] = defaultdict(list)
    for target, said, group in read:
        questions[group].append(target == said)
    f1a = 200 * hits / (told + true) if hits else 0
    em = 100 * sum(map(all, questions.values())) / len(questions)
    found = metrics.score(
        "multirc", [t for t, _, _ in rows], [p for _, p, _ in rows], BOOLEANS, [f"q{group}" for _, _, group in rows]
    )
    assert found == pytest.approx({"mean": (f1a + em) / 2, "f1a": f1a, "em": em})


def test_an_example_without_a_group_is_a_group() -> None:
    targets, predictions = ["True", "False", "True"], ["True", "True", "True"]
    alone = metrics.score("multirc", targets, predictions, BOOLEANS)
    assert alone["em"] == pytest.approx(200 / 3)
    assert metrics.score("multirc", targets, predictions, BOOLEANS, ("", "", "")) == alone
    with pytest.raises(ValueError, match="3 targets and 2 groups"):
        metrics.score("multirc", targets, predictions, BOOLEANS, ("a", "b"))


def test_groups_are_drawn_whole() -> None:
    """Ten answers that are right or wrong together are worth as much as one: the interval says so."""
    rng = np.random.default_rng(1)
    right = np.repeat(rng.random(60) < 0.7, 10)
    targets = ["True" if i % 2 else "False" for i in range(600)]
    flip = {"True": "False", "False": "True"}
    predictions = [target if ok else flip[target] for target, ok in zip(targets, right, strict=True)]
    groups = [f"q{i // 10}" for i in range(600)]
    metric, _ = metrics.find("accuracy")
    alone, together = (metrics.intervals(metric, targets, predictions, groups=one)["accuracy"] for one in ((), groups))
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(10**0.5, rel=0.15)
    multirc, _ = metrics.find("multirc")
    low, high = metrics.intervals(multirc, targets, predictions, BOOLEANS, groups)["em"]
    assert low < metrics.score("multirc", targets, predictions, BOOLEANS, groups)["em"] < high
    assert multirc.units(targets, predictions, BOOLEANS, groups).shape == (60, 8)


# --- ReCoRD and SQuAD -----------------------------------------------------------------------------------------------


def test_record_counts_a_query_once_against_all_of_its_answers() -> None:
    targets = [("Anna Berg", "Berg"), ("Anna Berg", "Berg"), ("the North Sea",)]
    found = metrics.score("record", targets, ["anna berg!", "nobody", "North"], groups=("1-1", "1-1", "1-2"))
    assert found == pytest.approx({"mean": 200 / 3, "f1": 250 / 3, "em": 50.0})  # North of North Sea: F1 2/3


def test_record_is_squads_rule_where_no_query_comes_twice() -> None:
    targets, predictions = [("a b c", "d"), ("e f",), ("g",)], ["a b", "The E, f.", None]
    found, squad = metrics.score("record", targets, predictions), metrics.score("squad", targets, predictions)
    assert (found["f1"], found["em"]) == (squad["token_f1"], squad["exact_match"])


@pytest.mark.parametrize(
    ("target", "prediction", "exact", "f1"),
    [
        ((NO_ANSWER,), NO_ANSWER, 1, 1),
        ((NO_ANSWER,), "Unanswerable.", 1, 1),
        ((NO_ANSWER,), "the red house", 0, 0),
        ((NO_ANSWER,), None, 0, 0),
        (("the red house", "a house"), NO_ANSWER, 0, 0),
        (("the red house", "a house"), "house", 1, 1),
        (("the red house",), "house", 0, 2 / 3),
        (("the red house",), None, 0, 0),
    ],
)
def test_squad2(target: tuple[str, ...], prediction: str | None, exact: float, f1: float) -> None:
    assert metrics.score("squad2", [target], [prediction]) == pytest.approx(
        {"exact_match": 100 * exact, "token_f1": 100 * f1}
    )


def test_squads_normalisation() -> None:
    """Lower case, then ASCII punctuation away, then articles, then white space: a joined word stays joined."""
    assert normalise_answer("  The Eiffel-Tower,\tin\nan  A.M. THE ") == "eiffeltower in am"
    assert normalise_answer("“Théâtre” – 24–10") == "“théâtre” – 24–10"
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert token_f1("", "") == 0


# --- the referent of a pronoun --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "candidate", "found"),
    [
        ("The fuzzy Bunny", "bunny", True),  # the candidate's words are among the answer's
        ("bunny", "the fuzzy bunny", True),
        ("BOB", "bob", True),
        ("his mother", "Her Mother", True),  # determiners differ, and are left out
        ("Bob's", "Bob", False),  # an apostrophe on one side alone
        ("Bob's dog", "dog's", False),
        ("Ann and Bob", "Ann or Bob", False),
        ("cat", "bunny", False),
        ("the", "bunny", None),
        ("   ", "bunny", None),
        ("few of those", "those of many", True),
    ],
)
def test_what_an_answer_means(answer: str, candidate: str, found: bool | None) -> None:
    assert means(answer, candidate) is found


def test_an_empty_answer_is_wrong_also_where_the_candidate_is() -> None:
    yes, no = ("the bunny", "True"), ("the bunny", "False")
    assert metrics.score("referent", [yes, no, "the bunny", ("the bunny",)], ["bunny"] * 4)["accuracy"] == 75
    assert metrics.score("referent", [yes, no], ["a cat", "a cat"])["accuracy"] == 50
    for empty in ("", "the", None):
        assert metrics.score("referent", [yes, no], [empty, empty])["accuracy"] == 0
