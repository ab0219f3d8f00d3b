"""The runner: every row of some tables, what is missing of it.

    run_tables(Asked("laptop"), out=Path("study-laptop"))        every row of the declared tables

The rounds (rounds.py) come to as many runs as the tables do, and share most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t5study.ground.errors import UserError
from t5study.ground.machine import here
from t5study.ground.store import Store
from t5study.study import ledger, rounds
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.conductor import Conductor
from t5study.study.experiment import Experiment
from t5study.study.ledger import NO_PRETRAINING, Ledger, seeds_of
from t5study.study.question import ask, workers_here
from t5study.study.table import Table, in_order
from t5study.study.tables.declared import EVERY, SEARCH, TABLES
from t5study.study.tables.later import LATER


def chosen_tables(text: str) -> tuple[Table, ...]:
    """Tables by their numbers; "search": those that the rounds go through; "all" of
    the paper's; "later": those of later papers. UserError for any other.

    >>> [table.number for table in chosen_tables("4, 1")]
    ['1', '4']
    """
    named = {"search": SEARCH, "all": TABLES, "later": LATER}
    if text.strip() in named:
        return named[text.strip()]
    numbers = [part.strip() for part in text.split(",")]
    known = {table.number for table in EVERY}
    for number in numbers:
        if number not in known:
            some = ", ".join(sorted(known, key=in_order))
            raise UserError(f"--tables: found {number!r}; give search, all, later, or some of {some}")
    return tuple(table for table in EVERY if table.number in numbers)


def experiments_of(tables: Sequence[Table], seeds: int) -> list[Experiment]:
    """All rows of some tables, each once; the baseline and fine-tuning without pre-training from several seeds."""
    repeated = [*seeds_of(BASELINE, seeds), *seeds_of(NO_PRETRAINING, seeds)]
    rows = [row.experiment for table in tables for row in table.rows]
    return list(dict.fromkeys([*repeated, *rows]))


def run_tables(asked: Asked, out: Path, workers: int | None = None, tables: str = "search") -> None:
    """Runs what is missing of some tables and writes scores.json and costs.json; shows progress on stderr.

    UserError for every mistake of the user's; Stopped after SIGINT or SIGTERM, when the workers have saved.
    """
    wanted = chosen_tables(tables)
    question = ask(asked)
    out = Path(out)
    claimed = question.claim(out, tables=[table.number for table in wanted])
    store, machine = Store(out / "store"), here()
    seeds = question.scale.seeds
    with Conductor(store, workers_here(machine, workers), machine) as conductor:
        conductor.run(*[[stage for one in experiments_of(wanted, seeds) for stage in question.stages(one)]] * 2)
        before = chosen_tables(",".join(claimed["tables"]))  # what was asked earlier stays in the scores
        experiments, told = experiments_of(before, seeds), []
        if claimed["rounds"]:
            tournament = rounds.replay(question, store, conductor.reason, claimed.get("most_seeds", 0))
            experiments, told = [*experiments, *tournament.experiments], tournament.told
        book = Ledger(question, store, conductor.reason, claimed.get("most_seeds", 0))
        ledger.write(out, book, experiments, told)
