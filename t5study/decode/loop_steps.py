"""Steps on a CPU in fp32: the decoder by compiled loops (panels.py, attention.py), on one thread.

Keys and values of the answers are written once and never moved: each answer has a list of where its places lie, and
choosing among beams, or leaving the batch, copies that list. Beams of a row share their source's keys and values.

    R  rows of the batch    A  answers under way    D  d_model    I  H E    L  places for answers    V  vocabulary
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t5study.decode.attention import attend, source_panels
from t5study.decode.encode import feed
from t5study.decode.panels import Panels
from t5study.decode.steps import bias_behind, source_of
from t5study.decode.tiles import panel_width
from t5study.decode.weights import Ready, sees_source_itself

_NO_PANELS, _NO_ROWS = np.zeros(0, np.float32), np.zeros(0, np.int64)
_NO_ANSWER = np.zeros((2, 0, 0, 0, 0), np.float32)


class LoopSteps:
    """answers: the most that will be under way at once."""

    def __init__(self, ready: Ready[Panels], source_RS: np.ndarray, places: int, answers: int):
        kv, self.stream_RD, self.length_R = source_of(ready, source_RS)
        shape = ready.model.shape
        self.ready, self.heads, self.place = ready, shape.heads, 0
        self.own = sees_source_itself(ready.model)
        self.source = [source_panels(kv_NW.numpy(), self.length_R, shape.heads) for kv_NW in kv]
        room = (2, answers, shape.heads, places, panel_width(shape.d_kv))
        self.answer = [np.zeros(room, np.float32) for _ in kv]
        self.row_A = np.arange(len(source_RS))
        self.slot_AL = np.zeros((len(source_RS), places), np.int64)
        self.bias_HL = bias_behind(ready, int(self.length_R.max()) + places).numpy()
        self.table_VD = ready.model.embedding.detach().numpy()

    def first(self) -> Tensor:
        if self.stream_RD is not None:
            return self._logits(self.stream_RD.numpy())
        return self.next(np.zeros(len(self.row_A), np.int64))

    def select(self, parent_A: np.ndarray, beams: int) -> None:
        self.row_A, self.slot_AL = self.row_A[parent_A], self.slot_AL[parent_A]

    def next(self, token_A: np.ndarray) -> Tensor:
        x_AD, answers = self.table_VD[token_A], len(token_A)
        self.slot_AL[:, self.place] = np.arange(answers)
        for w, source, answer in zip(self.ready.layers, self.source, self.answer, strict=True):
            qkv_A3I = w.qkv.times(x_AD, normed=True)
            inner = qkv_A3I.shape[1] // 3
            kv_2AHE = qkv_A3I[:, inner:].reshape(answers, 2, self.heads, -1).swapaxes(0, 1)
            answer[:, :answers, :, self.place, : kv_2AHE.shape[3]] = kv_2AHE
            w.out.add_to(x_AD, self._attend(qkv_A3I[:, :inner], source if self.own else None, answer))
            if w.cross_q is not None and w.cross_out is not None:
                w.cross_out.add_to(x_AD, self._attend(w.cross_q.times(x_AD, normed=True), source, None))
            feed(x_AD, w)
        self.place += 1
        return self._logits(x_AD)

    def _attend(
        self, q_AI: np.ndarray, source: tuple[np.ndarray, np.ndarray] | None, answer: np.ndarray | None
    ) -> np.ndarray:
        panels_G, first_R = (_NO_PANELS, _NO_ROWS) if source is None else source
        places = 0 if answer is None else self.place + 1
        answer = _NO_ANSWER if answer is None else answer
        out_AI = np.empty(q_AI.shape, np.float32)
        attend(
            q_AI, self.heads, panels_G, first_R, self.length_R, self.row_A, answer, self.slot_AL, places,
            self.bias_HL, out_AI,
        )  # fmt: skip
        return out_AI

    def _logits(self, x_AD: np.ndarray) -> Tensor:
        return torch.from_numpy(self.ready.head.times(x_AD, normed=True))
