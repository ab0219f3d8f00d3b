"""How long a checkpoint holds steps up: written at once, or while steps go on (--async-save).

    python bench/saving.py [d_model]

A model with Adafactor takes 13 steps and saves every 4, both ways in turn, three times. Held up: how much longer than
the median of all others the steps took that a checkpoint came with, and those after it, while it was being written.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tiny_run import RUN, make

from t5study.ground.machine import Machine, describe
from t5study.train.loop import train


class Times:
    def __init__(self) -> None:
        self.at: list[float] = []

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None:
        self.at.append(time.perf_counter())

    def close(self) -> None:
        pass


def held_up(run, folder: Path, asynchronous: bool) -> tuple[float, float, float]:
    """Median step, and what a checkpoint costs: the step it comes with, and all steps until the next; seconds."""
    model, stream = make(run)
    times = Times()
    train(run, model, stream, folder, Machine(), progress=times, async_save=asynchronous)
    passed = [b - a for a, b in zip(times.at, times.at[1:], strict=False)]  # passed[i]: from step i + 1 to i + 2
    usual = median(passed)
    after = [i for i in range(len(passed)) if (i + 1) % run.save_every == 0]
    at_once = median(passed[i] - usual for i in after)
    until_next = median(
        sum(passed[i : i + run.save_every]) - usual * len(passed[i : i + run.save_every]) for i in after
    )
    return usual, at_once, until_next


def main() -> None:
    width = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    shape = replace(RUN.shape, d_model=width, d_ff=4 * width, heads=8, d_kv=64, encoder_layers=6, decoder_layers=6)
    run = replace(RUN, shape=shape, steps=13, save_every=4, evaluate_every=0)
    parameters = sum(p.numel() for p in make(run)[0].parameters())
    print(describe())
    print(f"{parameters / 1e6:.1f} M parameters, {4 * parameters / 1e6:.0f} MB of weights a checkpoint\n")
    print("| | median step, ms | its step is held up by, ms | all steps until the next, ms |\n|---|---|---|---|")
    found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for _ in range(3):
        for asynchronous, rows in found.items():
            with tempfile.TemporaryDirectory() as folder:
                rows.append(held_up(run, Path(folder) / "run", asynchronous))
    for asynchronous, rows in found.items():
        numbers = [1000 * median(column) for column in zip(*rows, strict=True)]
        name = "while steps go on" if asynchronous else "at once"
        print(f"| {name} | {numbers[0]:.0f} | {numbers[1]:.0f} | {numbers[2]:.0f} |")


if __name__ == "__main__":
    main()
