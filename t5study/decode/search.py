"""Search: steps -> answers.

R  rows of the batch    A  answers under way    K  beams    C  candidates, 2 K    T  tokens of an answer
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from t5study.decode.choose import best
from t5study.decode.methods import Beam
from t5study.decode.steps import Steps
from t5study.ground.pairs import EOS, PAD

Choose = Callable[[Tensor, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Answer:
    """ids: int32, without EOS and padding. score: the sum of log p over its tokens, EOS counted if it was said; from a
    beam search, that sum over the length penalty."""

    ids: np.ndarray
    score: float


def one_by_one(steps: Steps, row_R: np.ndarray, max_length: int, choose: Choose, leave: bool) -> list[Answer]:
    """One answer a row, a token at a time. choose: logits, numbers of the rows, step -> tokens and log p.
    leave: a row that has said EOS goes, and costs no more; otherwise its place is kept and what it says is dropped."""
    rows = len(row_R)
    said_RT, score_R = np.full((rows, max_length), PAD, np.int32), np.zeros(rows)
    open_A, logits_AV = np.arange(rows), steps.first()
    going_R = np.ones(rows, bool)
    for t in range(max_length):
        token_A, log_p_A = choose(logits_AV, row_R[open_A], t)
        token_A = np.where(going_R[open_A], token_A, PAD)
        said_RT[open_A, t] = token_A
        score_R[open_A] += np.where(going_R[open_A], log_p_A, 0)
        going_R[open_A[token_A == EOS]] = False
        if t + 1 == max_length or not going_R.any():
            break
        going_A = going_R[open_A]
        if leave and not going_A.all():
            steps.select(np.flatnonzero(going_A), 1)
            open_A, token_A = open_A[going_A], token_A[going_A]
        logits_AV = steps.next(token_A)
    return [answer_of(ids_T, score) for ids_T, score in zip(said_RT, score_R, strict=True)]


def answer_of(ids_T: np.ndarray, score: float) -> Answer:
    """Of all tokens that were said, EOS and padding among them."""
    return Answer(ids_T[(ids_T != EOS) & (ids_T != PAD)], float(score))


@dataclass
class _Beams:
    """Of each row under way: sums of log p (R, K) and tokens (R, K, T) of its live beams, best first; scores and tokens
    of its finished answers, -inf where there is none yet."""

    live_RK: np.ndarray
    said_RKT: np.ndarray
    score_RK: np.ndarray
    finished_RKT: np.ndarray


def beam_search(steps: Steps, rows: int, max_length: int, how: Beam, leave: bool) -> list[Answer]:
    """T5's beam search. At every step the 2 K best continuations of a row's beams are looked at: those that end in EOS
    are finished and compete by penalised score for K places; the best K others live on. A row is done when its worst
    finished answer beats what its best live beam could still get, its sum over the penalty at `max_length`; so
    stopping never changes the outcome. Live beams are returned only where nothing has finished."""
    k, least = how.beams, -np.inf
    nothing = np.full((rows, k, max_length), PAD, np.int32)
    state = _Beams(np.zeros((rows, 1)), nothing[:, :1], np.full((rows, k), least), nothing.copy())
    answers: list[Answer | None] = [None] * rows
    row_R, logits_AV = np.arange(rows), steps.first()
    for t in range(max_length):
        beam_RK, token_RK = _grow(state, logits_AV, how, t, last=t + 1 == max_length)
        bound_R = state.live_RK[:, 0] / how.penalty(max_length)
        done_R = (state.score_RK[:, -1] > bound_R) | (state.live_RK[:, 0] == least)
        if t + 1 == max_length:
            done_R[:] = True
        for r in np.flatnonzero(done_R).tolist():
            if answers[row_R[r]] is None:
                answers[row_R[r]] = _best(state, r, how.penalty(t + 1))
        if done_R.all():
            break
        beams_before = logits_AV.shape[0] // len(row_R)
        parent_RK = np.arange(len(row_R))[:, None] * beams_before + beam_RK
        if leave and done_R.any():
            parent_RK, token_RK, row_R = parent_RK[~done_R], token_RK[~done_R], row_R[~done_R]
            state = _Beams(*(x[~done_R] for x in vars(state).values()))
        steps.select(parent_RK.reshape(-1), k)
        logits_AV = steps.next(token_RK.reshape(-1))
    return [answer for answer in answers if answer is not None]


def finishes(token_RC: np.ndarray, beams: int, last: bool) -> np.ndarray:
    """Which of the 2 K candidates, best first, finish an answer. T5's rule: all that end in EOS. (transformers' rule
    differs here alone: there only the K best may, and at the last step those need not end in EOS.)"""
    return token_RC == EOS


def _grow(state: _Beams, logits_AV: Tensor, how: Beam, t: int, last: bool) -> tuple[np.ndarray, np.ndarray]:
    """One more token: which beam each new live beam goes on from, and with which token, (R, K) each."""
    k = how.beams
    sum_RC, beam_RC, token_RC = best(logits_AV, state.live_RK, 2 * k)
    if short := max(0, 2 * k - sum_RC.shape[1]):  # fewer continuations than candidates: a small vocabulary
        sum_RC = np.pad(sum_RC, ((0, 0), (0, short)), constant_values=-np.inf)
        beam_RC, token_RC = (np.pad(x, ((0, 0), (0, short))) for x in (beam_RC, token_RC))
    said_RCT = np.take_along_axis(state.said_RKT, beam_RC[..., None], 1)
    said_RCT[:, :, t] = token_RC
    ends_RC = token_RC == EOS

    finishes_RC = finishes(token_RC, k, last)
    score_RC = np.concatenate((state.score_RK, np.where(finishes_RC, sum_RC / how.penalty(t + 1), -np.inf)), 1)
    order_RK = np.argsort(-score_RC, axis=1, kind="stable")[:, :k]
    state.score_RK = np.take_along_axis(score_RC, order_RK, 1)
    all_RCT = np.concatenate((state.finished_RKT, said_RCT), 1)
    state.finished_RKT = np.take_along_axis(all_RCT, order_RK[..., None], 1)

    order_RK = np.argsort(ends_RC, axis=1, kind="stable")[:, :k]  # best first already; at most k of 2 k end
    state.live_RK = np.where(np.take_along_axis(ends_RC, order_RK, 1), -np.inf, np.take_along_axis(sum_RC, order_RK, 1))
    state.said_RKT = np.take_along_axis(said_RCT, order_RK[..., None], 1)
    return np.take_along_axis(beam_RC, order_RK, 1), np.take_along_axis(token_RC, order_RK, 1)


def _best(state: _Beams, r: int, penalty: float) -> Answer:
    if state.score_RK[r, 0] > -np.inf:
        return answer_of(state.finished_RKT[r, 0], state.score_RK[r, 0])
    return answer_of(state.said_RKT[r, 0], state.live_RK[r, 0] / penalty)
