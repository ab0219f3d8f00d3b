"""Heads and columns among ranks: the run is the run on one rank, and it goes on on any other number of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rank_runs import OPTIMIZERS, SLICED, RankRuns, slice_of
from safetensors.torch import load_file
from tiny_run import RUN

from t5study.__main__ import main
from t5study.ground.errors import UserError
from t5study.ground.journal import read_journal
from t5study.ground.machine import AUTO
from t5study.model.architectures import build
from t5study.model.shapes import ARCHITECTURES, sliced
from t5study.train.checkpoint import FILES
from t5study.train.folder import step_folder
from t5study.train.parallel import ALONE, Ranks
from t5study.train.slices import CUT

STEPS = 20
SHAPE = {"heads": 4, "d_kv": 16}  # what four ranks may have a quarter of


@pytest.fixture(scope="module")
def runs() -> Iterator[RankRuns]:
    with RankRuns() as runs:
        yield runs


@pytest.mark.parametrize(
    ("world", "tensor", "architecture", "gated", "recompute"),
    [
        *((2, 2, architecture, False, False) for architecture in ARCHITECTURES),
        (4, 4, "encoder_decoder", True, False),
        (4, 2, "encoder_decoder", False, True),
    ],
)
def test_gradients_are_those_of_one_rank(
    runs: RankRuns, tmp_path: Path, world: int, tensor: int, architecture: str, gated: bool, recompute: bool
):
    """Every number, with dropout, adapters, a row a pass, and a row without targets. What is whole on every rank has
    the same bytes there."""
    how = {"architecture": architecture, "gated": gated, "recompute": recompute}
    assert runs.sliced(world, tmp_path / "step", tensor=tensor, **how) == [0] * world
    expected = slice_of(ALONE, tmp_path / "alone", **how)
    parts = [load_file(tmp_path / f"step.{rank}") for rank in range(world)]
    for part in parts:
        assert part.keys() == expected.keys()
        torch.testing.assert_close(part["told"], expected["told"], rtol=1e-6, atol=0)
        for name, grad in expected.items():
            torch.testing.assert_close(part[name], grad, rtol=1e-4, atol=5e-6 * float(grad.abs().max()), msg=name)
            assert torch.equal(part[name], parts[0][name]), name
    assert {name.rpartition(".")[2] for name in expected} - CUT.keys() == {"told", "embedding", "norm"} | (
        {"head"} if gated else set()
    )


@pytest.mark.parametrize("gated", [False, True])
def test_products_in_bf16_add_up(runs: RankRuns, tmp_path: Path, gated: bool):
    """Sums are of bf16 numbers there: gradients are off those of fp32 by at most twice what bf16 makes on one."""
    how: dict[str, Any] = {"gated": gated, "recompute": gated}
    assert runs.sliced(2, tmp_path / "step", tensor=2, precision="bf16", **how) == [0, 0]
    exact, alone = (slice_of(ALONE, tmp_path / f"in {name}", precision=name, **how) for name in ("fp32", "bf16"))
    found = load_file(tmp_path / "step.1")
    torch.testing.assert_close(found["told"][0], alone["told"][0], rtol=1e-3, atol=0)
    for name, grad in exact.items():
        off, usual = (float((one[name] - grad).norm()) for one in (found, alone))
        assert off < 2 * usual + 1e-3 * float(grad.norm()), name
    assert float((alone["encoder.bias"] - exact["encoder.bias"]).norm()) > 0


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(runs: RankRuns, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run on one rank, by optimiser."""
    folder = tmp_path_factory.mktemp("alone")
    for optimizer in OPTIMIZERS:
        assert runs.go(1, folder / optimizer, optimizer=optimizer, steps=STEPS, shape=SHAPE) == [0]
    return {optimizer: folder / optimizer for optimizer in OPTIMIZERS}


def journal(folder: Path, name: str) -> np.ndarray:
    return np.array([row[name] for row in read_journal(folder / "journal.jsonl")])


def same(found: Path, expected: Path, world: int, steps: int = STEPS) -> None:
    """Losses, norms, what the journal counts, and at the end the same weights on every rank."""
    for name, rtol in (("loss", 1e-6), ("grad_norm", 1e-5), ("tokens", 0), ("trainable", 0)):
        assert len(journal(found, name)) == steps
        np.testing.assert_allclose(journal(found, name), journal(expected, name), rtol=rtol)
    weights = {found.with_name(f"{found.name}.weights.{rank}").read_text() for rank in range(world)}
    assert len(weights) == 1


@pytest.mark.parametrize(
    ("optimizer", "world", "tensor", "micro_batch", "recompute"),
    [
        ("factored", 2, 2, 1, False),
        ("adamw", 4, 4, 0, False),
        ("factored", 4, 2, 0, False),
        pytest.param("adafactor", 4, 2, 1, True, marks=pytest.mark.slow),
        pytest.param("adamw", 2, 2, 1, False, marks=pytest.mark.slow),
        pytest.param("factored", 4, 4, 1, True, marks=pytest.mark.slow),
    ],
)
def test_slices_train_to_the_losses_of_one_rank(
    runs: RankRuns,
    alone: dict[str, Path],
    tmp_path: Path,
    optimizer: str,
    world: int,
    tensor: int,
    micro_batch: int,
    recompute: bool,
):
    """With dropout; a model in two or four slices, or two copies of two, which share out the rows."""
    how = {"optimizer": optimizer, "tensor": tensor, "micro_batch": micro_batch, "recompute": recompute}
    assert runs.go(world, tmp_path / "run", steps=STEPS, shape=SHAPE, **how) == [0] * world
    same(tmp_path / "run", alone[optimizer], world)


def test_a_micro_batch_is_found_for_slices(runs: RankRuns, tmp_path: Path):
    """By arithmetic, of a group's rows: no rank tries alone what all have to do together."""
    assert runs.go(4, tmp_path / "run", tensor=2, micro_batch=AUTO, steps=1) == [0] * 4
    found = json.loads((tmp_path / "run" / "machine.json").read_text())
    assert (found["rows"], found["micro_batch"], found["recompute"], found["measured"]) == (2, 2, False, None)


def test_adapters_are_tuned_in_slices(runs: RankRuns, tmp_path: Path):
    """What does not move has no gradient on any rank, and what moves is counted whole."""
    how = {"tuning": "adapters(24)", "steps": 5, "shape": {**SHAPE, "adapter": 24}, "optimizer": "adamw"}
    assert runs.go(1, tmp_path / "one", **how) == [0]
    assert runs.go(2, tmp_path / "two", tensor=2, **how) == [0, 0]
    same(tmp_path / "two", tmp_path / "one", 2, steps=5)


@pytest.mark.parametrize("optimizer", ["factored", pytest.param("adamw", marks=pytest.mark.slow)])
def test_a_run_goes_on_in_slices_and_out_of_them(
    runs: RankRuns, alone: dict[str, Path], tmp_path: Path, optimizer: str
):
    """Stopped in two slices and on one rank: it goes on on one rank, on two with all weights each, in shards, and in
    slices. What is held after the load, put together again, are the checkpoint's bytes."""
    run = {"steps": STEPS, "shape": SHAPE, "optimizer": optimizer}
    for begun, to in (
        ("slices", ((1, {}), (2, {}), (2, {"shard": 2}), (4, {"tensor": 4}))),
        ("one", ((4, {"tensor": 2}),)),
    ):
        first = tmp_path / begun
        world, how = (2, {"tensor": 2}) if begun == "slices" else (1, {})
        assert runs.go(world, first, stop_at=10, **how, **run) == [75] * world
        for world, how in to:
            words = f"{world} {''.join(how)}"
            folder = tmp_path / f"{begun} on {words}"
            shutil.copytree(first, folder)
            assert runs.loaded(world, folder, tmp_path / f"{begun} by {words}", **how, **run) == [0] * world
            for name in FILES[:2]:
                found = (tmp_path / f"{begun} by {words}" / name).read_bytes()
                assert found == (step_folder(first, 10) / name).read_bytes()
            assert runs.go(world, folder, **how, **run) == [0] * world
            same(folder, alone[optimizer], world)


def test_fresh_weights_are_made_in_slices(runs: RankRuns, tmp_path: Path):
    """Byte for byte those of one device; a run of weights that nobody had is the run, on the first rank in the end."""
    assert runs.fresh(2, tmp_path / "new", tensor=2) == [0, 0]
    parts = [load_file(tmp_path / f"new.{rank}") for rank in range(2)]
    for name, weight in build(RUN.shape, RUN.seed).named_parameters():
        along = CUT.get(name.rpartition(".")[2])
        made = parts[0][name] if along is None else torch.cat([part[name] for part in parts], along)
        assert torch.equal(made, weight.detach()), name
        assert along is not None or torch.equal(parts[1][name], made), name
    digests = {}
    for fresh in (True, False):
        folder = tmp_path / f"run {fresh}"
        assert runs.go(2, folder, tensor=2, fresh=fresh, steps=5) == [0, 0]
        digests[fresh] = [folder.with_name(f"{folder.name}.weights.{rank}").read_text() for rank in range(2)]
    first, second = digests[True]
    assert first == digests[False][0] != second


# --- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "how", "told"),
    [
        (2, {"shape": {"heads": 3}}, "tensor: found 2 ranks for a model of heads 3"),
        (4, {"rows": 3}, "run: rows: found 3 for 2 groups of 2 ranks; give rows that 2 divides"),
        (2, {"shard": True}, "machine: tensor: found 2 with shards among 2; leave one of them out"),
        (2, {"tuning": "unfreezing(2)"}, "machine: tensor: found gradual unfreezing, 2 episodes"),
        (2, {"weights": "bf16"}, "run: weights: found bf16 with tensor parallelism; leave one of them out"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(runs: RankRuns, tmp_path: Path, world: int, how: dict[str, Any], told: str):
    assert runs.go(world, tmp_path / "run", tensor=2, **how) == [2] * world
    for rank in range(world):
        (line,) = (tmp_path / f"run.{rank}.txt").read_text().splitlines()
        assert told in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rows", "3"], "--rows 3 with 2 groups of 2 ranks; give rows that 2 divides"),
        (["--rows", "4", "--micro-batch", "3"], "--micro-batch 3 and 2 groups of 2 ranks; give a micro-batch that "),
        (["--tensor", "3"], "--tensor 3 with 4 ranks; start as many by torchrun, or a multiple"),
    ],
)
def test_the_command_line_counts_in_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    asked = ["train", "pretrain", "--tokens", "x", "--vocab", "y", "--out", "z", "--tensor", "2", "--device", "cpu"]
    assert main([*asked, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_slices_are_equal():
    for name, shape in (("d_ff", {"d_ff": 130}), ("adapter", {"adapter": 26})):
        with pytest.raises(UserError, match=f"found 4 ranks for a model of {name}"):
            sliced(replace(SLICED, **shape), 4)
    for tensor in (1, 3, 8):
        with pytest.raises(UserError, match=f"tensor: found {tensor} for 4 ranks"):
            Ranks(0, 4, tensor=tensor)
    assert [Ranks(rank, 4, tensor=2).rows(8) for rank in (1, 2)] == [slice(0, 4), slice(4, 8)]
