"""The runner: every row of some tables, what is missing of it.

    run_tables(Asked("laptop"), out=Path("study-laptop"))        every row of the declared tables

The rounds (rounds.py) come to as many runs as the tables do, and share most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from t5study.ground.errors import UserError
from t5study.ground.store import Store
from t5study.study import ledger, rounds
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.engine import Engine
from t5study.study.experiment import Experiment
from t5study.study.ledger import NO_PRETRAINING, Ledger, seeds_of
from t5study.study.question import ask
from t5study.study.table import Row, Table, in_order
from t5study.study.tables.declared import EVERY, GROUPS


def chosen_tables(text: str) -> tuple[Table, ...]:
    """Tables by their numbers, and by the names of groups: "search", those that the rounds go through; "all" of the
    paper's exploration; "final", its last models; "later", those of later papers. UserError for any other.

    >>> [table.number for table in chosen_tables("4, 1, final")]
    ['1', '4', '14', '15']
    """
    wanted = set[str]()
    known = {table.number for table in EVERY}
    for name in (part.strip() for part in text.split(",")):
        if name not in known and name not in GROUPS:
            some = ", ".join(sorted(known, key=in_order))
            raise UserError(f"--tables: found {name!r}; give {', '.join(GROUPS)}, or some of {some}")
        wanted |= {table.number for table in GROUPS[name]} if name in GROUPS else {name}
    return tuple(table for table in EVERY if table.number in wanted)


def experiments_of(tables: Sequence[Table], seeds: int) -> list[Experiment]:
    """All rows of some tables, each once; the baseline and fine-tuning without pre-training from several seeds."""
    repeated = [*seeds_of(BASELINE, seeds), *seeds_of(NO_PRETRAINING, seeds)]
    rows = [row.experiment for table in tables for row in table.rows]
    return list(dict.fromkeys([*repeated, *rows]))


def chosen(text: str) -> tuple[Table, ...]:
    """The same, and single rows by their addresses: 13.2 is the second row of Table 13, whose other rows are left out.

    >>> [(table.number, len(table.rows)) for table in chosen("7.2, 7.3, 4")]
    [('4', 3), ('7', 2)]
    """
    parts = [part.strip() for part in text.split(",")]
    found = [(part, *place) for part in parts if (place := _place(part))]
    whole = ",".join(part for part in parts if not _place(part))
    tables = {table.number: table for table in (chosen_tables(whole) if whole else ())}
    for part, table, k in found:
        if not 1 <= k <= len(table.rows):
            raise UserError(f"--tables: found {part!r}; table {table.number} has rows 1 to {len(table.rows)}")
    for table in dict.fromkeys(table.number for _, table, _ in found):
        if table not in tables:
            rows = {k - 1 for _, one, k in found if one.number == table}
            one = next(one for one in EVERY if one.number == table)
            tables[table] = replace(one, rows=tuple(row for k, row in enumerate(one.rows) if k in rows))
    return tuple(tables[one.number] for one in EVERY if one.number in tables)


def addresses(tables: Sequence[Table]) -> list[str]:
    """By what `chosen` finds them again: numbers of tables, and of rows where some are left out."""
    told = list[str]()
    for table in tables:
        whole = next(one for one in EVERY if one.number == table.number)
        rows = [address(table, row) for row in table.rows]
        told += rows if len(rows) < len(whole.rows) else [table.number]
    return told


def address(table: Table, row: Row) -> str:
    """Of a row: its table's number and its own, from 1."""
    whole = next(one for one in EVERY if one.number == table.number)
    return f"{table.number}.{whole.rows.index(row) + 1}"


def _place(part: str) -> tuple[Table, int] | None:
    """The table and the number of a row's address; None for anything else."""
    number, _, k = part.rpartition(".")
    table = next((one for one in EVERY if one.number == number), None)
    return (table, int(k)) if table and k.isdecimal() else None


def run_tables(
    asked: Asked, out: Path, workers: int | None = None, tables: str = "search", engine: Engine | None = None
) -> None:
    """Runs what is missing of some tables and writes scores.json and costs.json; shows progress on stderr. engine: who
    builds it, else so many workers here.

    UserError for every mistake of the user's; Stopped after SIGINT or SIGTERM, when the workers have saved.
    """
    wanted = chosen(tables)
    question = ask(asked)
    out = Path(out)
    claimed = question.claim(out, tables=addresses(wanted))
    store, seeds, engine = Store(out / "store"), question.scale.seeds, engine or Engine(workers=workers)
    stages = [stage for one in experiments_of(wanted, seeds) for stage in question.stages(one)]
    if promise := engine.promise(out, store):
        promise.note(stages)
    with engine.conduct(store) as conductor:
        conductor.run(stages, stages)
        before = chosen(",".join(claimed["tables"]))  # what was asked earlier stays in the scores
        experiments, told = experiments_of(before, seeds), []
        if claimed["rounds"]:
            tournament = rounds.replay(question, store, conductor.reason, claimed.get("most_seeds", 0))
            experiments, told = [*experiments, *tournament.experiments], tournament.told
        book = Ledger(question, store, conductor.reason, claimed.get("most_seeds", 0))
        ledger.write(out, book, experiments, told)
