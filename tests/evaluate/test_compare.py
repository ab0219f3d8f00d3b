"""Compare: the tests against figures worked out by hand, against the libraries, and against chance itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kept_predictions import kept
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest, Result
from scipy.stats import binom

from t5study.evaluate.compare import as_json, compare, holm, mcnemar
from t5study.evaluate.predictions import About, Kept, read_predictions, save_predictions
from t5study.ground.errors import UserError

LABELS = ("sad", "glad")
TARGETS = [LABELS[i % 2] for i in range(40)]
WRONG = [LABELS[1 - i % 2] for i in range(40)]


def _answers(right: int) -> list[str]:
    """The first so many are right."""
    return TARGETS[:right] + WRONG[right:]


def test_two_systems_by_hand():
    """30 and 24 of 40 are right, the second's among the first's: 6 against 0, exact p = 2 / 2^6."""
    found = compare(kept(_answers(30), TARGETS), kept(_answers(24), TARGETS))
    number = found.numbers["accuracy"]
    assert (found.task, found.metric, found.n) == ("toy/tone", "accuracy", 40)
    assert (number.first, number.second, number.difference) == (75, 60, pytest.approx(15))
    # The difference of a resample is binomial(40, 6 / 40) of 40.
    low, high = binom.ppf([0.025, 0.975], 40, 0.15) * 2.5
    assert number.interval[0] == pytest.approx(low, abs=2.6)
    assert number.interval[1] == pytest.approx(high, abs=2.6)
    beyond = binom.sf(11, 40, 0.15) + binom.cdf(0, 40, 0.15)  # as far from 6 as 6 is from 0
    assert number.p == pytest.approx(beyond, abs=0.01)
    assert found.mcnemar is not None
    assert (found.mcnemar.only_first, found.mcnemar.only_second, found.mcnemar.p) == (6, 0, pytest.approx(2 / 2**6))


def test_the_same_answers_do_not_differ():
    found = compare(kept(_answers(30), TARGETS), kept(_answers(30), TARGETS))
    assert found.numbers["accuracy"].difference == 0
    assert found.numbers["accuracy"].interval == (0, 0)
    assert found.numbers["accuracy"].p == 1
    assert found.numbers["nats"].p == 1
    assert found.mcnemar is not None
    assert found.mcnemar.p == 1


def test_turned_round_it_says_the_opposite():
    one, other = kept(_answers(30), TARGETS), kept(_answers(24), TARGETS)
    there, back = compare(one, other), compare(other, one)
    assert back.numbers["accuracy"].difference == -there.numbers["accuracy"].difference
    assert back.p == there.p
    low, high = there.numbers["accuracy"].interval
    assert back.numbers["accuracy"].interval == (pytest.approx(-high), pytest.approx(-low))


def test_chance_is_called_chance():
    """Of 200 pairs of systems that are equally good, about 5 % come out with p below 0.05, by either test."""
    random = np.random.default_rng(5)
    false = np.zeros(2)
    for _ in range(200):
        both = [
            [t if ok else w for t, w, ok in zip(TARGETS, WRONG, random.random(40) < 0.7, strict=True)] for _ in "ab"
        ]
        found = compare(kept(both[0], TARGETS), kept(both[1], TARGETS), resamples=300)
        assert found.mcnemar is not None
        false += np.array([found.p, found.mcnemar.p]) < 0.05
    assert (false <= 0.1 * 200).all(), false
    assert false[0] >= 0.01 * 200, "nor is the bootstrap afraid of saying anything"


def test_unreadable_answers_are_wrong_in_every_test():
    answers = [None if i < 10 else answer for i, answer in enumerate(_answers(40))]
    found = compare(kept(answers, TARGETS, labels=LABELS), kept(_answers(40), TARGETS, labels=LABELS))
    assert found.numbers["accuracy"].difference == -25
    assert found.mcnemar is not None
    assert (found.mcnemar.only_first, found.mcnemar.only_second) == (0, 10)


def test_a_label_that_is_part_of_another_is_not_it():
    labels = ("entailment", "not_entailment")
    found = compare(
        kept(["entailment"] * 8, ["not_entailment"] * 8, labels=labels, metric="accuracy"),
        kept(["not_entailment"] * 8, ["not_entailment"] * 8, labels=labels, metric="accuracy"),
    )
    assert found.mcnemar is not None
    assert found.mcnemar.only_second == 8


def test_groups_are_drawn_and_judged_whole():
    """Ten questions of four answers. The first system is wrong on one answer of each: none is right as a whole."""
    targets, groups = ["True"] * 40, [f"q{i // 4}" for i in range(40)]
    settings = {"metric": "multirc", "labels": ("False", "True"), "groups": groups}
    one_wrong = ["False" if i % 4 == 0 else "True" for i in range(40)]
    found = compare(kept(one_wrong, targets, **settings), kept(targets, targets, **settings))
    assert found.metric == "mean"
    assert found.numbers["em"].difference == -100
    assert found.numbers["em"].interval == (-100, -100)
    assert found.mcnemar is not None
    assert (found.mcnemar.only_first, found.mcnemar.only_second) == (0, 10)


def test_bleu_is_sacrebleus_own_number():
    random = np.random.default_rng(3)
    words = ["the", "cup", "fell", "on", "a", "green", "plate", "and", "broke", "."]
    targets = [" ".join(random.choice(words, 9)) for _ in range(60)]

    def worse(part: float) -> list[str]:
        return [" ".join(w if random.random() > part else "fish" for w in text.split()) for text in targets]

    first, second = worse(0.2), worse(0.3)
    found = compare(kept(first, targets, metric="bleu"), kept(second, targets, metric="bleu"), resamples=500)
    systems: list[tuple[str, Sequence[str]]] = [("first", first), ("second", second)]
    _, wanted = PairedTest(systems, {"BLEU": BLEU(tokenize="intl")}, [targets], "bs", n_samples=500)()
    result = wanted["BLEU"][1]
    assert isinstance(result, Result)
    assert found.p == result.p_value
    assert found.numbers["bleu"].second == pytest.approx(result.score)
    assert 0 < found.p < 0.5
    assert found.mcnemar is None


@pytest.mark.parametrize("metric", ["squad", "rouge", "chrf", "correlations", "referent"])
def test_every_kind_of_metric_is_compared(metric: str):
    if metric == "correlations":
        targets, first, second = [str(i / 10) for i in range(30)], [str(i / 10) for i in range(30)], ["1.0", "2.0"] * 15
    else:
        targets = [f"the cup number {i}" for i in range(30)]
        first, second = targets, [text if i % 2 else "fish" for i, text in enumerate(targets)]
    found = compare(kept(first, targets, metric=metric), kept(second, targets, metric=metric), resamples=200)
    assert found.numbers[found.metric].first == pytest.approx(100)
    assert found.p < 0.02
    assert (found.mcnemar is not None) == (metric in ("squad", "referent"))
    assert as_json(found)["numbers"][found.metric]["p"] == found.p


def test_likelihoods_are_compared_by_token_where_tokens_are_the_same():
    one = kept(TARGETS, TARGETS, nats=[1.0] * 40)
    other = kept(TARGETS, TARGETS, nats=[2.0] * 40)
    assert compare(one, other).numbers["nats"].difference == -0.5  # over 2 tokens each
    longer = replace(other, predictions=tuple(replace(each, tokens=3) for each in other.predictions))
    assert "nats" not in compare(one, longer).numbers


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [0.03, 0.06, 0.06, 0.02]
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_mcnemar_is_the_exact_binomial():
    for a, b in ((0, 0), (1, 0), (5, 2), (30, 12)):
        first = np.array([True] * a + [False] * b + [True] * 3, bool)
        second = np.array([False] * a + [True] * b + [True] * 3, bool)
        found = mcnemar(first, second)
        wanted = min(1.0, 2 * binom.cdf(min(a, b), a + b, 0.5)) if a + b else 1.0
        assert (found.only_first, found.only_second, found.p) == (a, b, pytest.approx(wanted))


# --- files --------------------------------------------------------------------------------------------------------


def test_order_does_not_matter_and_files_come_back_as_they_were(tmp_path: Path):
    one, other = kept(_answers(30), TARGETS), kept(_answers(24), TARGETS, nats=[0.1 * i for i in range(40)])
    shuffled = replace(other, predictions=tuple(other.predictions[i] for i in np.random.default_rng(0).permutation(40)))
    save_predictions(shuffled.predictions, tmp_path / "other.parquet", shuffled.about)
    read = read_predictions(tmp_path / "other.parquet")
    assert read == replace(shuffled, path=tmp_path / "other.parquet")
    assert compare(one, read) == compare(one, other)


_AB = ["a", "b"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (kept(_AB, _AB, task="toy/other"), "other.parquet: found task 'toy/other', but 'toy/tone'"),
        (kept(_AB, _AB, metric="squad"), "found metric 'squad'"),
        (kept(_AB, _AB, labels=("a", "b")), "found labels"),
        (kept(_AB, _AB, split="test"), "found split 'test'"),
        (kept(["a"], ["a"]), "other.parquet: has no answer to row 'r1' and 0 others"),
        (kept(["a"] * 4, ["a"] * 4), "one.parquet: has no answer to row 'r2' and 1 others"),
        (kept(_AB, ["a", "c"]), "row 'r1' is another one"),
        (kept([], []), "has no answer to row 'r0' and 1 others"),
    ],
)
def test_files_that_do_not_go_together_are_refused(other: Kept, says: str):
    one = kept(_AB, _AB, path="one.parquet")
    with pytest.raises(UserError) as told:
        compare(one, replace(other, path=Path("other.parquet")))
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_answers_to_test_rows_and_empty_files_are_refused():
    hidden = kept(_AB, ["", ""], split="test")
    with pytest.raises(UserError, match="which have no labels"):
        compare(hidden, hidden)
    with pytest.raises(UserError, match="holds no predictions"):
        compare(kept([], []), kept([], []))


def test_files_that_are_none_are_told_in_a_line(tmp_path: Path):
    good, path = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    about = About("toy/tone", "accuracy", ())
    save_predictions(kept(_answers(30), TARGETS).predictions, good, about)
    twins = kept(["a", "b", "c"], ["a", "b", "c"], ids=["x", "y", "x"])
    damaged = bytearray(good.read_bytes())
    damaged[len(damaged) // 3] ^= 0x55
    table = pq.read_table(good)
    cases = {
        "no such file": lambda: path.unlink(missing_ok=True),
        "found damaged predictions": lambda: path.write_bytes(bytes(damaged)),
        "found damaged": lambda: path.write_bytes(good.read_bytes()[:-200]),
        "found 1 ids twice, 'x' first": lambda: save_predictions(twins.predictions, path, about),
        "does not say which task": lambda: pq.write_table(table.replace_schema_metadata(None), path),
        "has no column answer": lambda: pq.write_table(table.drop_columns(["answer"]), path),
        "found damaged predictions (": lambda: pq.write_table(
            table.set_column(0, "id", pa.array([None] * 40, pa.string())).replace_schema_metadata({b"t5study": b"{"}),
            path,
        ),
    }
    for says, make in cases.items():
        make()
        with pytest.raises(UserError) as told:
            read_predictions(path)
        assert says in str(told.value)
        assert "\n" not in str(told.value)
        assert str(path) in str(told.value)


def test_answers_of_any_kind_are_kept(tmp_path: Path):
    """RELIABILITY.md, section 3, item 42: empty, 10 MB, only sentinels, NUL and line separators."""
    answers = ["", "x" * 10_000_000, "<extra_id_0>", "\x00", "a\u2028b", None]
    one = kept(answers, ["cup"] * 6, metric="squad")
    save_predictions(one.predictions, tmp_path / "a.parquet", one.about)
    read = read_predictions(tmp_path / "a.parquet")
    assert [each.answer for each in read.predictions] == answers
    assert compare(read, one, resamples=100).numbers["exact_match"].first == 0
