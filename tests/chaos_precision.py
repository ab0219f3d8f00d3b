"""A set of tests/chaos.py: presets in fp32 and with products in bf16, step for step."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from tiny_run import IDS, RUN, go

from t5study.ground.journal import read_journal
from t5study.ground.machine import Machine
from t5study.model.shapes import size
from t5study.train.optim import Constant

if TYPE_CHECKING:
    from chaos import Place

PRESETS = ("pico", "tiny", "mini", "small", "v1.1-small")  # larger ones take hours on a CPU
STEPS, APART = 1_000, 0.02


def precisions(place: Place) -> tuple[int, int]:
    """1,000 steps of every preset up to small in fp32 and in bf16: no number that is not finite, and the mean loss of
    the last tenth within 2 % of the other's"""
    presets, gaps = PRESETS[: place.many(len(PRESETS))], dict[str, float]()
    for name in presets:
        gaps[name] = gap(place, name, place.many(STEPS))
    place.told = ", ".join(f"{name} {100 * found:.2f} % apart" for name, found in gaps.items())
    return sum(found <= APART for found in gaps.values()), len(presets)


def gap(place: Place, name: str, steps: int) -> float:
    """How far the two precisions' last losses are apart, as a share; infinity if a loss is not finite."""
    shape = size(name, table_rows=IDS.table_rows)
    run = replace(RUN, shape=shape, steps=steps, schedule=Constant(0.01), save_every=steps, evaluate_every=0)
    ends = []
    for precision in ("fp32", "bf16"):
        folder = place.new()
        go(folder, run, Machine(precision=precision))
        losses = [row["loss"] for row in read_journal(folder / "journal.jsonl")]
        shutil.rmtree(folder.parent)
        if len(losses) < steps or not all(math.isfinite(loss) for loss in losses):
            return math.inf
        ends.append(math.fsum(losses[-(steps // 10) :]) / (steps // 10))
    return abs(ends[1] / ends[0] - 1)
