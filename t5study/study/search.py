"""The search as a command: the paper's rounds (rounds.py), or those through a file's tables (own_rounds.py), played in
a study's folder.

    run_rounds(Asked("laptop"), out=Path("study-laptop"))        plays what is missing; returns the verdicts as text
    replay(question, store, reason)                              as far as the store has them; runs nothing
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from t5study.ground.errors import UserError
from t5study.ground.store import Store
from t5study.study import ledger
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.decide import Until
from t5study.study.engine import Engine
from t5study.study.experiment import Experiment
from t5study.study.ledger import Ledger
from t5study.study.noise import spread
from t5study.study.own import typed
from t5study.study.own_rounds import OwnTournament
from t5study.study.question import Question, ask
from t5study.study.rounds import Tournament
from t5study.study.stages import Stage


def replay(
    question: Question, store: Store, reason: ledger.Reason, most_seeds: int = 0, own: bool = False
) -> Tournament | OwnTournament:
    """The rounds as far as the store has what they need, without running anything. own: through a file's tables."""
    tournament = _tournament(question, store, reason, own, most_seeds)
    tournament.play(lambda wanted, meanwhile, expected: None)
    return tournament


def _tournament(
    question: Question,
    store: Store,
    reason: ledger.Reason,
    own: bool,
    most_seeds: int = 0,
    may: Callable[[Sequence[Experiment]], bool] = lambda runs: True,
) -> Tournament | OwnTournament:
    return OwnTournament(question, store, reason) if own else Tournament(question, store, reason, most_seeds, may)


def run_rounds(
    asked: Asked, out: Path, workers: int | None = None, until: Until | None = None, engine: Engine | None = None
) -> str:
    """Plays the rounds in a study's folder, going on where it was stopped; returns the verdicts as text. until: with
    further seeds where a round is not decided; a folder that was once played so stays so. engine: who builds, else so
    many workers here. asked.own: the rounds go through a file's tables (own_rounds.py).

    Writes scores.json and costs.json after every round. UserError for every mistake of the user's; Stopped after
    SIGINT or SIGTERM, when the workers have saved.
    """
    out, own = Path(out), asked.own is not None
    question = ask(typed(asked, out))
    if not own and question.setting.baseline != BASELINE:
        raise UserError(f"{out}: has the baseline of {question.asked.own}; give --tables that, or another --out")
    if own and until:
        raise UserError(f"--until-decided: found with {asked.own}; it is for the paper's rounds alone")
    engine = (engine or Engine(workers=workers)).on(question, out)
    most = until.most_seeds if until else 0
    claimed = question.claim(out, rounds=True, own_rounds=own, most_seeds=most, precision=engine.precision)
    most_seeds, began, store = claimed.get("most_seeds", 0), time.monotonic(), Store(out / "store")
    promise = engine.promise(out, store)
    with engine.conduct(store) as conductor:

        def may(further: Sequence[Experiment]) -> bool:
            """Whether further runs were asked for, and are likely to end in time."""
            if until is None or until.seconds is None:
                return until is not None
            likely = len(further) * _takes(Ledger(question, store), tournament.experiments) / engine.size
            return time.monotonic() - began + likely <= until.seconds

        tournament = _tournament(question, store, conductor.reason, own, most_seeds, may)

        def run(wanted: Iterable[Experiment], meanwhile: Iterable[Experiment], expected: Iterable[Experiment]) -> None:
            first, idle, later = (_stages(question, experiments) for experiments in (wanted, meanwhile, expected))
            if promise:
                promise.note([*first, *idle], later)
            conductor.run(first, idle, later)

        def write() -> None:
            book = Ledger(question, store, conductor.reason, most_seeds)
            ledger.write(out, book, tournament.experiments, tournament.told)

        written = 0

        def after_round() -> None:
            nonlocal written
            if len(conductor.built) > written:  # else what is written there is further on than this round
                write()
                written = len(conductor.built)

        tournament.play(run, after_round)
        write()
        built = len(conductor.built)
    return _report(tournament, built)


def _takes(book: Ledger, experiments: Sequence[Experiment]) -> float:
    """Seconds of a run, from those that are there; 0 where there is none."""
    took = [run["pretrain_s"] + run["finetune_s"] for run in book.costs(experiments)["runs"].values()]
    return spread(took).mean if took else 0.0


def _stages(question: Question, experiments: Iterable[Experiment]) -> list[Stage]:
    return [stage for one in experiments for stage in question.stages(one)]


def _report(tournament: Tournament | OwnTournament, built: int) -> str:
    lines = [f"round {told['number']}. {told['title']} {told['verdict']}" for told in tournament.told]
    return "\n".join([*lines, f"stages run: {built}" if built else "everything was there: nothing was run"])
