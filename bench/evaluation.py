"""Evaluation beside a plain loop over transformers on the same checkpoint and rows, in one run.

    python bench/evaluation.py [CASE ...] [--turns 3] [--rows 256]

The model has t5-small's shape and random weights and lies in a folder that both load. Sources have the lengths of
sentence pairs (8 to 160 tokens, most of them short), targets are labels of 2 to 5 tokens; an answer has exactly 8.
The peer is the loop that everybody writes: rows in the order of the file, 64 at a time, padded to the longest of the
batch, `generate`, and for the likelihood a forward pass with labels. Cases:

    answers       greedy answers alone
    both          answers and likelihood of the targets, which is what `evaluate` gives
    rank          rank classification over three labels, each a forward pass to the peer

Examples a second of processor time, one thread, one process an engine, engines taking turns; medians of the turns and
of the turns' ratios. Exits with 1 if the answers are not equal, if a likelihood differs by more than 1e-3 of itself, or
if t5study is under 1.5 times transformers in any case asked for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from shared.engines import Workers, in_turns, on_one_thread, serve, started, talkative

CASES = ("answers", "both", "rank")
ENGINES = ("transformers", "t5study")
BATCH, ANSWER, LEAST = 64, 8, 1.5
CHOICES = ((71, 1), (5021, 88, 1), (930, 14, 77, 201, 1))

Run = Callable[[str, int], tuple[list[list[int]], list[float]]]


def material(rows: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sources and targets: ids that end in EOS."""
    random = np.random.default_rng(0)
    lengths = np.clip(np.exp(random.normal(3.5, 0.6, rows)), 8, 160).astype(int)
    sources = [np.append(random.integers(3, 32_000, n - 1), 1).astype(np.int32) for n in lengths]
    return sources, [np.array(CHOICES[i % len(CHOICES)], np.int32) for i in range(rows)]


def save(folder: Path) -> None:
    """The model as a folder of Hugging Face."""
    from safetensors.torch import save_file

    from t5study.model.config import config_of
    from t5study.model.names import published

    model = talkative()
    weights = {published(name): weight.detach() for name, weight in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(model.shape, model.architecture)))


def ours(folder: Path) -> Run:
    from t5study.decode.methods import Greedy
    from t5study.evaluate.methods import Rank
    from t5study.evaluate.parts import Parts
    from t5study.evaluate.scoring import answers, likelihoods
    from t5study.ground.pairs import Pair
    from t5study.model.released import load_released
    from t5study.tasks.task import Rows, make_task

    model, _ = load_released(folder)

    class Ids:
        """Texts that are ids already: the bench is of models, not of vocabularies."""

        def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
            return [np.array(json.loads(text)[:-1], np.int32) for text in texts]

        def decode(self, ids: np.ndarray) -> str:
            return json.dumps(np.asarray(ids).tolist())

    labels = tuple(json.dumps(list(choice)) for choice in CHOICES)
    task = make_task("bench", Rows({}), metric="accuracy", labels=labels)

    def run(case: str, rows: int) -> tuple[list[list[int]], list[float]]:
        sources, targets = material(rows)
        pairs = [Pair(source, target) for source, target in zip(sources, targets, strict=True)]
        nats = likelihoods(model, pairs, BATCH, Parts())[0].tolist() if case == "both" else []
        method = Rank() if case == "rank" else Greedy()
        texts, _ = answers(model, Ids(), task, pairs, ANSWER, method, BATCH, Parts())  # type: ignore[arg-type]
        return [json.loads(text) for text in texts], nats

    return run


def transformers(folder: Path) -> Run:
    import torch
    from transformers import T5ForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()

    def padded(rows: list[np.ndarray], value: int) -> torch.Tensor:
        longest = max(map(len, rows))
        return torch.tensor([[*row.tolist(), *[value] * (longest - len(row))] for row in rows])

    def nats_of(ids: torch.Tensor, mask: torch.Tensor, targets: list[np.ndarray]) -> list[float]:
        labels = padded(targets, -100)
        logits = model(input_ids=ids, attention_mask=mask, labels=labels).logits
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return losses.sum(1).tolist()

    def run(case: str, rows: int) -> tuple[list[list[int]], list[float]]:
        sources, targets = material(rows)
        said, nats = [], []
        for first in range(0, rows, BATCH):
            ids = padded(sources[first : first + BATCH], 0)
            mask = (ids != 0).long()
            if case == "rank":
                each = [nats_of(ids, mask, [np.array(choice)] * len(ids)) for choice in CHOICES]
                said += [list(CHOICES[i]) for i in np.argmin(each, axis=0)]
                continue
            found = model.generate(ids, attention_mask=mask, max_new_tokens=ANSWER, do_sample=False)
            said += found[:, 1:].tolist()
            if case == "both":
                nats += nats_of(ids, mask, targets[first : first + BATCH])
        return said, nats

    def quietly(case: str, rows: int) -> tuple[list[list[int]], list[float]]:
        with torch.no_grad():
            return run(case, rows)

    return quietly


def work(engine: str, folder: Path) -> None:
    """An engine's process: cases come in, answers and likelihoods go out."""
    on_one_thread()
    run = {"transformers": transformers, "t5study": ours}[engine](folder)
    serve(lambda case, rows: dict(zip(("said", "nats"), run(case, rows), strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work[0], Path(asked.work[1]))
        return 0
    if unknown := [name for name in asked.cases if name not in CASES]:
        parser.error(f"found {unknown[0]!r}; give some of {', '.join(CASES)}")

    from t5study.ground.machine import describe

    print(f"{describe()}; one thread, one process an engine; median of {asked.turns} turns, processor time", flush=True)
    with tempfile.TemporaryDirectory() as place:
        save(Path(place))
        with started(__file__, ENGINES, Path(place)) as workers:
            return max(measured(case, workers, asked.rows, asked.turns) for case in asked.cases or CASES)


def measured(case: str, workers: Workers, rows: int, turns: int) -> int:
    first, seconds = in_turns(workers, (case, rows), turns)
    same = np.mean([a == b for a, b in zip(first["t5study"]["said"], first["transformers"]["said"], strict=True)])
    nats = [np.array(first[engine]["nats"]) for engine in ENGINES]
    apart = float(np.max(np.abs(nats[0] - nats[1]) / nats[0], initial=0))
    print(f"{case}: {same:.1%} of answers are equal, likelihoods within {apart:.0e}", flush=True)
    speed = 0.0
    for engine, times in seconds.items():
        speed = statistics.median(a / b for a, b in zip(seconds["transformers"], times, strict=True))
        print(f"  {engine:14} {rows / statistics.median(times):7.1f} examples/s {speed:6.2f} x", flush=True)
    return int(same < 1 or apart > 1e-3 or speed < LEAST)


if __name__ == "__main__":
    sys.exit(main())
