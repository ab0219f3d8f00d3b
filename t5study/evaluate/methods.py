"""How a model is asked for an answer: by decoding, or by ranking a task's choices."""

from __future__ import annotations

from dataclasses import dataclass

from t5study.decode.methods import Beam, Greedy
from t5study.ground.errors import UserError


@dataclass(frozen=True)
class Rank:
    """The likeliest of the task's choices (rank classification): an answer that can always be read. per_token: compares
    nats a token, so that long choices are not at a disadvantage."""

    per_token: bool = False


Asking = Greedy | Beam | Rank
BY_NAME: dict[str, Asking] = {"greedy": Greedy(), "beam": Beam(), "rank": Rank()}


def asking(method: str | Asking) -> Asking:
    """A method, or the one of that name. UserError for another name.

    >>> asking("beam")
    Beam(beams=4, alpha=0.6)
    """
    if isinstance(method, str):
        if method not in BY_NAME:
            raise UserError(f"method: found {method[:40]!r}; give one of {', '.join(BY_NAME)}")
        return BY_NAME[method]
    if not isinstance(method, Greedy | Beam | Rank):
        raise UserError(f"method: found {method!r}; give Greedy(), Beam(...) or Rank(...)")
    return method
