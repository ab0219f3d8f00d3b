"""Checkpoints in parts: not a bit of a number changes, any part's damage is found, a run goes on from any."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_run import RUN, Watched, make
from torch import Tensor

from t5study.__main__ import main
from t5study.ground.errors import Stopped, UserError
from t5study.ground.machine import Machine
from t5study.ground.store import MANIFEST, write_manifest
from t5study.train import checkpoint
from t5study.train.folder import alone, step_folder
from t5study.train.loop import train
from t5study.train.optim import Adafactor
from t5study.train.parts import cut, join, names, parts_of
from t5study.train.reshard import reshard


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped at step 8, with checkpoints of steps 5 and 8; Adafactor's means by row and column among its state."""
    folder = tmp_path_factory.mktemp("reshard") / "run"
    asked = replace(RUN, save_every=5, steps=12, optimizer=Adafactor(min_dim_to_factor=16))
    model, stream = make(asked)
    progress = Watched({8: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.raises(Stopped):
        train(asked, model, stream, folder, Machine(), progress=progress)
    assert checkpoint.steps(folder) == [8, 5]
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        t.dtype == two[name].dtype and t.shape == two[name].shape and t.numpy().tobytes() == two[name].numpy().tobytes()
        for name, t in one.items()
    )


# --- cutting ------------------------------------------------------------------------------------------------------


@given(rows=st.integers(0, 9), parts=st.integers(1, 7))
def test_rows_are_cut_as_ranks_keep_them(rows: int, parts: int):
    """torch.chunk's cut, with empty parts at the end; joined again it is what it was."""
    whole = {
        "a": torch.arange(rows * 3.0).view(rows, 3),
        "a/columns": torch.arange(3.0),
        "a/step": torch.tensor(4),
        "b": torch.arange(float(rows)),
    }
    found = cut(whole, parts)
    if rows:
        chunks = whole["a"].chunk(parts)
        assert all(torch.equal(part["a"], chunk) for part, chunk in zip(found, chunks, strict=False))
        assert all(len(part["a"]) == 0 for part in found[len(chunks) :])
    assert all(("a/columns" in part) == ("a/step" in part) == (part is found[0]) for part in found)
    assert same(join(found), whole)


def test_parts_that_do_not_fit_are_named():
    one, two = cut({"a": torch.ones(5, 3), "b": torch.ones(4)}, 2)
    for parts, told in (
        ([one, {"a": two["a"]}], None),  # b is now the first part's alone: whole, and of another shape
        ([{"a": one["a"]}, two], "b: found in 1 of 2 parts"),
        ([one, {**two, "a": two["a"].double()}], "a: found rows of several forms"),
        ([one, {**two, "a": two["a"].T.contiguous()}], "a: found rows of several forms"),
        ([one, {**two, "a": two["a"][:1]}], "a: found rows that are not cut"),
        ([two, one], "a: found rows that are not cut"),
    ):
        if told is None:
            assert join(parts)["b"].shape == (2,)
        else:
            with pytest.raises(ValueError, match=told):
                join(parts)


def test_parts_are_known_by_their_names():
    for parts in (1, 2, 12):
        files = [*names("model", parts), *names("optimizer", parts)]
        assert parts_of(files) == parts
        assert parts_of(files[1:]) == parts_of([*files, "x"]) == 0
    assert parts_of([]) == parts_of([*names("model", 2), *names("optimizer", 3)]) == 0


# --- the command --------------------------------------------------------------------------------------------------


def test_from_any_number_of_parts_to_any_other(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """1 to 3, to 2, to 1: the last is the first byte for byte, and each has all values."""
    before, folder = tree(run), run
    for ranks in (3, 2, 1):
        out = tmp_path / f"in {ranks}"
        assert main(["checkpoint", "reshard", str(folder), "--ranks", str(ranks), "--out", str(out)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
        for step in (5, 8):
            expected, found = checkpoint.read(run, step), checkpoint.read(out, step)
            assert same(found.weights, expected.weights)
            assert same(found.optimizer, expected.optimizer)
            assert checkpoint.verify(out, step).parts == ranks
            files = {path.name for path in step_folder(out, step).iterdir()}
            assert files == {*names("model", ranks), *names("optimizer", ranks), checkpoint.STATE, MANIFEST}
        folder = out
    assert main(["checkpoint", "verify", str(tmp_path / "in 3")]) == 0
    assert " MB in 3 parts, " in capsys.readouterr().out
    assert tree(tmp_path / "in 1") == tree(run) == before


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_damage_in_any_part_is_found_and_stays_behind(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "two"
    reshard(run, folder, 2)
    for name in (*names("model", 2), *names("optimizer", 2), checkpoint.STATE, MANIFEST):
        path = step_folder(folder, 8) / name
        kept = path.read_bytes()
        for damage in (None, kept[:-1], kept[:99] + bytes([kept[99] ^ 8]) + kept[100:]):
            path.unlink()
            if damage is not None:
                path.write_bytes(damage)
            with pytest.raises(checkpoint.Damaged, match=name):
                checkpoint.verify(folder, 8)
            path.write_bytes(kept)
    (step_folder(folder, 8) / names("model", 2)[1]).write_bytes(b"?")
    assert reshard(folder, tmp_path / "left", 1) == [5]
    assert "left behind" in capsys.readouterr().err
    assert not step_folder(tmp_path / "left", 8).exists()
    shutil.rmtree(step_folder(folder, 5))
    with pytest.raises(UserError, match="has no good checkpoint"):
        reshard(folder, tmp_path / "none", 1)
    assert not (tmp_path / "none").exists()


def test_parts_of_another_model_with_a_fitting_manifest_are_named(run: Path, tmp_path: Path):
    folder = tmp_path / "two"
    reshard(run, folder, 2)
    path = step_folder(folder, 8)
    weights = dict(make()[0].named_parameters())
    with pytest.raises(checkpoint.Damaged, match=r"model-00001-of-00002\.safetensors: x: missing"):
        checkpoint.read(folder, 8, {**weights, "x": torch.ones(1)})
    second = path / names("model", 2)[1]
    save_file({**load_file(second), "embedding": torch.ones(3, 64)}, second)
    (path / MANIFEST).unlink()
    write_manifest(path, step=8)
    checkpoint.seal(path / MANIFEST)
    with pytest.raises(checkpoint.Damaged, match=r"model-00001-of-00002\.safetensors: embedding: found rows that are"):
        checkpoint.read(folder, 8, weights)


def test_it_is_whole_or_not_at_all(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, write = tmp_path / "out", checkpoint.write

    def full(*args: object) -> None:
        write(*args)  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(UserError, match="could not be written to"):
        reshard(run, out, 2)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="are free; make room"):
        reshard(run, out, 2)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_done_is_told_in_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def told(*words: str) -> str:
        assert main(["checkpoint", "reshard", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    (tmp_path / "there").mkdir()
    assert "exists already" in told(str(run), "--ranks", "2", "--out", str(tmp_path / "there"))
    assert "lies in the run's own folder" in told(str(run), "--ranks", "2", "--out", str(run / "in"))
    assert "no run began here" in told(str(tmp_path), "--ranks", "2", "--out", str(tmp_path / "out"))
    with alone(run):
        assert "is training here" in told(str(run), "--ranks", "2", "--out", str(tmp_path / "out"))
    other = tmp_path / "other"
    shutil.copytree(run, other)
    content = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**content, "fingerprint": "?"}))
    assert "belongs to another run" in told(str(other), "--ranks", "2", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
