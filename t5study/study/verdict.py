"""The verdict of a round: numbers of its candidates -> who wins, who is tied with it, who goes on, and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from t5study.objectives import Denoising
from t5study.study.decide import Decision, sentence
from t5study.study.noise import within_two


class Labelled(Protocol):
    """What can be a candidate: an objective, or a row of a table of one's own."""

    @property
    def label(self) -> str: ...


One = TypeVar("One", bound=Labelled)


@dataclass(frozen=True)
class Verdict(Generic[One]):
    """winner: label of the best. ties: of those within noise of it. goes_on: the candidate that the next round takes
    up; None if nothing can."""

    winner: str | None
    ties: tuple[str, ...]
    goes_on: One | None
    sentence: str


def judge(
    values: Mapping[One, float],
    failed: Mapping[One, str],
    std: float | None,
    column: str,
    higher_is_better: bool,
    last: bool = False,
    decision: Decision | None = None,
) -> Verdict[One]:
    """Candidates' numbers -> who wins, who is tied, who goes on. std: of our repeated baselines, None if unknown.
    decision: of rounds that are played until they are decided, in place of the two deviations.

    >>> from t5study.objectives import BertStyle, PrefixLM
    >>> judge({PrefixLM(): 3.1, BertStyle(): 3.3}, {}, 0.05, "mean nats", False).sentence.split(":")[0]
    'prefix LM wins on mean nats with 3.1'
    """
    lost = "".join(f" {one.label} failed: {reason}." for one, reason in failed.items())
    if not values:
        return Verdict(None, (), None, f"No candidate could be run.{lost}")
    sign = 1 if higher_is_better else -1
    order = sorted(values, key=lambda one: -sign * values[one])  # equals stay in the paper's order
    if decision:
        first = {label: k for k, label in enumerate(decision.contenders)}
        order.sort(key=lambda one: first.get(one.label, len(first)))
    best = order[0]
    near = within_two({one.label: values[one] for one in order}, std, higher_is_better)
    ties = tuple(one for one in (decision.contenders if decision else near) if one != best.label)
    at = f"on {column} with {values[best]:.4g}"
    if decision:
        told = sentence(decision, column)
    elif len(order) == 1:
        told = f"{best.label} wins {at}: no other could be compared."
    elif std is None:
        told = f"{best.label} is ahead {at}; without repeated baselines nobody can tell whether that is signal."
    elif ties:
        told = (
            f"A tie: {_listed(ties)} within two standard deviations of our baseline (2 x {std:.2g}) of "
            f"{best.label}, the best {at}."
        )
    else:
        told = (
            f"{best.label} wins {at}: the next, {order[1].label}, is {abs(values[order[1]] - values[best]):.2g} "
            f"behind, more than two standard deviations of our baseline (2 x {std:.2g})."
        )
    goes_on: One | None = next((one for one in order if isinstance(one, Denoising)), None)
    if last:
        goes_on = best
    elif goes_on is None:
        told += " No candidate hides tokens, so there is nothing to vary in the next round."
    elif goes_on != best:
        told += f" It hides no tokens whose share could be varied; {goes_on.label}, the best that does, goes on."
    elif ties:
        told += f" {best.label} goes on."
    return Verdict(best.label, ties, goes_on, told + lost)


def _listed(labels: Sequence[str]) -> str:
    """
    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a lies', 'a, b and c lie')
    """
    return f"{labels[0]} lies" if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]} lie"
