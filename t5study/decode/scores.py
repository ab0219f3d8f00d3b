"""Scores: how likely given targets are under one model or several, and which of some choices is the likeliest.

N  rows    R  rows of a batch    C  choices    S  source tokens    T  target tokens    M  target tokens of a batch
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from t5study.decode.ensembles import averaged, check_average
from t5study.decode.generate import table_rows, together
from t5study.decode.methods import whole
from t5study.decode.rows import LONGEST_SOURCE, by_length, inputs_of, lengths
from t5study.ground.errors import UserError
from t5study.ground.pairs import pad_rows
from t5study.model.architectures import Model
from t5study.model.inputs import Inputs

LOGITS = 1 << 25  # numbers of an ensemble's logits that are held at once, a member


def target_scores(
    models: Model | Sequence[Model],
    source_NS: np.ndarray,
    target_NT: np.ndarray,
    batch_rows: int = 64,
    *,
    average: str = "logits",
) -> tuple[np.ndarray, np.ndarray]:
    """-log p(target | source) of each row in nats, float64, and the target tokens it is a sum over, EOS counted.

    Several models are one whose logits or probabilities (`average`) are their mean. UserError if a source is empty.
    """
    members = together(models)
    check_average(average)
    whole("batch_rows", batch_rows, 1, 1 << 20)
    vocabulary = table_rows(members)
    source_N = lengths(source_NS, "source", vocabulary, most=LONGEST_SOURCE)
    tokens_N = lengths(target_NT, "target", vocabulary, least=0, most=LONGEST_SOURCE)
    if len(source_N) != len(tokens_N):
        raise UserError(f"target: found {len(tokens_N)} rows for {len(source_N)} sources; give as many")
    if len(members) > 1:
        batch_rows = min(batch_rows, max(1, LOGITS // (vocabulary * max(1, int(tokens_N.max(initial=0))))))
    nats_N = np.zeros(len(source_N))
    for row_R in by_length(source_N + tokens_N, batch_rows):
        each = [inputs_of(model, source_NS[row_R], target_NT[row_R]) for model in members]
        nats_M = _nats(members, each, average)
        nats_N[row_R] = np.bincount(each[0].target_row_M.cpu().numpy(), nats_M, minlength=len(row_R))
    return nats_N, tokens_N


def _nats(members: Sequence[Model], each: Sequence[Inputs], average: str) -> np.ndarray:
    """-log p of each target token."""
    if len(members) == 1:
        return members[0].nats(each[0]).double().cpu().numpy()
    with torch.no_grad():
        logits = [model.logits(inputs).cpu() for model, inputs in zip(members, each, strict=True)]
        log_p_MV = averaged(logits, average).double().log_softmax(1)
        return -log_p_MV.gather(1, each[0].label_M.cpu()[:, None]).squeeze(1).numpy()


def rank(
    models: Model | Sequence[Model],
    source_NS: np.ndarray,
    choices: Sequence[np.ndarray] | Sequence[Sequence[np.ndarray]],
    *,
    average: str = "logits",
    per_token: bool = False,
    batch_rows: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank classification: the number of each row's likeliest choice, and the nats (N, C) of all of them.

    choices: target ids, EOS at the end, the same for all rows; or a list of them a row, then nats are inf beyond a
    row's own. per_token: compares nats a token, so that long choices are not at a disadvantage. The first of equal ones
    is taken. UserError for a row without choices, or for an empty choice.
    """
    source_NS = np.asarray(source_NS)
    lists = [[np.asarray(ids) for ids in row] for row in _a_row(choices, len(source_NS))]
    if not lists:
        return np.zeros(0, np.int64), np.zeros((0, 0))
    for i, row in enumerate(lists):
        if not row or any(ids.ndim != 1 or not len(ids) for ids in row):
            raise UserError(f"choices: row {i}: found {'an empty one' if row else 'none'}; give each at least EOS")
    row_X = np.repeat(np.arange(len(lists)), [len(row) for row in lists])
    choice_X = np.concatenate([np.arange(len(row)) for row in lists])
    target_XT, _ = pad_rows([ids for row in lists for ids in row])
    nats_X, tokens_X = target_scores(models, source_NS[row_X], target_XT, batch_rows, average=average)
    nats_NC = np.full((len(lists), int(choice_X.max()) + 1), np.inf)
    nats_NC[row_X, choice_X] = nats_X / np.maximum(tokens_X, 1) if per_token else nats_X
    return nats_NC.argmin(1), nats_NC


def _a_row(choices: Sequence, rows: int) -> Sequence[Sequence[np.ndarray]]:
    """The choices of each row: the same for all where they are one list of ids."""
    if (
        len(choices)
        and np.ndim(choices[0]) == 1
        and len(choices[0])
        and all(isinstance(i, int | np.integer) for i in choices[0])
    ):
        return [list(choices)] * rows
    if len(choices) != rows:
        raise UserError(f"choices: found {len(choices)} lists for {rows} sources; give one list, or one a row")
    return choices
