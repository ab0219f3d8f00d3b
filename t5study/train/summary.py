"""What a run says of itself: its numbers at the end, and what is odd about it on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from t5study.train.run import TrainRun

# About ln(V): logits of variance 1 add a half, 0.07 to 0.82 were seen over sizes and seeds, few targets scatter more.
FIRST_LOSS_BAND = (-1.0, 2.0)


def first_loss_warning(run: TrainRun, loss: float) -> str | None:
    """What is odd about a first loss, or None. Fresh weights know nothing: their loss is near ln(vocabulary)."""
    expected = math.log(run.shape.table_rows)
    low, high = FIRST_LOSS_BAND
    if run.init != "fresh" or expected + low <= loss <= expected + high:
        return None
    return (
        f"first loss {loss:.3f} of fresh weights; expected about ln({run.shape.table_rows:,}) = {expected:.3f}. Far "
        "below it targets leak into the inputs, far above it the softmax is off scale"
    )


def proportions(examples: Mapping[str, int], shares: Mapping[str, float]) -> str:
    """How often each member of a mixture came, beside how often it was to, in a line; "" without members.

    >>> proportions({"glue/cola": 30, "glue/rte": 10}, {"glue/cola": 0.77, "glue/rte": 0.23})
    '40 examples: glue/cola 75.0 % (77.0 % asked), glue/rte 25.0 % (23.0 % asked)'
    """
    if not examples:
        return ""
    n = sum(examples.values())
    told = [f"{name} {count / n:.1%} ({shares[name]:.1%} asked)".replace("%", " %") for name, count in examples.items()]
    return f"{n:,} examples: {', '.join(told)}"


def summary_of(run: TrainRun, model: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A finished run in numbers that are the same whenever it is run. tokens: of source and target. trainable: of its
    parameters, those that moved in the last step. examples: of each member of a mixture that has names. skipped: steps
    that moved nothing (guard.py)."""
    good = [row for row in rows if "loss" in row]
    last, first = good[-max(1, len(good) // 10) :], good[0]["loss"]
    extra = {"examples": rows[-1]["examples"]} if "examples" in rows[-1] else {}
    if len(good) < len(rows):
        extra["skipped"] = len(rows) - len(good)
    return extra | {
        "steps": run.steps,
        "first_loss": first,
        "first_loss_expected": math.log(run.shape.table_rows) if run.init == "fresh" else None,
        "first_loss_warning": first_loss_warning(run, first),
        "last_loss": sum(row["loss"] for row in last) / len(last),
        "tokens": sum(row["tokens"] for row in rows),
        "target_tokens": sum(row["target_tokens"] for row in rows),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable": rows[-1]["trainable"],
    }
