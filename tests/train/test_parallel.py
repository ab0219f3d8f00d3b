"""A run on two or four ranks is the run on one: same losses, and it goes on on any other number of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import digest
from rank_runs import OPTIMIZERS, RankRuns, step_of
from safetensors.torch import load_file
from tiny_run import RUN, SHAPE, make

from t5study.__main__ import main
from t5study.ground.errors import UserError
from t5study.ground.journal import read_journal
from t5study.ground.machine import rank_here
from t5study.model.architectures import build
from t5study.model.shapes import ARCHITECTURES, shape_of
from t5study.train.checkpoint import FILES, steps
from t5study.train.folder import step_folder
from t5study.train.parallel import ALONE, Ranks
from t5study.train.parts import names
from t5study.train.reshard import reshard

STEPS, STOP = 24, 4  # twenty steps are still to be made where one of so many ranks is stopped


@pytest.fixture(scope="module")
def runs() -> Iterator[RankRuns]:
    with RankRuns() as runs:
        yield runs


@pytest.fixture(scope="module")
def alone(runs: RankRuns, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run on one rank, by optimiser."""
    folder = tmp_path_factory.mktemp("alone")
    for optimizer in OPTIMIZERS:
        assert runs.go(1, folder / optimizer, optimizer=optimizer, steps=STEPS) == [0]
    return {optimizer: folder / optimizer for optimizer in OPTIMIZERS}


def losses(folder: Path) -> np.ndarray:
    rows = read_journal(folder / "journal.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return np.array([row["loss"] for row in rows])


def weights(folder: Path, world: int) -> list[str]:
    return [folder.with_name(f"{folder.name}.weights.{rank}").read_text() for rank in range(world)]


@pytest.mark.parametrize(
    ("optimizer", "world", "micro_batch", "shard"),
    [
        ("adafactor", 2, 1, False),
        ("adamw", 4, 0, False),
        ("factored", 2, 1, True),
        ("adamw", 4, 0, True),
        ("factored", 4, 0, 2),
        *(
            pytest.param(optimizer, *how, marks=pytest.mark.slow)
            for optimizer, *how in (
                ("adafactor", 2, 0, False),
                ("adafactor", 4, 0, False),
                ("adamw", 2, 1, False),
                ("factored", 4, 0, True),
                ("adamw", 2, 1, True),
                ("adamw", 4, 1, 2),
            )
        ),
    ],
)
def test_ranks_train_to_the_losses_of_one(
    runs: RankRuns,
    alone: dict[str, Path],
    tmp_path: Path,
    optimizer: str,
    world: int,
    micro_batch: int,
    shard: bool | int,
):
    """With dropout, with micro-batches on each rank, with weights whole, in shards, or in two copies of two shards."""
    folder = tmp_path / "run"
    how = {"optimizer": optimizer, "micro_batch": micro_batch, "shard": shard}
    assert runs.go(world, folder, steps=STEPS, **how) == [0] * world
    np.testing.assert_allclose(losses(folder), losses(alone[optimizer]), rtol=1e-6)
    found, expected = (json.loads((one / "summary.json").read_text()) for one in (folder, alone[optimizer]))
    assert (found["tokens"], found["target_tokens"]) == (expected["tokens"], expected["target_tokens"])
    assert len(set(weights(folder, world))) == 1
    assert not (folder / ".lock").exists()


def test_copies_of_shards_go_on_as_shards_whole_and_alone(runs: RankRuns, alone: dict[str, Path], tmp_path: Path):
    """Two copies of two shards are stopped; four shards, two whole ranks and one go on, and the other way round."""
    begun = {}
    for name, world, shard in (("copies", 4, 2), ("one", 1, 0)):
        begun[name] = tmp_path / name
        assert runs.go(world, begun[name], stop_at=10, shard=shard, steps=STEPS) == [75] * world
    for name, world, shard in (("copies", 4, 4), ("copies", 2, 0), ("copies", 1, 0), ("one", 4, 2)):
        folder = tmp_path / f"{name} on {world} by {shard}"
        shutil.copytree(begun[name], folder)
        assert runs.go(world, folder, shard=shard, steps=STEPS) == [0] * world
        np.testing.assert_allclose(losses(folder), losses(alone["adafactor"]), rtol=1e-6)
        assert len(set(weights(folder, world))) == 1


def test_shards_are_of_equally_many_ranks():
    assert Ranks(0, 4, shard=2).shard == 2
    for shard in (1, 3, 8):
        with pytest.raises(UserError, match=f"shard: found {shard} for 4 ranks"):
            Ranks(0, 4, shard)


@pytest.mark.parametrize(("saved", "shard"), [(1, False), (2, False), (4, False), (2, True)])
def test_a_run_goes_on_on_any_number_of_ranks(
    runs: RankRuns, alone: dict[str, Path], tmp_path: Path, saved: int, shard: bool
):
    """A signal to one rank stops all of them at one step, from which 1, 2 and 4 go on; in shards too. What they hold
    after the load, gathered again, are the checkpoint's bytes; their batches are those of a stream read from its start.
    """
    begun = tmp_path / "begun"
    assert runs.go(saved, begun, stop_at=STOP, shard=shard, steps=STEPS) == [75] * saved
    assert steps(begun) == [STOP]
    for world in (1, 2, 4):
        folder = tmp_path / f"on {world}"
        shutil.copytree(begun, folder)
        assert runs.loaded(world, folder, tmp_path / f"held by {world}", shard=shard, steps=STEPS) == [0] * world
        for name in FILES[:2]:
            assert (tmp_path / f"held by {world}" / name).read_bytes() == (step_folder(begun, STOP) / name).read_bytes()
        ledger = tmp_path / f"ledger {world}"
        assert runs.go(world, folder, shard=shard, steps=STEPS, wrong={"ledger": str(ledger)}) == [0] * world
        np.testing.assert_allclose(losses(folder), losses(alone["adafactor"]), rtol=1e-6)
        assert len(set(weights(folder, world))) == 1
        assert [json.loads(line) for line in ledger.read_text().splitlines()] == batches()[STOP:]


def batches() -> list[list[Any]]:
    """Step and digest of its batch, of a stream that is read from its start."""
    stream, position, found = make()[1], 0, []
    for step in range(1, STEPS + 1):
        batch, position = stream.batch(position)
        found.append([step, digest(batch)])
    return found


def test_a_run_goes_on_from_parts_on_any_number_of_ranks(runs: RankRuns, alone: dict[str, Path], tmp_path: Path):
    """Stopped on one rank, its checkpoint cut for 2, 3 and 4: one rank, two, and two shards go on."""
    begun, how = tmp_path / "begun", {"steps": STEPS, "optimizer": "factored"}
    assert runs.go(1, begun, stop_at=STOP, **how) == [75]
    for ranks, world, shard in ((3, 1, 0), (4, 2, 0), (2, 2, 2)):
        folder = tmp_path / f"{ranks} parts"
        assert reshard(begun, folder, ranks) == [STOP]
        assert runs.go(world, folder, shard=shard, **how) == [0] * world
        np.testing.assert_allclose(losses(folder), losses(alone["factored"]), rtol=1e-6)
        assert len(set(weights(folder, world))) == 1


def test_a_part_has_what_a_rank_keeps(runs: RankRuns, alone: dict[str, Path], tmp_path: Path):
    """What FSDP2 cuts and what is cut here is the same, to the name and the row."""
    reshard(alone["factored"], tmp_path / "four", 4)
    parts = [load_file(step_folder(tmp_path / "four", STEPS) / name) for name in names("model", 4)]
    assert runs.fresh(4, tmp_path / "fresh", shard=4) == [0] * 4
    for rank, part in enumerate(parts):
        kept = load_file(tmp_path / f"fresh.{rank}")
        assert {name: t.shape for name, t in kept.items()} == {name: t.shape for name, t in part.items()}


@pytest.mark.parametrize(
    ("architecture", "world", "shard"), [("encoder_decoder", 4, False), *((name, 2, True) for name in ARCHITECTURES)]
)
def test_a_rank_whose_rows_have_no_targets_takes_part(
    runs: RankRuns, tmp_path: Path, architecture: str, world: int, shard: bool
):
    """A row a pass, and the third has nothing to learn. Every architecture, with adapters."""
    assert runs.gradients(world, tmp_path / "step", architecture=architecture, shard=shard) == [0] * world
    expected: dict[str, Any] = step_of(ALONE, architecture)
    for rank in range(world):
        found = json.loads((tmp_path / f"step.{rank}").read_text())
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert found["norm"] == pytest.approx(expected["norm"], rel=1e-5)
        assert found["grads"] == pytest.approx(expected["grads"], rel=1e-4)


@pytest.mark.parametrize(("world", "shard"), [(2, 2), (4, 4), (4, 2)])
def test_fresh_weights_are_made_in_shards(runs: RankRuns, tmp_path: Path, world: int, shard: int):
    """Byte for byte those of one device, each rank having made room for its own rows alone (at most a row more of each
    weight than its share)."""
    assert runs.fresh(world, tmp_path / "new", shard=shard) == [0] * world
    model = build(SHAPE, RUN.seed)
    whole = sum(weight.nbytes for weight in model.parameters())
    parts = [load_file(tmp_path / f"new.{rank}") for rank in range(world)]
    for name, weight in model.named_parameters():
        for first in range(0, world, shard):
            made = torch.cat([part[name] for part in parts[first : first + shard]])
            assert made.numpy().tobytes() == weight.detach().numpy().tobytes()
    row = sum(weight[0].nbytes for weight in model.parameters())
    for rank in range(world):
        room = json.loads((tmp_path / f"new.{rank}.json").read_text())
        assert sum(part.nbytes for part in parts[rank].values()) <= room <= whole / shard + row


def test_a_run_of_weights_that_nobody_had_is_the_run(runs: RankRuns, alone: dict[str, Path], tmp_path: Path):
    """Evaluated, saved, stopped and taken up by one rank; the model is in the end on the first rank alone."""
    how = {"fresh": True, "shard": True, "steps": STEPS}
    assert runs.go(2, tmp_path / "run", stop_at=10, **how) == [75, 75]
    assert runs.go(2, tmp_path / "run", **how) == [0, 0]
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone["adafactor"]), rtol=1e-6)
    found, expected = (read_journal(one / "evaluations.jsonl") for one in (tmp_path / "run", alone["adafactor"]))
    assert [row["sum"] for row in found] == pytest.approx([row["sum"] for row in expected], rel=1e-6)
    assert runs.go(2, tmp_path / "whole", shard=True, steps=STEPS) == [0, 0]
    first, second = weights(tmp_path / "run", 2)
    assert first == weights(tmp_path / "whole", 2)[0] != second


@pytest.mark.parametrize(("world", "shard"), [(2, 2), (4, 2)])
def test_layers_are_run_again_on_ranks(runs: RankRuns, alone: dict[str, Path], tmp_path: Path, world: int, shard: int):
    how = {"optimizer": "adamw", "shard": shard, "recompute": True, "micro_batch": 1, "steps": STEPS}
    assert runs.go(world, tmp_path / "run", **how) == [0] * world
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone["adamw"]), rtol=1e-6)


def test_what_the_first_rank_finds_wrong_ends_all(runs: RankRuns, alone: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(alone["adafactor"], folder)
    assert runs.go(2, folder, steps=STEPS + 1) == [2, 2]
    told = {folder.with_name(f"run.{rank}.txt").read_text() for rank in range(2)}
    assert len(told) == 1
    assert "holds another run (steps: 24 there, 25 asked for)" in told.pop()


def test_layers_unfreeze_on_ranks_but_not_in_shards(runs: RankRuns, tmp_path: Path):
    """The second layer's optimiser state begins at step 6; a rank that goes on at step 8 has it."""
    how = {"tuning": "unfreezing(2)", "steps": 10}
    assert runs.go(1, tmp_path / "one", **how) == [0]
    assert runs.go(2, tmp_path / "two", stop_at=8, **how) == [75, 75]
    assert runs.go(2, tmp_path / "two", **how) == [0, 0]
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-6)
    assert runs.go(2, tmp_path / "cut", shard=True, **how) == [2, 2]
    assert "found gradual unfreezing, 2 episodes" in (tmp_path / "cut.0.txt").read_text()


def test_the_command_line_on_two_ranks(runs: RankRuns, tmp_path: Path):
    """Writes one model, as one process does; rows that the ranks cannot share are told in one line."""
    (tmp_path / "text.txt").write_text("\n\n".join(f"document {i} says something about {i * 7}" for i in range(300)))
    text = ["--text", str(tmp_path / "text.txt")]
    assert main(["corpus", "build", *text, "--out", str(tmp_path / "corpus")]) == 0
    made = ["--vocab", "bytes", "--out", str(tmp_path / "tokens")]
    assert main(["corpus", "tokens", "--corpus", str(tmp_path / "corpus"), *made]) == 0
    words = ["train", "pretrain", "--tokens", str(tmp_path / "tokens"), "--vocab", "bytes", "--size", "pico"]
    words += ["--steps", "2", "--source-length", "32", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert runs.command(2, [*words, "--rows", "3"], tmp_path / "bad") == [2, 2]
    assert (tmp_path / "bad.0.txt").read_text().splitlines() == [
        "t5study: error: command line: found --rows 3 with 2 ranks; give rows that 2 divides, or other ranks"
    ]
    assert runs.command(2, [*words, "--rows", "4"], tmp_path / "good") == [0, 0]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    assert (tmp_path / "good.1.txt").read_text() == ""
    expected = load_file(tmp_path / "run" / "model" / "model.safetensors")
    for name, how in (("shards", ("--rows", "4", "--shard")), ("slices", ("--rows", "4", "--tensor", "2"))):
        words[-1] = str(tmp_path / name)
        assert runs.command(2, [*words, *how], tmp_path / f"{name} told") == [0, 0]
        found = load_file(tmp_path / name / "model" / "model.safetensors")
        for weight, value in expected.items():
            torch.testing.assert_close(found[weight], value, rtol=1e-4, atol=1e-5)
    words[-1] = str(tmp_path / "alone")
    assert runs.command(1, [*words, "--rows", "4", "--shard"], tmp_path / "one told") == [0]
    assert runs.command(2, [*words, "--rows", "4", "--shard", "4"], tmp_path / "four") == [2, 2]
    assert "found --shard 4 with 2 ranks; start as many by torchrun" in (tmp_path / "four.0.txt").read_text()


# --- without processes --------------------------------------------------------------------------------------------


def test_rows_are_shared_in_order_and_equally():
    assert [Ranks(rank, 4).rows(8) for rank in range(4)] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    with pytest.raises(UserError, match="found 6 for 4 ranks"):
        Ranks(0, 4).rows(6)


def test_alone_everything_is_what_it_was():
    tensor = torch.arange(3.0)
    assert ALONE.add(tensor) is tensor
    assert ALONE.rows(5) == slice(0, 5)
    assert (ALONE.most(7), ALONE.once(lambda: "x"), ALONE.first) == (7, "x", True)
    ALONE.share([tensor])
    ALONE.add_all([tensor])
    assert tensor.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("rank", "world", "found"),
    [(None, None, (0, 1)), ("3", "4", (3, 4)), ("4", "4", None), ("x", "4", None), ("-1", "2", None), ("0", "0", None)],
)
def test_ranks_are_what_torchrun_says(monkeypatch: pytest.MonkeyPatch, rank: Any, world: Any, found: Any):
    for name, value in (("RANK", rank), ("WORLD_SIZE", world)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    if found is None:
        with pytest.raises(UserError, match="start by torchrun"):
            rank_here()
    else:
        assert rank_here() == found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_labels_are_counted_without_arranging(architecture: str):
    model = build(shape_of(architecture, SHAPE), 3, architecture)
    batch, _ = make()[1].batch(0)
    assert model.labels(batch) == len(model.arrange(batch).learned)
