"""Plans: an experiment and what its study shares -> the stages to run.

corpus -> vocabulary -> tokens -> pretrain -> finetune        task rows -> finetune

stage = unfold(BASELINE.but(objective=PrefixLM()), setting)      the last stage, which holds those before it
stages = stages_of(BASELINE, setting)                            the last stages: one a benchmark, where there are some
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from t5study.study.baseline import BASELINE
from t5study.study.benchmarks import Studied
from t5study.study.experiment import Experiment
from t5study.study.material import Chosen, Corpus, Tokens, Vocabulary
from t5study.study.scales import Scale
from t5study.study.training import Finetune, Pretrain


@dataclass(frozen=True)
class Setting:
    """What all runs of a study share. benchmarks: () where the tasks are fine-tuned on as one mixture; else each has
    a fine-tuning of its own, and `tasks` are those of all of them."""

    scale: Scale
    corpus: Corpus
    tasks: tuple[Chosen, ...]
    benchmarks: tuple[Studied, ...] = ()

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.corpus, self.scale.pieces, self.scale.vocabulary_characters)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.corpus, self.vocabulary, self.scale.max_tokens)


def unfold(experiment: Experiment, setting: Setting) -> Finetune:
    """An experiment -> its last stage, which holds those before it."""
    scale = setting.scale
    if experiment.corpus != "study":
        raise ValueError(f"corpus {experiment.corpus!r}: nothing here can do that")
    shape = experiment.architecture.shape(scale.shape)
    steps = round(scale.pretrain_steps * experiment.pretraining)
    start = Pretrain(
        tokens=setting.tokens,
        objective=experiment.objective,
        shape=shape,
        architecture=experiment.architecture.name,
        steps=steps,
        rows=scale.pretrain_rows,
        source_length=scale.source_length,
        optimizer=scale.optimizer,
        schedule=scale.pretrain_schedule,
        dropout=scale.dropout,
        z_loss=scale.z_loss,
        seed=experiment.seed,
        save_every=scale.save_every,
        variant=experiment.variant(BASELINE, "architecture"),
    )
    return Finetune(
        start=start if steps else None,
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
        variant=experiment.variant(BASELINE, "architecture", "tuning"),
    )


def stages_of(experiment: Experiment, setting: Setting) -> tuple[Finetune, ...]:
    """An experiment -> its last stages: one, or one a benchmark that can be run (section 2.4: seven fine-tunings of a
    pre-trained model), each with targets no longer than the benchmark's."""
    last = unfold(experiment, setting)
    if not setting.benchmarks:
        return (last,)
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
