"""Fine-tuning on two ranks is fine-tuning on one; the ways to spare memory go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from little_models import fine_tuning
from rank_runs import RankRuns
from safetensors.torch import load_file
from tiny_run import RUN, go, outcome

from t5study.ground.journal import read_journal
from t5study.ground.machine import Machine
from t5study.train.optim import Adafactor


@pytest.fixture(scope="module")
def runs() -> Iterator[RankRuns]:
    with RankRuns() as runs:
        yield runs


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a fine-tuning on two own tasks, without --out."""
    words = fine_tuning(tmp_path_factory.mktemp("given"))
    return [*words, "--steps", "6", "--evaluate-every", "3"]


def losses(folder: Path) -> np.ndarray:
    return np.array([row["loss"] for row in read_journal(folder / "journal.jsonl")])


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--shard", "--recompute", "--micro-batch", "1"),
        ("--tuning", "adapters(8)"),
        ("--tuning", "adapters(8)", "--tensor", "2"),
    ],
)
def test_two_ranks_fine_tune_as_one(runs: RankRuns, tuned: list[str], tmp_path: Path, more: tuple[str, ...]):
    """From a model's folder, on two tasks, with dropout: losses to 1e-6, evaluations, weights."""
    plain = [word for word in more if word.startswith(("--tuning", "adapters"))]
    assert runs.command(1, [*tuned, *plain, "--out", str(tmp_path / "one")], tmp_path / "first") == [0]
    assert runs.command(2, [*tuned, *more, "--out", str(tmp_path / "two")], tmp_path / "second") == [0, 0]
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-6)
    one, two = (read_journal(tmp_path / run / "evaluations.jsonl") for run in ("one", "two"))
    for found, expected in zip(two, one, strict=True):
        for task in ("first", "second"):
            assert found[task]["nats_per_token"] == pytest.approx(expected[task]["nats_per_token"], rel=1e-5)
            assert found[task]["metrics"] == expected[task]["metrics"]
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "second.1.txt").read_text() == ""  # the first rank alone speaks


def test_recompute_updates_in_the_backward_pass_and_bf16_weights_together(tmp_path: Path):
    """All three of the recipe at once: the same bytes as without the first, since a layer run again is the same layer;
    what is not bf16 goes the same way to a rounding's width; and the run learns."""
    run = replace(
        RUN, steps=12, evaluate_every=6, save_every=6, weights="bf16", optimizer=Adafactor(min_dim_to_factor=16)
    )
    summary = go(tmp_path / "all", run, Machine(streamed=True, recompute=True))
    go(tmp_path / "kept", run, Machine(streamed=True))
    assert outcome(tmp_path / "all") == outcome(tmp_path / "kept")
    assert summary["last_loss"] < summary["first_loss"] - 0.5
    plain = go(tmp_path / "plain", replace(run, weights="fp32"), Machine())
    assert summary["last_loss"] == pytest.approx(plain["last_loss"], rel=1e-2)
    saved = load_file(tmp_path / "all" / "checkpoints" / "step-000012" / "model.safetensors")
    kinds = {name: weight.dtype for name, weight in saved.items()}
    assert kinds["embedding"] == kinds["encoder.layers.0.feed.wi"] == torch.bfloat16
    assert kinds["encoder.norm"] == kinds["encoder.bias"] == torch.float32
