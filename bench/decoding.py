"""Generation beside transformers' and CTranslate2's on the same weights and sources, in one run.

    python bench/decoding.py [CASE ...] [--turns 3]

The shape is t5-small's, the weights are random, sources have 128 tokens, and every answer exactly 64 (EOS and padding
are made impossible): new tokens a second, the encoder's time counted. One thread and one process an engine, since
engines in one process disturb each other; they take turns, and the clock is the process's processor time, since cores
may be shared. Each figure is the median of its turns, each ratio the median of the turns' ratios to transformers.
Greedy answers are compared, too. Exits with 1 if the fp32 engines' answers differ, or if t5study is under 1.8 times
transformers or more than 10 % behind CTranslate2 at the same precision in any case that was asked for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from shared.engines import Workers, in_turns, on_one_thread, serve, started, talkative

ROWS = {"batch 1 greedy": (1, 1), "batch 1 beam 4": (1, 4), "batch 16 greedy": (16, 1), "batch 16 beam 4": (16, 4)}
ENGINES = ("transformers", "CTranslate2 fp32", "t5study fp32", "CTranslate2 int8", "t5study int8")
SOURCE, TARGET, LEAST, BEHIND = 128, 64, 1.8, 0.9


def sources(rows: int) -> np.ndarray:
    ids_NS = np.random.default_rng(0).integers(3, 32_000, (rows, SOURCE)).astype(np.int32)
    ids_NS[:, -1] = 1
    return ids_NS


def ours(precision: str) -> Callable[[np.ndarray, int], list[list[int]]]:
    from t5study.decode.generate import generate
    from t5study.decode.methods import Beam, Greedy
    from t5study.decode.weights import ready

    prepared = ready(talkative(), precision)

    def run(source_NS: np.ndarray, beams: int) -> list[list[int]]:
        answers = generate(prepared, source_NS, TARGET, Greedy() if beams == 1 else Beam(beams, 0.6))
        return [answer.ids.tolist() for answer in answers]

    return run


def transformers() -> Callable[[np.ndarray, int], list[list[int]]]:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from t5study.model.names import published

    model = talkative()
    shape = model.shape
    peer = T5ForConditionalGeneration(
        T5Config(
            vocab_size=shape.table_rows, d_model=shape.d_model, d_kv=shape.d_kv, d_ff=shape.d_ff,
            num_heads=shape.heads, num_layers=shape.encoder_layers, num_decoder_layers=shape.decoder_layers,
            dropout_rate=0.0, decoder_start_token_id=0,
        )
    ).eval()  # fmt: skip
    theirs = dict(peer.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            theirs[published(name)].copy_(weight)

    def run(source_NS: np.ndarray, beams: int) -> list[list[int]]:
        ids_NS = torch.from_numpy(source_NS).long()
        with torch.no_grad():
            said = peer.generate(
                ids_NS, attention_mask=torch.ones_like(ids_NS), max_new_tokens=TARGET, do_sample=False,
                num_beams=beams, length_penalty=0.6,
            )  # fmt: skip
        return said[:, 1:].tolist()

    return run


def ctranslate(folder: Path, precision: str) -> Callable[[np.ndarray, int], list[list[int]]]:
    import ctranslate2

    from t5study.model.ctranslate import spell
    from t5study.vocab import ByteVocab

    names = spell(ByteVocab(), 32_128)
    number = {name: i for i, name in enumerate(names)}
    engine = ctranslate2.Translator(str(folder), compute_type=precision, inter_threads=1, intra_threads=1)

    def run(source_NS: np.ndarray, beams: int) -> list[list[int]]:
        tokens = [[names[i] for i in row] for row in source_NS.tolist()]
        found = engine.translate_batch(tokens, beam_size=beams, max_decoding_length=TARGET, length_penalty=0.6)
        return [[number[name] for name in one.hypotheses[0]] for one in found]

    return run


def work(engine: str, folder: Path) -> None:
    """An engine's process: a case's numbers come in, answers go out."""
    import torch

    on_one_thread()
    name, precision = engine.rsplit(" ", 1) if " " in engine else (engine, "")
    precision = {"fp32": "float32"}.get(precision, precision)
    with torch.no_grad():
        run = {
            "transformers": transformers, "t5study": lambda: ours(precision),
            "CTranslate2": lambda: ctranslate(folder, precision),
        }[name]()  # fmt: skip
    serve(lambda rows, beams: {"said": run(sources(rows), beams)})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work[0], Path(asked.work[1]))
        return 0
    if unknown := [name for name in asked.cases if name not in ROWS]:
        parser.error(f"found {unknown[0]!r}; give some of {', '.join(ROWS)}")

    from t5study.ground.machine import describe
    from t5study.model.ctranslate import write_ctranslate
    from t5study.vocab import ByteVocab

    print(f"{describe()}; one thread, one process an engine; median of {asked.turns} turns, processor time", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        folder.mkdir()
        write_ctranslate(talkative(), folder, ByteVocab())
        with started(__file__, ENGINES, folder) as workers:
            return max(measured(name, workers, asked.turns) for name in asked.cases or ROWS)


def measured(name: str, workers: Workers, turns: int) -> int:
    rows, beams = ROWS[name]
    told, seconds = in_turns(workers, ROWS[name], turns)
    first = {engine: one["said"] for engine, one in told.items()}
    assert all(len(ids) == TARGET for said in first.values() for ids in said), "an answer of another length"
    print(name, flush=True)
    speed = {}
    for engine, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["transformers"], times, strict=True))
        speed[engine] = ratio
        pairs = zip(first[engine], first["transformers"], strict=True)
        same = np.mean([a == b for x, y in pairs for a, b in zip(x, y, strict=True)])
        per_second = rows * TARGET / statistics.median(times)
        print(
            f"  {engine:18} {per_second:7,.0f} tokens/s {ratio:6.2f} x   tokens as transformers {same:.1%}", flush=True
        )
    failed = speed["t5study fp32"] < LEAST
    failed |= any(speed[f"t5study {kind}"] < BEHIND * speed[f"CTranslate2 {kind}"] for kind in ("fp32", "int8"))
    return int(failed or (beams == 1 and first["t5study fp32"] != first["transformers"]))


if __name__ == "__main__":
    sys.exit(main())
