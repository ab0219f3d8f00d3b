"""The seven columns of the paper's Table 1 on invented files of the official layouts, with real training."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from invented_benchmarks import official
from invented_texts import cnndm, lines, qa, squad_file

from t5study.ground.errors import UserError
from t5study.ground.store import Store
from t5study.study import planned, runner, scales
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.benchmarks import find_studied
from t5study.study.ledger import Ledger
from t5study.study.question import ask
from t5study.study.report import write_report
from t5study.study.report_input import read_study
from t5study.study.scores import PAPER_COLUMNS, Failed, Measured
from t5study.study.stages import stage_id
from t5study.study.training import Finetune
from t5study.tasks.benchmarks import GLUE

SMALL = dataclasses.replace(
    scales.SMOKE, pieces=200, pretrain_steps=2, finetune_steps=2, checkpoints=1, evaluation_rows=4, seeds=1
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as they are often there: no training questions, no Romanian to train on, no DPR, no mismatched MNLI, no
    validation rows of QQP."""
    folder = cnndm(official(tmp_path_factory.mktemp("data")))
    shutil.rmtree(folder / "superglue" / "DPR")
    for name in ("dev_mismatched.tsv", "test_mismatched.tsv"):
        (folder / "glue" / "MNLI" / name).unlink(missing_ok=True)
    for path in (folder / "glue" / "QQP").iterdir():
        path.unlink()
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    asked = (
        f"{i}\t1\t2\tIs clock number {i} a red one?\tWhat does clock number {i} look like?\t{i % 2}" for i in range(12)
    )
    lines(folder / "glue" / "QQP" / "train.tsv", header, *asked)
    squad_file(folder / "squad" / "dev-v1.1.json", *(qa(f"q{i}", f"Who is {i}?", "Ann") for i in range(2)))
    found = json.loads((folder / "squad" / "dev-v1.1.json").read_text())
    for k in range(7):
        answers = [{"text": f"{k}", "answer_start": 10}]
        questions = [{"id": f"{k}-{i}", "question": f"How many are {i}?", "answers": answers} for i in range(2)]
        found["data"].append(
            {"title": "T", "paragraphs": [{"context": f"There are {k} of them in the box.", "qas": questions}]}
        )
    (folder / "squad" / "dev-v1.1.json").write_text(json.dumps(found))
    for language in ("de", "fr"):
        for side in ("en", language):
            lines(folder / "translation" / f"to-{language}" / f"train.{side}", *(f"{side} clock {i}" for i in range(9)))
            lines(folder / "translation" / f"to-{language}" / f"val.{side}", *(f"{side} bell {i}" for i in range(3)))
    for side in ("en", "ro"):
        lines(folder / "translation" / "ro" / f"newsdev2016.{side}", *(f"{side} news number {i}" for i in range(12)))
    return folder


@dataclasses.dataclass(frozen=True)
class Made:
    out: Path
    ask: Asked


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A study of Table 1 at the smallest scale there can be, and its report."""
    out = tmp_path_factory.mktemp("study")
    lines(out / "text.txt", *(f"the clock number {i} rang and {i * 3} people came to look at it" for i in range(400)))
    asked = Asked("smoke", [str(out / "text.txt")], benchmarks=["all"], data=data, split_missing=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(scales.SCALES, "smoke", SMALL)
        runner.run_tables(asked, out / "study", workers=1, tables="1")
        write_report(out / "study")
        yield Made(out / "study", asked)


def test_all_seven_columns_are_measured(made: Made):
    study = read_study(made.out)
    assert [one.column for one in study.benchmarks] == list(PAPER_COLUMNS)
    assert [column.name for column in study.compared] == list(PAPER_COLUMNS)
    assert len(study.runs) == 2
    for run in study.runs.values():
        assert len(run.finetunes) == 7
        assert all(isinstance(run.cells[name], Measured) for name in PAPER_COLUMNS)
    assert study.column("SGLUE").metric == "average"
    assert study.column("CNNDM").metric == "rouge2"
    assert study.column("EnRo nats").kind == "likelihood"


def test_an_average_is_over_groups_of_the_tasks_that_are_there(made: Made):
    study = read_study(made.out)
    groups = tuple(group for one in study.benchmarks if one.name == "glue" for group in one.groups)
    assert [name for group in groups for name in group] == [name for name in GLUE.tasks if "mismatched" not in name]
    assert len(groups) == 8
    benchmark = dataclasses.replace(GLUE, members=groups)
    column = {column.task: column.name for column in study.columns if column.kind == "metric"}
    for run in study.runs.values():
        cells = {name: run.cells[column[name]] for name in benchmark.tasks}
        values = {name: cell.value for name, cell in cells.items() if isinstance(cell, Measured)}
        whole = run.cells["GLUE"]
        assert isinstance(whole, Measured)
        assert whole.value == pytest.approx(benchmark.average(values))
        assert whole.n == sum(cell.n for cell in cells.values() if isinstance(cell, Measured))
    assert column["superglue/rte"] != column["glue/rte"]


def test_what_is_not_official_is_told(made: Made):
    study = read_study(made.out)
    notes = {task: note for one in study.benchmarks for task, note in one.notes}
    assert set(notes) == {"glue/qqp", "glue/mnli_mismatched", "squad/v1", "superglue/dpr", "wmt/enro"}
    assert notes["squad/v1"] == (
        "no training rows there: the first 12 validation rows are trained on, the last 4 scored"
    )
    assert notes["wmt/enro"].startswith("no training rows there: the first 9")
    assert notes["superglue/dpr"].startswith(
        "not trained on: the folder of the benchmarks: found no folder superglue/DPR"
    )
    page = (made.out / "report.md").read_text()
    html = (made.out / "report.html").read_text()
    for text in (
        "no training rows there: the first 12 validation rows",
        "a number of these is none on the official split",
    ):
        assert text in page
    assert "no training rows there: the first 12 validation rows" in html
    assert "| GLUE, ours | the paper's |" in page
    assert "−17.06" in page  # the paper's change of GLUE without pre-training
    assert "--benchmarks all" in page
    assert "--split-missing" in page
    assert "None" not in page.replace("None of", "")


def test_asked_again_nothing_is_run_and_the_plan_says_so(made: Made):
    before = (made.out / "scores.json").read_bytes()
    said = planned.plan(made.ask, made.out, workers=1, tables="1")
    assert "nothing is missing" in said
    assert (made.out / "scores.json").read_bytes() == before
    with pytest.raises(UserError, match="was asked another question"):
        planned.plan(dataclasses.replace(made.ask, benchmarks=["glue"]), made.out, workers=1, tables="1")


def test_a_failed_benchmark_fails_its_own_columns_alone(made: Made):
    question = ask(made.ask)
    lost = {stage.on: stage for stage in question.stages(BASELINE)}["GLUE"]
    store = Store(made.out / "store")
    shutil.rmtree(store.root / stage_id(lost))
    book = Ledger(question, store, lambda stage: "the loss is nan" if stage == lost else None)
    cells = book.cells(BASELINE)
    assert cells is not None
    assert cells["GLUE"] == Failed("the loss is nan")
    assert cells["mean"] == Failed("the loss is nan")
    assert isinstance(cells["SGLUE"], Measured)
    assert Ledger(question, store).cells(BASELINE) is None  # not run, and not failed


def test_fine_tunings_share_their_pre_training_and_have_the_benchmarks_lengths(made: Made):
    question = ask(made.ask)
    long = dataclasses.replace(question.setting, scale=dataclasses.replace(SMALL, finetune_target_length=512))
    stages = dataclasses.replace(question, setting=long).stages(BASELINE)
    assert [stage.target_length for stage in stages] == [84, 512, 97, 62, 512, 512, 512]
    assert len({stage.start for stage in stages}) == 1
    assert len(set(map(stage_id, stages))) == 7
    assert all(isinstance(stage, Finetune) and stage.parents for stage in stages)
    glue = stages[0]
    assert "glue/mnli_mismatched" not in glue.trained + glue.scored


def test_without_the_option_what_is_missing_is_absent_and_says_why(data: Path):
    found = {one.benchmark.name: one for one in find_studied(["glue, squad", "ende"], data, split_missing=False)}
    assert found["glue"].absent.startswith(
        "glue/qqp is not scored: task glue/qqp: found no validation rows; put dev.tsv"
    )
    assert found["glue"].absent.endswith("; or let --split-missing cut it out of what is there")
    assert found["squad"].absent.startswith("squad/v1 is not trained on: ")
    assert found["ende"].absent == ""
    with pytest.raises(UserError, match="--benchmarks: found none that can be run; squad/v1"):
        find_studied(["squad"], data, split_missing=False)
    with pytest.raises(UserError, match="did you mean glue"):
        find_studied(["gluee"], data, split_missing=False)


def test_damaged_files_are_no_missing_ones(data: Path, tmp_path: Path):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "squad" / "dev-v1.1.json").write_text("{")
    with pytest.raises(UserError, match=r"dev-v1.1.json"):
        find_studied(["squad"], tmp_path / "data", split_missing=True)


def test_what_does_not_go_together_is_refused(data: Path):
    with pytest.raises(UserError, match="--benchmarks: found --task beside it"):
        ask(Asked("smoke", tasks=["pydocs/package"], benchmarks=["glue"], data=data))
    with pytest.raises(UserError, match="--benchmarks: missing, though --data"):
        ask(Asked("smoke", data=data))
