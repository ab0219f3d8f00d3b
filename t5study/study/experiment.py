"""An experiment: one row of one table of the paper, as a frozen value.

The fields are the paper's axes, flat, so that a row can be read against the baseline in one line:

    BASELINE.but(objective=SpanCorruption(mean_span=3))

How big a run is (shape, batch, steps) is the Scale's business, which text and which tasks is the study's, and where
it runs is the Machine's; so one experiment means the same thing on a laptop and on a cluster.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from t5study.feed.mixing import Equal, ExamplesProportional, Temperature
from t5study.model.shapes import Shape, shape_of
from t5study.objectives import CausalLM, Denoising, Deshuffle, PrefixLM
from t5study.train.tuning import Tuning

Objective = PrefixLM | CausalLM | Deshuffle | Denoising
Mixing = ExamplesProportional | Temperature | Equal


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
class Experiment:
    """objective: what pre-training hides (section 3.3). architecture: section 3.2. corpus: which of the study's texts
    (section 3.4). pretraining, finetuning: in units of the scale's own steps, so 1.0 is the baseline's and a
    pretraining of 0 starts fine-tuning from fresh weights. mixing: how fine-tuning shares its steps among the tasks
    of one mixture. tuning: which weights fine-tuning moves (section 3.5.1). seed: weights, order, noise and dropout.
    """

    objective: Objective
    architecture: Architecture
    corpus: str
    pretraining: float
    finetuning: float
    mixing: Mixing
    tuning: Tuning
    seed: int = 0

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
        return ", ".join(getattr(self, name).label for name in names if name in self.differs(baseline))

    def flat(self) -> dict[str, Any]:
        """The fields for scores.json; values that are not plain are told by their label."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def plain(value: Any) -> Any:
    """A field as a number or as text."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return getattr(value, "label", None) or repr(value)
