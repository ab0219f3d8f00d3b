"""An experiment: one row of one table of the paper, as a frozen value.

The fields are the paper's axes, flat, so that a row can be read against the baseline in one line:

    BASELINE.but(objective=SpanCorruption(mean_span=3))

How big a run is (shape, batch, steps) is the Scale's business, which text and which tasks is the study's, and where
it runs is the Machine's; so one experiment means the same thing on a laptop and on a cluster.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any

from t5study.feed.mixing import Equal, ExamplesProportional, Temperature
from t5study.feed.multitask import Final
from t5study.model.shapes import Shape, shape_of
from t5study.objectives import Objective
from t5study.study.sizes import Size, gated_shape
from t5study.study.stages import IF_SET
from t5study.study.strategies import PretrainThenFinetune, Strategy
from t5study.train.tuning import Tuning

Mixing = ExamplesProportional | Temperature | Equal | Final
STUDY = "study"  # the name of the text that a study is given, in the place of C4


@dataclass(frozen=True)
class Architecture:
    """What a model is made like, beside a baseline of some shape (section 3.2). name: of `model.architectures`.
    halved: half the layers in each stack."""

    name: str = "encoder_decoder"
    halved: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, half the layers" if self.halved else self.name

    def shape(self, baseline: Shape) -> Shape:
        """Its shape beside an encoder-decoder of that one."""
        return shape_of(self.name, baseline.halved() if self.halved else baseline)


@dataclass(frozen=True)
class Ensembled:
    """Several models that answer as one, their logits averaged (section 3.6). models: how many. pretrainings: as many
    (each model from fresh weights), or 1 (fine-tuned that often)."""

    models: int = 4
    pretrainings: int = 4

    def __post_init__(self) -> None:
        if self.models < 2 or self.pretrainings not in (1, self.models):
            raise ValueError(f"an ensemble of {self.models} models from {self.pretrainings} pre-trainings")

    @property
    def label(self) -> str:
        return f"{self.models} models ensembled" + (", fine-tuned apart" if self.pretrainings == 1 else "")


@dataclass(frozen=True)
class Experiment:
    """objective: what pre-training hides (section 3.3). architecture: section 3.2. corpus: which of the study's texts,
    by name (section 3.4.1). pretraining, finetuning: in units of the scale's own steps, so 1.0 is the baseline's and a
    pretraining of 0 starts fine-tuning from fresh weights. mixing: how the members of a mixture share its steps, in
    multi-task training and in fine-tuning (sections 3.5.2, 3.7). tuning: which weights that moves (section 3.5.1).
    seed: weights, order, noise and dropout. repeats: how often pre-training reads its text, which is cut for that
    (section 3.4.2); 0 for all the text there is. strategy: the order of text and tasks (sections 3.5.2 and 3.5.3).

    size: of the model beside the scale's (sections 3.6 and 3.7). batch: in units of the scale's rows, in both stages.
    ensemble: section 3.6. beam: whether translations and summaries are decoded with beams, per_task: whether each task
    is fine-tuned on by itself, in small batches (both section 3.7).
    Later than the paper: gated: a gated GELU in the feed-forward. tied: whether softmax and embedding share a matrix.
    pretrain_dropout: None is the scale's. adaptation: prefix language modelling after pre-training, in units of it.
    """

    objective: Objective
    architecture: Architecture
    corpus: str
    pretraining: float
    finetuning: float
    mixing: Mixing
    tuning: Tuning
    seed: int = 0
    repeats: int = field(default=0, metadata=IF_SET)
    strategy: Strategy = field(default=PretrainThenFinetune(), metadata=IF_SET)
    size: Size = field(default=Size(), metadata=IF_SET)
    batch: float = field(default=1.0, metadata=IF_SET)
    ensemble: Ensembled | None = field(default=None, metadata=IF_SET)
    beam: bool = field(default=False, metadata=IF_SET)
    per_task: bool = field(default=False, metadata=IF_SET)
    gated: bool = field(default=False, metadata=IF_SET)
    tied: bool = field(default=True, metadata=IF_SET)
    pretrain_dropout: float | None = field(default=None, metadata=IF_SET)
    adaptation: float = field(default=0.0, metadata=IF_SET)

    def shape(self, baseline: Shape) -> Shape:
        """Of its model, beside a baseline of that shape."""
        shape = self.size.shape(baseline)
        shape = gated_shape(shape) if self.gated else shape
        return self.architecture.shape(replace(shape, tied=shape.tied and self.tied))

    def but(self, **changes: Any) -> Experiment:
        """This experiment with some fields changed."""
        return dataclasses.replace(self, **changes)

    def differs(self, other: Experiment) -> tuple[str, ...]:
        """Names of the fields in which two experiments differ, in the order of declaration."""
        return tuple(
            field.name for field in dataclasses.fields(self) if getattr(self, field.name) != getattr(other, field.name)
        )

    def variant(self, baseline: Experiment, *names: str) -> str:
        """In which of some fields an experiment departs from another, in words; "" for none."""
        return ", ".join(in_words(name, getattr(self, name)) for name in names if name in self.differs(baseline))

    def flat(self) -> dict[str, Any]:
        """The fields for scores.json, later ones only where they are set; values that are not plain are told by their
        label."""
        return {
            one.name: plain(getattr(self, one.name))
            for one in dataclasses.fields(self)
            if one.metadata != IF_SET or getattr(self, one.name) != one.default
        }


# In what a run may depart from the baseline besides its objective, in the order in which its label tells it.
PRETRAINED = (
    "architecture", "size", "gated", "tied", "corpus", "repeats", "batch", "pretraining", "pretrain_dropout",
)  # fmt: skip
FINETUNED = (*PRETRAINED, "adaptation", "tuning", "finetuning", "beam", "per_task")
VARIED = ("strategy", "mixing", *FINETUNED, "ensemble")

_WORDS = {
    "gated": "gated GELU",
    "tied": "untied softmax",
    "corpus": "on {}",
    "repeats": "text cut to be read {:,} times",
    "batch": "{:g}x batch",
    "pretraining": "{:g}x pre-training",
    "pretrain_dropout": "dropout {:g} in pre-training",
    "adaptation": "{:g}x LM adaptation",
    "finetuning": "{:g}x fine-tuning",
    "beam": "beams",
    "per_task": "one fine-tuning a task",
}


def in_words(name: str, value: Any) -> str:
    """A field's value, for people.

    >>> in_words("repeats", 1024), in_words("corpus", "wikipedia")
    ('text cut to be read 1,024 times', 'on wikipedia')
    >>> in_words("batch", 4.0), in_words("tied", False)
    ('4x batch', 'untied softmax')
    """
    if name in _WORDS:
        return _WORDS[name].format(value)
    return str(plain(value))


def plain(value: Any) -> Any:
    """A field as a number or as text."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return getattr(value, "label", None) or repr(value)
