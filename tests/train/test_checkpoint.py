"""Checkpoints: whole or absent, every damage found before a number is used, nothing hostile gets anywhere."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from t5study.__main__ import main
from t5study.ground.errors import UserError
from t5study.ground.store import write_manifest
from t5study.train import checkpoint
from t5study.train.checkpoint import Checkpoint, Prefix, load_latest, save
from t5study.train.folder import claim, clean

WEIGHTS = {"a": torch.arange(12.0).view(3, 4), "b.c": torch.ones(5)}
OPTIMIZER = {"step": torch.tensor(3), "a/square": torch.full((3, 4), 0.5)}


def made(folder: Path, step: int, scale: float = 1.0, run: str = "run") -> Checkpoint:
    (folder / "journal.jsonl").write_text("".join(f'{{"step": {i + 1}}}\n' for i in range(step)))
    journals = {"journal.jsonl": Prefix.of(folder / "journal.jsonl")}
    weights = {name: tensor * scale for name, tensor in WEIGHTS.items()}
    return Checkpoint(step, step * 10, run, weights, {**OPTIMIZER, "step": torch.tensor(step)}, journals)


def latest(folder: Path, run: str = "run") -> Checkpoint | None:
    return load_latest(folder, run, WEIGHTS, lambda step: OPTIMIZER)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A run's folder with good checkpoints of steps 10 and 20."""
    for step in (10, 20):
        save(tmp_path, made(tmp_path, step, scale=step))
    return tmp_path


def newest(folder: Path) -> Path:
    return folder / "checkpoints" / "step-000020"


def seal(path: Path, step: int = 20) -> None:
    """Makes the manifest fit what is there, as somebody would who wants it to be read."""
    (path / "manifest.json").unlink()
    write_manifest(path, step=step)
    checkpoint.seal(path / "manifest.json")


def test_what_is_saved_is_loaded(two: Path):
    found = latest(two)
    assert found is not None
    assert (found.step, found.position, found.run) == (20, 200, "run")
    assert torch.equal(found.weights["a"], WEIGHTS["a"] * 20)
    assert torch.equal(found.optimizer["a/square"], OPTIMIZER["a/square"])
    assert latest(two / "elsewhere") is None


def test_two_are_kept_and_the_end_keeps_one(two: Path):
    save(two, made(two, 30))
    assert checkpoint.steps(two) == [30, 20]
    checkpoint.keep(two, 1, up_to=30)
    assert checkpoint.steps(two) == [30]


def test_equal_runs_have_equal_files(tmp_path: Path):
    names = ("one", "two")
    for name in names:
        (tmp_path / name).mkdir()
        save(tmp_path / name, made(tmp_path / name, 10), value={"a": 1})
    one, two = (tmp_path / name / "checkpoints" / "step-000010" for name in names)
    assert sorted(p.name for p in one.iterdir()) == sorted([*checkpoint.FILES, "manifest.json"])
    assert all((one / p.name).read_bytes() == p.read_bytes() for p in two.iterdir())


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*checkpoint.FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete", "zero a page", "swap", "folder", "pipe", "link"])
def test_damage_is_found_and_the_one_before_is_taken(
    two: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
):
    path = newest(two) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "zero a page":
        path.write_bytes(bytes(len(content)))
    elif damage == "swap":
        shutil.copy(two / "checkpoints" / "step-000010" / name, path)
        if path.read_bytes() == content:
            pytest.skip("this file is the same at both steps")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "link":
        path.symlink_to("/etc/passwd")
    found = latest(two)
    assert found is not None
    assert found.step == 10
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert name in err[0] or damage == "swap"
    assert err[1] == "t5study: going on from step 10"


def test_random_single_bit_flips_are_all_found(tmp_path: Path):
    save(tmp_path, made(tmp_path, 10))
    draw = random.Random(0)
    path = tmp_path / "checkpoints" / "step-000010"
    for _ in range(150):
        file = path / draw.choice((*checkpoint.FILES, "manifest.json"))
        good = file.read_bytes()
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        file.write_bytes(bad)
        with pytest.raises(UserError, match=file.name):
            latest(tmp_path)
        file.write_bytes(good)
    assert latest(tmp_path) is not None


def test_a_damaged_journal_damages_the_checkpoints_that_rely_on_it(two: Path):
    journal = two / "journal.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(content + b'{"step": 21}\n{"st')
    assert latest(two).step == 20  # type: ignore[union-attr]  # rows after it are the loop's to cut
    journal.write_bytes(content[:-1] + b" ")
    assert latest(two).step == 10  # type: ignore[union-attr]
    journal.unlink()
    with pytest.raises(UserError, match=r"journal\.jsonl: missing"):
        latest(two)


def test_all_damaged_is_one_line_and_nothing_is_deleted(two: Path):
    for step in ("10", "20"):
        (two / "checkpoints" / f"step-0000{step}" / "model.safetensors").write_bytes(b"?")
    with pytest.raises(UserError, match=r"step-000010/model\.safetensors: found 1 bytes.*delete") as error:
        latest(two)
    assert "\n" not in str(error.value)
    assert checkpoint.steps(two) == [20, 10]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(two: Path):
    (newest(two) / "model.safetensors").write_bytes(b"?")
    assert latest(two).step == 10  # type: ignore[union-attr]
    save(two, made(two, 20, scale=7))
    found = latest(two)
    assert found is not None
    assert float(found.weights["b.c"][0]) == 7


def test_a_half_written_one_is_never_seen_and_cleaned_up(two: Path):
    leftover = two / "checkpoints" / ".step-000030.999999999.tmp"
    shutil.copytree(newest(two), leftover)
    assert latest(two).step == 20  # type: ignore[union-attr]
    clean(two)
    assert not leftover.exists()


# --- files that fit their digests and are wrong all the same ------------------------------------------------------


def rewrite(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path / "model.safetensors")


def framed(header: bytes, size: int) -> bytes:
    return len(header).to_bytes(8, "little") + header + b"8" * size


HOSTILE: dict[str, tuple[Any, str]] = {
    "missing": (lambda p: rewrite(p, {"a": WEIGHTS["a"]}), "b.c: missing"),
    "extra": (lambda p: rewrite(p, {**WEIGHTS, "z": torch.ones(1)}), "z: unknown"),
    "renamed": (lambda p: rewrite(p, {"A": WEIGHTS["a"], "b.c": WEIGHTS["b.c"]}), "A: unknown"),
    "transposed": (lambda p: rewrite(p, {**WEIGHTS, "a": WEIGHTS["a"].T.contiguous()}), r"a: found .*\(4, 3\)"),
    "other type": (lambda p: rewrite(p, {**WEIGHTS, "a": WEIGHTS["a"].half()}), "a: found torch.float16"),
    "nan": (lambda p: rewrite(p, {**WEIGHTS, "a": WEIGHTS["a"] * float("nan")}), "a: found numbers that are not"),
    "header of 2^63": (lambda p: (p / "model.safetensors").write_bytes(b"\0" * 7 + b"\x80" + b"x" * 90), "safetensors"),
    "shape lie": (
        lambda p: (p / "model.safetensors").write_bytes(
            framed(b'{"a":{"dtype":"F32","shape":[9,9],"data_offsets":[0,8]}}', 8)
        ),
        "safetensors",
    ),
    "overlap": (
        lambda p: (p / "model.safetensors").write_bytes(
            framed(
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                b'"b.c":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
                12,
            )
        ),
        "safetensors",
    ),
    "another optimiser's state": (
        lambda p: save_file({"a/exp_avg": WEIGHTS["a"]}, p / "optimizer.safetensors"),
        "optimizer.safetensors: a/",
    ),
    "deep json": (lambda p: (p / "state.json").write_text("[" * 100_000), "state.json: found damaged JSON"),
    "a list": (lambda p: (p / "state.json").write_text("[]"), "state.json: found a list"),
    "no position": (lambda p: edit(p, position=None), "state.json: lacks"),
    "another step": (lambda p: edit(p, step=19), "state.json: is not the state of step 20"),
    "a path": (lambda p: edit(p, journals={"../../secret": [1, ""]}), "relies on it"),
}


def edit(path: Path, **changes: Any) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, **changes}))


@pytest.mark.parametrize("case", HOSTILE)
def test_wrong_content_with_a_fitting_manifest_is_named_in_one_line(two: Path, case: str):
    shutil.rmtree(two / "checkpoints" / "step-000010")
    do, message = HOSTILE[case]
    do(newest(two))
    seal(newest(two))
    with pytest.raises(UserError, match=message) as error:
        latest(two)
    assert "\n" not in str(error.value)


class Bomb:
    def __reduce__(self) -> Any:
        return (os.system, ("touch exploded",))


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_pickles_are_never_run(two: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(two)
    (newest(two) / name).write_bytes(pickle.dumps(Bomb()))
    seal(newest(two))
    assert latest(two).step == 10  # type: ignore[union-attr]
    assert not (two / "exploded").exists()


def test_a_newer_format_and_another_run_are_errors_not_damage(two: Path):
    with pytest.raises(UserError, match="another run"):
        latest(two, run="other")
    edit(newest(two), format=checkpoint.FORMAT + 1)
    seal(newest(two))
    with pytest.raises(UserError, match="install a newer"):
        latest(two)


# --- files that change while they are read, or may not be read ------------------------------------------------------

OTHER = {
    "shorter": lambda content: content[:-8],
    "longer": lambda content: content + b"more",
    "other bytes": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "gone": None,
}


@pytest.mark.parametrize("change", OTHER)
@pytest.mark.parametrize("moment", ["before it is measured", "before it is read", "before it is used"])
def test_a_file_that_changes_while_it_is_loaded(
    two: Path, moment: str, change: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In place, between two calls of a load. What is used are the very bytes that were compared with their digest:
    either they are good, whatever became of the file, or the checkpoint is damaged and the one before is taken."""
    path = newest(two) / "model.safetensors"
    inode, where, name = (
        path.stat().st_ino,
        *{
            "before it is measured": (os, "fstat"),
            "before it is read": (checkpoint, "open"),
            "before it is used": (checkpoint.xxhash, "xxh3_128_hexdigest"),
        }[moment],
    )
    original, done = getattr(where, name, open), []

    def changing(*args: Any, **how: Any) -> Any:
        handle = args[0]
        ours = len(handle) > 64 and b"b.c" in handle if isinstance(handle, bytes) else os.stat(handle).st_ino == inode
        found = original(*args, **how) if isinstance(handle, bytes) else None  # of bytes: the digest is taken before
        if ours and not done:
            done.append(True)
            if (other := OTHER[change]) is None:
                path.unlink()
            else:
                with open(path, "r+b") as file:
                    content = other(file.read())
                    file.seek(0)
                    file.write(content)
                    file.truncate()
        return found if isinstance(handle, bytes) else original(*args, **how)

    monkeypatch.setattr(where, name, changing, raising=False)
    found = latest(two)
    assert done
    assert found is not None
    good = moment == "before it is used" or change == "gone"  # who has opened a file has it
    assert found.step == (20 if good else 10)
    assert torch.equal(found.weights["a"], WEIGHTS["a"] * found.step)
    assert ("model.safetensors: " in capsys.readouterr().err) == (not good)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root, who may read everything, becomes nobody; others are it already, where the rights are gone."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints",
        "checkpoints/step-000020",
        *(f"checkpoints/step-000020/{name}" for name in (*checkpoint.FILES, "manifest.json")),
        "journal.jsonl",
        "run.json",
    ],
)
def test_what_belongs_to_somebody_else_is_named_in_one_line(name: str, capsys: pytest.CaptureFixture[str]):
    """It is not damage, and it is not a folder without checkpoints, in which a run would begin anew."""
    with tempfile.TemporaryDirectory() as root:  # pytest's own are closed to others
        folder = Path(root) / "run"
        folder.mkdir()
        for step in (10, 20):
            save(folder, made(folder, step))
        (folder / "run.json").write_text('{"fingerprint": "run"}')
        for path in (folder.parent, folder, *folder.rglob("*")):
            path.chmod(0o755)  # safetensors' own are their owner's alone
        (folder / name).chmod(0)
        try:
            with somebody_else():
                assert main(["checkpoint", "verify", str(folder)]) == 2
                with pytest.raises(UserError, match=f"{name}.*: may not be read; give this user the right") as error:
                    latest(folder) if name != "run.json" else claim(folder, "run")
        finally:
            (folder / name).chmod(0o755)
    assert "\n" not in str(error.value)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name}" in line
    assert "may not be read" in line


# --- full disks ---------------------------------------------------------------------------------------------------

FULL = """
import sys, torch, resource
from pathlib import Path
from t5study.ground.errors import UserError
from t5study.train.checkpoint import Checkpoint, save
folder = Path(sys.argv[1])
big = {"a": torch.randn(200_000)}
save(folder, Checkpoint(10, 1, "run", big, {}, {}))
for limit in (0, 10, 4096, 799_999):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(folder, Checkpoint(20, 2, "run", big, {}, {}))
    except UserError as error:
        print(error)
"""


def test_a_write_that_hits_a_limit_keeps_the_checkpoint_before(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(str(tmp_path) in line and "could not be written to" in line for line in lines)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000010"]
    found = load_latest(tmp_path, "run", {"a": torch.zeros(200_000)}, lambda step: {})
    assert found is not None
    assert found.step == 10


def test_too_little_room_is_refused_before_anything_is_written(two: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(two)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    before = sorted(two.rglob("*"))
    with pytest.raises(UserError, match=r"need 0\.07 MB here and 0\.00 MB are free; make room"):
        save(two, made(two, 30))
    with pytest.raises(UserError, match="make room"):
        checkpoint.require_room_for_run(two, 10_000)
    assert sorted(two.rglob("*")) == before


def test_room_for_a_run_counts_what_lies_there_already(two: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(two)
    have = sum(p.stat().st_size for p in (two / "checkpoints").rglob("*") if p.is_file())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000 - have))
    checkpoint.require_room_for_run(two, 300_000)
    with pytest.raises(UserError):
        checkpoint.require_room_for_run(two, 330_000)
