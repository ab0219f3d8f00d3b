"""Plans: an experiment and what its study shares -> the stages to run.

corpus -> vocabulary -> tokens -> pretrain (-> adapted) -> finetune (-> ensemble)        task rows -> finetune

stage = unfold(BASELINE.but(objective=PrefixLM()), setting)      the last stage, which holds those before it
stages = stages_of(BASELINE, setting)                            the last stages: one a benchmark, where there are some
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from t5study.decode.methods import Beam
from t5study.model.shapes import parameters
from t5study.objectives import PrefixLM
from t5study.study.baseline import BASELINE
from t5study.study.benchmarks import Studied
from t5study.study.ensembles import Ensemble
from t5study.study.experiment import PRETRAINED, VARIED, Experiment
from t5study.study.material import Chosen, Corpus, Tokens, Vocabulary
from t5study.study.scales import Scale
from t5study.study.stages import needed
from t5study.study.training import Finetune, Pretrain

Last = Finetune | Ensemble  # what a run ends with: it has tasks, scores, and the pre-training it started from
SMALL_BATCH = 8 / 128  # of the baseline's rows: section 3.7's batch where a task is fine-tuned on by itself


@dataclass(frozen=True)
class Setting:
    """What all runs of a study share. benchmarks: () where the tasks are fine-tuned on as one mixture; else each has
    a fine-tuning of its own, and `tasks` are those of all of them. baseline: what runs are told apart from, for people;
    the paper's, but in a study of one's own."""

    scale: Scale
    corpus: Corpus
    tasks: tuple[Chosen, ...]
    benchmarks: tuple[Studied, ...] = ()
    baseline: Experiment = BASELINE

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.corpus, self.scale.pieces, self.scale.vocabulary_characters)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.corpus, self.vocabulary, self.scale.max_tokens)


def unfold(experiment: Experiment, setting: Setting) -> Last:
    """An experiment -> its last stage, which holds those before it."""
    if experiment.ensemble:
        return Ensemble(tuple(_finetune(*one, setting) for one in _members(experiment)))
    return _finetune(experiment, experiment.seed, setting)


def stages_of(experiment: Experiment, setting: Setting) -> tuple[Last, ...]:
    """An experiment -> its last stages: one, or one a benchmark that can be run (section 2.4: seven fine-tunings of a
    pre-trained model), or one a task, each with targets no longer than the benchmark's."""
    if experiment.ensemble:
        members = [_divided(_finetune(*one, setting), experiment, setting) for one in _members(experiment)]
        return tuple(Ensemble(together) for together in zip(*members, strict=True))
    return _divided(_finetune(experiment, experiment.seed, setting), experiment, setting)


def relative(experiment: Experiment, setting: Setting) -> tuple[float, float]:
    """Parameters of one of its models, and FLOPs of all its training, beside the baseline's, from shapes alone."""

    def told(one: Experiment) -> tuple[int, int]:
        last = unfold(one, setting)
        training = [stage for stage in needed([last]).values() if isinstance(stage, Pretrain | Finetune)]
        return parameters(last.shape, last.architecture), sum(stage.flops for stage in training)

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


def _pretrain(experiment: Experiment, setting: Setting) -> Pretrain | None:
    """The model that fine-tuning starts from; None where that is fresh weights."""
    scale = setting.scale
    steps = round(scale.pretrain_steps * experiment.pretraining)
    if not steps:
        return None
    dropout = experiment.pretrain_dropout
    start = Pretrain(
        tokens=setting.tokens,
        objective=experiment.objective,
        shape=experiment.shape(scale.shape),
        architecture=experiment.architecture.name,
        steps=steps,
        rows=_rows(scale.pretrain_rows * experiment.batch),
        source_length=scale.source_length,
        optimizer=scale.optimizer,
        schedule=scale.pretrain_schedule,
        dropout=scale.dropout if dropout is None else dropout,
        z_loss=scale.z_loss,
        seed=experiment.seed,
        save_every=scale.save_every,
        variant=experiment.variant(setting.baseline, *PRETRAINED),
    )
    more = round(steps * experiment.adaptation)
    if not more:
        return start
    # The optimiser starts anew, so the rate takes up where pre-training left it.
    schedule = replace(start.schedule, warmup=max(start.schedule.warmup, steps))
    return replace(start, start=start, objective=PrefixLM(), steps=more, schedule=schedule)


def _finetune(experiment: Experiment, seed: int, setting: Setting) -> Finetune:
    """Its fine-tuning on all tasks as one mixture."""
    scale, shape = setting.scale, experiment.shape(setting.scale.shape)
    if experiment.corpus != "study":
        raise ValueError(f"corpus {experiment.corpus!r}: nothing here can do that")
    return Finetune(
        start=_pretrain(experiment, setting),
        vocabulary=setting.vocabulary,
        tasks=setting.tasks,
        mixing=experiment.mixing,
        shape=experiment.tuning.shape(shape),
        architecture=experiment.architecture.name,
        steps=round(scale.finetune_steps * experiment.finetuning),
        rows=_rows(scale.finetune_rows * experiment.batch),
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
        variant=experiment.variant(setting.baseline, *VARIED),
        beam=Beam() if experiment.beam else None,
    )


def _rows(rows: float) -> int:
    return max(1, round(rows))


def _divided(last: Finetune, experiment: Experiment, setting: Setting) -> tuple[Finetune, ...]:
    """One fine-tuning of all tasks -> one a benchmark, and one a task where the experiment has it so."""
    if not setting.benchmarks:
        if not experiment.per_task or len(setting.tasks) == 1:
            return (last,)
        small = replace(last, rows=_rows(last.rows * SMALL_BATCH))
        return tuple(replace(small, tasks=(task,), on=task.label) for task in setting.tasks)
    found = []
    for one in setting.benchmarks:
        if one.absent:
            continue
        of = replace(
            last,
            tasks=one.tasks,
            trained=one.trained,
            scored=one.benchmark.tasks,
            on=one.benchmark.column,
            source_length=min(last.source_length, one.benchmark.source_length),
            target_length=min(last.target_length, one.benchmark.target_length),
        )
        found += [replace(of, **part) for part in _apart(of, one)] if experiment.per_task else [of]
    return tuple(found)


def _apart(last: Finetune, one: Studied) -> list[dict[str, Any]]:
    """What is another for each task of a benchmark by itself. A set to score alone (MNLI's mismatched one) goes with
    its group; one to train on alone (DPR) with the task that it is like (WSC)."""
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
                "rows": _rows(last.rows * SMALL_BATCH),
                "on": f"{last.on} {group[0].rpartition('/')[2]}",
            }
        )
    return parts
