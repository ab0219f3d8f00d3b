"""A whole training step on a GPU beside transformers' T5 (SDPA, torch.compile), in one run: Small, Base, Large, 3B; and
answers beside its generate, Base, greedy and of 4 beams.

    python bench/gpu.py [--turns 7] [--rows N] [--no-compile] [CASE ...]
    python bench/gpu.py --tiny                the same code at a tiny shape on the CPU, to see that it runs

bf16 products under autocast, fp32 weights, AdamW (fused), no dropout, rows of 512 + 114 tokens that are all full. Each
contender has a process of its own and they take turns; a figure is the median of its turns, the ratio the median of the
turns' ratios. Utilisation: model FLOPs (train/work.py) over the peak of 8,192-wide bf16 products, measured in the same
run. Memory: what the process's allocator held at most. Which kernels ran, by torch's profiler: those with the largest
share of a step's device time, and those that did attention.

Answers: 64 rows of 512 source tokens, exactly 64 new ones each, the encoder's time counted; our steps launched one
by one, and recorded (CUDA graphs). On a CPU nothing is recorded: the same steps are run as they are.

Exits with 1 where t5study falls under twice the peer in training, or under the peer in answering, or under half of the
peak at Base; with 2, in one line, where there is no GPU.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing as mp
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from t5study.ground.machine import Machine, describe
from t5study.model.shapes import Shape, size

PEER, OURS = "transformers, SDPA", "t5study"
GENERATE, LAUNCHED, RECORDED = "transformers generate", "t5study, launched", "t5study, recorded"
UNIT_S = 1.0  # a turn takes about so long
ATTENTION = re.compile(r"flash|fmha|efficient|attention|attend|softmax|backward_keys|backward_queries|^forward$", re.I)


@dataclass(frozen=True)
class Case:
    """least: times transformers that is asked for. least_used: share of the peak. beams: of answers of `target` tokens;
    0 for a training step."""

    shape: Shape
    rows: int
    source: int = 512
    target: int = 114
    least: float = 2.0
    least_used: float = 0.0
    beams: int = 0


CASES = {
    "small": Case(size("small"), 64),
    "base": Case(size("base"), 32, least_used=0.5),
    "large": Case(size("large"), 16),
    "3b": Case(size("3b"), 4),
    "answers": Case(size("base"), 64, 512, 64, least=1.0, beams=1),
    "answers-beams": Case(size("base"), 64, 512, 64, least=1.0, beams=4),
}
TINY = Case(Shape(32, 64, 16, 2, 2, 2, 512), 4, 16, 8, least=0.0)
TINY_CASES = {"tiny": TINY, "tiny answers": replace(TINY, target=20, beams=1)}


@dataclass(frozen=True)
class Asked:
    """What a contender is to do. machine: its device and precision."""

    case: Case
    machine: Machine
    compiled: bool


Contender = tuple[Callable[[], object], Callable[[], str]]  # a step; what there is to say of how, afterwards


def batch_of(case: Case) -> Any:
    """Arbitrary tokens, a pair a row, no padding."""
    import numpy as np

    from t5study.feed.packing import pack
    from t5study.ground.pairs import Pair, Pairs

    random = np.random.default_rng(0)

    def ids(n: int) -> np.ndarray:
        return random.integers(3, case.shape.table_rows - 128, n).astype(np.int32)

    pairs = Pairs.of([Pair(ids(case.source), ids(case.target)) for _ in range(case.rows)])
    return pack(pairs, case.rows, case.source, case.target)[0]


def our_step(asked: Asked) -> Contender:
    from t5study.model.architectures import build
    from t5study.model.layers import Pass
    from t5study.train.optim import AdamW
    from t5study.train.step import gradients

    batch, machine = batch_of(asked.case), asked.machine
    model = build(asked.case.shape, seed=0).to(machine.device)
    optimizer, weights, count = AdamW().build(model), list(model.parameters()), itertools.count(1)
    how: dict[str, Any] = {"seed": 0, "dropout": 0.0, "z_loss": 1e-4, "machine": machine}

    def step() -> None:
        gradients(model, weights, batch, next(count), **how)
        optimizer.step(1e-4)

    run = Pass.of(asked.case.shape, model.arrange(batch, machine.device), model.embedding)
    return step, lambda: run.attention.__name__


def peer_step(asked: Asked) -> Contender:
    """Without z-loss, which it does not have, and without a gradient norm."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    shape, device = asked.case.shape, asked.machine.device
    config = T5Config(
        vocab_size=shape.table_rows, d_model=shape.d_model, d_kv=shape.d_kv, d_ff=shape.d_ff, num_heads=shape.heads,
        num_layers=shape.encoder_layers, num_decoder_layers=shape.decoder_layers, dropout_rate=0.0,
        decoder_start_token_id=0, attn_implementation="sdpa",
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    call: Any = torch.compile(model) if asked.compiled else model
    batch = batch_of(asked.case)
    source_BS, label_BT = (torch.from_numpy(ids).long().to(device) for ids in (batch.source_BS, batch.target_BT))
    seen_BS = torch.ones_like(source_BS)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=asked.machine.precision == "bf16"):
            loss = call(input_ids=source_BS, attention_mask=seen_BS, labels=label_BT).loss
        loss.backward()
        optimizer.step()

    return step, lambda: f"{model.config._attn_implementation}{', compiled' if asked.compiled else ''}"


def contenders(case: Case) -> dict[str, Callable[[Asked], Contender]]:
    """The peer first, what counts as ours last."""
    if not case.beams:
        return {PEER: peer_step, OURS: our_step}
    from shared import gpu_decoding as answering

    return {GENERATE: answering.transformers, LAUNCHED: answering.launched, RECORDED: answering.recorded}


def kernels(step: Callable[[], object], device: str) -> tuple[list[tuple[str, float]], list[str]]:
    """The kernels (on a CPU: operators) of a step with the largest shares of its time; names of those for attention."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as found:
        step()
        _wait(device)
    times: dict[str, float] = {}
    for event in found.key_averages():
        took = event.self_device_time_total if cuda else event.self_cpu_time_total
        if took > 0:
            times[event.key] = times.get(event.key, 0.0) + took
    total = sum(times.values()) or 1.0
    ranked = sorted(times, key=lambda name: -times[name])
    return [(name, times[name] / total) for name in ranked[:6]], [name for name in ranked if ATTENTION.search(name)][:4]


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def held(device: str) -> float:
    """Megabytes: of the GPU's allocator at most, of a process on the CPU at most."""
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def contender(name: str, asked: Asked, pipe: Connection) -> None:
    """A process: says what it is when it is ready; every message asks for a turn, the answer is seconds a step."""
    from t5study.ground.machine import use
    from t5study.train.work import peak

    use(asked.machine)
    device = asked.machine.device
    step, how = contenders(asked.case)[name](asked)
    for _ in range(3):
        said = step()
    _wait(device)
    began = time.perf_counter()
    step()
    _wait(device)
    steps = max(1, round(UNIT_S / (time.perf_counter() - began)))
    memory = held(device)
    top, attention = kernels(step, device)
    told = {"how": how(), "memory": memory, "top": top, "attention": attention, "said": said}
    pipe.send({**told, "peak": peak(asked.machine)})
    while pipe.recv():
        began = time.perf_counter()
        for _ in range(steps):
            step()
        _wait(device)
        pipe.send((time.perf_counter() - began) / steps)


def measured(asked: Asked, turns: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """What each contender says of itself; its seconds a step, turn by turn."""
    context = mp.get_context("spawn")
    pipes, processes, told = dict[str, Connection](), [], dict[str, Any]()
    for name in contenders(asked.case):
        pipes[name], far = context.Pipe()
        processes.append(context.Process(target=contender, args=(name, asked, far), daemon=True))
        processes[-1].start()
        far.close()
        told[name] = pipes[name].recv()
    seconds = {name: list[float]() for name in pipes}
    for _ in range(turns):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    return told, seconds


def compare(name: str, asked: Asked, turns: int) -> bool:
    """Prints a case; whether it falls short of what it asks for."""
    from t5study.train.work import Work

    case = asked.case
    told, seconds = measured(asked, turns)
    peer = next(iter(seconds))
    top = max(one["peak"] for one in told.values())
    if case.beams:
        flops, tokens = 0.0, case.rows * case.target
        what = f"{case.target} new tokens, {case.beams} beam{'s' * (case.beams > 1)}"
    else:
        batch = batch_of(case)
        flops, tokens = Work(case.shape, "encoder_decoder").of(batch), batch.tokens
        what = f"{case.target}, {flops / 1e12:.3g} TFLOP a step; peak {top / 1e12:.3g} TFLOP/s"
    print(f"{name}: {case.rows} rows of {case.source} + {what}")
    used = ratio = 0.0
    for who, turns_s in seconds.items():
        step = statistics.median(turns_s)
        used = flops / step / top
        ratio = statistics.median(a / b for a, b in zip(seconds[peer], turns_s, strict=True))
        print(
            f"  {who:22} {step * 1e3:9.2f} ms {tokens / step:10,.0f} tokens/s {ratio:6.2f} x  "
            f"{_share(told, who, peer) if case.beams else f'{100 * used:4.0f} % of peak'} "
            f"{told[who]['memory']:9,.0f} MiB  {'how' if case.beams else 'attention'}: {told[who]['how']}"
        )
        print(f"    attention kernels: {', '.join(one[:60] for one in told[who]['attention']) or 'none by name'}")
        print(f"    most time: {', '.join(f'{one[:60]} {100 * share:.0f} %' for one, share in told[who]['top'])}")
    return ratio < case.least or used < case.least_used  # of the last, ours


def _share(told: dict[str, Any], who: str, peer: str) -> str:
    pairs = [
        (a, b) for x, y in zip(told[who]["said"], told[peer]["said"], strict=True) for a, b in zip(x, y, strict=True)
    ]
    return f"{100 * sum(a == b for a, b in pairs) / len(pairs):4.0f} % as the first"


def main(words: list[str]) -> int:
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    asked.add_argument("--turns", type=int, default=7)
    asked.add_argument("--rows", type=int, help="a step (default: by case)")
    asked.add_argument("--no-compile", action="store_true", help="of the peer")
    asked.add_argument("--tiny", action="store_true", help="on the CPU, at a tiny shape")
    args = asked.parse_args(words)
    if unknown := [name for name in args.cases if name not in CASES]:
        print(f"bench: found {unknown[0]!r}; give some of {', '.join(CASES)}", file=sys.stderr)
        return 2
    if args.tiny:
        tiny = [(name, Asked(case, Machine(), False)) for name, case in TINY_CASES.items()]
        print(f"{describe()}; a tiny shape on the CPU, fp32, the peer not compiled: its figures say nothing of a GPU")
        return int(any([compare(*case, min(args.turns, 2)) for case in tiny]))
    import torch

    if not torch.cuda.is_available():
        print("bench: torch sees no GPU here; give --tiny to run the same code on the CPU", file=sys.stderr)
        return 2
    machine = Machine(device="cuda", precision="bf16")
    print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}; {describe()}")
    failed = False
    for name in args.cases or CASES:
        case = CASES[name]
        if args.rows:
            case = replace(case, rows=args.rows)
        failed |= compare(name, Asked(case, machine, not args.no_compile), args.turns)
    return int(failed)


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    sys.exit(main(sys.argv[1:]))
