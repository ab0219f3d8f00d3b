"""How long training waits for data: real runs of train() on made-up documents, the reader in its thread beside them.

    python bench/waiting.py [--steps N] [--precision bf16] [CASE ...]

One torch thread; documents are cut, corrupted by spans, packed and arranged as in any run. Prints what the run
itself tells (speeds.json): tokens a second, the share of the peak of bare matrix products, and the share of the time in
which no batch was there. Wall-clock: on a machine with other work the second falls, the third hardly moves. Exits with
1 where a run waits for 2 % of its time or more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from t5study.feed.sources import DocumentSource
from t5study.feed.stream import Stream
from t5study.ground.machine import Machine, describe, here
from t5study.ground.pairs import Ids
from t5study.model.architectures import build
from t5study.model.shapes import Shape, size
from t5study.objectives import SpanCorruption
from t5study.study.scales import LAPTOP
from t5study.train.loop import train
from t5study.train.optim import Adafactor, Constant
from t5study.train.run import TrainRun
from t5study.train.speeds import told

MOST, OBJECTIVE = 0.02, SpanCorruption()


@dataclass(frozen=True)
class Case:
    shape: Shape
    steps: int
    rows: int
    source: int


CASES = {
    "laptop": Case(LAPTOP.shape, 1000, LAPTOP.pretrain_rows, LAPTOP.source_length),
    "64 wide": Case(size("pico", 2176), 1000, 16, 64),
    "256 wide": Case(size("mini"), 60, 4, 256),
}


def documents(pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Two million tokens in documents of 5 to 900."""
    random = np.random.default_rng(0)
    offsets = np.cumsum(np.append(0, random.integers(5, 900, 4_400)))
    return random.integers(3, pieces, offsets[-1]).astype(np.uint16), offsets


def stream_of(case: Case) -> Stream:
    lengths, ids = OBJECTIVE.lengths(case.source), Ids(case.shape.table_rows)
    source = DocumentSource(*documents(ids.pieces), OBJECTIVE, lengths, ids, 0)
    return Stream(source, case.rows, case.source, lengths.targets)


def reading(case: Case) -> float:
    """Processor seconds of the reader a batch, the loops being compiled."""
    stream, position = stream_of(case), 0
    _, position = stream.batch(position)
    began = time.thread_time()
    for _ in range(100):
        _, position = stream.batch(position)
    return (time.thread_time() - began) / 100


def run(case: Case, folder: Path, machine: Machine) -> dict[str, float]:
    asked = TrainRun(
        shape=case.shape,
        architecture="encoder_decoder",
        steps=case.steps,
        rows=case.rows,
        source_length=case.source,
        target_length=OBJECTIVE.lengths(case.source).targets,
        optimizer=Adafactor(),
        schedule=Constant(0.01),
        dropout=0.1,
        seed=0,
        save_every=case.steps,
        data="made-up documents",
        init="fresh",
    )
    return train(asked, build(case.shape, 0), stream_of(case), folder, machine)


def main(words: list[str]) -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("cases", nargs="*")
    asked.add_argument("--steps", type=int)
    asked.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    args = asked.parse_args(words)
    if unknown := [name for name in args.cases if name not in CASES]:
        sys.exit(f"bench: found {unknown[0]!r}; give some of {', '.join(CASES)}")
    print(f"{describe()}; one torch thread, {args.precision}, dropout 0.1, Adafactor")
    failed = False
    for name in args.cases or CASES:
        case = replace(CASES[name], steps=args.steps or CASES[name].steps)
        with tempfile.TemporaryDirectory() as folder:
            found = run(case, Path(folder), here(device="cpu", precision=args.precision))
        parts = [f"{found['tokens_per_second']:,.0f} tokens/s", *told(found["waiting"], found["utilisation"])]
        step = found["tokens"] / case.steps / found["tokens_per_second"]
        print(
            f"{name}: {case.steps:,} steps of {case.rows} rows of {case.source}: {', '.join(parts)}; the reader takes "
            f"{1e3 * reading(case):.2f} ms of processor time a batch, a step {1e3 * step:.0f} ms",
            flush=True,
        )
        failed |= found["waiting"] >= MOST
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
