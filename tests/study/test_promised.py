"""What stages were promised to take, and how far off that was: by hand, and of a study that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from study_folder import write_study
from toy_study import put, toy_question, toy_setting

from t5study.ground.machine import Machine
from t5study.ground.store import Store
from t5study.study import promised
from t5study.study.baseline import BASELINE
from t5study.study.estimate import Clock, clock_of, estimate
from t5study.study.plans import unfold
from t5study.study.promised import Kept, Promise
from t5study.study.report import write_report
from t5study.study.report_costs import promised as promised_rows
from t5study.study.report_input import read_study
from t5study.study.stages import COST, Stage, folder, needed, stage_id


def done(store: Store, stage: Stage, seconds: float, processor_s: float) -> None:
    put(store, stage, {})
    (folder(store, stage) / COST).write_text(json.dumps({"seconds": seconds, "processor_s": processor_s}))


def test_the_error_is_that_of_what_is_there(tmp_path: Path):
    store = Store(tmp_path / "store")
    run, other = unfold(BASELINE, toy_setting()), unfold(BASELINE.but(seed=1), toy_setting())
    stages = needed([run, other])
    clock = Clock(
        lambda stage: {"pretrain": 33.0, "finetune": 18.0}.get(stage.kind, 2.0), "by hand", 1.5, 0, "processor_s"
    )
    promised.write(tmp_path, store, stages, clock, estimate(stages, [], clock, 2), "a machine", 2)
    assert promised.kept(tmp_path) == []
    assert promised.told(tmp_path) == {}
    assert run.start
    assert other.start
    done(store, run.start, 90.0, 30.0)
    done(store, other.start, 90.0, 25.0)
    done(store, run, 40.0, 20.0)
    assert promised.kept(tmp_path) == [
        Kept("pretrain", 2, 66.0, 55.0), Kept("finetune", 1, 18.0, 20.0), Kept("all", 3, 84.0, 75.0),
    ]  # fmt: skip
    assert [one.error for one in promised.kept(tmp_path)] == pytest.approx([0.2, -0.1, 0.12])
    assert Kept("tasks", 1, 5.0, 0.01).line() == "tasks: 1 stage, promised 5 s, took 0 s"
    assert promised.lines(tmp_path)[-2:] == [
        "  finetune: 1 stage, promised 18 s, took 20 s, -10 %",
        "  all: 3 stages, promised 1 min 24 s, took 1 min 15 s, +12 %",
    ]
    told = promised.told(tmp_path)["estimate"]
    assert told["all"] == {"kind": "all", "stages": 3, "promised_s": 84.0, "took_s": 75.0, "error": 0.12}
    assert (told["sources"], told["measure"], told["busy"]) == (["by hand"], "processor_s", 1.5)


def test_a_promise_stands_and_what_comes_later_is_promised_then(tmp_path: Path):
    store, setting = Store(tmp_path / "store"), toy_setting()
    runs = [unfold(BASELINE.but(seed=seed), setting) for seed in range(3)]
    Promise(tmp_path, store, Machine(), 2).note(runs[:2])
    first = promised.read(tmp_path)
    assert first["sources"] == ["guessed: no step was tried"]  # seconds of work are not worth a probe
    assert set(first["stages"]) == set(needed(runs[:2]))
    assert first["estimate"]["stages"] == len(first["stages"])
    for stage in needed(runs[:1]).values():
        done(store, stage, 9.0, 7.0)
    before = (tmp_path / "plan.json").stat().st_mtime_ns
    promise = Promise(tmp_path, store, Machine(), 2)
    promise.note(runs[:2])
    assert (tmp_path / "plan.json").stat().st_mtime_ns == before
    promise.note(runs[:2], runs[2:])
    after = promised.read(tmp_path)
    assert set(after["stages"]) == set(needed(runs))
    assert first["stages"].items() <= after["stages"].items()
    assert after["stages"][stage_id(runs[2])] == pytest.approx(7.0)  # as that of the same kind took
    assert after["sources"] == ["guessed: no step was tried", "as stages before took"]


def test_what_nobody_needs_any_more_is_dropped_and_a_damaged_plan_made_anew(tmp_path: Path):
    store, setting = Store(tmp_path / "store"), toy_setting()
    Promise(tmp_path, store, Machine(), 1).note([unfold(BASELINE, setting)])
    other = unfold(BASELINE, toy_setting("other text"))
    Promise(tmp_path, store, Machine(), 1).note([other])
    assert set(promised.read(tmp_path)["stages"]) == set(needed([other]))
    (tmp_path / "plan.json").write_text('{"format": 1, "stages"')
    assert promised.read(tmp_path) == {}
    Promise(tmp_path, store, Machine(), 1).note([other])
    assert set(promised.read(tmp_path)["stages"]) == set(needed([other]))


def test_seconds_of_another_machine_and_of_the_processor_are_not_mixed(tmp_path: Path):
    store, setting = Store(tmp_path / "store"), toy_setting()
    first, second = (needed([unfold(BASELINE.but(seed=seed), setting)]) for seed in range(2))
    clock = clock_of(312, 0.4)
    promised.write(tmp_path, store, first, clock, estimate(first, [], clock, 8), "8 devices", 8)
    for stage in first.values():
        done(store, stage, 9.0, 7.0)
    assert promised.kept(tmp_path)[-1].took_s == 9.0 * len(first)
    Promise(tmp_path, store, Machine(), 2).note(first.values())
    assert promised.read(tmp_path)["machine"] == "8 devices"  # it stands
    Promise(tmp_path, store, Machine(), 2).note(second.values())
    assert promised.read(tmp_path)["stages"].keys() == second.keys() - first.keys()
    assert promised.kept(tmp_path) == []


def test_a_plan_may_lie_in_a_folder_before_its_study(tmp_path: Path):
    Promise(tmp_path, Store(tmp_path / "store"), Machine(), 1).note([unfold(BASELINE, toy_setting())])
    assert toy_question().compare(tmp_path) == {}


def test_the_report_shows_it_beside_the_costs(tmp_path: Path):
    write_study(tmp_path / "study")
    kinds = [
        {"kind": "pretrain", "stages": 15, "promised_s": 721.0, "took_s": 688.0, "error": 0.048},
        {"kind": "finetune", "stages": 18, "promised_s": 0.0, "took_s": 0.0, "error": None},
    ]
    all_ = {"kind": "all", "stages": 33, "promised_s": 721.0, "took_s": 688.0, "error": 0.048}
    told = {"sources": ["a probe"], "measure": "processor_s", "kinds": kinds, "all": all_}
    costs = tmp_path / "study" / "costs.json"
    costs.write_text(json.dumps(json.loads(costs.read_text()) | {"estimate": told}))
    write_report(tmp_path / "study")
    html, text = ((tmp_path / "study" / f"report.{ending}").read_text() for ending in ("html", "md"))
    assert "| pretrain | 15 | 12 min 01 s | 11 min 28 s | +5 % |" in text
    assert "| finetune | 18 | 0 s | 0 s | – |" in text
    assert '<th scope="row">all</th><td>33</td><td>12 min 01 s</td><td>11 min 28 s</td><td>+5 %</td>' in html
    assert "(a probe)" in html
    study = read_study(tmp_path / "study")
    assert promised_rows(study)
    assert promised_rows(replace(study, costs={})) is None
    del told["all"]  # another format
    assert promised_rows(replace(study, costs={"estimate": told})) is None
