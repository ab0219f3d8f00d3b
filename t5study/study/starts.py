"""What fine-tuning starts from: pre-training on text, or multi-task training, also with some tasks left out."""

from __future__ import annotations

from dataclasses import replace

from t5study.decode.methods import Beam
from t5study.objectives import PrefixLM
from t5study.study.experiment import PRETRAINED, Experiment
from t5study.study.material import Tokens
from t5study.study.multitask import MultiTaskTraining
from t5study.study.setting import Part, Setting
from t5study.study.strategies import MultiTask, PretrainThenFinetune, SupervisedThenFinetune
from t5study.study.training import Pretrain, Start
from t5study.train.tuning import AllParameters


def rows_of(rows: float) -> int:
    """Rows of a batch that is a multiple, or a part, of another."""
    return max(1, round(rows))


def start_of(experiment: Experiment, setting: Setting) -> Start | None:
    """What fine-tuning starts from; None for fresh weights."""
    if not round(setting.scale.pretrain_steps * experiment.pretraining):
        return None
    if experiment.strategy == PretrainThenFinetune():
        return _pretrain(experiment, setting)
    return multitask(experiment, setting, experiment.pretraining, 0.0)


def start_without(experiment: Experiment, setting: Setting, part: Part) -> Start | None:
    """What fine-tuning on a part starts from: multi-task training on the others; on text alone where there are none."""
    others = tuple(one for one in setting.parts if one != part)
    if not others:
        return start_of(experiment.but(strategy=PretrainThenFinetune()), setting)
    start = start_of(experiment, setting)
    if not isinstance(start, MultiTaskTraining):
        return start
    return replace(
        start,
        tasks=tuple(dict.fromkeys(task for one in others for task in one.tasks)),
        trained=tuple(dict.fromkeys(name for one in others for name in one.trained)),
        without=part.name,
    )


def _pretrain(experiment: Experiment, setting: Setting) -> Pretrain:
    """Pre-training on text; where the experiment adapts it, that and prefix language modelling after it."""
    scale = setting.scale
    steps = round(scale.pretrain_steps * experiment.pretraining)
    start = Pretrain(
        tokens=_tokens(experiment, setting),
        objective=experiment.objective,
        shape=experiment.shape(scale.shape),
        architecture=experiment.architecture.name,
        steps=steps,
        rows=rows_of(scale.pretrain_rows * experiment.batch),
        source_length=scale.source_length,
        optimizer=scale.optimizer,
        schedule=scale.pretrain_schedule,
        dropout=_dropout(experiment, setting),
        z_loss=scale.z_loss,
        seed=experiment.seed,
        save_every=scale.save_every,
        variant=experiment.variant(setting.baseline, *PRETRAINED),
    )
    if not experiment.adaptation:
        return start
    more = max(1, round(steps * experiment.adaptation))  # never none: the row would be its baseline under another name
    # The optimiser starts anew, so the rate takes up where pre-training left it.
    schedule = replace(start.schedule, warmup=max(start.schedule.warmup, steps))
    return replace(start, start=start, objective=PrefixLM(), steps=more, schedule=schedule)


def _dropout(experiment: Experiment, setting: Setting) -> float:
    return setting.scale.dropout if experiment.pretrain_dropout is None else experiment.pretrain_dropout


def _tokens(experiment: Experiment, setting: Setting) -> Tokens:
    """The text of an experiment, cut so that pre-training reads it `repeats` times (section 3.4.2: 2^35 tokens, so 2^29
    of them for 64). It is never cut below the tokens of one example."""
    if not experiment.repeats:
        return setting.tokens_of(experiment.corpus)
    least = experiment.objective.lengths(setting.scale.source_length).raw
    return setting.tokens_of(experiment.corpus, max(least, tokens_read(experiment, setting) // experiment.repeats))


def tokens_read(experiment: Experiment, setting: Setting) -> int:
    """Tokens of text that pre-training reads, counted as the paper does: rows, at their full length in the source."""
    scale = setting.scale
    rows = rows_of(scale.pretrain_rows * experiment.batch)
    return round(scale.pretrain_steps * experiment.pretraining) * rows * scale.source_length


def multitask(experiment: Experiment, setting: Setting, pretraining: float, finetuning: float) -> MultiTaskTraining:
    """Training on text (but for the supervised strategy) and all tasks, with pre-training's batch and rate, for the
    steps of both. It is scored, at the distance of fine-tuning's checkpoints, where no fine-tuning follows."""
    scale, strategy = setting.scale, experiment.strategy
    if strategy == MultiTask() and experiment.tuning != AllParameters():
        raise ValueError(f"{strategy.label} starts from fresh weights, of which {experiment.tuning.label} moves a part")
    objective = None if strategy == SupervisedThenFinetune() else experiment.objective
    asked = objective.lengths(scale.source_length).targets if objective else 0
    alone = bool(finetuning)
    last = MultiTaskTraining(
        vocabulary=setting.vocabulary,
        tokens=_tokens(experiment, setting) if objective else None,
        objective=objective,
        tasks=setting.tasks,
        mixing=experiment.mixing,
        shape=experiment.shape(scale.shape),
        architecture=experiment.architecture.name,
        steps=round(scale.pretrain_steps * pretraining) + round(scale.finetune_steps * finetuning),
        rows=rows_of(scale.pretrain_rows * experiment.batch),
        source_length=scale.source_length,
        target_length=max(scale.finetune_target_length, asked),
        optimizer=scale.optimizer,
        schedule=scale.pretrain_schedule,
        dropout=_dropout(experiment, setting),
        z_loss=scale.z_loss,
        seed=experiment.seed,
        save_every=scale.save_every,
        variant=experiment.variant(setting.baseline, *PRETRAINED, "mixing"),
        beam=Beam() if experiment.beam else None,
        trained=tuple(dict.fromkeys(name for part in setting.parts for name in part.trained)),
    )
    if not alone:
        return last
    scored = tuple(name for one in setting.benchmarks if not one.absent for name in one.benchmark.tasks)
    return replace(last, evaluate_every=scale.evaluate_every, evaluation_rows=scale.evaluation_rows, scored=scored)
