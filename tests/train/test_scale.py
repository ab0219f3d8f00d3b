"""Plans for many GPUs: their arithmetic against real steps, on ranks that are there and on hundreds that are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from little_models import rows_of
from live_bytes import Allocated
from rank_runs import RankRuns, spread_shape

from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS
from t5study.model import attention, loss
from t5study.model.architectures import build
from t5study.model.scale import CHUNK, KEEP, Layout, activations, memory, plan, traffic
from t5study.model.shapes import ARCHITECTURES, Shape, shape_of, size
from t5study.train.optim import in_bf16
from t5study.train.recompute import recomputed


@pytest.fixture(scope="module")
def runs() -> Iterator[RankRuns]:
    with RankRuns() as runs:
        yield runs


def held(runs: RankRuns, file: Path, there: int, layout: Layout, architecture: str = "encoder_decoder") -> None:
    """A step of this layout is made, on so many ranks, and takes what the plan says. Beside the optimiser's sums
    are those of loss and norm: a double of each rank and three more at most."""
    how = {"shard": layout.shard, "passes": layout.passes, "optimizer": layout.optimizer, "architecture": architecture}
    how |= {"tensor": layout.tensor}
    how |= {} if there == layout.ranks else {"made_up": layout.ranks}
    assert runs.traffic(there, file, **how) == [0] * there, file.with_name(f"{file.name}.0.txt").read_text()
    found = json.loads(file.with_name(f"{file.name}.0").read_text())
    shape = spread_shape(architecture)
    takes, moves = memory(shape, architecture, layout), traffic(shape, architecture, layout)
    assert [found[name] for name in ("weights", "gradients", "state")] == [takes.weights, takes.gradients, takes.state]
    reduced = moves.reduce + moves.layers
    assert [found[name] for name in ("gather", "scatter", "reduce")] == [moves.gather, moves.scatter, reduced]
    assert 0 <= found["sums"] - moves.sums <= 8 * (layout.ranks + 3)


@pytest.mark.parametrize(
    ("ranks", "shard", "passes", "optimizer"),
    [(2, 0, 1, "adafactor"), (2, 2, 2, "adamw"), (4, 4, 1, "adafactor"), (4, 2, 2, "adafactor")],
)
def test_real_ranks(runs: RankRuns, tmp_path: Path, ranks: int, shard: int, passes: int, optimizer: str):
    held(runs, tmp_path / "step", ranks, Layout(ranks, shard, 1, passes, optimizer=optimizer))


@pytest.mark.parametrize(("ranks", "shard"), [(8, 8), (64, 8), (512, 512), (512, 64)])
def test_ranks_that_are_not_there(runs: RankRuns, tmp_path: Path, ranks: int, shard: int):
    held(runs, tmp_path / "step", 1, Layout(ranks, shard, 1, 1))


@pytest.mark.parametrize(
    ("ranks", "there", "passes", "optimizer", "architecture"),
    [
        (2, 2, 2, "adamw", "encoder_decoder"),
        (4, 4, 1, "adafactor", "encoder_decoder"),
        (64, 1, 1, "adafactor", "shared_encoder_decoder"),
        (2, 1, 1, "adafactor", "language_model"),
    ],
)
def test_slices(runs: RankRuns, tmp_path: Path, ranks: int, there: int, passes: int, optimizer: str, architecture: str):
    layout = Layout(ranks, 0, 1, passes, 12, 8, optimizer=optimizer, compute=4, tensor=2)
    held(runs, tmp_path / "step", there, layout, architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
def test_every_architecture(runs: RankRuns, tmp_path: Path, architecture: str):
    held(runs, tmp_path / "step", 1, Layout(8, 4, 1, 1, optimizer="adamw"), architecture)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("architecture", ["encoder_decoder", "language_model"])
@pytest.mark.parametrize("gated", [False, True])
def test_activations_are_near(architecture: str, gated: bool, again: bool):
    """All that a second pass allocates at its worst moment beside gradients that are there, within an eighth; a
    fifth if layers are made again."""
    shape = Shape(128, 256, 32, 4, 4, 4, 1000, "gated_gelu", False) if gated else Shape(128, 512, 32, 4, 4, 4, 1000)
    shape, random, rows = shape_of(architecture, shape), np.random.default_rng(0), 16

    def tokens(n: int) -> np.ndarray:
        return np.append(random.integers(3, 900, n - 1), EOS).astype(np.int32)

    pairs = [[(tokens(96), tokens(48))] for _ in range(rows)]
    model, batch = build(shape, 3, architecture), rows_of(pairs, 96, 48)
    model.late = True
    for _ in range(2):
        with Allocated() as allocated, recomputed(model, again):
            model.loss_sum(model.arrange(batch)).total.backward()
    layout = Layout(1, 0, rows, 1, 96, 48, again, compute=4)
    expected = memory(shape, architecture, layout)
    assert allocated.peak == pytest.approx(expected.activations + expected.copies, rel=1 / 5 if again else 1 / 8)


@pytest.mark.parametrize("architecture", ["encoder_decoder", "shared_encoder_decoder", "language_model"])
@pytest.mark.parametrize("compute", [4, 2])
@pytest.mark.parametrize(
    ("d_model", "activation", "adapter"), [(96, "gated_gelu", 0), (64, "relu", 64), (64, "gated_gelu", 64)]
)
def test_copies_are_those_that_are_kept(architecture: str, compute: int, d_model: int, activation: str, adapter: int):
    """What a pass keeps for the backward pass and is of a weight's size, but no weight: also where d_ff, the width of
    all heads and d_model or an adapter are one number, so that sizes do not tell what a matrix is."""
    shape = shape_of(architecture, Shape(d_model, 64, 16, 4, 3, 3, 60, activation, tied=False, adapter=adapter))
    pair = tuple(np.array([5] * n + [EOS], dtype=np.int32) for n in (20, 12))
    model, batch = build(shape, 3, architecture), rows_of([[pair]], 22, 14)
    there, kept = {weight.data_ptr() for weight in model.parameters()}, dict[int, int]()

    def look(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 2 and min(tensor.shape) >= 64 and tensor.data_ptr() not in there:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=compute == 2),
    ):
        total = model.loss_sum(model.arrange(batch)).total
    assert sum(kept.values()) == memory(shape, architecture, Layout(1, 0, 1, compute=compute)).copies > 0
    del total


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bf16_is_of_matrices_but_not_of_bias_tables(architecture: str):
    """Also where an adapter's matrix is of a bias table's size."""
    shape = shape_of(architecture, Shape(32, 48, 8, 4, 2, 2, 60, adapter=4))
    model = build(shape, 3, architecture)
    in_bf16(model)
    weights = sum(weight.nbytes for weight in model.parameters())
    assert memory(shape, architecture, Layout(1, 0, 1, kept=2)).weights == weights


def test_it_knows_what_is_kept():
    assert (CHUNK, KEEP) == (loss.CHUNK, attention.KEEP)


def test_eleven_billion_on_many():
    """By hand: 11.3 G numbers of 4 bytes over 64; a layer of 134 M (feed) + 134 M (two attentions) numbers."""
    shape = size("11b")
    found = plan(shape, "encoder_decoder", Layout(64, 64, 4, recompute=True))
    assert found.memory.weights == pytest.approx(4 * shape.parameters / 64, rel=1e-3)
    assert found.memory.gradients == found.memory.weights
    table, layer = shape.table_rows * 1024, 2 * 1024 * 65536 + 2 * 4 * 1024 * 16384
    assert found.memory.together == pytest.approx(4 * (2 * table + 3 * layer), rel=1e-3)
    assert found.traffic.gather == pytest.approx(4 * (2 * shape.parameters - table), rel=1e-3)
    assert found.traffic.reduce == 0
    copies = plan(shape, "encoder_decoder", Layout(64, 8, 4, recompute=True))
    assert copies.memory.weights == pytest.approx(8 * found.memory.weights, rel=1e-3)
    assert copies.traffic.reduce == pytest.approx(4 * shape.parameters / 8, rel=1e-3)
    kept, again = (activations(shape, "encoder_decoder", Layout(1, 0, 32, recompute=a)) for a in (False, True))
    assert kept[0] > 40 * again[0]
    assert found.in_turn < found.overlapped


def test_three_billion_in_eight_slices():
    """By hand: an eighth of 2.82 G numbers beside the table; 24 layers' 4 sums of 2,048 tokens and 6 of 456, of 1,024
    numbers in bf16, and one of 2,048 in fp32; half as many again but the last where layers are run again. Of the
    products all but the softmax matrix's are an eighth."""
    shape = size("3b")
    found, alone = (plan(shape, "encoder_decoder", Layout(n, 0, 4, tensor=n * (n > 1))) for n in (8, 1))
    table = shape.table_rows * 1024
    assert found.memory.weights == pytest.approx(4 * (table + (shape.parameters - table) / 8), rel=1e-3)
    last = 4 * 2048 * 1024
    layers = 24 * (4 * 2048 + 6 * 456) * 1024 * 2
    assert (found.traffic.layers, found.traffic.reduce, found.traffic.gather) == (layers + last, 0, 0)
    again = plan(shape, "encoder_decoder", Layout(16, 0, 4, recompute=True, tensor=8))
    assert again.traffic.layers == layers * 3 / 2 + last
    assert again.traffic.reduce == again.memory.gradients == again.memory.weights
    head = 3 * 2 * 4 * 114 * table / (790e12 * 0.4)
    assert found.compute - head == pytest.approx((alone.compute - head) / 8, rel=1e-9)
    assert found.overlapped == pytest.approx(4 * 626 / found.compute)


def test_a_layout_that_cannot_be_is_told():
    with pytest.raises(UserError, match="tensor: found 3 for 8 ranks"):
        Layout(8, 0, 1, tensor=3)
    with pytest.raises(UserError, match="tensor: found 2 with shards among 4"):
        Layout(8, 4, 1, tensor=2)
    with pytest.raises(UserError, match="tensor: found 64 ranks for a model of heads 32"):
        memory(size("3b"), "encoder_decoder", Layout(64, 0, 1, tensor=64))
    with pytest.raises(UserError, match="shard: found 3 for 8 ranks"):
        Layout(8, 3, 1)
    assert replace(Layout(8, 4, 1), ranks=16).shard == 4
