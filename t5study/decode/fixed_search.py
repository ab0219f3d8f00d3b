"""Search in fixed places: logits -> tokens and answers as search.py has them, on the logits' device and in place, with
no word to the host: a part of a step that can be recorded (graphs.py).

A row that is done keeps its place; what it says from then on counts for nothing.

    R  rows of the batch    K  beams    A  answers under way, R K    V  vocabulary    C  candidates, 2 K
    T  places of an answer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t5study.decode.choose import UNUSABLE, log_p_of, lots, taken
from t5study.decode.methods import Beam, Method, Sample
from t5study.decode.search import Answer, answer_of
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, PAD

Buffer = Callable[[str, Sequence[int], torch.dtype], Tensor]  # a name, a shape and a kind -> a tensor that stays there
LEAST = -np.inf


@dataclass(frozen=True)
class Search:
    """count_1: tokens that each answer has. token_A: the last of each. done_R: rows that are, padding from the start.
    bad_1: whether there was a logit that is not a number. said_RT, score_R: the answers so far (of beams: the best)."""

    method: Method
    count_1: Tensor
    token_A: Tensor
    done_R: Tensor
    bad_1: Tensor
    said_RT: Tensor
    score_R: Tensor

    def start(self, row_R: np.ndarray, max_length: int) -> None:
        """row_R: numbers of the batch's rows among all sources; the places behind them are padding."""
        for x in (self.count_1, self.token_A, self.bad_1, self.said_RT, self.score_R):
            x.zero_()
        self.done_R.fill_(True)
        self.done_R[: len(row_R)] = False

    def choose(self, logits_AV: Tensor) -> Tensor | None:
        """One more token for each answer; from which of its row's (R, K) each goes on, where there are several."""
        raise NotImplementedError

    def over(self) -> bool:
        """Whether no row goes on: asks the device, and so waits for it."""
        return bool((self.done_R.all() | self.bad_1).cpu())

    def answers(self, rows: int, max_length: int) -> list[Answer]:
        """UserError if logits were not finite."""
        if bool(self.bad_1.cpu()):
            raise UserError(UNUSABLE)
        said_RT, score_R = self.said_RT[:rows, :max_length].cpu().numpy(), self.score_R[:rows].cpu().numpy()
        return [answer_of(ids_T.astype(np.int32), score) for ids_T, score in zip(said_RT, score_R, strict=True)]


@dataclass(frozen=True)
class OneByOne(Search):
    """Greedy and sampling. lot_RT: of Sample, the numbers its tokens are drawn by; else (R, 0)."""

    lot_RT: Tensor

    def start(self, row_R: np.ndarray, max_length: int) -> None:
        super().start(row_R, max_length)
        if isinstance(self.method, Sample):
            lot_RT = lots(self.method, row_R, np.arange(max_length))
            self.lot_RT[: len(row_R), :max_length] = torch.from_numpy(lot_RT).to(self.lot_RT.device)

    def choose(self, logits_AV: Tensor) -> Tensor | None:
        if isinstance(self.method, Sample):
            token_A, log_p_A = taken(logits_AV, self.method, self.lot_RT.index_select(1, self.count_1).squeeze(1))
        else:
            token_A = logits_AV.argmax(1)
            log_p_A = log_p_of(logits_AV, token_A).double()
        self.bad_1.logical_or_((log_p_A.isnan() & ~self.done_R).any())
        self.score_R.add_(log_p_A.masked_fill(self.done_R, 0))
        self.token_A.copy_(token_A.masked_fill(self.done_R, PAD))
        self.said_RT.index_copy_(1, self.count_1, self.token_A[:, None])
        self.done_R.logical_or_(self.token_A == EOS)
        self.count_1.add_(1)
        return None


@dataclass(frozen=True)
class Beams(Search):
    """Beam search. The same names as in search.py, live_RK being -inf for a beam that there is none of.
    penalty_T: of answers of 1, 2, ... tokens. most_1: the penalty at `max_length`."""

    beams: int
    live_RK: Tensor
    live_RKT: Tensor
    score_RK: Tensor
    finished_RKT: Tensor
    penalty_T: Tensor
    most_1: Tensor

    def start(self, row_R: np.ndarray, max_length: int) -> None:
        super().start(row_R, max_length)
        assert isinstance(self.method, Beam)
        self.live_RK.fill_(LEAST)
        self.live_RK[:, 0] = 0
        self.score_RK.fill_(LEAST)
        self.live_RKT.zero_()
        self.finished_RKT.zero_()
        penalty_T = [self.method.penalty(n) for n in range(1, len(self.penalty_T) + 1)]
        self.penalty_T.copy_(torch.tensor(penalty_T, dtype=torch.float64))
        self.most_1.fill_(self.method.penalty(max_length))

    def choose(self, logits_AV: Tensor) -> Tensor | None:
        k, rows = self.beams, len(self.done_R)
        each = min(2 * k, logits_AV.shape[1])
        found = logits_AV.topk(each, 1)
        log_p_AC = found.values.float() - logits_AV.float().logsumexp(1, keepdim=True)
        self.bad_1.logical_or_((log_p_AC.isnan().view(rows, -1) & ~self.done_R[:, None]).any())
        sum_RX = (self.live_RK.view(-1, 1) + log_p_AC.double()).view(rows, -1)
        sum_RC, order_RC = (x[:, : 2 * k] for x in sum_RX.sort(dim=1, descending=True, stable=True))
        beam_RC, token_RC = order_RC // each, found.indices.view(rows, -1).gather(1, order_RC)
        said_RCT = _rows(self.live_RKT, beam_RC).index_copy_(2, self.count_1, token_RC[..., None])
        ends_RC, penalty_1 = token_RC == EOS, self.penalty_T.index_select(0, self.count_1)

        score_RC = torch.cat((self.score_RK, (sum_RC / penalty_1).masked_fill(~ends_RC, LEAST)), 1)
        order_RK = score_RC.sort(dim=1, descending=True, stable=True).indices[:, :k]
        self.score_RK.copy_(score_RC.gather(1, order_RK))
        self.finished_RKT.copy_(_rows(torch.cat((self.finished_RKT, said_RCT), 1), order_RK))

        order_RK = ends_RC.int().sort(dim=1, stable=True).indices[:, :k]  # best first already; at most k of 2 k end
        self.live_RK.copy_(sum_RC.masked_fill(ends_RC, LEAST).gather(1, order_RK))
        self.live_RKT.copy_(_rows(said_RCT, order_RK))
        self.token_A.copy_(token_RC.gather(1, order_RK).view(-1))

        self._keep(penalty_1)
        self.count_1.add_(1)
        return beam_RC.gather(1, order_RK)

    def _keep(self, penalty_1: Tensor) -> None:
        """The answer of each row as of now. Of one that is done it is what it was: nothing that it could still say
        comes among its finished ones."""
        some_R, best_R = self.score_RK[:, 0] > LEAST, self.live_RK[:, 0]
        self.said_RT.copy_(torch.where(some_R[:, None], self.finished_RKT[:, 0], self.live_RKT[:, 0]))
        self.score_R.copy_(torch.where(some_R, self.score_RK[:, 0], best_R / penalty_1))
        self.done_R.logical_or_((self.score_RK[:, -1] > best_R / self.most_1) | (best_R == LEAST))


def _rows(x_RXT: Tensor, index_RC: Tensor) -> Tensor:
    """x[r, index[r, c]] (R, C, T), a copy."""
    return x_RXT.gather(1, index_RC[..., None].expand(-1, -1, x_RXT.shape[2]))


def search_in(buffer: Buffer, method: Method, rows: int, places: int) -> Search:
    """The buffers of a search for answers of at most so many tokens."""
    beams = method.beams if isinstance(method, Beam) else 1
    whole, real = torch.int64, torch.float64
    common = (
        buffer("count", (1,), whole), buffer("token", (rows * beams,), whole), buffer("done", (rows,), torch.bool),
        buffer("bad", (1,), torch.bool), buffer("said", (rows, places), whole), buffer("score", (rows,), real),
    )  # fmt: skip
    if not isinstance(method, Beam):
        width = places if isinstance(method, Sample) else 0
        return OneByOne(method, *common, buffer("lots", (rows, width), real))
    return Beams(
        method, *common, beams, buffer("live", (rows, beams), real), buffer("said live", (rows, beams, places), whole),
        buffer("finished", (rows, beams), real), buffer("said finished", (rows, beams, places), whole),
        buffer("penalties", (places,), real), buffer("penalty", (1,), real),
    )  # fmt: skip


def recorded_of(method: Method) -> tuple[object, ...]:
    """What a method's kernels depend on: neither a seed nor a penalty, which lie in buffers."""
    if isinstance(method, Sample):
        return "sample", method.temperature, method.top_k, method.top_p
    return ("beam", method.beams) if isinstance(method, Beam) else ("greedy",)
