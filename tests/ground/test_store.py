"""The store: equal values share a folder, a folder is whole or absent, two processes build once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from t5study.ground.errors import UserError
from t5study.ground.fingerprint import canonical, fingerprint
from t5study.ground.store import Store, read_json, verify, whole_folder, write_manifest


@dataclass(frozen=True)
class Inner:
    rate: float
    span: float | None = None


@dataclass(frozen=True)
class Value:
    steps: int
    inner: Inner
    name: str = "a"
    where: str = field(default="", metadata={"fingerprint": False})


def test_equal_values_have_equal_fingerprints_however_they_were_typed():
    assert fingerprint(Value(3, Inner(1, 3))) == fingerprint(Value(3.0, Inner(1.0, 3.0)))  # type: ignore[arg-type]
    assert fingerprint(Value(3, Inner(1))) == fingerprint(Value(3, Inner(1), where="/elsewhere"))


@pytest.mark.parametrize(
    "other", [Value(4, Inner(1)), Value(3, Inner(1.5)), Value(3, Inner(1, 0)), Value(3, Inner(1), "b")]
)
def test_unequal_values_have_unequal_fingerprints(other: Value):
    assert fingerprint(other) != fingerprint(Value(3, Inner(1)))


def test_a_fraction_where_a_whole_number_is_declared_is_refused():
    with pytest.raises(ValueError, match="3.5"):
        fingerprint(Value(3.5, Inner(1)))  # type: ignore[arg-type]


def test_paths_and_machines_cannot_enter_a_fingerprint():
    with pytest.raises(TypeError, match="Path"):
        canonical({"folder": Path("x")})


def test_fingerprints_do_not_change_between_releases():
    assert fingerprint(Value(3, Inner(0.15, 3))) == "d4686824380b73d9878fa0c3434cfe5c"


def test_make_builds_once_and_keeps_a_manifest(tmp_path: Path):
    store, calls = Store(tmp_path), []

    def build(work: Path) -> None:
        calls.append(work)
        (work / "data.txt").write_text("x")

    first = store.make("stage", Value(1, Inner(1)), build, parents=["p"])
    assert store.make("stage", Value(1, Inner(1.0)), build) == first
    assert len(calls) == 1
    manifest = verify(first)
    assert manifest["parents"] == ["p"]
    assert manifest["files"]["data.txt"]["bytes"] == 1


def test_a_build_that_fails_leaves_nothing_under_the_final_name(tmp_path: Path):
    store = Store(tmp_path)

    def build(work: Path) -> None:
        (work / "half.txt").write_text("x")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        store.make("stage", Value(1, Inner(1)), build)
    assert not store.path("stage", Value(1, Inner(1))).exists()
    assert not store.has("stage", Value(1, Inner(1)))


def test_a_resumable_build_finds_what_it_left(tmp_path: Path):
    store = Store(tmp_path)

    def build(work: Path) -> None:
        if not (work / "first.txt").exists():
            (work / "first.txt").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make("stage", 1, build)
    assert (store.make("stage", 1, build) / "first.txt").read_text() == "x"


BUILDER = """
import os, sys
from pathlib import Path
from t5study.ground.store import Store
root, mode = Path(sys.argv[1]), sys.argv[2]
def build(work):
    with open(root / "builds.log", "a") as log:
        log.write("build\\n")
    (work / "a.txt").write_text("a" * 1000)
    print("building", flush=True)
    if mode == "hang":
        sys.stdin.read()  # until killed
    (work / "b.txt").write_text("b")
Store(root).make("stage", "value", build)
"""


def _start(root: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(root), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_killed_builder_frees_the_stage_and_leaves_nothing_half_written(tmp_path: Path):
    process = _start(tmp_path, "hang")
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = Store(tmp_path)
    assert not store.has("stage", "value")
    assert not store.path("stage", "value").exists()
    assert _start(tmp_path, "go").wait() == 0
    assert set(verify(store.path("stage", "value"))["files"]) == {"a.txt", "b.txt"}


def test_two_processes_at_once_build_once(tmp_path: Path):
    processes = [_start(tmp_path, "go") for _ in range(4)]
    assert [p.wait() for p in processes] == [0] * 4
    assert (tmp_path / "builds.log").read_text() == "build\n"


def test_whole_folder_appears_at_the_end_only(tmp_path: Path):
    with whole_folder(tmp_path / "out") as work:
        (work / "x").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "x").read_text() == "1"
    with pytest.raises(UserError, match="exists already"), whole_folder(tmp_path / "out"):
        pass
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "other") as work:
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_verify_names_the_damaged_file(tmp_path: Path, damage: str):
    (tmp_path / "weights.bin").write_bytes(bytes(range(200)))
    (tmp_path / "other.bin").write_bytes(b"fine")
    write_manifest(tmp_path)
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    if damage == "flip":
        content[77] ^= 4
        (tmp_path / "weights.bin").write_bytes(content)
    elif damage == "cut":
        (tmp_path / "weights.bin").write_bytes(content[:-1])
    else:
        (tmp_path / "weights.bin").unlink()
    with pytest.raises(UserError, match=r"weights\.bin"):
        verify(tmp_path)


def test_damaged_json_is_one_line_that_names_the_file(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"x\.json: found damaged JSON") as error:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(error.value)
