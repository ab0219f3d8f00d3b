"""Rounds of an own study: its tables in their order, each round's winner going on to the next.

A round's candidates are a table's rows, with what was won before in all that the table does not vary. So it is the
paper's coordinate ascent over whatever axes a file has:

    Table("objectives", axes=("objective",))      the best objective ...
    Table("sizes", axes=("size",))                ... at each of these sizes

It is played, judged and told as the paper's rounds are (rounds.py), with the file's baseline for the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from t5study.ground.store import Store
from t5study.study import ledger
from t5study.study.experiment import Experiment
from t5study.study.ledger import Ledger, repeats, seeds_of
from t5study.study.noise import spread
from t5study.study.question import Question
from t5study.study.rounds import Run
from t5study.study.table import Row, Table
from t5study.study.verdict import Verdict, judge


@dataclass(frozen=True)
class Candidate:
    """A row in its round: under its label, the experiment that it has become."""

    label: str
    experiment: Experiment


def carried(table: Table, row: Row, before: Experiment) -> Experiment:
    """A row's experiment, with what was won before where its table varies nothing.

    >>> from t5study.study.baseline import BASELINE
    >>> from t5study.study.tables.objectives import TABLE_1
    >>> carried(TABLE_1, TABLE_1.rows[1], BASELINE.but(batch=2.0)) == BASELINE.but(batch=2.0, pretraining=0.0)
    True
    """
    return before.but(**{axis: getattr(row.experiment, axis) for axis in table.axes})


@dataclass
class OwnTournament:
    """The rounds of an own study, played with what `run(wanted, meanwhile, expected)` puts into the store. told,
    experiments: as `rounds.Tournament` has them."""

    question: Question
    store: Store
    reason: ledger.Reason = lambda stage: None

    def __post_init__(self) -> None:
        assert self.question.own
        self.tables = self.question.own.tables
        self.baseline = self.question.setting.baseline
        self.told: list[dict[str, Any]] = []
        self.experiments: list[Experiment] = []

    def play(self, run: Run, after_round: Callable[[], None] = lambda: None) -> None:
        """Plays the rounds, and judges them once more when the noise is known. Stops where nothing goes on."""
        noise = repeats(self.baseline, self.question.scale.seeds)
        best, played = self.baseline, list[tuple[Table, list[Candidate]]]()
        for k, table in enumerate(self.tables):
            candidates = self._candidates(table, best)
            wanted = self._with_seeds(candidates)
            later = [one for further in self.tables[k + 1 :] for one in self._candidates(further, best)]
            self._note(wanted)
            run(wanted, noise, [*self.experiments, *self._with_seeds(later), *noise])
            book = Ledger(self.question, self.store, self.reason)
            if any(book.cells(one) is None for one in wanted if not self.question.absent(one)):
                break  # nothing runs here, and the store does not have it
            played.append((table, candidates))
            verdict = self._tell(played)
            after_round()
            if verdict.goes_on is None:
                break
            best = verdict.goes_on.experiment
        self._note(noise)
        run(noise, (), [*self.experiments, *noise])
        if played:
            self._tell(played)
            after_round()

    def _candidates(self, table: Table, best: Experiment) -> list[Candidate]:
        return [Candidate(row.label, carried(table, row, best)) for row in table.rows]

    def _with_seeds(self, candidates: Sequence[Candidate]) -> list[Experiment]:
        """One run each; the baseline as often as it is repeated."""
        seeds = self.question.scale.seeds
        several = [seeds_of(one.experiment, seeds if one.experiment == self.baseline else 1) for one in candidates]
        return [one for each in several for one in each]

    def _note(self, experiments: Iterable[Experiment]) -> None:
        self.experiments += [one for one in dict.fromkeys(experiments) if one not in self.experiments]

    def _tell(self, played: Sequence[tuple[Table, list[Candidate]]]) -> Verdict[Candidate]:
        """Judges all rounds so far by what is known now; returns the last verdict."""
        book = Ledger(self.question, self.store, self.reason)
        column = next(one for one in book.columns if one.name == self.question.scale.verdict_column)
        baselines = book.values(seeds_of(self.baseline, book.seeds), column.name)
        std = spread(baselines).std if baselines else None
        self.told, verdict = [], Verdict[Candidate](None, (), None, "")
        for number, (table, candidates) in enumerate(played, 1):
            values, failed = dict[Candidate, float](), dict[Candidate, str]()
            for one in candidates:
                if found := book.values(self._with_seeds([one]), column.name):
                    values[one] = spread(found).mean
                else:
                    failed[one] = self._why(one.experiment)
            verdict = judge(values, failed, std, column.name, column.higher_is_better, last=True)
            self.told.append(self._round(book, number, table, candidates, verdict))
        return verdict

    def _why(self, experiment: Experiment) -> str:
        stages = self.question.stages(experiment)
        return self.question.absent(experiment) or next(filter(None, map(self.reason, stages)), "it has not been run")

    def _round(
        self, book: Ledger, number: int, table: Table, candidates: Sequence[Candidate], verdict: Verdict[Candidate]
    ) -> dict[str, Any]:
        on = f" {verdict.winner} goes on." if verdict.winner and number < len(self.tables) else ""
        return {
            "number": number,
            "title": table.caption,
            "table": table.number,
            "candidates": [
                {"label": one.label, "runs": book.runs_of(one.experiment), "paper": None} for one in candidates
            ],
            "winner": verdict.winner,
            "ties": list(verdict.ties),
            "goes_on": verdict.winner,
            "verdict": verdict.sentence + on,
        }
