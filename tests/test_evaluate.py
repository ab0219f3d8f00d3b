"""Evaluate: what is asked of a model, how its answers are judged, which checkpoint is best, what is kept.

The model here is a table of known answers and likelihoods, so that every figure can be worked out by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from t5study import evaluate
from t5study.decode import generate, scores
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS
from t5study.tasks.task import Row, Rows, Task, make_task

ROWS = tuple(Row(f"r{i}", f"tone: text {i}", ("sad", "glad")[i % 2]) for i in range(6))


class Letters:
    """A vocabulary of characters: the id of a letter is its code point."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([ord(letter) for letter in text], np.int32) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids if i > EOS)


class Known:
    """Stands where a model stands, and notes what it is asked."""

    def __init__(self, answers: Sequence[str], nats_a_token: Sequence[float]):
        self.answers, self.nats_a_token = answers, np.array(nats_a_token)
        self.asked: dict[str, Any] = {}

    def greedy(self, source_BS: np.ndarray, max_length: int) -> list[np.ndarray]:
        self.asked |= {"greedy": source_BS, "max_length": max_length}
        return [np.array([ord(letter) for letter in answer], np.int32)[:max_length] for answer in self.answers]

    def target_scores(self, source_BS: np.ndarray, target_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.asked |= {"scores": source_BS, "targets": target_BT}
        tokens_N = (target_BT > 0).sum(1)
        return self.nats_a_token * tokens_N, tokens_N


@pytest.fixture(autouse=True)
def _known_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        generate, "greedy", lambda model, source, max_length, batch_rows=64: model.greedy(source, max_length)
    )
    monkeypatch.setattr(
        scores, "target_scores", lambda model, source, target, batch_rows=64: model.target_scores(source, target)
    )


def toy(**settings: Any) -> Task:
    settings = {"metric": "accuracy", "labels": ("sad", "glad"), "input_length": 64, **settings}
    rows = settings.pop("rows", ROWS)
    return make_task("toy/tone", Rows({"train": (Row("t", "tone: a", "sad"),), "validation": rows}), **settings)


def scored(answers: Sequence[str], nats: Sequence[float] = (1.0,) * 6, task: Task | None = None, **how: Any):
    model = Known(answers, nats)
    return evaluate.evaluate(model, Letters(), task or toy(), **how), model  # type: ignore[arg-type]


def test_an_unreadable_answer_is_wrong_and_counted() -> None:
    result, _ = scored(["sad", "glad", "happy", "", "sad", "sad"])
    assert result.metrics == {"accuracy": pytest.approx(50)}
    assert (result.value, result.n, result.unreadable) == (pytest.approx(50), 6, 2)
    assert [one.answer for one in result.predictions] == ["sad", "glad", None, None, "sad", "sad"]
    assert result.predictions[2].text == "happy"


def test_likelihood_is_nats_a_target_token_with_eos() -> None:
    """Three targets of 4 tokens at 1 nat and three of 5 at 2 nats: 42 nats over 27 tokens, no mean of means."""
    result, _ = scored(["sad"] * 6, [1, 2] * 3)
    assert result.nats_per_token == pytest.approx((12 + 30) / 27)
    assert [(one.nats, one.tokens) for one in result.predictions[:2]] == [(4, 4), (10, 5)]
    low, high = result.intervals["nats"]
    assert 1 <= low < result.nats_per_token < high <= 2
    low, high = result.intervals["accuracy"]
    assert low < 50 < high


def test_what_the_model_is_asked() -> None:
    """Source and target end in EOS; answers may be as long as the longest target; both scores see the same rows."""
    _, model = scored(["sad"] * 6)
    source_NS, target_NT = model.asked["scores"], model.asked["targets"]
    assert (model.asked["greedy"] == source_NS).all()
    assert target_NT.tolist()[0] == [*map(ord, "sad"), EOS, 0]
    assert target_NT.tolist()[1] == [*map(ord, "glad"), EOS]
    assert source_NS.tolist()[0] == [*map(ord, "tone: text 0"), EOS]
    assert model.asked["max_length"] == 5


def test_what_is_too_long_is_cut_and_still_ends() -> None:
    _, model = scored(["sad"] * 6, source_length=5, target_length=3)
    assert model.asked["scores"].tolist() == [[*map(ord, "tone"), EOS]] * 6
    assert model.asked["targets"].tolist()[:2] == [[*map(ord, "sa"), EOS], [*map(ord, "gl"), EOS]]
    result, _ = scored(["sa", "gl"] * 3, source_length=5, target_length=3)
    assert result.value == 0, "metrics compare with whole targets, also where decoding was cut"


def test_rows_scored_are_those_asked_for() -> None:
    result, _ = scored(["sad", "glad"], [1, 1], task=toy(max_eval=2))
    assert result.n == 2
    result, _ = scored(["glad"], [1], rows=ROWS[1:2])
    assert (result.n, result.value) == (1, 100)


def test_the_number_that_counts_goes_by_its_own_name() -> None:
    rows = (Row("q", "question: who? context: Ann", "Ann", ("Ann", "the Ann B")),)
    result, _ = scored(["ann b"], [1], task=toy(metric="squad", labels=(), rows=rows))
    assert (result.metric, result.value) == ("exact_match", 100)


def test_huge_and_private_answers() -> None:
    answers = ["x" * 1_000_000, "<extra_id_0>", "\x00", "sad ", " glad", "sadsad"]
    result, _ = scored(answers, target_length=2_000_000)
    assert result.unreadable == 4


def test_weights_that_are_no_numbers_are_named() -> None:
    with pytest.raises(UserError, match=r"task toy/tone: row r3: found a likelihood of nan; the weights"):
        scored(["sad"] * 6, [1, 1, 1, math.nan, 1, 1])
    with pytest.raises(UserError, match="found no rows to score"):
        scored([], [], rows=())


def test_summary_is_json_and_predictions_are_kept(tmp_path: Path) -> None:
    result, _ = scored(["sad", "glad", "ha\u2028p", "", "sad", "sad"])
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert (summary["n"], summary["unreadable"], summary["metric"]) == (6, 2, "accuracy")
    assert summary["intervals"]["nats"] == [pytest.approx(1.0)] * 2
    path = tmp_path / "predictions.parquet"
    evaluate.save_predictions(result, path)
    evaluate.save_predictions(result, path)
    table = pq.read_table(path).to_pylist()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]
    assert table[2] == {
        "id": "r2", "input": "tone: text 2", "target": "sad", "prediction": "ha\u2028p", "readable": False,
        "nats": 4.0, "tokens": 4,
    }  # fmt: skip


def test_best_checkpoint() -> None:
    wrong, right = ["glad", "sad"] * 3, ["sad", "glad"] * 3
    found = {
        300: scored(right, [1.5] * 6)[0],
        100: scored(wrong, [0.5] * 6)[0],
        200: scored(right, [1.0] * 6)[0],
        400: scored(wrong, [0.5] * 6)[0],
    }
    assert evaluate.best(found) == 200, "the earliest of equal metrics"
    assert evaluate.best_likelihood(found) == 100, "the earliest of equal likelihoods, which is another step"


def test_training_rows_become_a_source() -> None:
    source = evaluate.task_source(toy(), Letters(), 0, 6, 8)  # type: ignore[arg-type]
    assert len(source) == 1
    (pair,) = evaluate.encoded(Letters(), toy().rows("train"), 6, 8)  # type: ignore[arg-type]
    assert pair.source.tolist() == [*map(ord, "tone:"), EOS]
    assert pair.target.tolist() == [*map(ord, "sad"), EOS]
    assert pair.source.dtype == np.int32
