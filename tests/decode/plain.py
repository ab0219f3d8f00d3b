"""Decoding by the definition: the whole stack again for every token, nothing remembered, no stopping rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from little_models import rows_of

from t5study.decode.methods import Beam
from t5study.ground.pairs import EOS
from t5study.model.architectures import Model


@dataclass(frozen=True)
class Table:
    """log p of the next token after any beginning."""

    model: Model
    source: np.ndarray

    def next(self, said: Sequence[int]) -> np.ndarray:
        target = np.array([*said, EOS], np.int32)
        inputs = self.model.arrange(rows_of([[(self.source, target)]], len(self.source), len(target)))
        return self.model.logits(inputs)[-1].double().log_softmax(0).numpy()


def plain_search(table: Table, longest: int, how: Beam, greedy: bool = False) -> tuple[float, list[int], bool]:
    """Beam search as section 7 of GNMT and mesh have it, one row, to the very end: score, ids, whether it finished.
    greedy: only the single best continuation counts."""
    k, live, finished = how.beams, [(0.0, ())], []
    for t in range(longest):
        grown = [(total + p, (*said, v)) for total, said in live for v, p in enumerate(table.next(said))]
        best = sorted(grown, key=lambda one: -one[0])[: 1 if greedy else 2 * k]
        ended = [one for one in best if one[1][-1] == EOS]
        finished += [(total / ((5 + t + 1) / 6) ** how.alpha, said) for total, said in ended]
        finished = sorted(finished, key=lambda one: -one[0])[:k]
        live = [one for one in best if one[1][-1] != EOS][:k]
    if finished:
        return finished[0][0], [v for v in finished[0][1] if v > EOS], True
    return live[0][0] / how.penalty(longest), [v for v in live[0][1] if v > EOS], False
