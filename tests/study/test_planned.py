"""`study plan`: what can be asked for, what fits into a budget, what was promised."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from toy_study import NoText, toy_question, toy_setting

from t5study.commands.tree import build_parser
from t5study.ground.errors import UserError
from t5study.ground.store import Store
from t5study.study.asked import Asked
from t5study.study.budget import Offer, best, offer
from t5study.study.estimate import Clock, estimate, flops_of
from t5study.study.experiment import STUDY
from t5study.study.material import Corpus
from t5study.study.own import load
from t5study.study.planned import Given, fitted
from t5study.study.plans import stages_of
from t5study.study.runner import address, addresses, chosen, experiments_of
from t5study.study.setting import absent
from t5study.study.stages import needed
from t5study.study.table import Table
from t5study.study.tables.declared import EVERY


@pytest.mark.parametrize("table", EVERY, ids=lambda table: table.number)
def test_every_row_of_every_table_comes_to_stages(table: Table):
    """tests/laws/test_tables.py: these are all of the paper's experiments."""
    names = sorted({row.experiment.corpus for row in table.rows} - {STUDY})
    setting = replace(toy_setting(), texts=tuple((name, Corpus(name, NoText(name))) for name in names))
    planned = experiments_of(chosen(table.number), 10)
    for row in table.rows:
        assert row.experiment in planned
        assert stages_of(row.experiment, setting)
        # Where a text has to be brought, the plan says which.
        assert (row.experiment.corpus in absent(row.experiment, toy_setting())) == (row.experiment.corpus != STUDY)


# --- what fits into a budget --------------------------------------------------------------------------------------


def clock(per_flop: float = 1e-6) -> Clock:
    return Clock(lambda stage: 1.0 + per_flop * flops_of(stage), "by hand")


def offered(tmp_path: Path, seconds: float, tables: str = "search", memory: int | None = None) -> Offer:
    return offer(toy_question(), Store(tmp_path / "store"), chosen(tables), clock(), 2, seconds, memory)


def until(tmp_path: Path, tables: str) -> float:
    """When some tables are done, with nothing there."""
    question = toy_question()
    experiments = experiments_of(chosen(tables), question.scale.seeds)
    stages = needed(stage for one in experiments for stage in question.stages(one))
    return estimate(stages, stages, clock(), 2).seconds


def test_what_fits_fits_and_nothing_more_does(tmp_path: Path):
    everything = until(tmp_path, "search")
    assert offered(tmp_path, everything) == replace(
        offered(tmp_path, 10 * everything), seconds=everything
    )  # all of it: 14 experiments, the baseline and BERT-style in several tables
    assert (offered(tmp_path, everything).fit, offered(tmp_path, everything).left) == (14, ())
    for part in (0.95, 0.7, 0.5):
        seconds = part * everything
        found = offered(tmp_path, seconds)
        assert found == offered(tmp_path, seconds)  # the same clock, the same choice
        assert found.fit + len(found.left) == found.asked == 14
        assert found.fit < 14
        kept = ",".join(addresses(found.tables))
        assert until(tmp_path, kept) <= seconds
        for one in found.left:  # none of those left out would have fitted
            assert until(tmp_path, f"{kept},{one.rows[0]}") > seconds
            assert "more, " in one.why
        starred = {table.number for table in found.tables if any(map(table.starred, table.rows))}
        assert starred == {"1", "5", "6", "7"}  # Table 4 has none


def test_without_time_for_the_baseline_nothing_fits(tmp_path: Path):
    least = offered(tmp_path, 1e9).least_s
    assert offered(tmp_path, least).fit >= 2  # it, and no pre-training
    none = offered(tmp_path, least - 1e-3)
    assert (none.fits, none.fit, none.tables) == (False, 0, ())


def test_what_is_too_large_or_has_no_text_says_so(tmp_path: Path):
    found = offered(tmp_path, 1e9, "8,13", memory=800_000)
    told = {row: one.why for one in found.left for row in one.rows}
    assert "give --corpus wikipedia=PATTERN" in told["8.5"]
    assert told["13.5"].endswith("of memory a run; there are 0.0")
    assert {"13.1", "13.2"} & told.keys() == set()  # more steps take no more memory
    large = offered(tmp_path, 1e9, memory=1000)
    assert not large.fits
    assert "of memory a run" in large.why


def test_the_largest_scale_at_which_half_fits_is_taken():
    def made(scale: str, least: float, fit: int, why: str = "") -> Offer:
        return Offer(scale, 10.0, least, 99.0, (), fit, 8, (), why)

    small, middle, large = made("a", 1.0, 8), made("b", 3.0, 4), made("c", 9.0, 3)
    assert best([small, middle, large]) == middle
    assert best([small, made("b", 3.0, 4, "too large"), large]) == small
    assert best([made("a", 1.0, 3), made("b", 3.0, 2)]) == made("a", 1.0, 3)
    assert best([made("a", 11.0, 0), made("b", 30.0, 0)]) is None


def test_a_budget_chooses_a_scale_and_prints_what_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    given = Given(0.06, 1.0, 2)
    hours = fitted(Asked(), None, 2 * 3600.0, tables="search", given=given)
    rows = {line.split()[0]: line for line in hours.splitlines()[3:9]}
    assert list(rows) == ["smoke", "laptop", "evening", "workstation", "node", "paper"]
    assert [name for name, line in rows.items() if line.endswith("<- taken")] == ["evening"]
    assert "t5study study run --scale evening --tables search" in hours
    assert fitted(Asked(), None, 2 * 3600.0, tables="search", given=given) == hours
    tight = fitted(Asked(), None, 50 * 60.0, tables="search", given=given, scale="evening")
    (command,) = [line.split() for line in tight.splitlines() if "t5study study run" in line]
    build_parser().parse_args(command[1:])
    number = int(re.search(r"evening .* (\d+) of 14", tight)[1])  # type: ignore[index]
    assert 2 <= number < 14
    kept = {row.experiment for table in chosen(command[-1]) for row in table.rows}
    assert len(kept) == number
    with pytest.raises(
        UserError, match=r"--budget: found 1 min 00 s; the baseline, with all its seeds, takes .* at evening scale"
    ):
        fitted(Asked(), None, 60.0, given=given, scale="evening")
    assert not any(tmp_path.iterdir())


def test_rows_have_addresses():
    assert [(table.number, [row.label for row in table.rows]) for table in chosen("7.2, 1,7.3,7.2")] == [
        ("1", ["Baseline average", "No pre-training"]), ("7", ["2", "3"]),
    ]  # fmt: skip
    assert chosen("4,4.1") == chosen("4")
    assert chosen("later-gated.2")[0].rows == EVERY[-6].rows[1:2]
    for table in EVERY:
        assert chosen(table.number) == (table,)
        for row in table.rows:
            (one,) = chosen(address(table, row))
            assert one.rows == (row,)
            assert addresses([one]) == ([address(table, row)] if len(table.rows) > 1 else [table.number])
    with pytest.raises(UserError, match=r"found '7\.9'; table 7 has rows 1 to 5"):
        chosen("7.9")
    with pytest.raises(UserError, match=r"found '7\.x'"):
        chosen("7.x")


def test_rows_of_ones_own_have_addresses_too(tmp_path: Path):
    file = tmp_path / "my_rows.py"
    file.write_text(
        "from t5study.objectives import SpanCorruption\n"
        "from t5study.study.baseline import BASELINE\n"
        "from t5study.study.table import Row, Table\n"
        "ROWS = [Row('i.i.d.', BASELINE), *(Row(f'spans of {n}', BASELINE.but(objective=SpanCorruption(mean_span=n)))"
        " for n in (7, 8))]\n"
        "TABLES = Table('mine', '', ('objective',), tuple(ROWS))\n"
    )
    own = load(f"{file}:TABLES")
    assert [len(table.rows) for table in chosen(f"{file}:TABLES", own)] == [3]
    (some,) = chosen(f"{file}:TABLES,mine.1,mine.3", own)
    assert [row.label for row in some.rows] == ["i.i.d.", "spans of 8"]
    assert addresses([some], own) == ["mine.1", "mine.3"]
    (one, two) = chosen(f"{file}:TABLES,4.1", own)  # a row of the paper beside all of one's own
    assert (one.number, len(one.rows), two.number, len(two.rows)) == ("4", 1, "mine", 3)
