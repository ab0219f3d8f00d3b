"""Metrics against published scores, against scikit-learn and scipy, and where they are easily wrong."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import SHARED

from t5study.ground.errors import UserError
from t5study.metrics import metric as metrics
from t5study.metrics import texts
from t5study.metrics.numbers import as_number

needs_data = pytest.mark.skipif(SHARED is None, reason="needs the shared data: published predictions and scores")
YES_NO = ("no", "yes")


# --- golden values ----------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(
    ("system", "exact", "f1", "missing"),
    [
        ("bert_ensemble", 86.3237, 92.3098, 0),
        ("logistic_regression_baseline", 40.4143, 51.1296, 8),
        ("match_lstm_with_ans_ptr", 68.1355, 76.8577, 0),
        ("r_net_ensemble", 82.4789, 88.5610, 0),
        ("slqa_ensemble", 81.7591, 88.3946, 0),
    ],
)
def test_squad_predictions_of_published_systems(system: str, exact: float, f1: float, missing: int) -> None:
    assert SHARED is not None
    with gzip.open(SHARED / "squad" / "dev-v1.1.first_24_articles.json.gz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    answers = json.loads((SHARED / "squad" / "predictions" / f"{system}.json").read_text(encoding="utf-8"))
    questions = [q for article in articles for paragraph in article["paragraphs"] for q in paragraph["qas"]]
    targets = [[answer["text"] for answer in q["answers"]] for q in questions]
    predictions = [answers.get(q["id"]) for q in questions]
    assert predictions.count(None) == missing
    found = metrics.score("squad", targets, predictions)
    assert found == pytest.approx({"exact_match": exact, "token_f1": f1}, abs=5e-5)


@needs_data
def test_rouge_of_the_t5_authors() -> None:
    """Their value is the middle of 1,000 bootstrap means: `t5_rouge` has it to the last digit. The metric itself is the
    mean, which the middle scatters around."""
    assert SHARED is not None
    folder = SHARED / "metrics" / "rouge"
    targets, predictions = (
        (folder / f"{name}_large.txt").read_text(encoding="utf-8").splitlines() for name in ("target", "prediction")
    )
    expected = json.loads((folder / "expected_bootstrap_results.json").read_text(encoding="utf-8"))
    assert expected == pytest.approx({"rouge1": 38.5175, "rouge2": 22.1524, "rougeLsum": 38.3626}, abs=5e-5)
    assert texts.t5_rouge(targets, predictions) == pytest.approx(expected, abs=1e-9)
    assert metrics.score("rouge", targets, predictions) == pytest.approx(expected, abs=0.05)


def _lines(*parts: str) -> list[str]:
    assert SHARED is not None
    return SHARED.joinpath(*parts).read_text(encoding="utf-8").split("\n")[:-1]


@needs_data
@pytest.mark.parametrize("pair", ["de-en", "de-fr"])
@pytest.mark.parametrize("system", ["LT22", "Online-A"])
def test_bleu_and_chrf_published_by_wmt22(pair: str, system: str) -> None:
    """The published scores are sacreBLEU's defaults (BLEU cuts words as 13a does), for each reference and for all
    together."""
    assert SHARED is not None
    folder, language = f"wmt22_{pair.replace('-', '_')}", pair[-2:]
    with open(SHARED / "translation" / folder / "automatic-scores.tsv", encoding="utf-8") as file:
        published = {
            row["metric"]: float(row["score"])
            for row in csv.DictReader(file, delimiter="\t")
            if row["system"] == system
        }
    stem = f"generaltest2022.{pair}"
    references = {
        letter: _lines("translation", folder, f"{stem}.ref.{letter}.{language}")
        for letter in "AB"
        if f"bleu-{letter}" in published
    }
    hypotheses = _lines("translation", folder, f"{stem}.hyp.{system}.{language}")
    for letter, targets in references.items():
        (found,) = texts.bleu_of(texts.bleu_counts(targets, hypotheses, tokenize="13a").sum(0))
        assert found == pytest.approx(published[f"bleu-{letter}"], abs=1e-9)
        assert metrics.score("chrf", targets, hypotheses)["chrf"] == pytest.approx(
            published[f"chrf-{letter}"], abs=1e-9
        )
    together = list(zip(*references.values(), strict=True))
    (found,) = texts.bleu_of(texts.bleu_counts(together, hypotheses, tokenize="13a").sum(0))
    assert found == pytest.approx(published["bleu-all"], abs=1e-9)
    assert metrics.score("chrf", together, hypotheses)["chrf"] == pytest.approx(published["chrf-all"], abs=1e-9)


@needs_data
def test_bleu_and_chrf_are_sacrebleus_with_the_papers_settings() -> None:
    import sacrebleu

    references = _lines("translation", "wmt22_de_fr", "generaltest2022.de-fr.ref.A.fr")[:300]
    hypotheses = _lines("translation", "wmt22_de_fr", "generaltest2022.de-fr.hyp.LT22.fr")[:300]
    theirs = sacrebleu.BLEU(tokenize="intl", smooth_method="exp")
    expected = theirs.corpus_score(hypotheses, [references]).score
    assert metrics.score("bleu", references, hypotheses)["bleu"] == pytest.approx(expected, abs=1e-9)
    assert str(theirs.get_signature()).startswith(texts.BLEU_SIGNATURE)
    theirs = sacrebleu.CHRF()
    assert metrics.score("chrf", references, hypotheses)["chrf"] == pytest.approx(
        theirs.corpus_score(hypotheses, [references]).score, abs=1e-9
    )
    assert str(theirs.get_signature()).startswith(texts.CHRF_SIGNATURE)


@needs_data
def test_bleu_of_the_nist_scorer() -> None:
    """mteval-v13a prints 0.2318 for the sgm files, in which it counts 1,998 words; the plain text has 1,991."""
    assert SHARED is not None
    folder = SHARED / "metrics" / "bleu_mteval13a"
    names = ("newstest-2015-100sents.en-ru.ref.ru", "newstest-2015-100sents.en-ru.google.ru")
    targets, predictions = ((folder / name).read_text(encoding="utf-8").strip().split("\n") for name in names)
    (found,) = texts.bleu_of(texts.bleu_counts(targets, predictions, tokenize="13a").sum(0))
    assert found == pytest.approx(23.18, abs=0.05)


# --- against other implementations ------------------------------------------------------------------------------

LABELS = ("a", "b", "c")
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), min_size=1, max_size=40).filter(
    lambda rows: len({target for target, _ in rows}) > 1
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(pairs)
def test_classes_equal_scikit_learn(rows: list[tuple[str, str | None]]) -> None:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    targets, predictions = [t for t, _ in rows], [p for _, p in rows]
    told = [p or "unreadable" for p in predictions]
    assert metrics.score("accuracy", targets, predictions)["accuracy"] == pytest.approx(
        100 * accuracy_score(targets, told)
    )
    ours = metrics.score("mean_f1", targets, predictions, LABELS)["mean_f1"]
    theirs = f1_score(targets, told, labels=list(LABELS), average="macro", zero_division=0)
    assert ours == pytest.approx(100 * theirs)
    assert metrics.score("matthews", targets, predictions, LABELS)["matthews"] == pytest.approx(
        100 * matthews_corrcoef(targets, told)
    )


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(YES_NO), st.sampled_from(["no", "yes", None])), min_size=1, max_size=40))
def test_f1_flips_an_invalid_answer_to_the_opposite_of_its_target(rows: list[tuple[str, str | None]]) -> None:
    from sklearn.metrics import f1_score

    opposite = {"no": "yes", "yes": "no"}
    targets = [t for t, _ in rows]
    flipped = [p or opposite[t] for t, p in rows]
    expected = 100 * f1_score(targets, flipped, pos_label="yes", zero_division=0)
    assert metrics.score("f1", targets, [p for _, p in rows], YES_NO)["f1"] == pytest.approx(expected)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(-50, 50)), min_size=3, max_size=40))
def test_correlations_equal_scipy(rows: list[tuple[int, int]]) -> None:
    from scipy.stats import pearsonr, spearmanr

    x, y = [a / 5 for a, _ in rows], [b / 7 for _, b in rows]
    found = metrics.score("correlation", [repr(a) for a in x], [repr(b) for b in y])
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert found == {"pearson": 0.0, "spearman": 0.0}
        return
    assert found["pearson"] == pytest.approx(100 * pearsonr(x, y).statistic, abs=1e-6)
    assert found["spearman"] == pytest.approx(100 * spearmanr(x, y).statistic, abs=1e-6)


# --- easily wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_the_oracle_has_100_and_no_answer_has_nothing(name: str) -> None:
    if name.startswith("correlation"):
        targets = ["0.0", "1.5", "4.2", "3.0", "5.0"]
    elif metrics.METRICS[name].labels:
        targets = ["no", "yes", "yes", "no", "yes"]
    else:
        targets = ["alpha beta gamma delta epsilon", "one two three four five six", "red green blue white black"]
    labels = YES_NO if metrics.METRICS[name].labels else ()
    assert list(metrics.score(name, targets, targets, labels).values()) == pytest.approx(
        [100] * len(metrics.METRICS[name].names)
    )
    assert set(metrics.score(name, targets, [None] * len(targets), labels).values()) == {0.0}
    with pytest.raises(ValueError, match="2 predictions"):
        metrics.score(name, targets, targets[:2], labels)


def test_a_constant_answer() -> None:
    targets = ["yes"] * 6 + ["no"] * 4
    constant = ["yes"] * 10
    assert metrics.score("accuracy", targets, constant)["accuracy"] == pytest.approx(60)
    assert metrics.score("f1", targets, constant, YES_NO)["f1"] == pytest.approx(75)
    assert metrics.score("mean_f1", targets, constant, YES_NO)["mean_f1"] == pytest.approx(37.5)
    assert metrics.score("matthews", targets, constant, YES_NO)["matthews"] == 0
    assert metrics.score("correlation", ["1.0", "2.0", "3.0"], ["4"] * 3) == {"pearson": 0.0, "spearman": 0.0}


def test_none_is_wrong_even_where_nothing_is_right() -> None:
    """A reference that is all articles normalises to nothing: an empty answer matches it, no answer does not."""
    assert metrics.score("squad", [["the"]], ["a"])["exact_match"] == 100
    assert metrics.score("squad", [["the"]], [None]) == {"exact_match": 0.0, "token_f1": 0.0}
    assert metrics.score("squad", [[]], ["a"]) == {"exact_match": 0.0, "token_f1": 0.0}


def test_best_reference_for_each_number_apart() -> None:
    found = metrics.score("squad", [["x y z w", "y"]], ["x y z"])
    assert found["exact_match"] == 0
    assert found["token_f1"] == pytest.approx(100 * 6 / 7)


def test_a_new_sentence_starts_after_a_spaced_stop() -> None:
    target = "first point here . second thing there . third one now"
    swapped = "second thing there . third one now . first point here"
    assert metrics.score("rouge", [target], [swapped])["rougeLsum"] > 99
    together = [text.replace(" . ", " ") for text in (target, swapped)]
    assert metrics.score("rouge", together[:1], together[1:])["rougeLsum"] < 80


def test_numbers_that_are_no_numbers() -> None:
    assert [as_number(text) for text in ("7.3", "abc", "nan", "inf", "", None, " 2 ")] == [
        7.3, None, None, None, None, None, 2,
    ]  # fmt: skip
    unreadable = metrics.score("correlation", ["0.0", "2.0", "4.0"], ["0.0", None, "4.0"])
    assert unreadable == metrics.score("correlation", ["0.0", "2.0", "4.0"], ["0.0", "-1", "4.0"])


def test_huge_and_odd_predictions() -> None:
    odd = ["x " * 200_000, "\u0000", "", "\u2028\u202e", "<extra_id_0><extra_id_1>"]
    for name in ("accuracy", "squad", "squad2", "record", "bleu", "chrf", "rouge", "referent"):
        found = metrics.score(name, ["a plain target text of words"] * len(odd), odd)
        assert all(np.isfinite(value) and 0 <= value <= 10 for value in found.values()), name


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_an_answer_of_ten_megabytes_is_none_and_does_not_hang(name: str) -> None:
    labels = YES_NO if metrics.METRICS[name].labels else ()
    targets = ["1.0", "2.0", "3.0"] if name.startswith("correlation") else ["one of them all", "two of five", "no one"]
    targets = ["yes", "no", "yes"] if labels else targets
    answers = [targets[0], "9 words of it " * 700_000, targets[2]]
    found = metrics.score(name, targets, answers, labels)
    assert found == metrics.score(name, targets, [answers[0], None, answers[2]], labels)
    assert metrics.score(name, targets, [*answers[:1], targets[1], answers[2]], labels) != found


def test_intervals_hold_the_score_and_shrink_with_examples() -> None:
    rng = np.random.default_rng(3)

    def width(n: int, name: str) -> float:
        targets = [("no", "yes")[i] for i in rng.integers(0, 2, n)]
        predictions = [t if rng.random() < 0.8 else "yes" for t in targets]
        metric, primary = metrics.find(name)
        low, high = metrics.intervals(metric, targets, predictions, YES_NO)[primary]
        value = metric.score(targets, predictions, YES_NO)[primary]
        assert low < value < high
        assert (low, high) == metrics.intervals(metric, targets, predictions, YES_NO)[primary]
        return high - low

    for name in ("accuracy", "f1", "matthews"):
        assert width(1600, name) < 0.7 * width(200, name)
    targets = [f"{i % 7} words and {i % 3} more of them" for i in range(60)]
    low, high = metrics.intervals(metrics.METRICS["bleu"], targets, targets[1:] + targets[:1])["bleu"]
    assert 0 < low < metrics.score("bleu", targets, targets[1:] + targets[:1])["bleu"] < high < 100


def test_accuracy_interval_is_the_binomial_one() -> None:
    """80 of 100 right: the normal interval is 80 +- 7.84."""
    low, high = metrics.intervals(metrics.METRICS["accuracy"], ["a"] * 100, ["a"] * 80 + [None] * 20)["accuracy"]
    assert low == pytest.approx(72.2, abs=1.5)
    assert high == pytest.approx(87.8, abs=1.5)


def test_unknown_metric_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"metric: found 'acuracy'; give one of accuracy, f1"):
        metrics.find("acuracy")


def test_target_outside_the_labels_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="none of the labels"):
        metrics.score("f1", ["maybe"], ["yes"], YES_NO)
