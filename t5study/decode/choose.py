"""Logits -> tokens: the likeliest, one by lot, or the best of all beams' continuations.

A  answers under way    R  rows, of B beams each    V  vocabulary    C  candidates
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t5study.decode.methods import Sample
from t5study.decode.tiles import exp, loop
from t5study.ground.errors import UserError
from t5study.ground.seeds import keys, splitmix

_TILES = "14fb784f3c249e4d"  # digest of tiles.py, whose parts are compiled into the loop below
_f = np.float32
UNUSABLE = "model: found logits that are not finite; its weights are not usable"


def likeliest(logits_AV: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The token with the greatest logit (the first of equal ones) and its log-probability."""
    token_AC, log_p_AC = _top(logits_AV, 1)
    return token_AC[:, 0], log_p_AC[:, 0]


def _top(logits_AV: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest tokens of each answer and their log p, float64, likeliest first."""
    if logits_AV.device.type == "cpu" and logits_AV.dtype == torch.float32:
        token_AC, log_p_AC = top(logits_AV.numpy(), count)
    else:
        found = logits_AV.topk(count, 1)
        log_z_A = logits_AV.float().logsumexp(1, keepdim=True)
        token_AC, log_p_AC = found.indices.cpu().numpy(), (found.values.float() - log_z_A).cpu().numpy()
    _finite(log_p_AC)
    return token_AC, log_p_AC.astype(np.float64)


def drawn(logits_AV: Tensor, how: Sample, row_A: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """A token by lot for each answer, and its log-probability before temperature and cuts. row_A: numbers of the rows
    among all sources, which the lots are drawn by."""
    u_A = torch.from_numpy(lots(how, row_A, np.array([step]))[:, 0])
    token_A, log_p_A = taken(logits_AV, how, u_A.to(logits_AV.device))
    found_A = log_p_A.cpu().numpy()
    _finite(found_A)
    return token_A.cpu().numpy(), found_A


def lots(how: Sample, row_A: np.ndarray, step_T: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each row and step, (A, T) float64: a function of the seed and these two."""
    lot_AT = splitmix(keys(how.seed, "decode", row_A)[:, None] + step_T.astype(np.uint64)) >> np.uint64(24)
    return lot_AT.astype(np.float64) * 2.0**-40


def taken(logits_AV: Tensor, how: Sample, u_A: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that such numbers fall on, and their log p, float64, as `drawn` has them, on the logits' device."""
    p_AV = (logits_AV.double() / how.temperature).softmax(1)
    if 0 < how.top_k < p_AV.shape[1]:
        top = p_AV.topk(how.top_k, 1)
        p_AV = torch.zeros_like(p_AV).scatter_(1, top.indices, top.values)
    if how.top_p < 1:
        sorted_AV, index_AV = (p_AV / p_AV.sum(1, keepdim=True)).sort(dim=1, descending=True, stable=True)
        likelier_AV = sorted_AV.cumsum(1) - sorted_AV
        p_AV = torch.zeros_like(p_AV).scatter_(1, index_AV, sorted_AV.masked_fill(likelier_AV >= how.top_p, 0))
    below_AV = p_AV.cumsum(1)
    token_A = torch.searchsorted(below_AV, u_A[:, None] * below_AV[:, -1:], right=True).squeeze(1)
    token_A = token_A.clamp(max=p_AV.shape[1] - 1)
    return token_A, log_p_of(logits_AV, token_A).double()


def log_p_of(logits_AV: Tensor, token_A: Tensor) -> Tensor:
    """fp32, on the logits' device."""
    chosen_A = logits_AV.gather(1, token_A[:, None]).squeeze(1)
    return chosen_A.float() - logits_AV.float().logsumexp(1)


def best(logits_AV: Tensor, live_RB: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `count` best continuations of each row's beams, best first: sums of log p, the beams they go on from and
    their tokens, (R, C) each. live_RB: the beams' sums; -inf for a beam that there is none of."""
    rows, each = len(live_RB), min(count, logits_AV.shape[1])
    token_AC, log_p_AC = _top(logits_AV, each)
    sum_RX = (live_RB.reshape(-1, 1) + log_p_AC).reshape(rows, -1)  # the best of a row are among each beam's best
    order_RC = np.argsort(-sum_RX, axis=1, kind="stable")[:, :count]
    token_RC = np.take_along_axis(token_AC.reshape(rows, -1), order_RC, 1)
    return np.take_along_axis(sum_RX, order_RC, 1), order_RC // each, token_RC


def _finite(log_p_A: np.ndarray) -> None:
    if np.isnan(log_p_A).any():
        raise UserError(UNUSABLE)


# --- the best of a vocabulary, in one pass ----------------------------------------------------------------------------


def top(logits_AV: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` tokens with the greatest logits, greatest first and the first of equal ones, and their log p,
    (A, count)."""
    token_AC, log_p_AC = np.zeros((len(logits_AV), count), np.int64), np.empty((len(logits_AV), count), np.float32)
    _fill(logits_AV, token_AC, log_p_AC)
    return token_AC, log_p_AC


@loop
def _fill(logits_AV, token_AC, log_p_AC):
    count = token_AC.shape[1]
    for a in range(len(logits_AV)):
        row, token, best = logits_AV[a], token_AC[a], log_p_AC[a]
        best[:] = -np.inf
        least = best[count - 1]
        for v in range(len(row)):
            if row[v] > least:
                at = count - 1
                while at > 0 and row[v] > best[at - 1]:
                    best[at], token[at] = best[at - 1], token[at - 1]
                    at -= 1
                best[at], token[at] = row[v], v
                least = best[count - 1]
        most, total, check = best[0], _f(0), _f(0)
        for v in range(len(row)):
            check += row[v]
            total += exp(row[v] - most)
        log_z = most + np.log(total) + check * _f(0)  # a NaN stays one
        for c in range(count):
            best[c] -= log_z
