"""Greedy decoding beside transformers' generate on the same weights and sources, in one run.

    python bench/decoding.py [CASE ...]

One thread, fp32, every row says exactly as many tokens on both sides (EOS is made impossible), new tokens a second,
the encoder's time counted. Contenders take turns; the clock is the thread's processor time, since cores may be shared;
each figure is the median of its turns, the ratio the median of the turns' ratios. Answers are compared, too. Exits
with 1 if they differ, or if t5study is under 1.2 times transformers in any case that was asked for.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from t5study.decode import generate
from t5study.ground.machine import Machine, describe, use
from t5study.ground.pairs import EOS
from t5study.model.architectures import EncoderDecoder, build
from t5study.model.released import published
from t5study.model.shapes import Shape

TURNS, LEAST = 7, 1.2


@dataclass(frozen=True)
class Case:
    """rows of `source` tokens, each answered with `target` tokens."""

    shape: Shape
    rows: int
    source: int
    target: int


CASES = {
    "64 wide": Case(Shape(64, 256, 16, 4, 2, 2, 4096), 64, 64, 16),
    "128 wide": Case(Shape(128, 512, 32, 4, 2, 2, 4096), 64, 128, 32),
    "t5-small, 1 row": Case(Shape(512, 2048, 64, 8, 6, 6, 32_128), 1, 128, 32),
    "t5-small, 16 rows": Case(Shape(512, 2048, 64, 8, 6, 6, 32_128), 16, 128, 32),
}
USUAL = ("64 wide", "128 wide", "t5-small, 1 row")


def talkative(shape: Shape) -> EncoderDecoder:
    """Fresh weights whose answers vary with the source and never end."""
    model = build(shape, seed=0)
    with torch.no_grad():
        for layer in model.decoder:
            for weight in (layer.attention.out, layer.cross.out, layer.feed.wo):
                weight *= 6
        model.embedding[[0, EOS]] = 0
    return model


def peer_of(model: EncoderDecoder) -> T5ForConditionalGeneration:
    shape = model.shape
    config = T5Config(
        vocab_size=shape.table_rows, d_model=shape.d_model, d_kv=shape.d_kv, d_ff=shape.d_ff, num_heads=shape.heads,
        num_layers=shape.encoder_layers, num_decoder_layers=shape.decoder_layers, dropout_rate=0.0,
        decoder_start_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    peer = T5ForConditionalGeneration(config).eval()
    theirs = dict(peer.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            theirs[published(name)].copy_(weight)
    return peer


def contenders(case: Case) -> dict[str, Callable[[], np.ndarray]]:
    """Each answers all rows, (rows, target) ids."""
    model = talkative(case.shape)
    peer = peer_of(model)
    random = np.random.default_rng(0)
    source_NS = random.integers(3, case.shape.table_rows - 128, (case.rows, case.source)).astype(np.int32)
    source_NS[:, -1] = EOS
    ids_NS = torch.from_numpy(source_NS).long()
    seen_NS = torch.ones_like(ids_NS)

    def theirs() -> np.ndarray:
        with torch.no_grad():
            out = peer.generate(ids_NS, attention_mask=seen_NS, max_new_tokens=case.target, do_sample=False)
        return out[:, 1:].numpy()

    return {"transformers": theirs, "t5study": lambda: np.stack(generate.greedy(model, source_NS, case.target))}


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in CASES]:
        sys.exit(f"bench: found {unknown[0]!r}; give some of {', '.join(CASES)}")
    torch.set_num_threads(1)
    use(Machine())
    print(f"{describe()}; one thread, fp32; median of {TURNS} turns")
    failed = False
    for name in names or USUAL:
        case = CASES[name]
        runs = contenders(case)
        answers = [run() for run in runs.values()]
        same = np.array_equal(*answers)
        print(
            f"{name}: {case.rows} rows, {case.source} tokens -> {case.target}, answers {'equal' if same else 'DIFFER'}"
        )
        seconds: dict[str, list[float]] = {who: [] for who in runs}
        for _ in range(TURNS):
            for who, run in runs.items():
                start = time.thread_time()
                run()
                seconds[who].append(time.thread_time() - start)
        for who, turns in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(seconds["transformers"], turns, strict=True))
            print(f"  {who:14} {case.rows * case.target / statistics.median(turns):8,.0f} tokens/s  {ratio:5.2f} x")
            failed |= who == "t5study" and ratio < LEAST
        failed |= not same
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
