"""Generate: models and sources -> answers.

Rows are sorted by length and taken in batches, so rows that share a batch end at about the same time. A row that is
done leaves the batch at once: the steps that are left cost only what the rows that are left cost.

    N  rows    R  rows of a batch    S  source tokens    T  target tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from t5study.decode.choose import drawn, likeliest
from t5study.decode.ensembles import Together, check_average
from t5study.decode.fixed import decoded, round_places
from t5study.decode.loop_steps import LoopSteps
from t5study.decode.methods import LONGEST_ANSWER, Beam, Greedy, Method, Sample, whole
from t5study.decode.rows import LONGEST_SOURCE, by_length, lengths
from t5study.decode.search import Answer, beam_search, one_by_one
from t5study.decode.steps import Compiler, TensorSteps, advance
from t5study.decode.weights import Ready, ready
from t5study.ground.errors import UserError
from t5study.model.architectures import Model

T = TypeVar("T")
ROOM = 1 << 30  # bytes of the answers' keys and values in a batch: longer answers get fewer rows at a time


def generate(
    models: Model | Ready | Sequence[Model | Ready],
    source_NS: np.ndarray,
    max_length: int,
    method: Method | None = None,
    *,
    average: str = "logits",
    precision: str = "float32",
    batch_rows: int = 64,
    compiled: Compiler | None = None,
) -> list[Answer]:
    """Answers of at most `max_length` tokens, EOS counted, in the order of the sources, whose padding is 0.

    models: one, or several of the same vocabulary that answer together, `average` ("logits" or "probabilities") at
    every step; `ready(model)` in place of a model saves laying out its weights again. method: Greedy() by default.
    precision: "int8" rounds weights to 8 bits, on a CPU (docs/decode.md says what that changes).
    compiled: runs with static shapes, the step's function through this, e.g. `torch.compile`.
    UserError for anything that cannot be.
    """
    method = Greedy() if method is None else method
    whole("max_length", max_length, 1, LONGEST_ANSWER)
    whole("batch_rows", batch_rows, 1, 1 << 20)
    check_average(average)
    if not isinstance(method, Greedy | Beam | Sample):
        raise UserError(f"method: found {method!r}; give Greedy(), Beam(...) or Sample(...)")
    members = together(models)
    length_N = lengths(source_NS, "source", table_rows(members), most=LONGEST_SOURCE)
    answers: list[Answer] = [Answer(np.zeros(0, np.int32), 0.0)] * len(source_NS)
    if not len(source_NS):
        return answers
    beams = method.beams if isinstance(method, Beam) else 1
    with torch.no_grad():
        prepared = [ready(model, precision, tensors=compiled is not None) for model in members]
        run = None if compiled is None else compiled(advance)
        places = max_length if prepared[0].graphs is None else round_places(max_length)
        most = max(1, ROOM // (places * beams * max(_bytes_of_a_place(member) for member in prepared)))
        if prepared[0].graphs is not None:
            most = 1 << (most.bit_length() - 1)  # there rows are rounded up to a power of two
        for row_R in by_length(length_N, min(batch_rows, most)):
            source_RS = source_NS[row_R]
            if run is not None:  # a short batch is filled up, so that all have one shape
                source_RS = np.resize(source_RS, (min(batch_rows, most), source_RS.shape[1]))
            found = _batch(prepared, source_RS, row_R, max_length, method, average, run)
            for row, answer in zip(row_R, found, strict=False):
                answers[row] = answer
    return answers


def greedy(model: Model | Ready, source_NS: np.ndarray, max_length: int, batch_rows: int = 64) -> list[np.ndarray]:
    """The likeliest next token, again and again, until EOS or `max_length` tokens: int32 ids without EOS and padding,
    in the order of the sources. UserError if a source is empty."""
    return [answer.ids for answer in generate(model, source_NS, max_length, batch_rows=batch_rows)]


def together(models: T | Sequence[T]) -> list[T]:
    """One model or several, as a list."""
    members = list(models) if isinstance(models, Sequence) else [models]
    if not members:
        raise UserError("models: found none; give at least one")
    return members


def table_rows(members: Sequence[Model | Ready]) -> int:
    """Rows of the members' embedding tables. UserError if they differ: then so do the vocabularies."""
    found = {(member.model if isinstance(member, Ready) else member).shape.table_rows for member in members}
    if len(found) > 1:
        raise UserError(f"models: found vocabularies of {sorted(found)} rows; give models of the same vocabulary")
    return found.pop()


def _bytes_of_a_place(member: Ready) -> int:
    shape = member.model.shape
    return 2 * shape.inner * shape.decoder_layers * 4 or 1


def _batch(
    members: Sequence[Ready],
    source_RS: np.ndarray,
    row_R: np.ndarray,
    max_length: int,
    method: Method,
    average: str,
    run: Callable[..., Tensor] | None,
) -> list[Answer]:
    """row_R: the rows' numbers among all sources; fewer than sources where a batch was filled up."""
    if run is None and (graphs := members[0].graphs) is not None:
        return decoded(graphs, members, source_RS, row_R, max_length, method, average)
    answers = len(source_RS) * (method.beams if isinstance(method, Beam) else 1)
    steps = Together([_steps(member, source_RS, max_length, answers, run) for member in members], average)
    row_R = np.resize(row_R, len(source_RS))
    if isinstance(method, Beam):
        return beam_search(steps, len(row_R), max_length, method, leave=run is None)
    if isinstance(method, Sample):
        return one_by_one(steps, row_R, max_length, lambda *now: drawn(now[0], method, now[1], now[2]), run is None)
    return one_by_one(steps, row_R, max_length, lambda *now: likeliest(now[0]), run is None)


def _steps(
    member: Ready, source_RS: np.ndarray, places: int, answers: int, run: Callable[..., Tensor] | None
) -> LoopSteps | TensorSteps:
    if member.in_panels:
        return LoopSteps(member, source_RS, places, answers)
    return TensorSteps(member, source_RS, places, run)
