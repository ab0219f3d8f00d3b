"""Ranking: how likely each of a task's labels is as the answer to each row.

`decode.scores.rank` scores any choices, each with its source. Here the choices are the same for all rows and short, so
a source is read once and all choices grow side by side from what was read, as the beams of one row do.

    R  rows of a batch    S  source tokens    C  choices    A  answers under way: R rows of those choices not yet at EOS
    V  vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from t5study.decode.loop_steps import LoopSteps
from t5study.decode.rows import LONGEST_SOURCE, lengths
from t5study.decode.steps import TensorSteps
from t5study.decode.weights import Ready


def choice_nats(ready: Ready, source_RS: np.ndarray, choices: Sequence[np.ndarray], batch_rows: int = 64) -> np.ndarray:
    """-log p of each choice given each source, (R, C) float64. choices: ids, EOS at their ends. batch_rows: the most
    answers that grow side by side."""
    lengths(source_RS, "source", ready.model.shape.table_rows, most=LONGEST_SOURCE)
    each = max(1, batch_rows // len(choices))
    with torch.no_grad():
        found = [_nats(ready, source_RS[first : first + each], choices) for first in range(0, len(source_RS), each)]
    return np.concatenate(found)


def _nats(ready: Ready, source_RS: np.ndarray, choices: Sequence[np.ndarray]) -> np.ndarray:
    rows, token_C = len(source_RS), np.array([len(ids) for ids in choices])
    longest, answers = int(token_C.max()), rows * len(choices)
    steps = LoopSteps(ready, source_RS, longest, answers) if ready.in_panels else TensorSteps(ready, source_RS, longest)
    nats_RC = np.zeros((rows, len(choices)))
    logits_AV, under_way = steps.first(), np.zeros(1, np.int64)  # one answer a row, which all choices go on from
    for t in range(longest):
        next_C = np.flatnonzero(token_C > t)  # choices that have a token here, and where each was before it
        before_C = np.zeros(len(next_C), np.int64) if t == 0 else np.searchsorted(under_way, next_C)
        parent_A = (np.arange(rows)[:, None] * len(under_way) + before_C).reshape(-1)
        token_A = np.tile([int(choices[c][t]) for c in next_C.tolist()], rows)
        nats_RC[:, next_C] -= _log_p(logits_AV, parent_A, token_A).reshape(rows, -1)
        if t + 1 < longest:
            going = token_C[next_C] > t + 1
            kept_A = np.tile(going, rows)
            steps.select(parent_A[kept_A], int(going.sum()))
            logits_AV, under_way = steps.next(token_A[kept_A]), next_C[going]
    return nats_RC


def _log_p(logits_AV: Tensor, parent_A: np.ndarray, token_A: np.ndarray) -> np.ndarray:
    parent, token = (torch.from_numpy(x).to(logits_AV.device) for x in (parent_A, token_A))
    log_z_A = logits_AV.float().logsumexp(1)
    return (logits_AV[parent, token].float() - log_z_A[parent]).double().cpu().numpy()
