"""Sizes beside any baseline, ensembles, and what Table 13's rows come to: stages, costs and real runs at SMOKE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_study import build_all, put_run, real_setting, toy_setting

from t5study.decode.methods import Beam
from t5study.feed.multitask import UNLABELED, Final, final_mixing
from t5study.ground.store import Store
from t5study.model.shapes import SIZES, Shape, size
from t5study.study.baseline import BASELINE
from t5study.study.ensembles import Ensemble
from t5study.study.experiment import Ensembled
from t5study.study.multitask import MultiTaskTraining, mixing_of
from t5study.study.plans import relative, stages_of, unfold
from t5study.study.scales import LAPTOP, PAPER, SMOKE
from t5study.study.sizes import Size, gated_shape
from t5study.study.stages import needed, result, stage_id
from t5study.study.tables.final import TABLE_15, final
from t5study.study.tables.scaling import TABLE_13
from t5study.study.training import Finetune, Pretrain
from t5study.tasks.benchmarks import BENCHMARKS

ENSEMBLED = BASELINE.but(ensemble=Ensembled())
FINETUNED_APART = BASELINE.but(ensemble=Ensembled(pretrainings=1))
steady = settings(derandomize=True, deadline=None, max_examples=60)


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base", "2x", "4x", "small", "large", "3b", "11b"])
def test_beside_base_every_size_is_the_papers(name: str):
    assert Size(name).shape(size("base")) == size(name)


def test_t5_1_1_is_a_gated_base_with_its_softmax_untied():
    experiment = BASELINE.but(gated=True, tied=False)
    assert experiment.shape(size("base")) == size("v1.1-base")


def test_layers_are_told_as_they_are_beside_base():
    assert Size("small", 16, 16).shape(size("base")) == replace(size("small"), encoder_layers=16, decoder_layers=16)
    split = Size(encoder_layers=18, decoder_layers=6)
    assert (split.shape(SMOKE.shape).encoder_layers, split.shape(SMOKE.shape).decoder_layers) == (3, 1)
    assert split.label == "size base, 18+6 layers"


shapes = st.builds(
    Shape,
    d_model=st.integers(1, 64).map(lambda n: 8 * n),
    d_ff=st.integers(1, 300).map(lambda n: 8 * n),
    d_kv=st.sampled_from([8, 16, 32, 64]),
    heads=st.integers(1, 24),
    encoder_layers=st.integers(1, 24),
    decoder_layers=st.integers(1, 24),
    table_rows=st.just(512),
)


@steady
@given(shapes, st.sampled_from(sorted(SIZES)))
def test_any_size_beside_any_shape_is_a_shape_in_proportion(baseline: Shape, name: str):
    shape, base = Size(name).shape(baseline), size("base")
    assert (shape.table_rows, shape.activation, shape.tied) == (512, "relu", True)
    for field, grain in {"d_model": 8, "d_ff": 8, "d_kv": 8, "heads": 1, "encoder_layers": 1}.items():
        exact = getattr(baseline, field) * getattr(size(name), field) / getattr(base, field)
        assert getattr(shape, field) >= 1
        assert abs(getattr(shape, field) - exact) <= max(grain / 2, grain - exact) + 1e-9
    assert Size().shape(baseline) == baseline


def test_a_gated_feed_forward_has_as_many_parameters():
    for shape in (size("base"), LAPTOP.shape):
        assert gated_shape(shape).parameters / shape.parameters == pytest.approx(1, abs=0.004)  # d_ff is rounded


# --- what they cost -------------------------------------------------------------------------------------------------


def test_relative_sizes_and_costs_at_the_papers_scale():
    """Four times the steps, the batch or the models cost four times as much; "2x" and "4x" are of parameters, and a
    little more than that (section 5's computed counts)."""
    setting = replace(toy_setting(), scale=PAPER)
    told = {row.label: relative(row.experiment, setting) for row in TABLE_13.rows}
    expected = {
        "Baseline": (1, 1),
        "1x size, 4x training steps": (1, 4),
        "1x size, 4x batch size": (1, 4),
        "2x size, 2x training steps": (2.26, 4.47),
        "4x size, 1x training steps": (4.36, 4.36),
        "4x ensembled": (1, 4),
    }
    for label, (size_, cost) in expected.items():
        assert told[label] == pytest.approx((size_, cost), abs=0.01), label
    assert 1 < told["4x ensembled, fine-tune only"][1] < 4


def test_steps_and_rows_are_in_units_of_the_scale():
    stage = unfold(TABLE_13.row("1x size, 4x training steps").experiment, toy_setting())
    assert isinstance(stage, Finetune)
    assert stage.start
    assert (stage.steps, stage.start.steps) == (4 * SMOKE.finetune_steps, 4 * SMOKE.pretrain_steps)
    stage = unfold(BASELINE.but(batch=4.0), toy_setting())
    assert isinstance(stage, Finetune)
    assert stage.start
    assert (stage.rows, stage.start.rows) == (4 * SMOKE.finetune_rows, 4 * SMOKE.pretrain_rows)
    assert stage.label == "finetune replace spans 15%, 4x batch"


# --- ensembles --------------------------------------------------------------------------------------------------------


def test_an_ensemble_shares_the_baselines_repeats():
    ensemble = unfold(ENSEMBLED, toy_setting())
    assert isinstance(ensemble, Ensemble)
    repeats = [unfold(BASELINE.but(seed=seed), toy_setting()) for seed in range(4)]
    assert [stage_id(member) for member in ensemble.members] == [stage_id(repeat) for repeat in repeats]
    assert {member.start for member in ensemble.members} == {repeat.start for repeat in repeats}
    other = unfold(ENSEMBLED.but(seed=1), toy_setting())
    assert isinstance(other, Ensemble)
    assert not set(map(stage_id, other.members)) & set(map(stage_id, ensemble.members))


def test_fine_tuned_apart_there_is_one_pretraining():
    ensemble = unfold(FINETUNED_APART, toy_setting())
    assert isinstance(ensemble, Ensemble)
    kinds = [stage.kind for stage in needed([ensemble]).values()]
    assert (kinds.count("pretrain"), kinds.count("finetune")) == (1, 4)
    assert stage_id(ensemble.members[0]) == stage_id(unfold(BASELINE, toy_setting()))
    assert ensemble.members[1].label == "finetune replace spans 15%, seed 1 of 0"
    assert stage_id(ensemble.members[1]) != stage_id(unfold(BASELINE.but(seed=1), toy_setting()))


def test_no_other_ensemble_is_one():
    for models, pretrainings in ((1, 1), (4, 2), (4, 0)):
        with pytest.raises(ValueError, match="an ensemble of"):
            Ensembled(models, pretrainings)


def test_four_models_answer_as_one(tmp_path: Path):
    """Real runs: the average of a model with itself is that model, and that of four is none of them."""
    setting, store = real_setting(tmp_path, texts=True), Store(tmp_path / "store")
    both = [unfold(one, setting) for one in (ENSEMBLED, FINETUNED_APART)]
    build_all(store, both)
    one = unfold(BASELINE, setting)
    assert isinstance(one, Finetune)
    twice = Ensemble((one, one))
    build_all(store, [twice])
    alone, doubled, told = result(store, one), result(store, twice), result(store, both[0])
    assert set(told) >= {"tasks", "tokens", "parameters", "trainable", "first_loss", "last_loss"}
    assert told["parameters"] == 4 * alone["parameters"]
    for name, scores in doubled["tasks"].items():
        last = next(row for row in evaluations(store, one) if row["step"] == one.steps)["tasks"][name]
        assert scores["nats"]["value"] == pytest.approx(last["nats_per_token"], abs=1e-5)
        assert scores["metric"]["value"] == last["metrics"][last["metric"]]
        assert (scores["metric"]["n"], scores["metric"]["step"]) == (last["n"], one.steps)
        each = [result(store, member)["tasks"][name]["nats"]["value"] for member in both[0].members]  # type: ignore
        assert told["tasks"][name]["nats"]["value"] not in each
        assert (store.root / stage_id(both[0]) / "predictions").is_dir()


def evaluations(store: Store, stage: Finetune) -> list[dict]:
    from t5study.ground.journal import read_journal

    return read_journal(store.root / stage_id(stage) / "evaluations.jsonl")


# --- one fine-tuning a task, beams ------------------------------------------------------------------------------------


def test_one_fine_tuning_a_task_has_small_batches():
    scale = replace(SMOKE, finetune_rows=128)
    stages = stages_of(BASELINE.but(per_task=True), replace(toy_setting(), scale=scale))
    assert [(stage.rows, len(stage.tasks)) for stage in stages if isinstance(stage, Finetune)] == [(8, 1), (8, 1)]
    assert len({stage.start for stage in stages}) == 1
    assert len(stages_of(BASELINE, toy_setting())) == 1


def test_a_final_model_has_the_papers_steps_and_rows_and_small_batches_only_a_task():
    setting = replace(toy_setting(), scale=PAPER)
    stages = stages_of(final("11b"), setting)
    start = stages[0].start
    assert isinstance(start, MultiTaskTraining)
    assert (start.steps, start.rows, start.source_length) == (10**6, 2**11, 512)
    assert start.shape == replace(size("11b"), table_rows=start.shape.table_rows)
    assert [(one.rows, one.beam, one.start) for one in stages if isinstance(one, Finetune)] == [(8, Beam(), start)] * 2
    (plain,) = stages_of(TABLE_15.row("Baseline-1T").experiment, setting)
    assert isinstance(plain, Finetune)
    assert isinstance(plain.start, Pretrain)
    assert (plain.start.steps, plain.start.rows, plain.rows) == (10**6, 2**11, 2**11)


def test_the_final_models_mixing_is_for_the_sets_that_are_here():
    """A virtual size and caps count examples of the official sets; on those they are section 3.7's."""
    official = dict(member for one in BENCHMARKS.values() for member in one.training)
    names, sizes = list(official), list(official.values())
    whole = mixing_of(Final("base"), sizes, names, text=True).rates([*sizes, 7], [*names, UNLABELED])
    assert whole == pytest.approx(final_mixing("base").rates([*sizes, 7], [*names, UNLABELED]))
    small = [name for name in names if official[name] < 10**6]  # one above its cap counts as that, here and there
    for k in (1, 10):
        here = [official[name] // k for name in small]
        rates = mixing_of(Final("base"), here, small, text=True).rates([*here, 7], [*small, UNLABELED])
        assert rates[-1] == pytest.approx(2_620_000 / (2_620_000 + sum(official[name] for name in small)), rel=0.01)
    one_rte = [name for name in names if name != "superglue/rte"]
    alone = mixing_of(Final("base"), [100] * len(one_rte), one_rte, text=True)
    rates = dict(zip(one_rte, alone.rates([100] * len(one_rte), one_rte), strict=True))
    assert rates["glue/rte"] == rates["glue/cola"]


def test_beams_are_for_tasks_that_are_answered_with_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from t5study.evaluate import scoring

    asked: list[tuple[str, object]] = []
    plainly = scoring.evaluate

    def noted(model, vocab, task, *rest, **more):
        asked.append((task.primary, more["method"]))
        return plainly(model, vocab, task, *rest, **more)

    monkeypatch.setattr(scoring, "evaluate", noted)
    setting, store = real_setting(tmp_path, texts=True), Store(tmp_path / "store")
    build_all(store, [unfold(BASELINE.but(beam=True, pretraining=0.0), setting)])
    assert set(asked) == {("accuracy", "greedy"), ("bleu", Beam(4, 0.6))}


def test_the_ledger_reads_an_ensemble_as_any_other_run(tmp_path: Path):
    from toy_study import toy_question

    from t5study.study.ledger import Ledger

    store, question = Store(tmp_path / "store"), toy_question()
    for experiment in (ENSEMBLED, FINETUNED_APART):
        (stage,) = question.stages(experiment)
        put_run(store, stage, 2.0)
    told = Ledger(question, store).scores([ENSEMBLED, FINETUNED_APART])
    (table,) = [table for table in told["tables"] if table["number"] == "13"]
    rows = {row["label"]: row for row in table["rows"]}
    apart = told["runs"][rows["4x ensembled, fine-tune only"]["runs"][0]]
    whole = told["runs"][rows["4x ensembled"]["runs"][0]]
    assert (whole["label"], apart["label"]) == (
        "replace spans 15%, 4 models ensembled",
        "replace spans 15%, 4 models ensembled, fine-tuned apart",
    )
    assert (whole["tokens"]["pretrain"], apart["tokens"]["pretrain"]) == (4000, 1000)
    assert rows["4x ensembled"]["relative"]["cost"] == 4
    costs = Ledger(question, store).costs([ENSEMBLED])["runs"]
    assert [(one["pretrain_s"], one["finetune_s"]) for one in costs.values()] == [(8.0, 10.0)]
