"""Scoring: a task and a model -> predictions and scores, a batch at a time.

The likelihood of the targets goes by source and target length together, the answers by source length alone, both in
batches of rows of like length (rows.py). Each batch's result is a part (parts.py): kept, it need not be made again.

    N  rows of the task    R  rows of a batch    C  choices
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from t5study.decode import generate, scores, weights
from t5study.decode.generate import together
from t5study.decode.rows import by_length
from t5study.evaluate.evaluation import Evaluation, Prediction, judged
from t5study.evaluate.methods import Asking, Rank, asking
from t5study.evaluate.parts import Parts
from t5study.evaluate.ranking import choice_nats
from t5study.evaluate.rows import batches, encoded, encoded_texts
from t5study.ground.errors import UserError
from t5study.ground.pairs import Pair, pad_rows
from t5study.tasks.task import Row, Task
from t5study.vocab import AnyVocab

if TYPE_CHECKING:
    from t5study.model.architectures import Model


def evaluate(
    model: Model | Sequence[Model],
    vocab: AnyVocab,
    task: Task,
    rows: Sequence[Row] | None = None,
    *,
    batch_rows: int = 64,
    source_length: int | None = None,
    target_length: int | None = None,
    method: str | Asking = "greedy",
    parts: Parts | None = None,
) -> Evaluation:
    """Scores a model, or several as one (their logits averaged), on a task's validation rows, or on the rows given.

    source_length, target_length: tokens that rows are trimmed to, EOS kept, for the likelihood and the answers alike
    (default: the task's). Answers are decoded no longer than the longest target of these rows; metrics compare them
    with the whole targets. method: "greedy", "beam", "rank" or a value (methods.py). parts: where batches are kept.
    UserError if there are no rows, the model is not finite on one, or the task has no choices to rank; or if several
    models are to rank them.
    """
    rows = list(task.evaluation_rows if rows is None else rows)
    if not rows:
        raise UserError(f"task {task.name}: found no rows to score; give it validation rows")
    parts = Parts() if parts is None else parts
    pairs = encoded(vocab, rows, source_length or task.input_length, target_length or task.target_length)
    nats_N, tokens_N = likelihoods(model, pairs, batch_rows, parts)
    for row, nats in zip(rows, nats_N, strict=True):
        if not math.isfinite(nats):
            raise UserError(f"task {task.name}: row {row.id}: found a likelihood of {nats}; the weights are not usable")
    longest = max(len(pair.target) for pair in pairs)
    texts, nats_NC = answers(model, vocab, task, pairs, longest, asking(method), batch_rows, parts)
    return judged(task, rows, texts, nats_N, tokens_N, nats_NC)


def unlabelled(
    model: Model | Sequence[Model],
    vocab: AnyVocab,
    task: Task,
    rows: Sequence[Row],
    *,
    batch_rows: int = 64,
    source_length: int | None = None,
    target_length: int | None = None,
    method: str | Asking = "greedy",
    parts: Parts | None = None,
) -> tuple[Prediction, ...]:
    """Answers to rows that have no targets (a benchmark's test rows). They are as long as a choice or, where the task
    has none, as its targets may be."""
    parts = Parts() if parts is None else parts
    most = target_length or task.target_length
    pairs = encoded(vocab, rows, source_length or task.input_length, most)
    longest = max((len(ids) for ids in encoded_texts(vocab, task.choices, most)), default=most)
    texts, nats_NC = answers(model, vocab, task, pairs, longest, asking(method), batch_rows, parts)
    ranked = nats_NC or [[]] * len(rows)
    return tuple(
        Prediction(row, text, task.parse(text), None, 0, tuple(each))
        for row, text, each in zip(rows, texts, ranked, strict=True)
    )


def likelihoods(
    model: Model | Sequence[Model], pairs: Sequence[Pair], batch_rows: int, parts: Parts
) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each target and the tokens they are a sum over."""
    tokens_N = np.array([len(pair.target) for pair in pairs])
    length_N = np.array([len(pair.source) for pair in pairs]) + tokens_N
    nats_N = np.zeros(len(pairs))
    for i, row_R in enumerate(by_length(length_N, batch_rows)):
        nats_N[row_R] = parts.get(
            f"nats {i}", lambda row_R=row_R: _nats(model, [pairs[row] for row in row_R]), len(row_R)
        )
    return nats_N, tokens_N


def _nats(model: Model | Sequence[Model], pairs: Sequence[Pair]) -> list[float]:
    source_RS, _ = pad_rows([pair.source for pair in pairs])
    target_RT, _ = pad_rows([pair.target for pair in pairs])
    return scores.target_scores(model, source_RS, target_RT, len(pairs))[0].tolist()


def answers(
    model: Model | Sequence[Model],
    vocab: AnyVocab,
    task: Task,
    pairs: Sequence[Pair],
    longest: int,
    method: Asking,
    batch_rows: int,
    parts: Parts,
) -> tuple[list[str], list[list[float]]]:
    """A text a row, of at most `longest` tokens; and nats of every choice (N, C), nothing where none were ranked."""
    choices = encoded_texts(vocab, task.choices, task.target_length)
    if isinstance(method, Rank) and not choices:
        raise UserError(f"task {task.name}: has no fixed labels to rank; give another method")
    members = [weights.ready(member) for member in together(model)]
    prepared = members if len(members) > 1 else members[0]
    if isinstance(method, Rank) and len(members) > 1:
        raise UserError(
            f"task {task.name}: found {len(members)} models to rank its labels; give one, or another method"
        )
    texts, nats_NC = [""] * len(pairs), [[]] * len(pairs)
    for i, row_R in enumerate(batches(np.array([len(pair.source) for pair in pairs]), batch_rows)):

        def batch(row_R: np.ndarray = row_R) -> list:
            source_RS, _ = pad_rows([pairs[row].source for row in row_R])
            if isinstance(method, Rank):
                return choice_nats(members[0], source_RS, choices, batch_rows).tolist()
            found = generate.generate(prepared, source_RS, longest, method, batch_rows=len(row_R))
            return [vocab.decode(answer.ids) for answer in found]

        for row, each in zip(row_R, parts.get(f"answers {i}", batch, len(row_R)), strict=True):
            if isinstance(method, Rank):
                nats_NC[row], texts[row] = each, task.choices[likeliest(each, choices, method)]
            else:
                texts[row] = each
    return texts, nats_NC if isinstance(method, Rank) else []


def likeliest(nats_C: Sequence[float], choices: Sequence[np.ndarray], how: Rank) -> int:
    """The number of the likeliest choice, the first of equal ones."""
    tokens_C = np.array([len(ids) for ids in choices])
    return int((np.array(nats_C) / (tokens_C if how.per_token else 1)).argmin())
