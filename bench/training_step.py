"""A whole training step (forward, backward, AdamW's update) beside transformers' eager T5 on the same rows, in one run.

    python bench/training_step.py [--turns N] [CASE ...]

One thread, real tokens a second (padding does not count), in fp32 and, where the processor multiplies bf16 itself, with
matrix products in bf16: t5study's `--precision bf16`, transformers under torch.autocast. Ratios are to transformers
without dropout in the same precision, and to its usual setup: fp32, dropout 0.1 and torch.optim.AdamW as it comes. Each
contender has a process of its own, because some of our means are settings of a process: transformers runs as it comes
and once more with those that t5study makes (`ground.machine`). They take turns; the clock is the thread's processor
time, since cores may be shared; a figure is the median of its turns, each ratio the median of the turns' ratios. The
share of the peak is of matrix products of 1024 x 1024, in that precision and with those settings, in a process that
takes its turns too. Memory is how far a process grows over what its imports took.

"laptop" has the lengths of real rows: those of the embedded tasks, as LAPTOP fine-tunes on them. transformers gets the
same pairs as one batch, padded to the longest; t5study packs them. Exits with 1 where t5study falls under what the
case asks for: of transformers in either precision, of its usual setup in the faster one.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing as mp
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from t5study.feed.packing import pack
from t5study.ground.machine import Machine, choose_library, cpu_has_bf16, describe, use
from t5study.ground.pairs import Batch, Pair, Pairs
from t5study.model.shapes import Shape
from t5study.study.scales import LAPTOP

TURNS = 7
PEER, PEER_SET, OURS = "transformers", "transformers, our settings", "t5study"
USUAL, OURS_DROPS, MATMUL = "transformers, usual setup", "t5study, dropout 0.1", "matrix products"
DROPS = (USUAL, OURS_DROPS)
HALF = ", bf16"


@dataclass(frozen=True)
class Case:
    """least: times transformers without dropout that is asked for; least_usual: times its usual setup. real: rows are
    packed with pairs of real lengths; else each is one full pair, as in pre-training."""

    shape: Shape
    rows: int
    source: int
    target: int
    least: float
    least_usual: float
    real: bool = False


CASES = {
    "t5-small": Case(Shape(512, 2048, 64, 8, 6, 6, 32_128), 4, 512, 114, 1.3, 1.6),
    "256 wide": Case(Shape(256, 1024, 64, 4, 4, 4, 32_128), 16, 128, 32, 1.4, 1.8),
    "laptop": Case(
        LAPTOP.shape, LAPTOP.finetune_rows, LAPTOP.source_length, LAPTOP.finetune_target_length, 1.0, 2.0, real=True
    ),
    "64 wide": Case(Shape(64, 256, 16, 4, 2, 2, 4096), 16, 64, 32, 1.3, 1.6),
    "128 wide": Case(Shape(128, 512, 32, 4, 2, 2, 4096), 32, 128, 32, 1.1, 1.4),
}


def pairs_of(case: Case, lengths_N2: np.ndarray | None) -> Pairs:
    """Arbitrary tokens. Real lengths: as many pairs as the rows hold when packed."""
    random = np.random.default_rng(0)
    if lengths_N2 is None:
        lengths_N2 = np.tile([case.source, case.target], (case.rows, 1))

    def ids(n: int) -> np.ndarray:
        return random.integers(3, case.shape.table_rows - 128, n).astype(np.int32)

    pairs = [Pair(ids(s), ids(t)) for s, t in lengths_N2]
    _, used = pack(Pairs.of(pairs), case.rows, case.source, case.target)
    return Pairs.of(pairs[:used])


def real_lengths(source: int, target: int) -> np.ndarray:
    """(source, target) tokens of rows of the embedded tasks, drawn in turn, as a fine-tuning at LAPTOP has them."""
    import tempfile
    from pathlib import Path

    from t5study.tasks import pydocs
    from t5study.vocab import Vocab, train_vocab

    rows = [task().rows("train")[:200] for task in pydocs.TASKS.values()]
    mixed = [row for each in itertools.zip_longest(*rows) for row in each if row]
    with tempfile.TemporaryDirectory() as folder:
        train_vocab([f"{row.input} {row.target}" for row in mixed], LAPTOP.pieces, Path(folder) / "v.model")
        vocab = Vocab.load(Path(folder) / "v.model")
    size = [(len(vocab.encode(row.input)) + 1, len(vocab.encode(row.target)) + 1) for row in mixed]
    return np.minimum(np.array(size), [source, target])


def our_step(case: Case, pairs: Pairs, rate: float, half: bool) -> Callable[[], None]:
    import torch

    from t5study.model.architectures import Dropout, arrange, build
    from t5study.train.optim import AdamW

    batch, _ = pack(pairs, case.rows, case.source, case.target)
    model = build(case.shape, seed=0)
    optimizer = AdamW().build(model)
    steps = itertools.count()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        masks = Dropout(rate, 0, next(steps)) if rate else None
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses = model.loss_sum(arrange(batch), masks, z_loss=1e-4)
        (losses.total / losses.tokens).backward()
        optimizer.step(1e-4)

    return step


def peer_step(case: Case, pairs: Pairs, rate: float, half: bool) -> Callable[[], None]:
    """Without z-loss, which it does not have; the labels of padding are ignored; one row a pair."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    shape = case.shape
    config = T5Config(
        vocab_size=shape.table_rows, d_model=shape.d_model, d_kv=shape.d_kv, d_ff=shape.d_ff, num_heads=shape.heads,
        num_layers=shape.encoder_layers, num_decoder_layers=shape.decoder_layers, dropout_rate=rate,
        decoder_start_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batch = padded(pairs)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        source_BS = torch.from_numpy(batch.source_BS).long()
        seen_BS = torch.from_numpy(batch.source_segment_BS).long()
        label_BT = torch.from_numpy(np.where(batch.target_segment_BT > 0, batch.target_BT, -100)).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(input_ids=source_BS, attention_mask=seen_BS, labels=label_BT).loss
        loss.backward()
        optimizer.step()

    return step


def padded(pairs: Pairs) -> Batch:
    """A row a pair, as long as the longest."""
    sides = []
    for ids_BL, length_B in ((pairs.source_BS, pairs.source_length_B), (pairs.target_BT, pairs.target_length_B)):
        position_BL = np.broadcast_to(np.arange(ids_BL.shape[1], dtype=np.int32), ids_BL.shape)
        sides += [ids_BL, (position_BL < length_B[:, None]).astype(np.int32), position_BL]
    return Batch(*sides)


def resident() -> float:
    """Megabytes of this process now."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def peak() -> float:
    """Megabytes of this process at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def contender(asked: str, case: Case, lengths_N2: np.ndarray | None, pipe: Connection) -> None:
    """A process: every message asks for a turn and is answered with seconds a step, and megabytes grown by."""
    import torch

    torch.set_num_threads(1)
    name, half = asked.removesuffix(HALF), asked.endswith(HALF)
    ours, rate = name in (OURS, OURS_DROPS), 0.1 if name in DROPS else 0.0
    if name not in (PEER, USUAL):
        use(Machine())
        choose_library(case.shape.d_model)
    pairs, grown_from = pairs_of(case, lengths_N2), 0.0
    if name == MATMUL:
        a, b, c = (torch.randn(1024, 1024).to(torch.bfloat16 if half else torch.float32) for _ in range(3))

        def step() -> None:
            torch.mm(a, b, out=c)
    elif ours:
        import t5study.model.architectures
        import t5study.train.optim  # noqa: F401  imports are no part of what a step takes

        grown_from = resident()
        step = our_step(case, pairs, rate, half)
    else:
        import transformers.models.t5.modeling_t5  # noqa: F401

        grown_from = resident()
        step = peer_step(case, pairs, rate, half)
    step()
    start = time.thread_time()
    step()
    steps = max(1, round(0.3 / (time.thread_time() - start)))
    pipe.send(steps)
    while pipe.recv():
        start = time.thread_time()
        for _ in range(steps):
            step()
        pipe.send(((time.thread_time() - start) / steps, 0.0 if name == MATMUL else peak() - grown_from))


def measured(case: Case, lengths_N2: np.ndarray | None, turns: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds a step of each contender in every turn; megabytes of each."""
    context = mp.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    names = [MATMUL, PEER, PEER_SET, OURS, USUAL, OURS_DROPS]
    if cpu_has_bf16():
        names += [name + HALF for name in (MATMUL, PEER, PEER_SET, OURS, OURS_DROPS)]
    for name in names:
        pipes[name], far = context.Pipe()
        processes.append(context.Process(target=contender, args=(name, case, lengths_N2, far), daemon=True))
        processes[-1].start()
        pipes[name].recv()
    seconds, memory = {name: list[float]() for name in pipes}, dict[str, float]()
    for _ in range(turns):
        for name, pipe in pipes.items():
            pipe.send(True)
            took, memory[name] = pipe.recv()
            seconds[name].append(took)
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    return seconds, memory


def ratio(theirs: list[float], own: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, own, strict=True))


def main(asked: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help=f"some of {', '.join(CASES)}; all by default")
    parser.add_argument("--turns", type=int, default=TURNS, help="of every contender")
    args = parser.parse_args(asked)
    names, turns = args.case, args.turns
    if unknown := [name for name in names if name not in CASES]:
        sys.exit(f"bench: found {unknown[0]!r}; give some of {', '.join(CASES)}")
    print(f"{describe()}; one thread; median of {turns} turns")
    failed = False
    for name in names or CASES:
        case = CASES[name]
        lengths_N2 = real_lengths(case.source, case.target) if case.real else None
        pairs = pairs_of(case, lengths_N2)
        tokens = int(pairs.source_length_B.sum() + pairs.target_length_B.sum())
        seconds, memory = measured(case, lengths_N2, turns)
        tops = {
            half: 2 * 1024**3 / statistics.median(seconds.pop(MATMUL + half))
            for half in ("", HALF)
            if MATMUL + half in seconds
        }
        flops = sum(
            case.shape.flops(int(s), int(t)) for s, t in zip(pairs.source_length_B, pairs.target_length_B, strict=True)
        )
        print(
            f"{name}: {len(pairs)} pairs, {tokens:,} tokens, in {case.rows} rows of {case.source} + {case.target}; "
            + "; ".join(f"matrix products{half} {top / 1e9:.0f} GFLOP/s" for half, top in tops.items())
        )
        reached = []
        for who, took in seconds.items():
            half = HALF if who.endswith(HALF) else ""
            step, top = statistics.median(took), tops[half]
            plain, usual = ratio(seconds[PEER + half], took), ratio(seconds[USUAL], took)
            print(
                f"  {who:28} {step * 1e3:8.1f} ms  {tokens / step:8,.0f} tokens/s  {plain:5.2f} x  "
                f"{usual:5.2f} x usual  {100 * flops / step / top:4.0f} % of peak  {memory[who]:6,.0f} MiB"
            )
            if who.removesuffix(HALF) == OURS:
                failed |= plain < case.least
                reached.append(usual)
        failed |= max(reached) < case.least_usual
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
