"""A training step's forward and backward pass beside transformers' eager T5 on the same weights and rows, in one run.

    python bench/training_step.py [CASE ...]

One thread, fp32, real tokens a second (padding does not count); ratios are to transformers without dropout. Each
contender has a process of its own, because one of our means is how the allocator is set: transformers runs as it comes
and once more with the setting that t5study makes (`ground.machine.use`). Dropout is compared with dropout only. They
take turns; the clock is the thread's processor time, since cores may be shared; each figure is the median of its
turns, each ratio the median of the turns' ratios. Exits with 1 where t5study falls under what the case asks for:
little is to be won where matrix products are nearly all there is.
"""

from __future__ import annotations

import itertools
import multiprocessing as mp
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from t5study.ground.machine import Machine, describe, use
from t5study.ground.pairs import Batch
from t5study.model.shapes import Shape

TURNS = 9
PEER, PEER_SET, OURS = "transformers", "transformers, allocator set", "t5study"
PEER_DROPS, OURS_DROPS = "transformers, dropout 0.1", "t5study, dropout 0.1"


@dataclass(frozen=True)
class Case:
    """least: times transformers that is asked for. ragged: rows of one pair of any length from a quarter up, as in
    fine-tuning; else full rows, as in pre-training."""

    shape: Shape
    rows: int
    source: int
    target: int
    least: float
    ragged: bool = False


CASES = {
    "64 wide": Case(Shape(64, 256, 16, 4, 2, 2, 4096), 16, 64, 32, 1.3),
    "128 wide": Case(Shape(128, 512, 32, 4, 2, 2, 4096), 32, 128, 32, 1.1),
    "128 wide, ragged": Case(Shape(128, 512, 32, 4, 2, 2, 4096), 32, 128, 32, 1.4, ragged=True),
    "256 wide": Case(Shape(256, 1024, 64, 4, 4, 4, 4096), 16, 128, 64, 1.0),
    "t5-small": Case(Shape(512, 2048, 64, 8, 6, 6, 32_128), 4, 512, 114, 1.0),
}
USUAL = ("64 wide", "128 wide", "128 wide, ragged", "256 wide")


def batch_of(case: Case) -> Batch:
    random = np.random.default_rng(0)

    def side(longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        length_B = random.integers(longest // 4, longest + 1, case.rows) if case.ragged else np.full(case.rows, longest)
        position_BL = np.broadcast_to(np.arange(longest, dtype=np.int32), (case.rows, longest))
        segment_BL = (position_BL < length_B[:, None]).astype(np.int32)
        ids_BL = random.integers(3, case.shape.table_rows - 128, segment_BL.shape).astype(np.int32) * segment_BL
        return ids_BL, segment_BL, position_BL

    return Batch(*side(case.source), *side(case.target))


def our_step(case: Case, rate: float) -> Callable[[], None]:
    from t5study.model.architectures import Dropout, arrange, build

    model, batch = build(case.shape, seed=0), batch_of(case)
    steps = itertools.count()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        losses = model.loss_sum(arrange(batch), Dropout(rate, 0, next(steps)) if rate else None, z_loss=1e-4)
        (losses.total / losses.tokens).backward()

    return step


def peer_step(case: Case, rate: float) -> Callable[[], None]:
    """Without z-loss, which it does not have; the labels of padding are ignored."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    shape = case.shape
    config = T5Config(
        vocab_size=shape.table_rows, d_model=shape.d_model, d_kv=shape.d_kv, d_ff=shape.d_ff, num_heads=shape.heads,
        num_layers=shape.encoder_layers, num_decoder_layers=shape.decoder_layers, dropout_rate=rate,
        decoder_start_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    model, batch = T5ForConditionalGeneration(config).train(), batch_of(case)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        source_BS = torch.from_numpy(batch.source_BS).long()
        seen_BS = torch.from_numpy(batch.source_segment_BS).long()
        label_BT = torch.from_numpy(np.where(batch.target_segment_BT > 0, batch.target_BT, -100)).long()
        model(input_ids=source_BS, attention_mask=seen_BS, labels=label_BT).loss.backward()

    return step


def contender(name: str, case: Case, pipe: Connection) -> None:
    """A process: every message asks for a turn and is answered with seconds a step."""
    import torch

    torch.set_num_threads(1)
    ours, rate = name in (OURS, OURS_DROPS), 0.1 if name in (PEER_DROPS, OURS_DROPS) else 0.0
    if ours or name == PEER_SET:
        use(Machine())
    step = (our_step if ours else peer_step)(case, rate)
    step()
    start = time.thread_time()
    step()
    steps = max(1, round(0.3 / (time.thread_time() - start)))
    pipe.send(steps)
    while pipe.recv():
        start = time.thread_time()
        for _ in range(steps):
            step()
        pipe.send((time.thread_time() - start) / steps)


def measured(case: Case) -> dict[str, list[float]]:
    """Seconds a step of each contender in every turn."""
    context = mp.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name in (PEER, PEER_SET, OURS, PEER_DROPS, OURS_DROPS):
        pipes[name], far = context.Pipe()
        processes.append(context.Process(target=contender, args=(name, case, far), daemon=True))
        processes[-1].start()
        pipes[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(TURNS):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    return seconds


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in CASES]:
        sys.exit(f"bench: found {unknown[0]!r}; give some of {', '.join(CASES)}")
    print(f"{describe()}; one thread, fp32; median of {TURNS} turns")
    failed = False
    for name in names or USUAL:
        case = CASES[name]
        seconds, batch = measured(case), batch_of(case)
        flops = case.rows * case.shape.flops(case.source, case.target)
        print(f"{name}: {case.rows} rows of {case.source} + {case.target}, {batch.tokens:,} tokens")
        for who, turns in seconds.items():
            ratio = statistics.median(theirs / own for theirs, own in zip(seconds[PEER], turns, strict=True))
            step = statistics.median(turns)
            speed = "" if case.ragged else f"{flops / step / 1e9:6.1f} GFLOP/s"
            print(f"  {who:28} {step * 1e3:8.1f} ms  {batch.tokens / step:8,.0f} tokens/s  {ratio:5.2f} x {speed}")
            failed |= who == OURS and ratio < case.least
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
