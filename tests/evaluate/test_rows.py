"""Rows in batches: how far they are padded, and that batches change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from little_models import SHAPES, talkative

from t5study.decode import generate
from t5study.decode.methods import Beam
from t5study.decode.rows import by_length
from t5study.evaluate.methods import Rank
from t5study.evaluate.rows import batches, bucket
from t5study.evaluate.scoring import evaluate
from t5study.tasks.task import Row, Rows, Task, make_task
from t5study.vocab import ByteVocab

LENGTHS = np.random.default_rng(0).integers(1, 600, 500)


def test_a_bucket_is_at_most_a_quarter_longer_than_its_rows():
    length_N = np.arange(1, 9000)
    bucket_N = bucket(length_N)
    assert (bucket_N >= length_N).all()
    assert (bucket_N - length_N < 8)[length_N <= 64].all()
    assert (bucket_N <= 1.25 * length_N)[length_N > 32].all()
    assert (np.diff(bucket_N) >= 0).all()
    assert (bucket(bucket_N) == bucket_N).all()


@pytest.mark.parametrize("batch_rows", [1, 7, 64, 1000])
def test_batches_hold_rows_of_one_bucket_each_once_in_the_order_of_by_length(batch_rows: int):
    found = list(batches(LENGTHS, batch_rows))
    assert all(0 < len(row_R) <= batch_rows for row_R in found)
    assert all(len(set(bucket(LENGTHS[row_R]))) == 1 for row_R in found)
    assert np.concatenate(found).tolist() == np.concatenate(list(by_length(LENGTHS, batch_rows))).tolist()
    assert len(found) <= len(list(by_length(LENGTHS, batch_rows))) + len(set(bucket(LENGTHS)))


def _task(labels: tuple[str, ...] = ()) -> Task:
    random = np.random.default_rng(1)
    words = ["fish", "cup", "a", "under", "tall", "green"]
    texts = [" ".join(random.choice(words, n)) for n in random.integers(1, 30, 60)]
    targets = ("yes", "no") if labels else ("yes, that is so", "no")
    rows = tuple(Row(str(i), text, targets[i % 2]) for i, text in enumerate(texts))
    metric = {"metric": "accuracy", "labels": labels} if labels else {"metric": "squad"}
    return make_task("toy/rows", Rows({"train": (), "validation": rows}), input_length=200, target_length=16, **metric)


def test_no_row_is_padded_beyond_its_bucket(monkeypatch: pytest.MonkeyPatch):
    """What the model is given, seen where it is given: every row's padding stays within its own bucket."""
    seen: list[np.ndarray] = []
    real = generate.generate

    def watched(models: Any, source_RS: np.ndarray, *others: Any, **named: Any) -> Any:
        seen.append(source_RS)
        return real(models, source_RS, *others, **named)

    monkeypatch.setattr(generate, "generate", watched)
    evaluate(talkative(SHAPES["v1.0"], 0), ByteVocab(), _task())
    assert sum(map(len, seen)) == 60
    for source_RS in seen:
        length_R = (source_RS != 0).sum(1)
        assert source_RS.shape[1] == length_R.max(), "no column is padding alone"
        assert (source_RS.shape[1] <= bucket(length_R)).all()
    padded = sum(source_RS.size for source_RS in seen) / sum((source_RS != 0).sum() for source_RS in seen)
    assert padded < 1.1


@pytest.mark.parametrize("method", ["greedy", Beam(3), Rank(), Rank(per_token=True)], ids=str)
@pytest.mark.parametrize("family", ["v1.0", "v1.1"])
def test_batches_change_nothing(family: str, method: Any):
    model, task = talkative(SHAPES[family], 3), _task(("yes", "no") if isinstance(method, Rank) else ())
    wanted = evaluate(model, ByteVocab(), task, batch_rows=64, method=method)
    if not isinstance(method, Rank):
        assert len({one.text for one in wanted.predictions}) > 3, "answers differ, so mixing them up would show"
    shuffled = list(np.random.default_rng(2).permutation(60))
    for batch_rows, order in ((1, range(60)), (7, range(60)), (64, shuffled)):
        rows = [task.evaluation_rows[i] for i in order]
        found = evaluate(model, ByteVocab(), task, rows, batch_rows=batch_rows, method=method)
        by_id = {one.row.id: one for one in found.predictions}
        for one in wanted.predictions:
            other = by_id[one.row.id]
            assert (other.text, other.answer, other.tokens) == (one.text, one.answer, one.tokens)
            assert other.nats == pytest.approx(one.nats, rel=1e-5)
            assert other.choices == pytest.approx(one.choices, rel=1e-5)
        assert found.metrics == wanted.metrics


def test_rank_takes_the_likeliest_choice_and_keeps_what_each_costs():
    model, task = talkative(SHAPES["v1.0"], 0), _task(("yes", "no", "perhaps"))
    plain = evaluate(model, ByteVocab(), task, method="rank")
    each = evaluate(model, ByteVocab(), task, method=Rank(per_token=True))
    assert plain.unreadable == 0
    tokens = [len(choice) + 1 for choice in task.choices]
    for one, other in zip(plain.predictions, each.predictions, strict=True):
        assert one.choices == other.choices
        assert one.answer == task.choices[int(np.argmin(one.choices))]
        assert other.answer == task.choices[int(np.argmin(np.array(one.choices) / tokens))]
        at = task.choices.index(one.row.target)
        assert one.choices[at] == pytest.approx(one.nats, rel=1e-5), "the target's own likelihood, had another way"
    assert [one.answer for one in plain.predictions] != [one.answer for one in each.predictions]
