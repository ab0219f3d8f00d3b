"""Optimisers: what one update costs, by model size, beside torch's and transformers' in the same run.

    python bench/optimizer.py

One thread; the clock is the thread's processor time, since cores may be shared. Contenders take turns on weights and
gradients of their own, and each figure is the median of its turns. Exits with 1 if Adafactor's update of the small
model costs more than a third of torch's Adafactor or more than twice fused AdamW's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers.optimization import Adafactor as TransformersAdafactor

from t5study.ground.machine import Machine, describe, use
from t5study.model import architectures
from t5study.model.shapes import size
from t5study.train.adafactor import AdafactorOptimizer, Rule
from t5study.train.optim import AdamW, movable

SIZES = {"pico": (1_152, 60), "tiny": (4_096, 40), "small": (32_128, 5)}  # embedding rows, turns
OURS, TORCH, FUSED = "Adafactor", "torch Adafactor", "AdamW, fused (used here)"


def contenders() -> dict[str, Callable[[Any], Callable[[], Any]]]:
    """Name -> what makes an update of a model."""

    def wrapped(make: Callable[[list[torch.nn.Parameter]], Any]) -> Callable[[Any], Callable[[], Any]]:
        return lambda model: make(list(model.parameters())).step

    def ours(native: bool | None) -> Callable[[Any], Callable[[], Any]]:
        return lambda model: partial(AdafactorOptimizer(Rule(), movable(model), native).step, 0.01)

    return {
        OURS: ours(None),
        "Adafactor, torch operators only": ours(False),
        FUSED: lambda model: partial(AdamW().build(model).step, 0.001),
        "torch AdamW, default": wrapped(lambda ps: torch.optim.AdamW(ps)),
        TORCH: wrapped(lambda ps: torch.optim.Adafactor(ps)),
        "transformers Adafactor": wrapped(
            lambda ps: TransformersAdafactor(ps, lr=0.01, scale_parameter=True, relative_step=False, warmup_init=False)
        ),
    }


def measure(name: str, rows: int, turns: int) -> dict[str, float]:
    """Milliseconds an update, by contender."""
    updates = {}
    for contender, make in contenders().items():
        model = architectures.build(size(name, rows), 0)
        for p in model.parameters():
            p.grad = torch.randn_like(p) * 0.01
        updates[contender] = make(model)
    times: dict[str, list[float]] = {contender: [] for contender in updates}
    for _ in range(turns + 1):
        for contender, update in updates.items():
            began = time.thread_time()
            update()
            times[contender].append((time.thread_time() - began) * 1e3)
    return {contender: statistics.median(found[1:]) for contender, found in times.items()}


def main() -> int:
    use(Machine())
    print(f"{describe()}, 1 thread; milliseconds an update")
    found = {name: measure(name, *settings) for name, settings in SIZES.items()}
    counts = [f"{name} {size(name, rows).parameters / 1e6:.2f} M" for name, (rows, _) in SIZES.items()]
    print(f"{'':34}" + "".join(f"{count:>16}" for count in counts))
    for contender in contenders():
        print(f"{contender:34}" + "".join(f"{found[name][contender]:16.2f}" for name in SIZES))
    small = found["small"]
    good = small[OURS] <= small[TORCH] / 3 and small[OURS] <= 2 * small[FUSED]
    print("ok" if good else "slower than it should be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
