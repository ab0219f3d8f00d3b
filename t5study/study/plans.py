"""Plans: an experiment and what its study shares -> the stages to run.

corpus -> vocabulary -> tokens -> pretrain (-> adapted) -> finetune (-> ensemble)     task rows -> finetune
corpus -> vocabulary -> tokens -> multitask (-> finetune) (-> ensemble)               task rows -> multitask

stages = stages_of(BASELINE, setting)                            the last stages: one a benchmark, where there are some
stage = unfold(BASELINE.but(objective=PrefixLM()), setting)      the last stage of all tasks as one mixture
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from t5study.decode.methods import Beam
from t5study.model.shapes import parameters
from t5study.study.benchmarks import Studied
from t5study.study.ensembles import Ensemble
from t5study.study.experiment import FINETUNED, Experiment
from t5study.study.multitask import MultiTaskTraining
from t5study.study.setting import Setting, absent
from t5study.study.stages import needed
from t5study.study.starts import multitask, rows_of, start_of, start_without
from t5study.study.strategies import LeaveOneOut, MultiTask
from t5study.study.training import Finetune, Pretrain, Start

Last = Finetune | MultiTaskTraining | Ensemble  # what a run ends with: it has tasks, scores, and where it started from
SMALL_BATCH = 8 / 128  # of the baseline's rows: section 3.7's batch where a task is fine-tuned on by itself


def stages_of(experiment: Experiment, setting: Setting) -> tuple[Last, ...]:
    """An experiment -> its last stages: one, or one a benchmark that can be run (section 2.4: seven fine-tunings of a
    pre-trained model), or one a task, each with targets no longer than the benchmark's. () if it cannot be run
    (`absent`)."""
    if absent(experiment, setting):
        return ()
    if experiment.ensemble:
        members = [_stages(one, seed, setting) for one, seed in _members(experiment)]
        return tuple(Ensemble(together) for together in zip(*members, strict=True))
    return _stages(experiment, experiment.seed, setting)


def unfold(experiment: Experiment, setting: Setting) -> Finetune | Ensemble:
    """An experiment that ends in fine-tuning -> that on all tasks as one mixture, which holds the stages before it."""
    if why := absent(experiment, setting):
        raise ValueError(f"corpus {experiment.corpus!r}: {why}")
    if experiment.ensemble:
        return Ensemble(tuple(_mixture(one, seed, setting) for one, seed in _members(experiment)))
    return _mixture(experiment, experiment.seed, setting)


def relative(experiment: Experiment, setting: Setting) -> tuple[float, float]:
    """Parameters of one of its models, and FLOPs of all its training, beside the baseline's, from shapes alone. Of an
    experiment that can be run."""

    def told(one: Experiment) -> tuple[int, int]:
        ends = stages_of(one, setting)
        training = [
            stage for stage in needed(ends).values() if isinstance(stage, Pretrain | Finetune | MultiTaskTraining)
        ]
        return parameters(ends[0].shape, ends[0].architecture), sum(stage.flops for stage in training)

    (size, cost), (size_0, cost_0) = told(experiment), told(setting.baseline)
    return size / size_0, cost / cost_0


def _members(experiment: Experiment) -> list[tuple[Experiment, int]]:
    """(experiment, seed of its fine-tuning) of an ensemble's models. Ensembles of different seeds share none; that of
    seed 0 shares the repeats of the baseline."""
    assert experiment.ensemble
    models = experiment.ensemble.models
    seeds = [experiment.seed * models + k for k in range(models)]
    one = experiment.but(ensemble=None)
    if experiment.ensemble.pretrainings == 1:
        return [(one, seed) for seed in seeds]
    return [(one.but(seed=seed), seed) for seed in seeds]


def _stages(experiment: Experiment, seed: int, setting: Setting) -> tuple[Finetune | MultiTaskTraining, ...]:
    """The last stages of one model. seed: of its fine-tuning."""
    match experiment.strategy:
        case MultiTask():
            return (multitask(experiment, setting, experiment.pretraining, experiment.finetuning),)
        case LeaveOneOut():
            apart = _apart(_finetune(experiment, seed, setting, None), setting)
            starts = (start_without(experiment, setting, part) for part in setting.parts)
            return tuple(replace(one, start=start) for one, start in zip(apart, starts, strict=True))
    last = _mixture(experiment, seed, setting)
    if experiment.per_task:
        return _each_task(last, setting)
    return _apart(last, setting) if setting.benchmarks else (last,)


# --- fine-tuning --------------------------------------------------------------------------------------------------


def _mixture(experiment: Experiment, seed: int, setting: Setting) -> Finetune:
    return _finetune(experiment, seed, setting, start_of(experiment, setting))


def _finetune(experiment: Experiment, seed: int, setting: Setting, start: Start | None) -> Finetune:
    """Fine-tuning on all tasks as one mixture."""
    scale, shape = setting.scale, experiment.shape(setting.scale.shape)
    told = experiment if start else experiment.but(pretraining=setting.baseline.pretraining)
    return Finetune(
        start=start,
        vocabulary=setting.vocabulary,
        tasks=setting.tasks,
        mixing=experiment.mixing,
        shape=experiment.tuning.shape(shape),
        architecture=experiment.architecture.name,
        steps=round(scale.finetune_steps * experiment.finetuning),
        rows=rows_of(scale.finetune_rows * experiment.batch),
        source_length=scale.source_length,
        target_length=scale.finetune_target_length,
        optimizer=scale.optimizer,
        schedule=scale.finetune_schedule,
        dropout=scale.dropout,
        z_loss=scale.z_loss,
        evaluate_every=scale.evaluate_every,  # more steps, more checkpoints, as in the paper
        evaluation_rows=scale.evaluation_rows,
        seed=seed,
        save_every=scale.save_every,
        tuning=experiment.tuning,
        variant=told.variant(setting.baseline, *FINETUNED),
        beam=Beam() if experiment.beam else None,
    )


def _apart(last: Finetune, setting: Setting) -> tuple[Finetune, ...]:
    """Fine-tuning on each part alone: on every benchmark that can be run, or on every task."""
    if not setting.benchmarks:
        return tuple(replace(last, tasks=part.tasks, on=part.name) for part in setting.parts)
    return tuple(
        replace(
            last,
            tasks=one.tasks,
            trained=one.trained,
            scored=one.benchmark.tasks,
            on=one.benchmark.column,
            source_length=min(last.source_length, one.benchmark.source_length),
            target_length=min(last.target_length, one.benchmark.target_length),
        )
        for one in setting.benchmarks
        if not one.absent
    )


def _each_task(last: Finetune, setting: Setting) -> tuple[Finetune, ...]:
    """Fine-tuning on each task by itself, in small batches (section 3.7)."""
    if not setting.benchmarks:
        if len(setting.tasks) == 1:
            return (last,)
        small = replace(last, rows=_small(setting))
        return tuple(replace(small, tasks=(task,), on=task.label) for task in setting.tasks)
    there = [one for one in setting.benchmarks if not one.absent]
    apart = zip(_apart(last, setting), there, strict=True)
    return tuple(replace(of, **changes) for of, one in apart for changes in _by_task(of, one, _small(setting)))


def _small(setting: Setting) -> int:
    """Rows of a small batch: of the scale's own rows, however large the batches of everything else are."""
    return rows_of(setting.scale.finetune_rows * SMALL_BATCH)


def _by_task(last: Finetune, one: Studied, small: int) -> list[dict[str, Any]]:
    """What is another for each task of a benchmark by itself, in batches of `small` rows. A set to score alone (MNLI's
    mismatched one) goes with its group; one to train on alone (DPR) with the task that it is like (WSC)."""
    groups = one.benchmark.members
    if len(groups) == 1:
        return [{}]
    named = {str(task.address): task for task in one.tasks}
    extra = [name for name in one.trained if name not in one.benchmark.tasks]
    parts = []
    for group in groups:
        names = (*group, *(extra if any(name.endswith("/wsc") for name in group) else ()))
        trained = tuple(name for name in one.trained if name in names)
        if not trained:  # no rows to train on: it stays with all the others
            trained = one.trained
            names = one.benchmark.addresses
        parts.append(
            {
                "tasks": tuple(named[name] for name in names),
                "trained": trained,
                "scored": group,
                "rows": small,
                "on": f"{last.on} {group[0].rpartition('/')[2]}",
            }
        )
    return parts
