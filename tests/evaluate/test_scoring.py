"""Evaluate: what is asked of a model, how its answers are judged, which checkpoint is best, what is kept.

The model here is a table of known answers and likelihoods, so that every figure can be worked out by hand.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from t5study.decode import generate, scores, weights
from t5study.decode.search import Answer
from t5study.evaluate.evaluation import best, best_likelihood
from t5study.evaluate.predictions import save_predictions
from t5study.evaluate.rows import encoded, task_source
from t5study.evaluate.scoring import evaluate
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
    """Stands where a model stands: knows the answer to each row and its target's nats a token, and notes what it is
    asked, batch by batch. Rows that look the same are told apart by their order."""

    def __init__(self, answers: Sequence[str], nats_a_token: Sequence[float], task: Task, rows: Sequence[Row]):
        self.answers, self.nats_a_token, self.rows = answers, nats_a_token, rows
        self.greedy: list[tuple[np.ndarray, int]] = []
        self.scored: list[tuple[np.ndarray, np.ndarray]] = []
        self.answered: Counter[str] = Counter()
        self.judged: Counter[tuple[str, str]] = Counter()

    def generate(self, source_RS: np.ndarray, max_length: int) -> list[Answer]:
        self.greedy.append((source_RS, max_length))
        found = []
        for source_S in source_RS:
            asked = Letters().decode(source_S)
            alike = [i for i, row in enumerate(self.rows) if row.input.startswith(asked)]
            text = self.answers[alike[self.answered[asked] % len(alike)]]
            self.answered[asked] += 1
            found.append(Answer(np.array([ord(letter) for letter in text], np.int32)[:max_length], 0.0))
        return found

    def target_scores(self, source_RS: np.ndarray, target_RT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.scored.append((source_RS, target_RT))
        tokens_R, nats = (target_RT > 0).sum(1), []
        for source_S, target_T in zip(source_RS, target_RT, strict=True):
            asked = (Letters().decode(source_S), Letters().decode(target_T))
            alike = [i for i, row in enumerate(self.rows) if (row.input + "|" + row.target).startswith(asked[0])]
            alike = [i for i in alike if self.rows[i].target.startswith(asked[1])]
            nats.append(self.nats_a_token[alike[self.judged[asked] % len(alike)]])
            self.judged[asked] += 1
        return np.array(nats) * tokens_R, tokens_R


@pytest.fixture(autouse=True)
def _known_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "ready", lambda model: model)
    monkeypatch.setattr(
        generate, "generate", lambda model, source, longest, method, batch_rows: model.generate(source, longest)
    )
    monkeypatch.setattr(
        scores, "target_scores", lambda model, source, target, rows: model.target_scores(source, target)
    )


def toy(**settings: Any) -> Task:
    settings = {"metric": "accuracy", "labels": ("sad", "glad"), "input_length": 64, **settings}
    rows = settings.pop("rows", ROWS)
    return make_task("toy/tone", Rows({"train": (Row("t", "tone: a", "sad"),), "validation": rows}), **settings)


def scored(answers: Sequence[str], nats: Sequence[float] = (1.0,) * 6, task: Task | None = None, **how: Any):
    task = task or toy()
    model = Known(answers, nats, task, how.get("rows", task.evaluation_rows))
    return evaluate(model, Letters(), task, **how), model  # type: ignore[arg-type]


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
    ((source_NS, target_NT),) = model.scored
    ((asked_NS, longest),) = model.greedy
    assert sorted(asked_NS.tolist()) == sorted(source_NS.tolist())
    glad, sad = [*map(ord, "glad"), EOS], [*map(ord, "sad"), EOS, 0]
    assert target_NT.tolist() == [glad] * 3 + [sad] * 3, "longest first"
    assert source_NS.tolist()[0] == [*map(ord, "tone: text 1"), EOS]
    assert longest == 5


def test_what_is_too_long_is_cut_and_still_ends() -> None:
    _, model = scored(["sad"] * 6, source_length=5, target_length=3)
    ((source_NS, target_NT),) = model.scored
    assert source_NS.tolist() == [[*map(ord, "tone"), EOS]] * 6
    assert target_NT.tolist()[:2] == [[*map(ord, "sa"), EOS], [*map(ord, "gl"), EOS]]
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
    save_predictions(result, path)
    save_predictions(result, path)
    table = pq.read_table(path).to_pylist()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]
    assert table[2] == {
        "id": "r2", "input": "tone: text 2", "target": "sad", "prediction": "ha\u2028p", "readable": False,
        "nats": 4.0, "tokens": 4, "answer": None, "references": [], "group": "", "choices": [],
    }  # fmt: skip


def test_best_checkpoint() -> None:
    wrong, right = ["glad", "sad"] * 3, ["sad", "glad"] * 3
    found = {
        300: scored(right, [1.5] * 6)[0],
        100: scored(wrong, [0.5] * 6)[0],
        200: scored(right, [1.0] * 6)[0],
        400: scored(wrong, [0.5] * 6)[0],
    }
    assert best(found) == 200, "the earliest of equal metrics"
    assert best_likelihood(found) == 100, "the earliest of equal likelihoods, which is another step"


def test_training_rows_become_a_source() -> None:
    source = task_source(toy(), Letters(), 0, 6, 8)  # type: ignore[arg-type]
    assert len(source) == 1
    (pair,) = encoded(Letters(), toy().rows("train"), 6, 8)  # type: ignore[arg-type]
    assert pair.source.tolist() == [*map(ord, "tone:"), EOS]
    assert pair.target.tolist() == [*map(ord, "sad"), EOS]
    assert pair.source.dtype == np.int32
