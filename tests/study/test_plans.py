"""Stages: what an experiment unfolds into, what is shared, and how evaluations become scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy_study import NoText, toy_setting

from t5study.feed.mixing import Equal
from t5study.ground.errors import UserError
from t5study.ground.machine import Machine
from t5study.ground.store import Store, read_json
from t5study.objectives import Deshuffle, PrefixLM, SpanCorruption
from t5study.study import material, outcome
from t5study.study.baseline import BASELINE
from t5study.study.material import Corpus, Vocabulary
from t5study.study.multitask import MultiTaskTraining
from t5study.study.plans import stages_of, unfold
from t5study.study.runner import chosen_tables, experiments_of
from t5study.study.scales import LAPTOP, SCALES, SMOKE, find
from t5study.study.setting import Setting, absent
from t5study.study.stages import RESULT, Place, build, needed, stage_id
from t5study.study.strategies import LeaveOneOut, MultiTask, MultiTaskThenFinetune, SupervisedThenFinetune
from t5study.study.tables.architectures import TABLE_2
from t5study.study.tables.datasets import TABLE_8, TABLE_9
from t5study.study.tables.declared import EVERY, SEARCH, TABLES
from t5study.study.tables.final import TABLES as FINAL
from t5study.study.tables.strategies import TABLE_10, TABLE_11, TABLE_12
from t5study.study.training import Finetune, Pretrain
from t5study.train.tuning import Adapters


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
    16 rows of Tables 2 and 10 come to 8 pre-trainings (four more architectures, twice) and five more ways of tuning. 27
    of Tables 8, 9, 11 and 12 come to five texts, one cut of this little one (all four would be less than an example),
    ten multi-task trainings (Table 12's is one of Table 11's), and four before fine-tuning: of all tasks, of either,
    and of all without text. 7 of Table 13 come to a fourth seed, four larger or longer trainings, and three more
    fine-tunings of one pre-training."""
    setting = texts_given(toy_setting())
    for tables, rows, expected in (
        (SEARCH, 18, (15, 18, 0)),
        (TABLES, 68, (34, 49, 14)),
        ((*TABLES, *FINAL), 76, (35, 60, 19)),
    ):
        assert sum(len(table.rows) for table in tables) == rows
        stages = needed(stage for one in experiments_of(tables, 3) for stage in stages_of(one, setting))
        kinds = [stage.kind for stage in stages.values()]
        assert tuple(map(kinds.count, ("pretrain", "finetune", "multitask"))) == expected


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


def texts_given(setting: Setting) -> Setting:
    """With a text of every name that Table 8 has."""
    names = sorted(row.experiment.corpus for row in TABLE_8.rows if row.experiment != BASELINE)
    return replace(setting, texts=tuple((name, Corpus(name, NoText(name))) for name in names))


def test_a_text_that_was_not_given_is_told_with_its_option():
    other = BASELINE.but(corpus="wikipedia")
    assert stages_of(other, toy_setting()) == ()
    assert absent(other, toy_setting()) == "no text of the name wikipedia was given; give --corpus wikipedia=PATTERN"
    with pytest.raises(ValueError, match="no text of the name wikipedia was given"):
        unfold(other, toy_setting())


def test_another_text_is_read_in_the_studys_own_vocabulary():
    stage = unfold(BASELINE.but(corpus="wikipedia"), texts_given(toy_setting()))
    assert isinstance(stage.start, Pretrain)
    assert stage.start.tokens.corpus.value == "wikipedia"
    assert stage.start.tokens.vocabulary == stage.vocabulary == toy_setting().vocabulary
    assert stage.label == "finetune replace spans 15%, on wikipedia"


def test_text_is_cut_to_be_read_so_often_but_never_below_an_example():
    """The paper's own numbers at its scale; at a small one some rows are cut to the same text, and are one run."""

    def cuts(scale: str) -> list[int | None]:
        stages = [unfold(row.experiment, replace(toy_setting(), scale=SCALES[scale])) for row in TABLE_9.rows]
        return [stage.start.tokens.max_tokens for stage in stages if isinstance(stage.start, Pretrain)]

    assert cuts("paper") == [None, 2**29, 2**27, 2**25, 2**23]
    assert cuts("laptop") == [2_000_000, 6_240, 1_560, 390, 127]
    assert cuts("smoke") == [20_000, 31, 31, 31, 31]


# --- multi-task training --------------------------------------------------------------------------------------------


def test_multi_task_training_has_the_steps_of_both_and_is_scored():
    (stage,) = stages_of(BASELINE.but(strategy=MultiTask(), mixing=Equal()), toy_setting())
    assert isinstance(stage, MultiTaskTraining)
    assert (stage.steps, stage.rows) == (SMOKE.pretrain_steps + SMOKE.finetune_steps, SMOKE.pretrain_rows)
    assert (stage.evaluate_every, stage.evaluation_rows) == (SMOKE.evaluate_every, SMOKE.evaluation_rows)
    assert stage.target_length == max(
        SMOKE.finetune_target_length, BASELINE.objective.lengths(SMOKE.source_length).targets
    )
    assert stage.label == "train on replace spans 15% and all tasks, equal"
    assert stage.start is None
    assert stage.work > unfold(BASELINE, toy_setting()).work


def test_table_12s_multi_task_training_is_a_row_of_table_11():
    twin = TABLE_12.row("Multi-task training").experiment
    assert twin == TABLE_11.row("Examples-proportional, K=2^19").experiment


def test_fine_tuning_starts_from_the_mixture_with_text_or_without():
    for strategy, has_text in ((MultiTaskThenFinetune(), True), (SupervisedThenFinetune(), False)):
        (stage,) = stages_of(BASELINE.but(strategy=strategy), toy_setting())
        assert isinstance(stage, Finetune)
        assert isinstance(stage.start, MultiTaskTraining)
        assert stage.start.steps == SMOKE.pretrain_steps
        assert stage.start.evaluate_every == 0
        assert (stage.start.tokens is not None) == has_text
        assert stage.start.tasks == stage.tasks
    assert stage.label == "finetune all tasks"


def test_what_is_left_out_is_what_is_fine_tuned_on():
    stages = stages_of(BASELINE.but(strategy=LeaveOneOut()), toy_setting())
    assert len(stages) == 2
    for stage in stages:
        assert isinstance(stage.start, MultiTaskTraining)
        assert len(stage.tasks) == 1
        assert set(stage.start.tasks) == set(toy_setting().tasks) - set(stage.tasks)
    assert stages[1].label == "finetune replace spans 15% and all tasks but sign on sign"


def test_of_one_task_alone_what_is_left_is_the_text():
    (stage,) = stages_of(BASELINE.but(strategy=LeaveOneOut()), toy_setting(names=("parity",)))
    assert isinstance(stage, Finetune)
    assert stage.start == unfold(BASELINE, toy_setting()).start


def test_fresh_weights_are_all_trained():
    with pytest.raises(ValueError, match="of which adapters, d=32 moves a part"):
        stages_of(BASELINE.but(strategy=MultiTask(), tuning=Adapters(32)), toy_setting())


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
    assert chosen_tables("all,later,final") == EVERY
    assert [table.number for table in chosen_tables("10,7,4")] == ["4", "7", "10"]
    for text, found in [("4,3", "'3'"), ("", "''"), ("four", "'four'")]:
        with pytest.raises(
            UserError,
            match=f"found {found}; give search, all, final, later, FILE.py:NAME, or some of 1, 2, 4, 5, 6, 7, ",
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
    scores, steps = outcome._scores(tmp_path, ["t", "u"])
    assert scores["t"]["metric"] == {"value": 60.0, "step": 10, "low": 59.0, "high": 61.0, "n": 50, "unreadable": 7}
    assert scores["t"]["nats"]["value"] == 1.5
    assert (scores["t"]["nats"]["step"], scores["u"]["metric"]["step"], scores["u"]["nats"]["step"]) == (20, 30, 20)
    assert steps == {10, 20, 30}


def test_predictions_of_other_checkpoints_are_removed(tmp_path: Path):
    for step in (10, 20, 30):
        path = outcome._predictions(tmp_path, step, 0, "pydocs/answer")
        path.parent.mkdir(parents=True)
        path.touch()
    outcome._keep_predictions(tmp_path, {10, 30})
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["0000010", "0000030"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b/<c>", "試験", "x" * 300, "."])
def test_a_tasks_name_never_leads_out_of_its_folder(tmp_path: Path, name: str):
    path = outcome._predictions(tmp_path, 5, 3, name)
    assert path.resolve().parent == tmp_path.resolve() / "predictions" / "0000005"
    assert path.name.startswith("03-")
    assert len(path.name) < 120
