"""What fits into a budget: at one scale, and which scale it should be.

    offer(question, store, tables, clock, workers, seconds)     which rows fit at a scale, and why others do not
    choose(questions, ...)                                      which scale it should be

The baseline and fine-tuning without pre-training, from all their seeds, are always kept: without them no figure means
anything. Rows are then taken in the paper's order, those of the search first; what is too long for what is left of the
time is passed over, and shorter ones behind it may still fit. Rows that share all their runs with others are free.
The largest scale is taken at which half of what was asked fits: better a table with gaps at a scale that tells models
apart than all of it in noise. All of it follows from the clock, so the same clock gives the same choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.journal import duration
from t5study.ground.store import Store
from t5study.study.estimate import WORKER_S, Clock, makespan, memory_of
from t5study.study.experiment import Experiment
from t5study.study.ledger import repeats
from t5study.study.own import Own
from t5study.study.probe import BUDGET_S
from t5study.study.question import Question
from t5study.study.runner import address, experiments_of
from t5study.study.stages import Stage, has, needed, stage_id
from t5study.study.table import Row, Table
from t5study.study.tables.declared import SEARCH


@dataclass(frozen=True)
class Left:
    """Rows that are one experiment and do not fit: their addresses, the label of the first, and why."""

    rows: tuple[str, ...]
    label: str
    why: str


@dataclass(frozen=True)
class Offer:
    """scale: its name. seconds: there are. least_s, all_s: until the baseline, or all that was asked, is there. tables:
    with the rows that fit. fit, asked: experiments, those that cannot be run here left out. left: what does not fit.
    why: the baseline does not, if that is not for want of time."""

    scale: str
    seconds: float
    least_s: float
    all_s: float
    tables: tuple[Table, ...]
    fit: int
    asked: int
    left: tuple[Left, ...]
    why: str = ""

    @property
    def fits(self) -> bool:
        """Whether the baseline does."""
        return self.least_s <= self.seconds and not self.why


def best(offers: Sequence[Offer]) -> Offer | None:
    """The largest scale at which half of what was asked fits; if there is none, the smallest at which anything does.
    offers: by size. None if at no scale the baseline does."""
    some = [one for one in offers if one.fits]
    half = [one for one in some if 2 * one.fit >= one.asked]
    return half[-1] if half else next(iter(some), None)


def offer(
    question: Question,
    store: Store,
    tables: Sequence[Table],
    clock: Clock,
    workers: int,
    seconds: float,
    memory: int | None = None,
) -> Offer:
    """Which rows of some tables fit. memory: bytes that a run's weights, gradients and optimiser may take."""
    seeds = question.scale.seeds
    base = repeats(question.setting.baseline, seeds)
    time = _Time(store, clock, workers)
    rows = _by_experiment(tables, question.own)
    can = [one for one in rows if not question.absent(one)]
    everything = time.of(time.missing(_ends(question, experiments_of(tables, seeds))))
    kept = time.missing(_ends(question, base))
    least = time.of(kept)
    why = _too_large(kept, memory)
    if why or least > seconds:
        return Offer(question.scale.name, seconds, least, everything, (), 0, len(can), (), why)
    fit, left, takes = set[Experiment](), list[Left](), least
    for one, told in rows.items():
        trial = kept | time.missing(_ends(question, [one]))
        if why := question.absent(one) or _too_large(trial, memory):
            left.append(_left(told, why))
            continue
        until = time.of(trial) if len(trial) > len(kept) else takes
        if until > seconds:
            spare = f"of which {duration(seconds - takes)} are left" if takes < seconds else "and none is left"
            left.append(_left(told, f"{duration(until - takes)} more, {spare}"))
            continue
        fit.add(one)
        kept, takes = trial, until
    chosen = [replace(table, rows=tuple(row for row in table.rows if row.experiment in fit)) for table in tables]
    return Offer(
        question.scale.name,
        seconds,
        least,
        everything,
        tuple(table for table in chosen if table.rows),
        len(fit),
        len(can),
        tuple(left),
    )


# --- the scale ----------------------------------------------------------------------------------------------------

Clocks = Callable[[Question, Store, list[Stage], float], Clock]  # the last: seconds that a probe may take
_FAR = 10.0  # a guess may be so many times too high or too low
_TRIED_S = 5.0


@dataclass(frozen=True)
class Choice:
    """offers: of all scales, by size. taken: one of them; clock: its own."""

    offers: tuple[Offer, ...]
    taken: Offer
    clock: Clock


def choose(
    questions: Sequence[Question],
    store_of: Callable[[Question], Store],
    tables: Sequence[Table],
    clocks: Clocks,
    workers: int,
    seconds: float,
    memory: int | None = None,
) -> Choice:
    """The scale and the rows that fit. questions: the same at each scale, by size. The baseline is tried at scales for
    which the time may be short, the others go by it; the scale to take is then looked at with all it has, and gives
    way if that is longer than it seemed. UserError if no baseline fits."""
    offers, clock_of, whole = dict[str, Offer](), dict[str, Clock](), set[str]()

    def look(question: Question, clock: Clock) -> Offer:
        return offer(question, store_of(question), tables, clock, workers, seconds, memory)

    bases = [needed(_ends(one, [one.setting.baseline])) for one in questions]
    guessed = [
        look(question, clocks(question, store_of(question), list(base.values()), 0.0)).least_s
        for question, base in zip(questions, bases, strict=True)
    ]
    near = [k for k, least in enumerate(guessed) if least <= _FAR * seconds] or [0]
    tried = [k for k in near if k == near[-1] or guessed[k + 1] > seconds / _FAR]
    for k in tried:
        question = questions[k]
        clock_of[question.scale.name] = clocks(question, store_of(question), list(bases[k].values()), _TRIED_S)
    for k, question in enumerate(questions):
        nearest = min(tried, key=lambda other: abs(other - k))
        clock = clock_of.setdefault(question.scale.name, clock_of[questions[nearest].scale.name])
        offers[question.scale.name] = look(question, clock)
    while taken := best(list(offers.values())):
        question = next(one for one in questions if one.scale.name == taken.scale)
        if taken.scale in whole:
            return Choice(tuple(offers.values()), taken, clock_of[taken.scale])
        whole.add(taken.scale)
        ends = needed(_ends(question, experiments_of(tables, question.scale.seeds)))
        clock_of[taken.scale] = clocks(question, store_of(question), list(ends.values()), BUDGET_S)
        offers[taken.scale] = look(question, clock_of[taken.scale])
    least = min(offers.values(), key=lambda one: (bool(one.why), one.least_s))
    takes = least.why or f"takes {duration(least.least_s)}"
    raise UserError(
        f"--budget: found {duration(seconds)}; the baseline, with all its seeds, {takes} at {least.scale} scale; "
        "give more"
    )


def _too_large(stages: dict[str, Stage], memory: int | None) -> str:
    largest = max(map(memory_of, stages.values()), default=0)
    if memory is None or largest <= memory:
        return ""
    return f"takes {largest / 1e9:,.1f} GB of memory a run; there are {memory / 1e9:,.1f}"


class _Time:
    """Until when some stages are there, with the machine as busy as it is; each asked for what it takes once."""

    def __init__(self, store: Store, clock: Clock, workers: int):
        self.store, self.clock, self.workers = store, clock, workers
        self._seconds = dict[str, float]()

    def missing(self, ends: Iterable[Stage]) -> dict[str, Stage]:
        return {name: stage for name, stage in needed(ends).items() if not has(self.store, stage)}

    def of(self, missing: dict[str, Stage]) -> float:
        if not missing:
            return 0.0
        return (makespan(missing, missing, self._of_one, self.workers) + WORKER_S) * self.clock.busy

    def _of_one(self, stage: Any) -> float:
        name = stage_id(stage)
        if name not in self._seconds:
            self._seconds[name] = self.clock.seconds(stage)
        return self._seconds[name]


def _ends(question: Question, experiments: Iterable[Experiment]) -> list[Stage]:
    return [stage for one in experiments for stage in question.stages(one)]


# --- rows and their addresses -------------------------------------------------------------------------------------


def _by_experiment(tables: Sequence[Table], own: Own | None) -> dict[Experiment, list[tuple[str, Row]]]:
    """Rows of some tables by what they run, tables of the search first."""
    numbers = [table.number for table in SEARCH]
    found = dict[Experiment, list[tuple[str, Row]]]()
    for table in sorted(tables, key=lambda table: table.number not in numbers):
        for row in table.rows:
            found.setdefault(row.experiment, []).append((address(table, row, own), row))
    return found


def _left(told: Sequence[tuple[str, Row]], why: str) -> Left:
    return Left(tuple(where for where, _ in told), told[0][1].label, why)
