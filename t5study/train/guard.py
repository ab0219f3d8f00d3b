"""Guard: what a run does about a step whose loss or gradient is not finite, or whose loss stands far above the last.

    Guard()                          stop, in one line (NaN and Inf alone)
    Guard("skip", spike=10)          leave the step's examples out and go on; a spike of the loss counts as well
    Guard("rewind", back=100)        go back to the last multiple of 100 steps, and on with the examples after these

No optimiser sees such a step: weights and state are as they were. What was done stands in the step's row of the journal
and the rule looks at that journal and at the step at hand, nothing else. So a run that was killed, within a window of
losses or in the midst of making steps again, decides the same once more and ends in the same bytes.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from t5study.ground.errors import UserError
from t5study.train.parallel import ALONE, Ranks
from t5study.train.step import Taken

ACTIONS = ("stop", "skip", "rewind")
IN_A_ROW = 5  # bad steps in a row (or rewinds to one checkpoint) that always stop: no data is that bad
WINDOW, FEWEST = 100, 20  # good steps that a loss is compared with, and how few of them are too few to judge by
_SPREAD = 0.01  # of the median: below that, losses that hardly vary would make a spike of every step


@dataclass(frozen=True)
class Guard:
    """action: one of ACTIONS. spike: a loss this many deviations above the median of the last good steps is bad too,
    0 for none (deviation: 1.4826 times the median distance from the median, at least a hundredth of it). back: rewind
    goes to the last multiple of so many steps."""

    action: str = "stop"
    spike: float = 0.0
    back: int = 0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise UserError(f"guard: action: found {self.action!r}; give {', '.join(ACTIONS)}")
        if not (self.spike == 0 or (self.spike >= 1 and math.isfinite(self.spike))):
            raise UserError(f"guard: spike: found {self.spike}; give at least 1, or 0 for none")
        if (self.action == "rewind") != (self.back > 0):
            raise UserError(f"guard: back: found {self.back}; give at least 1 for rewind, 0 for stop and skip")

    def found(self, taken: Taken, losses: Sequence[float]) -> str | None:
        """What is wrong with a step, for people; None if nothing is. losses: of the good steps before it.

        >>> Guard("skip", spike=10).found(Taken(9.0, 0.0, 1, 1, 1.0), [4.0, 4.1] * 20)
        'a loss of 9 after 4.05'
        """
        if not math.isfinite(taken.loss):
            return f"a loss of {taken.loss}"
        if not taken.finite:
            return f"a gradient of norm {taken.grad_norm}"
        last = list(losses)[-WINDOW:]
        if self.spike and len(last) >= FEWEST:
            middle = median(last)
            spread = max(1.4826 * median(abs(loss - middle) for loss in last), _SPREAD * abs(middle))
            if taken.loss > middle + self.spike * spread:
                return f"a loss of {taken.loss:.4g} after {middle:.4g}"
        return None


class Rewind(Exception):
    """Go back to the checkpoint of `step`, and on with the examples from `position`."""

    def __init__(self, step: int, position: int):
        super().__init__(f"to step {step}")
        self.step, self.position = step, position


class Judge:
    """A guard at work on a run, with what it has seen: the rows of the journal up to now.

    rewound: step of a checkpoint -> notes of the bad steps that were gone back from to it.
    """

    def __init__(self, guard: Guard, rows: Sequence[Mapping[str, Any]] = ()):
        self.guard = guard
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.rewound: dict[int, list[dict[str, Any]]] = {}
        self.skipped = 0
        for row in rows:
            self.saw(row)

    def saw(self, row: Mapping[str, Any]) -> None:
        """A row that is in the journal."""
        if "skipped" in row:
            self.skipped += 1
        else:
            self.skipped = 0
            self.losses.append(row["loss"])
        if "rewound" in row:
            self.rewound[row["step"] - 1] = list(row["rewound"])

    @property
    def memory(self) -> dict[str, Any]:
        """All that it remembers, as JSON: other ranks are given it."""
        return {"losses": list(self.losses), "skipped": self.skipped, "rewound": list(self.rewound.items())}

    @staticmethod
    def recalled(guard: Guard, memory: Mapping[str, Any]) -> Judge:
        """The judge that remembers this."""
        judge = Judge(guard)
        judge.losses.extend(memory["losses"])
        judge.skipped = memory["skipped"]
        judge.rewound = {step: list(notes) for step, notes in memory["rewound"]}
        return judge

    def after(self, other: Judge, step: int) -> Judge:
        """This judge, of a journal that was cut back to `step`, with the bad steps that the other went back from."""
        self.rewound |= {at: notes for at, notes in other.rewound.items() if at >= step}
        return self

    def decide(
        self,
        step: int,
        found: str,
        weight: str | None,
        examples: tuple[int, int],
        ranks: Sequence[int] = (),
        tells: bool = True,
    ) -> dict[str, Any]:
        """What to note of a bad step that is left out; told on stderr if this process `tells`. weight: the first whose
        gradient is not finite. examples: first and end of what it was made of, as numbers in the stream. ranks: those
        of several that it was found on, if it is known.

        UserError to stop. Rewind to go back.
        """
        note = {"step": step, "found": found, "weight": weight, "examples": list(examples)}
        first, last = examples[0], examples[1] - 1
        where = f" (first in {weight})" if weight else ""
        if ranks:
            where += f" on rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
        told = f"step {step}: found {found}{where} in examples {first:,} to {last:,}"
        to = (step - 1) // self.guard.back * self.guard.back if self.guard.back else 0
        times = 1 + (len(self.rewound.get(to, ())) if self.guard.back else self.skipped)
        if self.guard.action == "stop":
            raise UserError(
                f"{told}; no weight has moved by it. Lower the rate, look at these examples, or leave such steps out "
                "with --bad-step skip in another folder; the last checkpoint is good"
            )
        if times >= IN_A_ROW or not self.losses:
            many = f"; {times} such steps in a row" if times >= IN_A_ROW else ", and no step before it was good"
            raise UserError(
                f"{told}{many}; no weight has moved by them. Lower the rate, or look at these examples; the last "
                "checkpoint is good"
            )
        done = "left out" if self.guard.action == "skip" else f"back to step {to:,}, and on with those after"
        if tells:
            print(f"t5study: warning: {told}; {done}", file=sys.stderr)
        if self.guard.action == "skip":
            return note
        self.rewound.setdefault(to, []).append(note)
        raise Rewind(to, examples[1])


def not_finite(model: nn.Module, ranks: Ranks = ALONE) -> str | None:
    """The first weight whose gradient is not finite, by name: on all ranks, of all their rows. All have to ask."""
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    names = list(grads)
    here = [grad.to_local() if ranks.shard else grad for grad in grads.values()]  # type: ignore[union-attr]
    mine = next((i for i, grad in enumerate(here) if not torch.isfinite(grad).all()), len(names))
    first = len(names) - ranks.most(len(names) - mine)
    return names[first] if first < len(names) else None
