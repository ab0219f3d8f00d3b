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
from t5study.study import ledger, search
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.engine import Engine
from t5study.study.experiment import Experiment
from t5study.study.ledger import Ledger, repeats
from t5study.study.own import Own, is_own, typed
from t5study.study.question import ask
from t5study.study.table import Row, Table, in_order
from t5study.study.tables.declared import EVERY, GROUPS


def chosen_tables(text: str, own: Own | None = None) -> tuple[Table, ...]:
    """Tables by their numbers, and by the names of groups: "search", those that the rounds go through; "all" of the
    paper's exploration; "final", its last models; "later", those of later papers; FILE.py:NAME, those of `own`.
    UserError for any other.

    >>> [table.number for table in chosen_tables("4, 1, final")]
    ['1', '4', '14', '15']
    """
    wanted, every = set[str](), _every(own)
    known = {table.number for table in every}
    for name in (part.strip() for part in text.split(",")):
        if own and is_own(name):
            wanted |= {table.number for table in own.tables}
        elif name not in known and name not in GROUPS:
            some = ", ".join(sorted(known, key=in_order))
            raise UserError(f"--tables: found {name!r}; give {', '.join(GROUPS)}, FILE.py:NAME, or some of {some}")
        else:
            wanted |= {table.number for table in GROUPS[name]} if name in GROUPS else {name}
    tables = tuple(table for table in every if table.number in wanted)
    if own and (strays := [table.number for table in tables if table.baseline != own.baseline]):
        raise UserError(
            f"--tables: found table {strays[0]}, whose baseline is the paper's; {own.address} has another: give it its "
            "own --out"
        )
    return tables


def experiments_of(tables: Sequence[Table], seeds: int) -> list[Experiment]:
    """All rows of some tables, each once; their baseline and fine-tuning without pre-training from several seeds."""
    repeated = repeats(tables[0].baseline if tables else BASELINE, seeds)
    rows = [row.experiment for table in tables for row in table.rows]
    return list(dict.fromkeys([*repeated, *rows]))


def chosen(text: str, own: Own | None = None) -> tuple[Table, ...]:
    """The same, and single rows by their addresses: 13.2 is the second row of Table 13, whose other rows are left out.
    Beside a row of one's own, FILE.py:NAME says where it is.

    >>> [(table.number, len(table.rows)) for table in chosen("7.2, 7.3, 4")]
    [('4', 3), ('7', 2)]
    """
    every = _every(own)
    parts = [part.strip() for part in text.split(",")]
    found = [(part, *place) for part in parts if (place := _place(part, every))]
    mine = own is not None and any(table in own.tables for _, table, _ in found)
    whole = ",".join(part for part in parts if not _place(part, every) and not (mine and is_own(part)))
    tables = {table.number: table for table in (chosen_tables(whole, own) if whole else ())}
    for part, table, k in found:
        if not 1 <= k <= len(table.rows):
            raise UserError(f"--tables: found {part!r}; table {table.number} has rows 1 to {len(table.rows)}")
    for table in dict.fromkeys(table.number for _, table, _ in found):
        if table not in tables:
            rows = {k - 1 for _, one, k in found if one.number == table}
            (one,) = chosen_tables(table, own)
            tables[table] = replace(one, rows=tuple(row for k, row in enumerate(one.rows) if k in rows))
    return tuple(tables[one.number] for one in every if one.number in tables)


def still_there(names: Sequence[str], own: Own | None) -> list[str]:
    """What was asked of tables and rows before, without what has gone from a file of one's own since."""
    every = _every(own)
    rows = {name: place for name in names if (place := _place(name, every))}
    there = {name for name, (table, k) in rows.items() if k <= len(table.rows)} | {table.number for table in every}
    return [name for name in names if name in there]


def addresses(tables: Sequence[Table], own: Own | None = None) -> list[str]:
    """By what `chosen` finds them again: numbers of tables, and of rows where some are left out."""
    told = list[str]()
    for table in tables:
        rows = [address(table, row, own) for row in table.rows]
        told += rows if len(rows) < len(_whole(table, own).rows) else [table.number]
    return told


def address(table: Table, row: Row, own: Own | None = None) -> str:
    """Of a row: its table's number and its own, from 1."""
    return f"{table.number}.{_whole(table, own).rows.index(row) + 1}"


def _every(own: Own | None) -> tuple[Table, ...]:
    return (*EVERY, *(own.tables if own else ()))


def _whole(table: Table, own: Own | None) -> Table:
    """A table with all its rows."""
    return next(one for one in _every(own) if one.number == table.number)


def _place(part: str, every: Sequence[Table]) -> tuple[Table, int] | None:
    """The table and the number of a row's address; None for anything else."""
    number, _, k = part.rpartition(".")
    table = next((one for one in every if one.number == number), None)
    return (table, int(k)) if table and k.isdecimal() else None


def run_tables(
    asked: Asked, out: Path, workers: int | None = None, tables: str = "search", engine: Engine | None = None
) -> None:
    """Runs what is missing of some tables and writes scores.json and costs.json; shows progress on stderr. engine: who
    builds it, else so many workers here.

    UserError for every mistake of the user's; Stopped after SIGINT or SIGTERM, when the workers have saved.
    """
    out = Path(out)
    question = ask(typed(asked, out, tables))
    wanted = chosen(tables, question.own)
    engine = (engine or Engine(workers=workers)).on(question, out)
    claimed = question.claim(out, tables=addresses(wanted, question.own), precision=engine.precision)
    store, seeds = Store(out / "store"), question.scale.seeds
    stages = [stage for one in experiments_of(wanted, seeds) for stage in question.stages(one)]
    if promise := engine.promise(out, store):
        promise.note(stages)
    with engine.conduct(store) as conductor:
        conductor.run(stages, stages)
        earlier = still_there(claimed["tables"], question.own)  # what was asked earlier stays in the scores
        before = chosen(",".join(earlier), question.own)
        experiments, told = experiments_of(before, seeds), []
        if claimed["rounds"]:
            most, mine = claimed.get("most_seeds", 0), claimed.get("own_rounds", False)
            tournament = search.replay(question, store, conductor.reason, most, mine)
            experiments, told = [*experiments, *tournament.experiments], tournament.told
        book = Ledger(question, store, conductor.reason, claimed.get("most_seeds", 0))
        ledger.write(out, book, experiments, told)
