"""Plans: an experiment and what its study shares -> the stages to run.

corpus -> vocabulary -> tokens -> pretrain -> finetune        task rows -> finetune
corpus -> vocabulary -> tokens -> multitask (-> finetune)     task rows -> multitask

stages = stages_of(BASELINE, setting)                            the last stages: one a benchmark, where there are some
stage = unfold(BASELINE.but(objective=PrefixLM()), setting)      the last stage of all tasks as one mixture
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from t5study.study.baseline import BASELINE
from t5study.study.benchmarks import Studied
from t5study.study.experiment import PRETRAINED, STUDY, Experiment
from t5study.study.material import Chosen, Corpus, Tokens, Vocabulary
from t5study.study.multitask import MultiTaskTraining
from t5study.study.scales import Scale
from t5study.study.strategies import LeaveOneOut, MultiTask, PretrainThenFinetune, SupervisedThenFinetune
from t5study.study.training import Finetune, Pretrain, Start
from t5study.train.tuning import AllParameters

Last = Finetune | MultiTaskTraining  # a stage that ends in scores


@dataclass(frozen=True)
class Setting:
    """What all runs of a study share. benchmarks: () where the tasks are fine-tuned on as one mixture; else each has
    a fine-tuning of its own, and `tasks` are those of all of them. texts: further ones to pre-train on, by name."""

    scale: Scale
    corpus: Corpus
    tasks: tuple[Chosen, ...]
    benchmarks: tuple[Studied, ...] = ()
    texts: tuple[tuple[str, Corpus], ...] = ()

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.corpus, self.scale.pieces, self.scale.vocabulary_characters)

    @property
    def tokens(self) -> Tokens:
        return self.tokens_of(STUDY)

    def tokens_of(self, name: str, cut: int | None = None) -> Tokens:
        """One of its texts, in the study's own vocabulary (as in the paper, section 3.4.1). cut: tokens to keep."""
        corpus = {STUDY: self.corpus, **dict(self.texts)}[name]
        there = [tokens for tokens in (self.scale.max_tokens, cut) if tokens]
        return Tokens(corpus, self.vocabulary, min(there, default=None))

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is left out of multi-task training in its turn: benchmarks, or tasks."""
        if self.benchmarks:
            return tuple(
                Part(one.benchmark.column, one.tasks, one.trained) for one in self.benchmarks if not one.absent
            )
        return tuple(Part(task.label, (task,)) for task in self.tasks)


@dataclass(frozen=True)
class Part:
    """Tasks that are fine-tuned on together. trained: names of those that are trained on, () for all."""

    name: str
    tasks: tuple[Chosen, ...]
    trained: tuple[str, ...] = ()


def absent(experiment: Experiment, setting: Setting) -> str:
    """Why an experiment cannot be run with what the study was given; "" if it can."""
    name = experiment.corpus
    if name == STUDY or name in dict(setting.texts):
        return ""
    return f"no text of the name {name} was given; give --corpus {name}=PATTERN"


def stages_of(experiment: Experiment, setting: Setting) -> tuple[Last, ...]:
    """An experiment -> its last stages: one; or one a benchmark that can be run (section 2.4: seven fine-tunings of a
    pre-trained model), each with targets no longer than the benchmark's. () if it cannot be run (`absent`)."""
    if absent(experiment, setting):
        return ()
    match experiment.strategy:
        case MultiTask():
            return (_multitask(experiment, setting, experiment.pretraining, experiment.finetuning),)
        case LeaveOneOut():
            apart = _apart(_finetune(experiment, setting, None), setting)
            starts = (_without(experiment, setting, part) for part in setting.parts)
            return tuple(replace(one, start=start) for one, start in zip(apart, starts, strict=True))
    return _divided(unfold(experiment, setting), setting)


def unfold(experiment: Experiment, setting: Setting) -> Finetune:
    """An experiment that ends in fine-tuning -> that on all tasks as one mixture, which holds the stages before it."""
    if why := absent(experiment, setting):
        raise ValueError(f"corpus {experiment.corpus!r}: {why}")
    return _finetune(experiment, setting, _start(experiment, setting))


# --- before fine-tuning -------------------------------------------------------------------------------------------


def _start(experiment: Experiment, setting: Setting) -> Start | None:
    """What fine-tuning starts from; None for fresh weights."""
    if not round(setting.scale.pretrain_steps * experiment.pretraining):
        return None
    if experiment.strategy == PretrainThenFinetune():
        return _pretrain(experiment, setting)
    return _multitask(experiment, setting, experiment.pretraining, 0.0)


def _without(experiment: Experiment, setting: Setting, part: Part) -> Start | None:
    """What fine-tuning on a part starts from: multi-task training on the others; on text alone where there are none."""
    others = tuple(one for one in setting.parts if one != part)
    if not others:
        return _start(experiment.but(strategy=PretrainThenFinetune()), setting)
    start = _start(experiment, setting)
    if not isinstance(start, MultiTaskTraining):
        return start
    return replace(
        start,
        tasks=tuple(dict.fromkeys(task for one in others for task in one.tasks)),
        trained=tuple(dict.fromkeys(name for one in others for name in one.trained)),
        without=part.name,
    )


def _pretrain(experiment: Experiment, setting: Setting) -> Pretrain:
    scale = setting.scale
    return Pretrain(
        tokens=_tokens(experiment, setting),
        objective=experiment.objective,
        shape=experiment.architecture.shape(scale.shape),
        architecture=experiment.architecture.name,
        steps=round(scale.pretrain_steps * experiment.pretraining),
        rows=scale.pretrain_rows,
        source_length=scale.source_length,
        optimizer=scale.optimizer,
        schedule=scale.pretrain_schedule,
        dropout=scale.dropout,
        z_loss=scale.z_loss,
        seed=experiment.seed,
        save_every=scale.save_every,
        variant=experiment.variant(BASELINE, *PRETRAINED),
    )


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
    return round(scale.pretrain_steps * experiment.pretraining) * scale.pretrain_rows * scale.source_length


def _multitask(experiment: Experiment, setting: Setting, pretraining: float, finetuning: float) -> MultiTaskTraining:
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
        shape=experiment.architecture.shape(scale.shape),
        architecture=experiment.architecture.name,
        steps=round(scale.pretrain_steps * pretraining) + round(scale.finetune_steps * finetuning),
        rows=scale.pretrain_rows,
        source_length=scale.source_length,
        target_length=max(scale.finetune_target_length, asked),
        optimizer=scale.optimizer,
        schedule=scale.pretrain_schedule,
        dropout=scale.dropout,
        z_loss=scale.z_loss,
        seed=experiment.seed,
        save_every=scale.save_every,
        variant=experiment.variant(BASELINE, *PRETRAINED, "mixing"),
        trained=tuple(dict.fromkeys(name for part in setting.parts for name in part.trained)),
    )
    if not alone:
        return last
    scored = tuple(name for one in setting.benchmarks if not one.absent for name in one.benchmark.tasks)
    return replace(last, evaluate_every=scale.evaluate_every, evaluation_rows=scale.evaluation_rows, scored=scored)


# --- fine-tuning --------------------------------------------------------------------------------------------------


def _finetune(experiment: Experiment, setting: Setting, start: Start | None) -> Finetune:
    """Fine-tuning on all tasks as one mixture."""
    scale = setting.scale
    shape = experiment.architecture.shape(scale.shape)
    return Finetune(
        start=start,
        vocabulary=setting.vocabulary,
        tasks=setting.tasks,
        mixing=experiment.mixing,
        shape=experiment.tuning.shape(shape),
        architecture=experiment.architecture.name,
        steps=round(scale.finetune_steps * experiment.finetuning),
        rows=scale.finetune_rows,
        source_length=scale.source_length,
        target_length=scale.finetune_target_length,
        optimizer=scale.optimizer,
        schedule=scale.finetune_schedule,
        dropout=scale.dropout,
        z_loss=scale.z_loss,
        evaluate_every=scale.evaluate_every,
        evaluation_rows=scale.evaluation_rows,
        seed=experiment.seed,
        save_every=scale.save_every,
        tuning=experiment.tuning,
        variant=experiment.variant(BASELINE, *PRETRAINED, "tuning"),
    )


def _divided(last: Finetune, setting: Setting) -> tuple[Finetune, ...]:
    """Fine-tuning on all tasks as one mixture; or, where there are benchmarks, on each part alone."""
    return _apart(last, setting) if setting.benchmarks else (last,)


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
