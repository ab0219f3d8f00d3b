"""Engines that fail to start, or lose a task: one line, and the build goes on later. Real processes, real ports."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from wet_pages import pages, write_shards

from t5study.corpus import engines
from t5study.corpus.engines import OnRay, reached
from t5study.corpus.recipe_build import build_recipe
from t5study.corpus.recipes import make_recipe
from t5study.ground.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not RAY, reason="ray is not installed")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def on_ray(tmp_path: Path, **environment: str) -> tuple[int, list[str]]:
    """A build by the command, and the lines of its complaint."""
    pattern = write_shards(tmp_path / "in", pages(20), 2)
    command = [sys.executable, "-m", "t5study", "corpus", "build", "--recipe", "own", "--skip", "language"]
    command += ["--input", pattern, "--out", str(tmp_path / "out"), "--engine", "ray"]
    here = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command, env={**here, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, timeout=200
    )
    assert not (tmp_path / "out").exists()
    return done.returncode, done.stderr.splitlines()


def test_an_address_where_nobody_listens():
    port = free_port()
    with pytest.raises(UserError, match=rf"--engine ray: nothing answers at 127.0.0.1:{port} \(.*refused") as error:
        reached(f"127.0.0.1:{port}")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="nothing answers at ray://127.0.0.1:"):
        reached(f"ray://127.0.0.1:{port}")
    with pytest.raises(UserError, match="nothing answers at a..b:1"):
        reached("a..b:1")


def test_an_address_where_somebody_listens_and_addresses_for_ray_to_find():
    with socket.create_server(("127.0.0.1", 0)) as one:
        reached(f"127.0.0.1:{one.getsockname()[1]}")
    for address in ("auto", "local", ""):
        reached(address)


@pytest.mark.skipif(RAY, reason="ray is installed")
def test_ray_is_not_installed(tmp_path: Path):
    code, lines = on_ray(tmp_path)
    assert code == 2
    assert lines == ["t5study: error: --engine ray: needs the package ray: pip install 't5study[ray]'"]


@needs_ray
def test_no_cluster_at_the_address(tmp_path: Path):
    code, lines = on_ray(tmp_path, RAY_ADDRESS=f"127.0.0.1:{free_port()}")
    assert code == 2
    assert len(lines) == 1
    assert "--engine ray: nothing answers at 127.0.0.1:" in lines[0]


@needs_ray
def test_a_cluster_of_ones_own_that_cannot_start(tmp_path: Path):
    """Its folder of sessions would have to be inside a file."""
    (tmp_path / "file").write_text("")
    code, lines = on_ray(tmp_path, RAY_TMPDIR=str(tmp_path / "file"))
    assert code == 2
    assert len(lines) == 1
    assert "--engine ray: none could be started on this machine (" in lines[0]


@needs_ray
@pytest.mark.slow
def test_a_task_whose_processes_are_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ray tries it four times; then it is one line, and the build can be gone on with."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    pattern, whole = write_shards(tmp_path / "in", pages(20), 2), engines._answered

    def dying(job: object, stage: str, number: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    recipe = make_recipe("own", "paper", skip=["language"])
    monkeypatch.setattr(engines, "_answered", dying)
    with pytest.raises(UserError, match=r"--engine ray: a task of the stage read was lost \(.*run the same") as error:
        build_recipe(recipe, [pattern], tmp_path / "out", OnRay(1))
    assert "\n" not in str(error.value)
    monkeypatch.setattr(engines, "_answered", whole)
    assert build_recipe(recipe, [pattern], tmp_path / "out", OnRay(1))["pages read"] == 20
