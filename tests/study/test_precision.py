"""The precision of a study: it reaches whoever trains, a folder keeps to one, and the page and the plan say which."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from study_folder import write_study
from toy_study import Toy, build_all, put, real_setting, toy_question, toy_setting

from t5study.__main__ import main
from t5study.commands.tree import build_parser
from t5study.ground import machine as ground
from t5study.ground.errors import UserError
from t5study.ground.machine import Machine, cpu_has_bf16, here
from t5study.ground.store import MANIFEST, Store, read_json
from t5study.study import planned, promised
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.engine import Engine
from t5study.study.estimate import clock_here
from t5study.study.planned import Given
from t5study.study.plans import unfold
from t5study.study.promised import Promise
from t5study.study.question import ask
from t5study.study.report import write_report
from t5study.study.report_input import read_study
from t5study.study.report_text import took
from t5study.study.runner import run_tables
from t5study.study.stages import COST, folder, needed, stage_id

ON_GPU = torch.cuda.is_available()
TRAINED = ("pretrain", "finetune")
multiplies_bf16 = pytest.mark.skipif(
    not (ON_GPU or cpu_has_bf16()), reason="neither this processor nor a GPU multiplies bf16"
)


# --- what a folder keeps to ---------------------------------------------------------------------------------------


def test_a_folder_keeps_the_precision_that_it_was_begun_in(tmp_path: Path):
    question = toy_question()
    question.claim(tmp_path / "bf16", precision="bf16")
    assert read_json(tmp_path / "bf16" / "study.json")["precision"] == "bf16"
    assert question.claim(tmp_path / "bf16", tables=["4"])["precision"] == "bf16"  # not said again, it stays
    question.claim(tmp_path / "bf16", precision="bf16")
    for asks in (question.claim, question.compare):
        with pytest.raises(UserError) as refused:
            asks(tmp_path / "bf16", precision="fp32")
        found = f"--precision: found fp32, but {tmp_path / 'bf16'} was begun with bf16; "
        assert str(refused.value) == found + "leave it out, or choose another --out"
    told = read_json(tmp_path / "bf16" / "study.json")
    assert (told["precision"], told["tables"]) == ("bf16", ["4"])


def test_a_folder_without_one_is_as_it_always_was(tmp_path: Path):
    """So is that of an older version: both go on in what their machine has, and neither takes one up half-way."""
    question = toy_question()
    assert "precision" not in question.claim(tmp_path)
    assert Engine().on(question, tmp_path).machine == here()
    for precision in ("fp32", "bf16"):
        with pytest.raises(UserError, match="was begun without it, in what its machine has; leave it out, or choose"):
            question.claim(tmp_path, precision=precision)
    assert "precision" not in read_json(tmp_path / "study.json")


def test_an_engine_takes_the_folders_precision(tmp_path: Path):
    question = toy_question()
    assert Engine(precision="fp32").on(question, tmp_path / "new").machine == here(precision="fp32")
    question.claim(tmp_path / "old", precision="fp32")
    engine = Engine("slurm", 3, options=(("partition", "gpu"),))
    assert engine.on(question, tmp_path / "old") == replace(engine, precision="fp32")
    with pytest.raises(UserError, match="found bf16, but .* was begun with fp32"):
        Engine("slurm", precision="bf16").on(question, tmp_path / "old")
    with pytest.raises(UserError, match=r"^--precision: found 'fp16'; give fp32 or bf16"):
        Engine(precision="fp16")


@pytest.mark.skipif(ON_GPU, reason="a GPU has bf16, whatever the processor has")
def test_a_processor_without_bf16_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(ground, "cpu_has_bf16", lambda: False)
    real_setting(tmp_path)
    given = ["--scale", "smoke", "--text", str(tmp_path / "text.jsonl"), "--task", str(tmp_path / "parity.jsonl")]
    for command in ("run", "rounds", "plan"):
        out = tmp_path / command
        assert main(["study", command, *given, "--out", str(out), "--precision", "bf16"]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n"), out.exists()) == ("", 1, False)
        assert "asked for bf16, which this CPU has no instructions for; give fp32" in said.err
    question = toy_question()
    question.claim(tmp_path / "begun", precision="bf16")
    Engine("slurm").on(question, tmp_path / "begun")  # its hosts may have what this one lacks
    with pytest.raises(UserError, match=r"begun: was begun with --precision bf16, which this CPU .* another --out$"):
        Engine().on(question, tmp_path / "begun")


# --- a study in bf16 ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    asked: Asked
    out: Path

    def run(self, **more: Any) -> None:
        run_tables(self.asked, self.out, tables="1", **more)

    def costs(self) -> dict[str, dict[str, Any]]:
        """What every stage that is there says that it cost."""
        store = self.out / "store"
        return {str(path.parent.relative_to(store)): read_json(path) for path in store.glob(f"*/*/{COST}")}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    given = tmp_path_factory.mktemp("given")
    real_setting(given)
    study = Played(Asked("smoke", [str(given / "text.jsonl")], [str(given / "parity.jsonl")]), given / "study")
    study.run(engine=Engine(workers=2, precision="bf16"))
    return study


@multiplies_bf16
def test_it_reaches_the_workers_and_they_write_it_down(played: Played):
    said = {name: cost.get("precision") for name, cost in played.costs().items()}
    kinds = {name.partition("/")[0] for name in said}
    assert kinds == {"corpus", "vocabulary", "tokens", "tasks", *TRAINED}
    assert {name: "bf16" if name.startswith(TRAINED) else None for name in said} == said
    assert read_json(played.out / "study.json")["precision"] == "bf16"
    assert read_json(played.out / "costs.json")["precision"] == ["bf16"]
    assert read_json(played.out / "plan.json")["precision"] == "bf16"
    assert "bf16" not in (played.out / "scores.json").read_text()  # of a machine, not of what was asked


@multiplies_bf16
def test_it_goes_on_without_the_flag_and_ends_in_the_same_bytes(played: Played):
    before = (played.out / "scores.json").read_bytes()
    (lost, *_) = sorted((played.out / "store" / "pretrain").iterdir())
    losses = (lost / "journal.jsonl").read_bytes()
    shutil.rmtree(lost)
    for tuned in (played.out / "store" / "finetune").iterdir():
        if f"pretrain/{lost.name}" in (tuned / MANIFEST).read_text():
            shutil.rmtree(tuned)
    played.run(workers=2)
    assert read_json(lost / COST)["precision"] == "bf16"
    assert (lost / "journal.jsonl").read_bytes() == losses  # in fp32 they are others
    assert (played.out / "scores.json").read_bytes() == before


@multiplies_bf16
def test_its_numbers_are_those_of_bf16(played: Played, tmp_path: Path):
    """A stage of it built in fp32: the same by its name, with other losses."""
    (tuned,) = ask(played.asked).stages(BASELINE)
    assert tuned.start
    build_all(Store(tmp_path), [tuned.start])
    stores = (played.out / "store", tmp_path)
    one, other = ((store / stage_id(tuned.start) / "journal.jsonl").read_text() for store in stores)
    assert one != other


@multiplies_bf16
def test_another_is_refused_and_touches_nothing(played: Played):
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in played.out.rglob("*") if path.is_file()}

    before = files()
    with pytest.raises(UserError, match="--precision: found fp32, but .* was begun with bf16"):
        played.run(engine=Engine(workers=2, precision="fp32"))
    with pytest.raises(UserError, match="--precision: found fp32, but .* was begun with bf16"):
        planned.plan(played.asked, played.out, 2, "1", precision="fp32")
    assert files() == before


@multiplies_bf16
def test_a_plan_is_tried_in_the_precision_of_the_flag_or_of_the_folder(played: Played, tmp_path: Path):
    fresh = planned.plan(played.asked, tmp_path / "new", 1, "1", precision="bf16", keep=True)
    assert re.search(r"1 worker here in bf16 \(a probe of \d kinds of steps just now\)", fresh)
    assert promised.read(tmp_path / "new")["precision"] == "bf16"
    begun = shutil.copytree(played.out, tmp_path / "begun")
    (lost, *_) = (begun / "store" / "finetune").iterdir()
    shutil.rmtree(lost)
    assert "1 worker here in bf16 (as stages before took)" in planned.plan(played.asked, begun, 1, "1")


@multiplies_bf16
def test_the_commands_of_its_page_carry_it(played: Played):
    write_report(played.out)
    told = (played.out / "report.md").read_text()
    assert ", trained in bf16." in told
    commands = [line.split() for line in told.splitlines() if line.startswith("    t5study study")]
    again = [words for words in commands if words[2] in ("run", "plan")]
    assert len(again) == 3
    for words in again:
        assert build_parser().parse_args(words[1:]).precision == "bf16"


# --- what plans and pages say -------------------------------------------------------------------------------------


def test_a_promise_in_another_precision_does_not_stand(tmp_path: Path):
    """plan.json may have been written before its study was begun."""
    store, stages = Store(tmp_path / "store"), [unfold(BASELINE, toy_setting())]
    Promise(tmp_path, store, Machine(), 1).note(stages)
    first = promised.read(tmp_path)
    assert first["precision"] == "fp32"
    Promise(tmp_path, store, Machine(precision="bf16"), 1).note(stages)
    second = promised.read(tmp_path)
    assert second["precision"] == "bf16"
    assert second["estimate"]["processor_s"] < first["estimate"]["processor_s"]
    before = (tmp_path / "plan.json").stat().st_mtime_ns
    Promise(tmp_path, store, Machine(precision="bf16"), 1).note(stages)
    assert (tmp_path / "plan.json").stat().st_mtime_ns == before


def test_what_took_its_time_in_another_precision_tells_nothing(tmp_path: Path):
    store, setting = Store(tmp_path / "store"), toy_setting()
    runs = [unfold(BASELINE.but(seed=seed), setting) for seed in range(3)]
    for run, precision, seconds in ((runs[0], "fp32", 9.0), (runs[1], "bf16", 4.0)):
        for stage in needed([run]).values():
            put(store, stage, {})
            told = {"precision": precision} if stage.steps_of_training else {}
            cost = {"seconds": seconds, "processor_s": seconds} | told
            (folder(store, stage) / COST).write_text(json.dumps(cost))
    for precision, seconds in (("fp32", 9.0), ("bf16", 4.0)):
        clock = clock_here(store, needed(runs).values(), Machine(precision=precision), 1, budget=0.0)
        assert (clock.seconds(runs[2]), clock.precision) == (pytest.approx(seconds), precision)


def test_the_command_of_a_budget_carries_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def command(**how: Any) -> list[str]:
        said = planned.fitted(Asked(), None, 2 * 3600.0, given=Given(0.06, 1.0, 2), scale="smoke", **how)
        (words,) = [line.split() for line in said.splitlines() if "t5study study run" in line]
        return words

    assert build_parser().parse_args(command(precision="bf16")[1:]).precision == "bf16"
    assert "--precision" not in command()


def test_the_page_tells_a_mixture(tmp_path: Path):
    write_study(tmp_path, journals=False)
    study = read_study(tmp_path)

    def told(precision: Any) -> str:
        return took(replace(study, costs={**study.costs, "precision": precision}))

    assert took(study) == told([]) == told("by hand")  # an older study's does not say
    assert told(["fp32"]) == took(study).removesuffix(".") + ", trained in fp32."
    assert told(["bf16", "fp32"]).endswith(
        ", trained in part in bf16 and fp32: some differences between its runs are of rounding."
    )


def test_toys_say_theirs(tmp_path: Path):
    """A stage that trains nothing has none."""
    store = Store(tmp_path / "store")
    text = Toy("text", training=False)
    toy = Toy("trained", after=(text,))
    build_all(store, [toy])
    assert read_json(folder(store, toy) / COST)["precision"] == "fp32"
    assert "precision" not in read_json(folder(store, text) / COST)
