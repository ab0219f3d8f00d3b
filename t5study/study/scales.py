"""Scales: how big one study is. Part of every fingerprint, unlike the machine it runs on.

A scale says what the baseline is made of (shape, lengths, batch, steps, rates); an experiment says how it departs from
that baseline. Where a number is not the paper's, the comment beside it says why.

    SMOKE        the tests: seconds on two cores
    LAPTOP       the README's first command: minutes on two cores
    EVENING      two cores, a few hours: task scores above noise
    WORKSTATION  one GPU, hours
    NODE         eight GPUs, days
    PAPER        the paper's own numbers (section 3.1)
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.pairs import Ids
from t5study.model.shapes import Shape
from t5study.train.optim import Adafactor, AdamW, Constant, InverseSquareRoot

_ADAFACTOR = Adafactor()


@dataclass(frozen=True)
class Scale:
    """shape: of the baseline; its table_rows follow from `pieces` and, if the text gives fewer, from the vocabulary.
    pieces: of the vocabulary, pad, eos and unk counted, sentinels not. vocabulary_characters: of text it is trained on.
    max_tokens: of text to pre-train on, None for all there is.
    pretrain_*: packed rows a step, steps, rate. source_length: tokens of a row, in both stages.
    finetune_*: the same for fine-tuning on all tasks as one mixture. checkpoints: at how many evenly spaced steps of
    fine-tuning every task is scored. evaluation_rows: validation rows a task, None for all.
    seeds: how often the baseline, and fine-tuning without pre-training, are run.
    verdict: what rounds are decided by: "likelihood" of the targets, or the "metric" of greedy answers.
    save_every: steps between checkpoints to resume from; not part of any fingerprint.
    """

    name: str
    shape: Shape
    pieces: int
    vocabulary_characters: int
    max_tokens: int | None
    source_length: int
    pretrain_rows: int
    pretrain_steps: int
    pretrain_schedule: InverseSquareRoot
    finetune_rows: int
    finetune_steps: int
    finetune_target_length: int
    finetune_schedule: Constant
    checkpoints: int
    evaluation_rows: int | None
    optimizer: Adafactor | AdamW = _ADAFACTOR  # 3.1.2
    dropout: float = 0.1  # 3.1.1: everywhere, in both stages
    z_loss: float = 1e-4  # mesh's configurations; the paper does not mention it
    seeds: int = 3
    verdict: str = "likelihood"
    save_every: int = field(default=100, metadata={"fingerprint": False})

    def __post_init__(self) -> None:
        if self.verdict not in ("likelihood", "metric"):
            raise ValueError(f"verdict {self.verdict!r}")
        if not 1 <= self.checkpoints <= self.finetune_steps:
            raise ValueError(f"{self.checkpoints} checkpoints in {self.finetune_steps} steps")

    @property
    def evaluate_every(self) -> int:
        """Steps of fine-tuning between evaluations; the last step is one of them if it divides."""
        return self.finetune_steps // self.checkpoints

    @property
    def verdict_column(self) -> str:
        """The column that rounds are decided by."""
        return "mean nats" if self.verdict == "likelihood" else "mean"

    def flat(self) -> dict[str, Any]:
        """Every field for scores.json; optimiser and schedules as text, save_every left out: no score depends on it."""
        told = {name: getattr(self, name) for name in asdict(self) if name != "save_every"}
        told |= {name: repr(told[name]) for name in ("pretrain_schedule", "finetune_schedule", "optimizer")}
        return told | {"shape": asdict(self.shape)}


def _rows(pieces: int) -> int:
    return Ids(size=pieces + 100).table_rows


SMOKE = Scale(
    name="smoke",
    shape=Shape(32, 64, 16, 2, 2, 2, _rows(300)),  # half of the layers (Table 2) is another model
    pieces=300,
    vocabulary_characters=200_000,
    max_tokens=20_000,
    source_length=32,
    pretrain_rows=4,
    pretrain_steps=8,
    pretrain_schedule=InverseSquareRoot(scale=2.0),
    finetune_rows=4,
    finetune_steps=6,
    finetune_target_length=16,
    finetune_schedule=Constant(0.01),
    checkpoints=2,
    evaluation_rows=12,
    save_every=2,
)

LAPTOP = Scale(
    name="laptop",
    shape=Shape(128, 512, 32, 4, 2, 2, _rows(2000)),
    pieces=2000,  # a larger table would take most of the time of so small a model
    vocabulary_characters=2_000_000,
    max_tokens=2_000_000,  # some four times what one pre-training reads: no text is repeated, as in the paper
    source_length=128,
    pretrain_rows=12,
    pretrain_steps=260,
    pretrain_schedule=InverseSquareRoot(scale=2.0),  # 0.02: so few steps need larger ones
    finetune_rows=8,
    finetune_steps=150,
    finetune_target_length=48,
    finetune_schedule=Constant(0.01),  # the paper's 0.001 is for 2^18 steps
    checkpoints=2,
    evaluation_rows=150,
    dropout=0.0,  # nothing is seen twice, so there is nothing to overfit; T5 1.1 pre-trains without it too
    save_every=50,
)

EVENING = replace(
    LAPTOP,
    name="evening",
    shape=Shape(128, 512, 32, 4, 3, 3, _rows(4000)),
    pieces=4000,
    vocabulary_characters=6_000_000,
    max_tokens=None,
    pretrain_rows=16,
    pretrain_steps=800,
    finetune_rows=16,
    finetune_steps=300,
    checkpoints=4,
    evaluation_rows=300,
)

WORKSTATION = Scale(  # one GPU: a baseline in about an hour
    name="workstation",
    shape=Shape(512, 2048, 64, 8, 6, 6, _rows(32_000)),  # T5-Small
    pieces=32_000,
    vocabulary_characters=50_000_000,
    max_tokens=None,
    source_length=256,
    pretrain_rows=128,
    pretrain_steps=20_000,
    pretrain_schedule=InverseSquareRoot(),
    finetune_rows=128,
    finetune_steps=5_000,
    finetune_target_length=128,
    finetune_schedule=Constant(0.001),
    checkpoints=5,
    evaluation_rows=None,
    verdict="metric",
    save_every=1_000,
)

NODE = replace(
    WORKSTATION,
    name="node",
    shape=Shape(768, 3072, 64, 12, 12, 12, _rows(32_000)),  # the paper's baseline
    source_length=512,
    pretrain_steps=2**16,  # a tenth of BERT's tokens; an eighth of the paper's baseline
    finetune_steps=2**14,
    checkpoints=8,
)

PAPER = replace(
    NODE,
    name="paper",
    vocabulary_characters=10**9,
    pretrain_steps=2**19,  # 3.1.2
    finetune_steps=2**18,  # 3.1.2
    finetune_target_length=512,
    checkpoints=52,  # 3.1.2: one every 5,000 steps
    seeds=10,  # 3.1.3
    save_every=5_000,
)

SCALES = {scale.name: scale for scale in (SMOKE, LAPTOP, EVENING, WORKSTATION, NODE, PAPER)}


def find(name: str) -> Scale:
    """The scale of that name. UserError, with the nearest name, if there is none.

    >>> find("laptop").verdict_column
    'mean nats'
    """
    if name not in SCALES:
        near = difflib.get_close_matches(name.lower(), SCALES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(SCALES)}"
        raise UserError(f"scale: found {name!r}; {hint}")
    return SCALES[name]
