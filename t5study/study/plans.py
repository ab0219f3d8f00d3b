"""Plans: an experiment and what its study shares -> the stages to run.

corpus -> vocabulary -> tokens -> pretrain -> finetune        task rows -> finetune

stage = unfold(BASELINE.but(objective=PrefixLM()), setting)      the last stage, which holds those before it
"""

from __future__ import annotations

from dataclasses import dataclass

from t5study.study.baseline import BASELINE
from t5study.study.experiment import Experiment
from t5study.study.material import Chosen, Corpus, Tokens, Vocabulary
from t5study.study.scales import Scale
from t5study.study.training import Finetune, Pretrain


@dataclass(frozen=True)
class Setting:
    """What all runs of a study share."""

    scale: Scale
    corpus: Corpus
    tasks: tuple[Chosen, ...]

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
