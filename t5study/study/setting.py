"""What all runs of a study share: its scale, its texts, its tasks."""

from __future__ import annotations

from dataclasses import dataclass

from t5study.study.baseline import BASELINE
from t5study.study.benchmarks import Studied
from t5study.study.experiment import STUDY, Experiment
from t5study.study.material import Chosen, Corpus, Tokens, Vocabulary
from t5study.study.scales import Scale


@dataclass(frozen=True)
class Setting:
    """What all runs of a study share. benchmarks: () where the tasks are fine-tuned on as one mixture; else each has
    a fine-tuning of its own, and `tasks` are those of all of them. texts: further ones to pre-train on, by name.
    baseline: what runs are told apart from, for people; the paper's, but in a study of one's own."""

    scale: Scale
    corpus: Corpus
    tasks: tuple[Chosen, ...]
    benchmarks: tuple[Studied, ...] = ()
    texts: tuple[tuple[str, Corpus], ...] = ()
    baseline: Experiment = BASELINE

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
