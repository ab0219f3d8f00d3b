"""Strategies: in which order a model sees text and tasks (sections 3.5.2 and 3.5.3), as frozen values.

    PretrainThenFinetune()     text, then the tasks                                         the baseline
    MultiTask()                text and all tasks as one mixture, then nothing              Table 11
    MultiTaskThenFinetune()    the same mixture, then each benchmark                        Table 12
    LeaveOneOut()              the mixture without a benchmark, then that benchmark         Table 12
    SupervisedThenFinetune()   the mixture without text, then each benchmark                Table 12

How many steps each part has is in the units of the experiment: the multi-task training that nothing follows has those
of pre-training and of fine-tuning together. plans.py unfolds them into stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class PretrainThenFinetune:
    """Text alone, then the tasks (section 3.1.2)."""

    label: ClassVar[str] = "pre-training, then fine-tuning"


@dataclass(frozen=True)
class MultiTask:
    """Text and all tasks at once; each task is scored at its best checkpoint (section 3.5.2)."""

    label: ClassVar[str] = "multi-task training"


@dataclass(frozen=True)
class MultiTaskThenFinetune:
    """Text and all tasks at once, then fine-tuning (section 3.5.3)."""

    label: ClassVar[str] = "multi-task pre-training"


@dataclass(frozen=True)
class LeaveOneOut:
    """For each benchmark a multi-task pre-training without it, and fine-tuning on it (section 3.5.3)."""

    label: ClassVar[str] = "leave-one-out pre-training"


@dataclass(frozen=True)
class SupervisedThenFinetune:
    """All tasks at once without any text, then fine-tuning (section 3.5.3)."""

    label: ClassVar[str] = "supervised multi-task pre-training"


Strategy = PretrainThenFinetune | MultiTask | MultiTaskThenFinetune | LeaveOneOut | SupervisedThenFinetune
