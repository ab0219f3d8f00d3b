"""The rounds: the paper's search order (section 3.3, figure 5), each round's winner going on to the next.

    1  which objective?            prefix language modelling, BERT-style, deshuffling            Table 4
    2  which corruption strategy?  what stands in the gaps and what is asked for, of the winner  Table 5
    3  which corruption rate?      10, 15, 25, 50 % of the winner                                Table 6
    4  which span length?          i.i.d., 2, 3, 5, 10 tokens of the winner                      Table 7

All candidates of a round run side by side; where a worker would be idle it takes candidates of later rounds that are
certain, and repeats of the baseline and of fine-tuning without pre-training, from which the noise is known. A round is
decided by the mean over a candidate's runs in the scale's verdict column. Whatever lies within two of our baseline's
standard deviations of the best is tied with it, and the verdict says so; the best goes on all the same. Asked to, a
round goes on with further seeds of those that cannot be told from the best, until it is decided (decide.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from t5study.ground.store import Store
from t5study.objectives import BertStyle, Denoising, Deshuffle, Objective, PrefixLM
from t5study.study import ledger
from t5study.study.baseline import BASELINE
from t5study.study.decide import Decision, decide
from t5study.study.experiment import Experiment
from t5study.study.ledger import Ledger, label, repeats, seeds_of
from t5study.study.noise import spread
from t5study.study.question import Question
from t5study.study.scores import value_of
from t5study.study.tables.declared import paper_figures
from t5study.study.verdict import Verdict, judge

OBJECTIVES: tuple[Objective, ...] = (PrefixLM(), BertStyle(), Deshuffle())
STRATEGIES = (("mask_random", "full"), ("mask", "full"), ("unique", "unique"), ("drop", "drop"))  # Table 5's order
RATES = (0.10, 0.15, 0.25, 0.50)
SPANS = (None, 2.0, 3.0, 5.0, 10.0)


@dataclass(frozen=True)
class Round:
    """candidates: what is made of the objective that goes on from the round before."""

    number: int
    title: str
    table: str
    candidates: Callable[[Denoising], tuple[Objective, ...]]


def strategies(winner: Denoising) -> tuple[Objective, ...]:
    """The same tokens hidden, said in each of the four ways."""
    return tuple(dataclasses.replace(winner, inputs=inputs, targets=targets) for inputs, targets in STRATEGIES)


def rates(winner: Denoising) -> tuple[Objective, ...]:
    """More or fewer tokens hidden."""
    return tuple(dataclasses.replace(winner, rate=rate) for rate in RATES)


def spans(winner: Denoising) -> tuple[Objective, ...]:
    """As many tokens hidden, one by one or in longer runs."""
    return tuple(dataclasses.replace(winner, mean_span=span) for span in SPANS)


ROUNDS = (
    Round(1, "Which objective?", "4", lambda winner: OBJECTIVES),
    Round(2, "Which corruption strategy?", "5", strategies),
    Round(3, "Which corruption rate?", "6", rates),
    Round(4, "Which span length?", "7", spans),
)


# --- the tournament -----------------------------------------------------------------------------------------------

Run = Callable[[Iterable[Experiment], Iterable[Experiment], Iterable[Experiment]], None]


@dataclass
class Tournament:
    """The rounds of a study, played with what `run(wanted, meanwhile, expected)` puts into the store.

    told: the rounds as scores.json has them. experiments: all that were called for, in order. most_seeds: of a
    candidate that is not yet told from the best; 0 for rounds that are decided by what every study runs. may: whether
    there is time for so many further runs.
    """

    question: Question
    store: Store
    reason: ledger.Reason = lambda stage: None
    most_seeds: int = 0
    may: Callable[[Sequence[Experiment]], bool] = lambda runs: True

    def __post_init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.experiments: list[Experiment] = []

    def play(self, run: Run, after_round: Callable[[], None] = lambda: None) -> None:
        """Plays the rounds, and judges them once more when the noise is known. Stops where nothing goes on."""
        noise, certain = self.noise(), self._with_seeds(strategies(BertStyle()))
        played: list[tuple[Round, tuple[Objective, ...]]] = []
        winner: Objective | None = BertStyle()
        for this in ROUNDS:
            if not isinstance(winner, Denoising):
                break
            candidates = this.candidates(winner)
            wanted = self._with_seeds(candidates)
            # Round 2 varies the only candidate of round 1 that can be varied: it is known before round 1 is over.
            later = certain if this.number == 1 else []
            self._note([*wanted, *later])
            run(wanted, [*later, *noise], [*self.experiments, *self._likely(this.number, winner), *noise])
            book = self._book()
            if any(book.cells(one) is None for one in wanted):
                break  # nothing runs here, and the store does not have it
            self._go_on(candidates, run, [*self._likely(this.number, winner), *noise])
            played.append((this, candidates))
            winner = self._tell(played).goes_on
            after_round()
        self._note(noise)
        run(noise, (), [*self.experiments, *noise])
        if played:
            self._tell(played)
            after_round()

    def _go_on(self, candidates: Sequence[Objective], run: Run, later: Sequence[Experiment]) -> None:
        """Further seeds of the candidates that cannot be told from the best, look by look, while there may be more."""
        if not self.most_seeds:
            return
        run(seeds_of(BASELINE, self.question.scale.seeds), (), [*self.experiments, *later])  # noise, to judge by
        book = self._book()
        while (found := self._decision(candidates, book)) and found.wanted:
            racing = [one for one in candidates if one.label in found.contenders]
            further = [one for each in racing for one in seeds_of(BASELINE.but(objective=each), found.wanted)]
            missing = [one for one in further if book.cells(one) is None]
            if missing and self.may(missing):
                run(further, (), [*self.experiments, *further, *later])
                book = self._book()
            if any(book.cells(one) is None for one in further):
                break  # no time, or nothing runs here
        every = self._with_seeds(candidates, self.most_seeds)
        self._note(one for one in every if book.cells(one) is not None)

    def _decision(self, candidates: Sequence[Objective], book: Ledger) -> Decision | None:
        """The race as far as the store has it; None in rounds that have none."""
        if not self.most_seeds:
            return None
        column = self.question.scale.verdict_column
        told = {
            one.label: [
                value_of(cells, column)
                for seed in seeds_of(BASELINE.but(objective=one), self.most_seeds)
                if (cells := book.cells(seed)) is not None
            ]
            for one in candidates
        }
        baselines = book.values(seeds_of(BASELINE, self.question.scale.seeds), column)
        higher = next(one for one in book.columns if one.name == column).higher_is_better
        return decide(told, self.most_seeds, {BASELINE.objective.label: baselines}, higher)

    def _book(self) -> Ledger:
        return Ledger(self.question, self.store, self.reason, self.most_seeds)

    def noise(self) -> list[Experiment]:
        """The runs from which noise, and the gain of pre-training, are known."""
        return repeats(BASELINE, self.question.scale.seeds)

    def _likely(self, number: int, winner: Denoising) -> list[Experiment]:
        """What the rounds after this one come to if the paper's winners win; if others do, it is as many runs."""
        strategy = winner if number > 2 else BASELINE.objective
        assert isinstance(strategy, Denoising)
        later = {2: strategies(BertStyle()), 3: rates(strategy), 4: spans(strategy)}
        return [one for n, candidates in later.items() if n > number for one in self._with_seeds(candidates)]

    def _with_seeds(self, candidates: Sequence[Objective], further: int = 0) -> list[Experiment]:
        """One run each; the baseline as often as it is repeated, so that its mean is what it is judged by. further:
        seeds of each, where there may be more."""
        experiments = [BASELINE.but(objective=objective) for objective in candidates]
        seeds = max(self.question.scale.seeds, further)
        return [
            one for each in experiments for one in (seeds_of(each, seeds) if each == BASELINE or further else [each])
        ]

    def _note(self, experiments: Iterable[Experiment]) -> None:
        self.experiments += [one for one in dict.fromkeys(experiments) if one not in self.experiments]

    def _tell(self, played: Sequence[tuple[Round, tuple[Objective, ...]]]) -> Verdict[Objective]:
        """Judges all rounds so far by what is known now; returns the last verdict."""
        book = self._book()
        scale = self.question.scale
        column = next(one for one in book.columns if one.name == scale.verdict_column)
        baselines = book.values(seeds_of(BASELINE, book.seeds), column.name)
        std = spread(baselines).std if baselines else None
        self.told, verdict = [], Verdict[Objective](None, (), None, "")
        for this, candidates in played:
            values, failed = {}, {}
            for objective in candidates:
                found = book.values(self._with_seeds([objective], self.most_seeds), column.name)
                if found:
                    values[objective] = spread(found).mean
                else:
                    stages = self.question.stages(BASELINE.but(objective=objective))
                    failed[objective] = next(filter(None, map(self.reason, stages)), "it has not been run")
            last = this is ROUNDS[-1]
            decision = self._decision(candidates, book) if values else None
            verdict = judge(values, failed, std, column.name, column.higher_is_better, last, decision)
            self.told.append(self._round(book, this, candidates, verdict))
        return verdict

    def _round(
        self, book: Ledger, this: Round, candidates: Sequence[Objective], verdict: Verdict[Objective]
    ) -> dict[str, Any]:
        experiments = [BASELINE.but(objective=objective) for objective in candidates]
        return {
            "number": this.number,
            "title": this.title,
            "table": this.table,
            "candidates": [
                {"label": label(one), "runs": book.runs_of(one), "paper": paper_figures(one)} for one in experiments
            ],
            "winner": verdict.winner,
            "ties": list(verdict.ties),
            "goes_on": verdict.goes_on.label if verdict.goes_on else None,
            "verdict": verdict.sentence,
        }
