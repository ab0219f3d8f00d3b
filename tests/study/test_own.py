"""Own studies: what a file may hold, every mistake in one line, and what becomes of its tables and its baseline."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_study import put_run, toy_question

from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, Ids
from t5study.ground.store import Store
from t5study.objectives import PrefixLM, SpanCorruption
from t5study.study import own as room
from t5study.study import scales
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.decide import Until
from t5study.study.experiment import Experiment
from t5study.study.ledger import Ledger, label
from t5study.study.own import Own, for_rounds, load, typed
from t5study.study.own_rounds import OwnTournament
from t5study.study.question import Question
from t5study.study.report import write_report
from t5study.study.report_input import read_study
from t5study.study.runner import chosen_tables, experiments_of, run_tables
from t5study.study.scores import Measured
from t5study.study.search import run_rounds
from t5study.study.table import Row, Table
from t5study.study.tables.declared import EVERY

HEAD = """
from dataclasses import dataclass
from t5study.objectives import PrefixLM, SpanCorruption
from t5study.study.baseline import BASELINE as PAPER
from t5study.study.table import Row, Table
"""
ROWS = """
TABLES = Table("mine", "Longer spans", ("objective",), (
    Row("i.i.d.", PAPER), Row("spans of 8", PAPER.but(objective=SpanCorruption(mean_span=8))),
))
"""
OTHER = """
BASELINE = PAPER.but(objective=SpanCorruption())
TABLES = [Table("mine", "", ("objective",), (
    Row("spans of 3", BASELINE), Row("prefix LM", BASELINE.but(objective=PrefixLM())),
), baseline=BASELINE)]
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a file; each has a name of its own, as modules do. What is imported is forgotten afterwards."""
    modules, path = set(sys.modules), list(sys.path)

    def file(text: str, name: str = "my_study_7") -> Path:
        (tmp_path / f"{name}.py").write_text(HEAD + text, encoding="utf-8")
        importlib.invalidate_caches()
        return tmp_path / f"{name}.py"

    yield file
    for name in set(sys.modules) - modules:
        if name.startswith("my_study_7"):
            del sys.modules[name]
    sys.path[:] = path
    room._imported.clear()


def toy(path: Path) -> Question:
    question, own = toy_question(), load(str(path))
    return replace(question, own=own, setting=replace(question.setting, baseline=own.baseline))


def test_tables_are_taken_by_name(write: Write):
    path = write(ROWS + "\nBOTH = (TABLES, Table('more', '', ('seed',), (Row('another seed', PAPER.but(seed=7)),)))")
    assert [table.number for table in load(str(path)).tables] == ["mine"]
    assert [table.number for table in load(f"{path}:BOTH").tables] == ["mine", "more"]
    found = load(f"{path}:TABLES")
    assert found.baseline == BASELINE
    assert re.fullmatch("[0-9a-f]{32}", found.digest)
    assert [table.number for table in chosen_tables(f"4,{path}:TABLES", found)] == ["4", "mine"]
    assert chosen_tables("mine", found) == found.tables
    assert experiments_of(found.tables, 3)[-1].objective == SpanCorruption(mean_span=8)


MISTAKES = {
    "no such name": (ROWS, "TABELS", "found no TABELS in it; did you mean TABLES"),
    "no tables at all": ("x = 1", "TABLES", "found no TABLES in it; give one of its tables"),
    "syntax": ("TABLES = (\n", "TABLES", r"line 6: '\(' was never closed"),
    "import": ("import torhc_7", "TABLES", "line 6: ModuleNotFoundError: No module named 'torhc_7'"),
    "exit": ("raise SystemExit(3)", "TABLES", "line 6: SystemExit: 3"),
    "a bad objective": ("SpanCorruption(rate=2)", "TABLES", "line 6: .*rate"),
    "a stray row": (
        'TABLES = Table("m", "", ("seed",), (Row("a", PAPER.but(batch=2.0)),))', "TABLES",
        r"line 6: ValueError: table m: row 'a' also differs in \['batch'\]",
    ),
    "twins": (
        'TABLES = Table("m", "", (), (Row("a", PAPER), Row("b", PAPER)))', "TABLES",
        "line 6: ValueError: table m: two rows of one experiment",
    ),
    "another kind": ("TABLES = 'mine'", "TABLES", "found a str; give a Table, or a tuple of them"),
    "another kind in a tuple": (ROWS + "\nT = (TABLES, 3)", "T", "item 2: found a int; give a Table"),
    "none": ("TABLES = ()", "TABLES", "found no table in it"),
    "a number of the paper's": (ROWS.replace("mine", "13"), "TABLES", "table 13: found its number on another table"),
    "a number twice": (ROWS + "\nT = (TABLES, TABLES)", "T", "table mine: found its number on another table"),
    "a group's name": (ROWS.replace("mine", "later"), "TABLES", "table later: found its number on another"),
    "no number": (ROWS.replace('"mine"', "7"), "TABLES", "a table's number: found 7; give letters and digits"),
    "a comma": (ROWS.replace('"mine"', "'a,b'"), "TABLES", "found 'a,b'; give letters and digits"),
    "no rows": ('TABLES = Table("m", "", (), ())', "TABLES", "table m: found no rows"),
    "the file's baseline elsewhere": (
        ROWS + "\nBASELINE = PAPER.but(seed=1)", "TABLES", "table mine: found another baseline; give it baseline=",
    ),
    "a baseline of another kind": (ROWS + "\nBASELINE = 3", "TABLES", "BASELINE: found a int; give an Experiment"),
    "no baseline row": (
        OTHER.replace('Row("spans of 3", BASELINE), ', ""), "TABLES", "found no row that is the baseline; add Row",
    ),
    "no objective": (
        'TABLES = Table("m", "", ("objective",), (Row("a", PAPER.but(objective="bert")),))', "TABLES",
        "table m: row 'a': objective: found a str without label, concatenates, lengths, pairs",
    ),
    "not a value": (
        'TABLES = Table("m", "", ("corpus",), (Row("a", PAPER.but(corpus=lambda: 1)),))', "TABLES",
        "row 'a': a function cannot be part of a fingerprint",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(write: Write, mistake: str):
    text, name, told = MISTAKES[mistake]
    path = write(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}:.*{told}") as error:
        load(f"{path}:{name}")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_modules_are_refused(write: Write, tmp_path: Path):
    with pytest.raises(UserError, match="no such file; give --tables FILE.py:NAME"):
        load(str(tmp_path / "nowhere.py:TABLES"))
    for name, told in [("my-study", "a name that Python cannot import"), ("json", "the name of another module, json")]:
        with pytest.raises(UserError, match=told):
            load(str(write(ROWS, name)))
    with pytest.raises(UserError, match=r"found two files, a.py:T and b.py; give one"):
        typed(Asked(), tmp_path, "a.py:T,4,b.py")
    with pytest.raises(UserError, match=r"found 'mine'; give search, all, final, later, FILE.py:NAME, or some of 1, "):
        chosen_tables("mine")


def test_a_file_that_changed_is_read_again_and_one_that_did_not_is_not(write: Write):
    path = write(ROWS)
    first = load(str(path))
    assert load(str(path)).tables[0] is first.tables[0]
    again = load(str(write(ROWS.replace("spans of 8", "spans of eight"))))
    assert again.digest != first.digest
    assert again.tables[0].rows[1].label == "spans of eight"


MADE = """
@dataclass(frozen=True)
class Backwards:
    share: float = 0.5
    concatenates = True
    label = "backwards"
    def lengths(self, input_length): return PrefixLM().lengths(input_length)
    def pairs(self, raw_BL, length_B, key_B, ids, lengths):
        return PrefixLM().pairs(raw_BL[:, ::-1].copy(), length_B, key_B, ids, lengths)
TABLES = Table("mine", "", ("objective",), (Row("i.i.d.", PAPER), Row("b", PAPER.but(objective=Backwards()))))
"""


def test_what_a_file_defines_can_be_sent_to_workers(write: Write):
    row = load(str(write(MADE))).tables[0].rows[1]
    assert pickle.loads(pickle.dumps(row.experiment)) == row.experiment
    assert type(row.experiment.objective).__module__ == "my_study_7"


def test_what_a_file_defines_can_be_sent_to_a_schedulers_jobs(write: Write, tmp_path: Path):
    """They are other processes, which find no file of ours."""
    cloudpickle = pytest.importorskip("cloudpickle")
    objective = load(str(write(MADE))).tables[0].rows[1].experiment.objective
    (tmp_path / "sent").write_bytes(cloudpickle.dumps(objective))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).lengths(32).inputs)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "sent"], env=environment, capture_output=True)
    assert told.stdout.split() == [b"32"], told.stderr.decode()


def test_a_class_of_other_code_is_refused_where_it_was_asked_before(write: Write, tmp_path: Path):
    """Its fingerprint is the same, so what is in the store would be taken for it."""
    question, out = toy(write(MADE)), tmp_path / "study"
    question.claim(out, tables=["mine"])
    asked = json.loads((out / "study.json").read_text())
    assert (asked["own"]["tables"], asked["own"]["digest"]) == (["mine"], question.own and question.own.digest)
    toy(write(MADE.replace("    share", "    # how much of it\n    share"))).claim(out)  # a comment
    toy(write(MADE.replace('Row("b"', 'Row("c"'))).claim(out)  # a row
    with pytest.raises(UserError, match=r"class Backwards has other code than when .*study was asked with it"):
        toy(write(MADE.replace("::-1", "::1"))).claim(out)


def test_a_study_remembers_its_file(write: Write, tmp_path: Path):
    path, out = write(ROWS), tmp_path / "study"
    asked = typed(Asked("smoke"), out, f"1,{path}:TABLES")
    assert asked.own == f"{path}:TABLES"
    assert typed(Asked("smoke"), out, "1").own is None
    toy(path).claim(out, tables=["mine"])
    assert typed(Asked("smoke"), out, "1").own == str(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file, and .*study was asked with it; run from the folder of before"):
        typed(Asked("smoke"), out, "1")


def test_another_baseline_is_another_question(write: Write, tmp_path: Path):
    other, out = toy(write(OTHER)), tmp_path / "study"
    other.claim(out, tables=["mine"])
    with pytest.raises(UserError, match=r"another question \(another baseline; give --tables the file that it is in\)"):
        toy_question().compare(out)
    changed = toy(write(OTHER.replace("SpanCorruption()", "SpanCorruption(0.5)")))
    with pytest.raises(UserError, match=r"\(baseline.objective.fields.rate: 0.15 there, 0.5 now\)"):
        changed.compare(out)
    with pytest.raises(UserError, match="found table 4, whose baseline is the paper's"):
        chosen_tables("4,my_study_7.py:TABLES", other.own)


def test_scores_are_beside_the_files_baseline(write: Write, tmp_path: Path):
    question, store = toy(write(OTHER)), Store(tmp_path / "store")
    assert isinstance(question.own, Own)
    experiments = experiments_of(question.own.tables, 3)
    assert len(experiments) == 7  # three of the baseline, three without pre-training, one row more
    for k, experiment in enumerate(experiments):
        put_run(store, question.stages(experiment)[0], 3.0 + k / 10)
    told = Ledger(question, store).scores(experiments)
    assert [table["number"] for table in told["tables"]] == ["mine"]
    rows = told["tables"][0]["rows"]
    assert [(row["label"], row["starred"], len(row["runs"])) for row in rows] == [
        ("spans of 3", True, 3), ("prefix LM", False, 1),
    ]  # fmt: skip
    assert told["noise"]["mean nats"]["mean"] == pytest.approx(3.1)
    assert told["gain"]["mean nats"]["gain"] == pytest.approx(0.3)
    assert label(question.own.baseline.but(batch=2.0), question.own.baseline).endswith(", 2x batch")


def test_own_tables_stand_beside_those_of_the_paper_that_are_whole(write: Write, tmp_path: Path):
    question, store = toy(write(ROWS)), Store(tmp_path / "store")
    assert isinstance(question.own, Own)
    experiments = experiments_of(question.own.tables, 3)
    for experiment in experiments:
        put_run(store, question.stages(experiment)[0], 3.0)
    told = Ledger(question, store).scores(experiments)
    assert [table["number"] for table in told["tables"]] == ["1", "mine"]
    assert question.tables == (*EVERY, *question.own.tables)


def test_a_table_keeps_the_laws_beside_its_own_baseline():
    base = BASELINE.but(objective=SpanCorruption())
    with pytest.raises(ValueError, match="also differs in \\['objective'\\]"):
        Table("mine", "", ("seed",), (Row("a", BASELINE),), baseline=base)


ROUNDS = """
BASELINE = PAPER.but(objective=SpanCorruption())
A = Table("objectives", "Which objective?", ("objective",), (
    Row("spans of 3", BASELINE), Row("prefix LM", BASELINE.but(objective=PrefixLM())),
    Row("spans of 5", BASELINE.but(objective=SpanCorruption(mean_span=5))),
), baseline=BASELINE)
B = Table("batches", "Which batch?", ("batch",), (
    Row("once", BASELINE), Row("twice", BASELINE.but(batch=2.0)), Row("half", BASELINE.but(batch=0.5)),
), baseline=BASELINE)
TABLES = (A, B)
"""


def nats(experiment: Experiment) -> float | None:
    """Spans of 5 lead; with them a double batch does, without a half one. The deviation of the baseline is 0.02."""
    if not experiment.pretraining:
        return 4.0
    told = {SpanCorruption(): 3.0, SpanCorruption(mean_span=5): 2.5, PrefixLM(): 3.01}[experiment.objective]
    leads = 2.0 if told == 2.5 else 0.5
    return told - 0.3 * (experiment.batch == leads) + (0.0, 0.02, -0.02)[experiment.seed]


def played(question: Question, store: Store, of: Callable[[Experiment], float | None] = nats) -> OwnTournament:
    """Rounds on made-up numbers; one without a number stays unrun."""
    tournament = OwnTournament(question, store)

    def run(wanted: Iterable[Experiment], meanwhile: Iterable[Experiment], expected: Iterable[Experiment]) -> None:
        for experiment in wanted:
            if (value := of(experiment)) is not None:
                put_run(store, question.stages(experiment)[0], value)

    tournament.play(run)
    return tournament


def test_rounds_go_through_the_files_tables_and_each_winner_goes_on(write: Write, tmp_path: Path):
    question, store = toy(write(ROUNDS)), Store(tmp_path / "store")
    tournament = played(question, store)
    first, second = tournament.told
    assert (first["number"], first["title"], first["table"]) == (1, "Which objective?", "objectives")
    assert [one["label"] for one in first["candidates"]] == ["spans of 3", "prefix LM", "spans of 5"]
    assert [len(one["runs"]) for one in first["candidates"]] == [3, 1, 1]
    assert (first["winner"], first["ties"], first["goes_on"]) == ("spans of 5", [], "spans of 5")
    assert first["verdict"].startswith("spans of 5 wins on mean nats with 2.5")
    assert first["verdict"].endswith("spans of 5 goes on.")
    assert (second["winner"], second["ties"]) == ("twice", [])
    assert not second["verdict"].endswith("goes on.")
    best = question.setting.baseline.but(objective=SpanCorruption(mean_span=5))
    assert {best.but(batch=batch) for batch in (1.0, 2.0, 0.5)} <= set(tournament.experiments)
    assert question.setting.baseline.but(batch=2.0) not in tournament.experiments
    scores = Ledger(question, store).scores(tournament.experiments, tournament.told)
    assert [table["number"] for table in scores["tables"]] == ["objectives"]  # of the other its own rows were not run
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    assert [one.winner for one in read_study(tmp_path).rounds] == ["spans of 5", "twice"]
    write_report(tmp_path)


def test_a_tie_is_told_and_the_best_goes_on_all_the_same(write: Write, tmp_path: Path):
    question = toy(write(ROUNDS))
    off = {SpanCorruption(mean_span=5): 5.0}
    tournament = played(question, Store(tmp_path), lambda one: off.get(one.objective, nats(one)))
    assert tournament.told[0]["verdict"].startswith("A tie: prefix LM lies within two standard deviations")
    assert tournament.told[0]["verdict"].endswith("spans of 3 goes on.")
    assert tournament.told[1]["winner"] == "half"


def test_rounds_end_where_something_has_not_been_run(write: Write, tmp_path: Path):
    question = toy(write(ROUNDS))
    tournament = played(question, Store(tmp_path), lambda one: None if one.batch == 2.0 else nats(one))
    assert [told["table"] for told in tournament.told] == ["objectives"]


def test_rounds_take_a_file_or_nothing(write: Write, tmp_path: Path):
    assert (for_rounds(None), for_rounds("a.py:T")) == (None, "a.py:T")
    for wrong in ("4", "4,a.py:T"):
        with pytest.raises(UserError, match=f"--tables: found '{wrong}'; the rounds go through 4, 5, 6 and 7"):
            for_rounds(wrong)
    question, out = toy(write(ROUNDS)), tmp_path / "study"
    assert question.own
    with pytest.raises(UserError, match="--until-decided: found with .*it is for the paper's rounds alone"):
        run_rounds(Asked("smoke", own=question.own.address), out, until=Until())
    assert question.claim(out, rounds=True, own_rounds=True)["own_rounds"]
    assert question.claim(out, tables=["batches"])["own_rounds"]
    assert not question.claim(out, rounds=True).get("own_rounds")
    with pytest.raises(UserError, match=r"study: has the baseline of .*my_study_7.py; give --tables that"):
        run_rounds(Asked("smoke"), out)


def docs_example(folder: Path) -> tuple[Path, str]:
    """The file and the task of docs/study.md, the file written."""
    docs = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
    section = docs.partition("\n## Own studies\n")[2].partition("\n## ")[0]
    code, task = re.findall(r"```(?:python|json)\n(.*?)```", section, re.DOTALL)
    path = folder / "my_study_7_docs.py"
    path.write_text(code, encoding="utf-8")
    return path, task


def test_the_example_of_the_docs_is_a_study(write: Write, tmp_path: Path):
    own = load(str(docs_example(tmp_path)[0]))
    assert [table.number for table in own.tables] == ["openings", "texts"]
    assert len({row.experiment for table in own.tables for row in table.rows}) == 5
    opening = own.tables[0].rows[1].experiment.objective
    lengths, ids = opening.lengths(32), Ids(size=400)
    raw_BL, length_B = np.arange(3, 3 + 2 * lengths.raw, dtype=np.int32).reshape(2, -1), np.array([lengths.raw, 10])
    for row_L, length, pair in zip(
        raw_BL, length_B, opening.pairs(raw_BL, length_B, length_B, ids, lengths), strict=True
    ):
        assert [*pair.source[:-1], *pair.target[:-1]] == row_L[:length].tolist()
        assert len(pair.source) == 1 + round(length / 2)
        assert pair.source[-1] == pair.target[-1] == EOS


@pytest.mark.slow
def test_the_example_of_the_docs_runs(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An objective, a corpus, a task and a row of one's own, in worker processes, at SMOKE with a baseline alone."""
    path, task = docs_example(tmp_path)
    rows = [json.dumps({"input": f"colour: {k}", "target": ["warm", "cold"][k % 2]}) for k in range(60)]
    (tmp_path / "my_task.jsonl").write_text(task.splitlines()[0] + "\n" + "\n".join(rows), encoding="utf-8")
    assert [set(json.loads(line)) for line in task.splitlines()[1:]] == [{"input", "target"}] * 2
    for name, word in (("text", "river"), ("letters", "dear")):
        lines = [f"The {word} {k} was {k % 7} and came to {k % 11} of them." for k in range(400)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setitem(scales.SCALES, "smoke", replace(scales.SMOKE, seeds=1))
    asked = Asked(
        "smoke", [str(tmp_path / "text.txt")], [str(tmp_path / "my_task.jsonl")],
        corpora=[("letters", str(tmp_path / "letters.txt"))],
    )  # fmt: skip
    run_tables(asked, tmp_path / "study", workers=1, tables=f"{path}:TABLES")
    study = read_study(tmp_path / "study")
    told = {(table.number, row.label): row for table in study.tables for row in table.rows}
    assert [row.runs for row in told.values() if not row.runs] == []
    cells = [cell for run in study.runs.values() for cell in run.cells.values()]
    assert all(isinstance(cell, Measured) for cell in cells)
    own = load(f"{path}:TABLES")
    assert len(study.runs) == len({row.experiment for table in own.tables for row in table.rows}) + 1
    page = write_report(tmp_path / "study").with_suffix(".md").read_text(encoding="utf-8")
    assert own.digest in page
    assert f"--tables {path}:TABLES" in page
    run_tables(asked, tmp_path / "study", workers=1, tables=own.tables[0].number)  # by its number: it is remembered
    assert read_study(tmp_path / "study").digest == study.digest
