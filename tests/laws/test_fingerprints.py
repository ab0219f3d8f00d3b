"""Law 2: equal experiments have equal fingerprints; machines, paths and how often a run saves enter none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from toy_study import NoText, toy_setting, toy_task

from t5study.feed.mixing import Equal, ExamplesProportional, Temperature
from t5study.ground.fingerprint import canonical, fingerprint
from t5study.ground.machine import Machine
from t5study.objectives import Denoising, PrefixLM, ReplaceSpans, SpanCorruption
from t5study.study.baseline import BASELINE
from t5study.study.experiment import Architecture, Ensembled
from t5study.study.material import Chosen, Corpus, GivenRows
from t5study.study.plans import unfold
from t5study.study.scales import SCALES, SMOKE
from t5study.study.sizes import Size
from t5study.study.stages import Stage, needed, stage_id
from t5study.study.strategies import MultiTask
from t5study.train.optim import Constant
from t5study.train.tuning import Adapters


def test_three_and_three_point_nought_are_one_experiment():
    whole = BASELINE.but(
        objective=Denoising(0.15, 3, "unique", "unique"), pretraining=1, mixing=ExamplesProportional(100.0)
    )  # type: ignore
    real = BASELINE.but(objective=SpanCorruption(0.15, 3.0), mixing=ExamplesProportional(100))
    assert fingerprint(whole) == fingerprint(real)
    setting = toy_setting()
    assert stage_id(unfold(whole, setting)) == stage_id(unfold(real, setting))


def test_every_field_of_an_experiment_counts():
    others = {
        "objective": PrefixLM(),
        "architecture": Architecture("prefix_lm"),
        "corpus": "other",
        "pretraining": 2.0,
        "finetuning": 2.0,
        "mixing": Equal(),
        "tuning": Adapters(32),
        "seed": 1,
        "repeats": 64,
        "strategy": MultiTask(),
        "size": Size("2x"),
        "batch": 4.0,
        "ensemble": Ensembled(),
        "beam": True,
        "per_task": True,
        "gated": True,
        "tied": False,
        "pretrain_dropout": 0.0,
        "adaptation": 0.1,
    }
    assert set(others) == {field.name for field in dataclasses.fields(BASELINE)}
    prints = [fingerprint(BASELINE), *(fingerprint(BASELINE.but(**{name: value})) for name, value in others.items())]
    assert len(set(prints)) == len(prints)


def test_every_scale_is_another_study():
    ids = {
        name: stage_id(unfold(BASELINE, dataclasses.replace(toy_setting(), scale=scale)))
        for name, scale in SCALES.items()
    }
    assert len(set(ids.values())) == len(SCALES)


UNSEEN = ("name", "seeds", "verdict", "save_every")  # by any run: what it is called, its repeats, what is read off


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SMOKE) if field.name not in UNSEEN])
def test_whatever_a_run_depends_on_is_in_its_fingerprint(name: str):
    """Every field of a scale counts but the unseen: whole numbers one more, all else another value of its kind."""
    was = getattr(SMOKE, name)
    other = {
        "shape": dataclasses.replace(SMOKE.shape, d_ff=65),
        "optimizer": dataclasses.replace(SMOKE.optimizer, epsilon=1e-20),
        "pretrain_schedule": dataclasses.replace(SMOKE.pretrain_schedule, warmup=9_999),
        "finetune_schedule": Constant(0.0123),
        "dropout": 0.2345,
        "z_loss": 0.0,
    }.get(name)
    other = was + 1 if other is None else other
    changed = dataclasses.replace(toy_setting(), scale=dataclasses.replace(SMOKE, **{name: other}))
    assert stage_id(unfold(BASELINE, changed)) != stage_id(unfold(BASELINE, toy_setting()))


@pytest.mark.parametrize("change", [{"name": "another"}, {"seeds": 7}, {"verdict": "metric"}, {"save_every": 77}])
def test_what_no_run_depends_on_is_in_none(change: dict):
    changed = dataclasses.replace(toy_setting(), scale=dataclasses.replace(SMOKE, **change))
    assert stage_id(unfold(BASELINE, changed)) == stage_id(unfold(BASELINE, toy_setting()))


def stages() -> list[Stage]:
    return list(needed([unfold(BASELINE.but(objective=ReplaceSpans(0.25)), toy_setting())]).values())


def test_no_path_and_no_machine_enters_one():
    for stage in stages():
        text = json.dumps(canonical(stage))
        assert "/" not in text.replace("nats/token", ""), text
        assert ".jsonl" not in text, text
        for field in dataclasses.fields(Machine):
            assert f'"{field.name}"' not in text or field.name == "compile", (field.name, text)
    with pytest.raises(TypeError, match="cannot be part of a fingerprint"):
        fingerprint(Path("somewhere"))


def test_where_text_and_tasks_lie_does_not_matter():
    here = Corpus("digest", NoText("digest"))
    there = Corpus("digest", NoText("read elsewhere"))
    assert here == there
    assert stage_id(here) == stage_id(there)
    value = toy_task().value
    one, other = (
        Chosen(GivenRows(value, address, metric)) for address, metric in [("a/x.jsonl", None), ("/b/x.jsonl", "f1")]
    )
    assert one == other
    assert stage_id(one.rows) == stage_id(other.rows)


def test_a_field_that_was_added_later_keeps_old_fingerprints():
    """At its default a shape's adapter is in no fingerprint, so what was made before there were any is found again."""
    shape = SMOKE.shape
    assert "adapter" not in canonical(shape)["fields"]
    assert canonical(dataclasses.replace(shape, adapter=32))["fields"]["adapter"] == 32


def test_a_stage_holds_those_before_it():
    """Other text, other everything."""
    here, there = (
        {stage.kind: stage_id(stage) for stage in needed([unfold(BASELINE, toy_setting(text))]).values()}
        for text in ("a", "b")
    )
    assert all(here[kind] != there[kind] for kind in ("corpus", "vocabulary", "tokens", "pretrain", "finetune"))
    assert here["tasks"] == there["tasks"]


def told() -> str:
    """The stages of some experiments at some scales, a line a stage."""
    lines = []
    for name in ("smoke", "laptop", "paper"):
        setting = dataclasses.replace(toy_setting(), scale=SCALES[name])
        for experiment in (
            BASELINE,
            BASELINE.but(pretraining=0.0),
            BASELINE.but(mixing=Temperature(2, 1000)),
            BASELINE.but(tuning=Adapters(32)),
        ):
            lines += [f"{name} {stage_id(stage)}" for stage in needed([unfold(experiment, setting)]).values()]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def test_studies_that_are_there_are_found_again():
    """Whatever is added to a stage leaves the fingerprints of those from before: their folders are hours of work."""
    assert told() == (Path(__file__).parents[1] / "golden" / "stage_ids.txt").read_text()
