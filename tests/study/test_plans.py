"""Stages: what an experiment unfolds into, what is shared, and how evaluations become scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_study import NoText, toy_setting

from t5study.ground.errors import UserError
from t5study.ground.machine import Machine
from t5study.ground.store import Store, read_json
from t5study.objectives import Deshuffle, PrefixLM, SpanCorruption
from t5study.study import material, training
from t5study.study.baseline import BASELINE
from t5study.study.material import Corpus, Vocabulary
from t5study.study.plans import unfold
from t5study.study.runner import chosen_tables, experiments_of
from t5study.study.scales import LAPTOP, SCALES, SMOKE, find
from t5study.study.stages import RESULT, Place, build, needed, stage_id
from t5study.study.tables.architectures import TABLE_2
from t5study.study.tables.declared import SEARCH, TABLES
from t5study.study.tables.strategies import TABLE_10
from t5study.study.training import Pretrain


class Quiet:
    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


def test_parents_come_first_and_each_once():
    stages = needed(unfold(one, toy_setting()) for one in [BASELINE, BASELINE.but(objective=PrefixLM())])
    seen: set[str] = set()
    for name, stage in stages.items():
        assert {stage_id(parent) for parent in stage.parents} <= seen
        seen.add(name)
    kinds = [stage.kind for stage in stages.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "corpus": 1, "vocabulary": 1, "tasks": 2, "tokens": 1, "pretrain": 2, "finetune": 2,
    }  # fmt: skip


def test_all_tables_share_what_they_share():
    """18 rows of the search come to 18 runs: 13 objectives, two more seeds of the baseline, three without pre-training.
    16 more rows come to 8 pre-trainings (four more architectures, twice) and five more ways of tuning."""
    for tables, rows, expected in ((SEARCH, 18, (15, 18)), ((*SEARCH, TABLE_2, TABLE_10), 34, (23, 31))):
        assert sum(len(table.rows) for table in tables) == rows
        stages = needed(unfold(one, toy_setting()) for one in experiments_of(tables, 3))
        kinds = [stage.kind for stage in stages.values()]
        assert (kinds.count("pretrain"), kinds.count("finetune")) == expected


def test_every_architecture_has_its_shape_and_half_the_layers_are_half():
    shapes = {}
    for row in TABLE_2.rows:
        stage = unfold(row.experiment, toy_setting())
        assert stage.start is not None
        assert (stage.shape, stage.architecture) == (stage.start.shape, stage.start.architecture)
        shapes[row.label.partition(": ")[2]] = (
            stage.architecture,
            stage.shape.encoder_layers,
            stage.shape.decoder_layers,
        )
    assert shapes == {
        "Encoder-decoder": ("encoder_decoder", 2, 2),
        "Enc-dec, shared": ("shared_encoder_decoder", 2, 2),
        "Enc-dec, 6 layers": ("encoder_decoder", 1, 1),
        "Language model": ("language_model", 0, 2),
        "Prefix LM": ("prefix_lm", 0, 2),
    }


def test_ways_of_tuning_share_their_pretraining():
    stages = [unfold(row.experiment, toy_setting()) for row in TABLE_10.rows]
    assert len({stage_id(stage) for stage in stages}) == 6
    assert len({stage.start for stage in stages}) == 1
    assert [stage.shape.adapter for stage in stages] == [0, 32, 128, 512, 2048, 0]
    assert stages[1].label == "finetune replace spans 15%, adapters, d=32"
    assert stages[5].label == "finetune replace spans 15%, gradual unfreezing, 12 episodes"


def test_without_pretraining_the_objective_does_not_matter():
    none = [BASELINE.but(pretraining=0.0, objective=objective) for objective in (PrefixLM(), Deshuffle())]
    first, second = (unfold(one, toy_setting()) for one in none)
    assert first.start is None
    assert stage_id(first) == stage_id(second)


def test_the_seed_is_one_for_all_stages():
    stage = unfold(BASELINE.but(seed=2), toy_setting())
    assert stage.start is not None
    assert (stage.seed, stage.start.seed) == (2, 2)
    assert stage.label == "finetune replace spans 15%, seed 2"


def test_pretraining_is_in_units_of_the_scale():
    stage = unfold(BASELINE.but(pretraining=0.5, finetuning=2.0), toy_setting())
    assert stage.start is not None
    assert (stage.start.steps, stage.steps) == (SMOKE.pretrain_steps // 2, SMOKE.finetune_steps * 2)


def test_what_nothing_can_do_yet_is_not_passed_over():
    with pytest.raises(ValueError, match="nothing here can do that"):
        unfold(BASELINE.but(corpus="other"), toy_setting())


def test_rows_hold_what_the_objective_makes():
    pretrain = unfold(BASELINE.but(objective=SpanCorruption(0.15, 3)), toy_setting()).start
    assert isinstance(pretrain, Pretrain)
    assert pretrain.target_length == SpanCorruption(0.15, 3).lengths(SMOKE.source_length).targets


def test_scales_are_found_and_misspelt_ones_told():
    assert find("laptop") is LAPTOP
    with pytest.raises(UserError, match=r"scale: found 'labtop'; did you mean laptop\?"):
        find("labtop")
    with pytest.raises(UserError, match="give one of smoke, laptop, evening"):
        find("x")


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_scale_ends_fine_tuning_with_an_evaluation(scale):
    """An evaluation a little before the end and another at the end would be one too many."""
    assert scale.finetune_steps // scale.evaluate_every in (scale.checkpoints, scale.checkpoints + 1)
    assert scale.seeds >= 3
    json.dumps(scale.flat())


def test_tables_are_chosen_by_number():
    assert (chosen_tables("all"), chosen_tables("search")) == (TABLES, SEARCH)
    assert [table.number for table in chosen_tables("10,7,4")] == ["4", "7", "10"]
    for text, found in [("4,3", "'3'"), ("", "''"), ("four", "'four'")]:
        with pytest.raises(
            UserError, match=f"--tables: found {found}; give search, all, or some of 1, 2, 4, 5, 6, 7, "
        ):
            chosen_tables(text)


# --- text -----------------------------------------------------------------------------------------------------------


def test_a_small_text_gives_the_vocabulary_it_can(tmp_path: Path):
    from t5study.corpus.read import text_files

    (tmp_path / "a.txt").write_text("The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 20)
    source = text_files([str(tmp_path / "a.txt")])
    corpus = Corpus(source.value, source)
    place = Place(Store(tmp_path / "store"), Machine(), Quiet())
    build(corpus, place)
    folder = build(Vocabulary(corpus, 1000, 10_000), place)
    told = read_json(folder / RESULT)
    assert told["asked"] == 1000
    assert 30 < told["pieces"] < 100
    # A second text of the same name but other content is another corpus.
    (tmp_path / "a.txt").write_text("Something else.")
    again = text_files([str(tmp_path / "a.txt")])
    assert stage_id(Corpus(again.value, again)) != stage_id(corpus)


def test_only_the_first_characters_are_taken():
    texts = ["aaaa", "bbbb", "cccc"]
    assert list(material._first_characters(iter(texts), 5)) == ["aaaa", "bbbb"]
    assert list(material._first_characters(iter(texts), 100)) == texts


def test_a_source_is_compared_by_its_value_alone():
    assert Corpus("a", NoText("x")) == Corpus("a", NoText("y"))
    assert Corpus("a", NoText("x")) != Corpus("b", NoText("x"))


# --- evaluations -> scores --------------------------------------------------------------------------------------------


def summary(value: float, nats: float, unreadable: int = 0) -> dict:
    return {
        "task": "t",
        "metric": "accuracy",
        "metrics": {"accuracy": value},
        "nats_per_token": nats,
        "intervals": {"accuracy": [value - 1, value + 1], "nats": [nats - 0.1, nats + 0.1]},
        "n": 50,
        "unreadable": unreadable,
    }


def test_the_best_checkpoint_is_each_tasks_own_and_each_measures_own(tmp_path: Path):
    rows = [
        {"step": 10, "tasks": {"t": summary(60.0, 2.0, 7), "u": summary(10.0, 3.0)}},
        {"step": 20, "tasks": {"t": summary(60.0, 1.5, 5), "u": summary(20.0, 2.5)}},
        {"step": 30, "tasks": {"t": summary(50.0, 1.75, 0), "u": summary(30.0, 2.75)}},
    ]
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores, steps = training._scores(tmp_path, ["t", "u"])
    assert scores["t"]["metric"] == {"value": 60.0, "step": 10, "low": 59.0, "high": 61.0, "n": 50, "unreadable": 7}
    assert scores["t"]["nats"]["value"] == 1.5
    assert (scores["t"]["nats"]["step"], scores["u"]["metric"]["step"], scores["u"]["nats"]["step"]) == (20, 30, 20)
    assert steps == {10, 20, 30}


def test_predictions_of_other_checkpoints_are_removed(tmp_path: Path):
    for step in (10, 20, 30):
        path = training._predictions(tmp_path, step, 0, "pydocs/answer")
        path.parent.mkdir(parents=True)
        path.touch()
    training._keep_predictions(tmp_path, {10, 30})
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["0000010", "0000030"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b/<c>", "試験", "x" * 300, "."])
def test_a_tasks_name_never_leads_out_of_its_folder(tmp_path: Path, name: str):
    path = training._predictions(tmp_path, 5, 3, name)
    assert path.resolve().parent == tmp_path.resolve() / "predictions" / "0000005"
    assert path.name.startswith("03-")
    assert len(path.name) < 120
