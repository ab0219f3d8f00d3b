"""How the next token is chosen, as values: greedily, by beams, by lot.

Sources: Wu et al. 2016 (GNMT), section 7, for the length penalty; mesh's beam_search.gin for beams 4 and alpha 0.6,
the paper's setting for translation and summaries; Fan et al. 2018 for top-k; Holtzman et al. 2020 for top-p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from t5study.ground.errors import UserError
from t5study.ground.seeds import check_seed

MOST_BEAMS = 512
LONGEST_ANSWER = 8192  # tokens: room for an answer is set aside beforehand


@dataclass(frozen=True)
class Greedy:
    """The likeliest next token, again and again."""


@dataclass(frozen=True)
class Beam:
    """The best of `beams` answers that grow side by side: sum of log p over ((5 + n) / 6)^alpha, n tokens with EOS.

    alpha 0 compares sums, and so favours short answers; a larger one favours long answers.
    """

    beams: int = 4
    alpha: float = 0.6

    def __post_init__(self) -> None:
        whole("beams", self.beams, 1, MOST_BEAMS)
        _between("alpha", self.alpha, 0.0, 100.0)

    def penalty(self, n: int) -> float:
        return ((5 + n) / 6) ** self.alpha


@dataclass(frozen=True)
class Sample:
    """A token drawn from softmax(logits / temperature), cut to the `top_k` likeliest tokens (0: all of them), then to
    the fewest of those that together have a probability of at least `top_p`.

    What row i draws at step t is a function of (seed, i, t) and of its own distribution: rows beside it change nothing.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _between("temperature", self.temperature, 1e-3, 1e3)
        whole("top_k", self.top_k, 0, 2**31 - 1)
        _between("top_p", self.top_p, 1e-9, 1.0)
        check_seed(self.seed)


Method = Greedy | Beam | Sample


def whole(name: str, found: int, least: int, most: int) -> int:
    """The number, if it is a whole one in this range; UserError otherwise."""
    if isinstance(found, bool) or not isinstance(found, int | np.integer) or not least <= found <= most:
        raise UserError(f"{name}: found {found!r}; give a whole number from {least} to {most:,}")
    return int(found)


def _between(name: str, found: float, least: float, most: float) -> None:
    number = isinstance(found, int | float | np.floating | np.integer) and not isinstance(found, bool)
    if not number or not (math.isfinite(found) and least <= found <= most):
        raise UserError(f"{name}: found {found!r}; give a number from {least:g} to {most:g}")
