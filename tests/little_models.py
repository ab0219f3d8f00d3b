"""Shapes, models and batches that are small enough for tests and odd enough to catch mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from t5study.ground.pairs import EOS, Batch
from t5study.model.architectures import EncoderDecoder, Model, build
from t5study.model.released import save_released
from t5study.model.shapes import ARCHITECTURES, Shape, shape_of
from t5study.vocab import Vocab, train_vocab

SHAPES = {
    "v1.0": Shape(64, 160, 16, 4, 2, 3, 384),
    "v1.1": Shape(64, 96, 24, 3, 2, 2, 384, "gated_gelu", tied=False),
}

# Every architecture with either activation, tied and not; half of them with adapters, so that each activation and each
# kind of table has some.
FAMILY = {
    f"{architecture} {activation} {'tied' if tied else 'untied'}": (
        architecture,
        shape_of(architecture, Shape(64, 96, 16, 3, 2, 2, 384, activation, tied, 24 * (tied == gated))),
    )
    for architecture in ARCHITECTURES
    for gated, activation in enumerate(("relu", "gated_gelu"))
    for tied in (True, False)
}


def of_family(name: str, seed: int) -> Model:
    """With gains that are not 1."""
    architecture, shape = FAMILY[name]
    model = build(shape, seed, architecture)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm"):
                weight += torch.linspace(-0.3, 0.5, len(weight))
    return model


def talkative(shape: Shape, seed: int) -> EncoderDecoder:
    """A model whose greedy answers depend on the source, vary, and end at different lengths. (Fresh weights of a tied
    model repeat their own input for ever.)"""
    model = build(shape, seed)
    with torch.no_grad():
        for layer in model.decoder:
            for weight in (layer.attention.out, layer.cross.out, layer.feed.wo):
                weight *= 6
        (model.embedding if model.head is None else model.head)[EOS] *= 6
    return model


def random_pairs(
    rows: int, source: int, target: int, vocabulary: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of random lengths up to those given, at least one of them that long. Each ends in EOS."""
    random = np.random.default_rng(seed)

    def side(longest: int) -> list[np.ndarray]:
        lengths = random.integers(1, longest + 1, rows)
        lengths[0] = longest
        return [np.append(random.integers(3, vocabulary, n - 1), EOS).astype(np.int32) for n in lengths]

    return list(zip(side(source), side(target), strict=True))


def rows_of(groups: list[list[tuple[np.ndarray, np.ndarray]]], source: int, target: int) -> Batch:
    """Each group of pairs packed into one row of these lengths."""

    def side(which: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, segment, position = (np.zeros((len(groups), length), np.int32) for _ in range(3))
        for r, group in enumerate(groups):
            at = 0
            for s, pair in enumerate(group):
                end = at + len(pair[which])
                ids[r, at:end], segment[r, at:end] = pair[which], s + 1
                position[r, at:end] = np.arange(end - at)
                at = end
        return ids, segment, position

    return Batch(*side(0, source), *side(1, target))


def batch_of(rows: int, source: int, target: int, vocabulary: int = 900) -> Batch:
    """One random pair a row."""
    return rows_of([[pair] for pair in random_pairs(rows, source, target, vocabulary, seed=1)], source, target)


def fine_tuning(folder: Path) -> list[str]:
    """The words of a fine-tuning of a model on two own tasks, all of it in the folder; without --steps, --out and what
    else tells how long and how often."""
    texts = [f"say {('one', 'two', 'three')[i % 3]} of the little words that number {i * 7} has" for i in range(120)]
    train_vocab(texts, 90, folder / "v.model")
    model = build(Shape(32, 64, 16, 2, 2, 2, Vocab.load(folder / "v.model").ids.table_rows), 0)
    save_released(model, folder / "model", vocab_path=folder / "v.model")
    for name in ("first", "second"):
        lines = [{"input": text, "target": text.split()[1]} for text in texts]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["train", "finetune", "--checkpoint", str(folder / "model"), "--metric", "accuracy", "--device", "cpu"]
    words += ["--task", str(folder / "first.jsonl"), str(folder / "second.jsonl"), "--rows", "4"]
    return [*words, "--source-length", "32", "--target-length", "8", "--evaluation-rows", "8"]
