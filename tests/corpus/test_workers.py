"""A worker of a corpus that is killed: told in one line, and the same command ends in the bytes it would have had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from wet_pages import pages, write_shards

ROOT = Path(__file__).resolve().parents[2]


def run(words: list[str], kill: int = 0) -> tuple[int, str]:
    """A command's exit code and standard error. kill: which of its workers is killed, counted as they come."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "t5study", "corpus", *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while kill and process.poll() is None:
            if len(there := workers(process.pid)) >= kill:
                os.kill(there[kill - 1], signal.SIGKILL)
                break
        _, err = process.communicate()
    return process.returncode, err.decode()


def workers(pid: int) -> list[int]:
    """The processes that a command has spawned to work for it, the oldest first."""
    found = []
    for child in psutil.Process(pid).children():
        try:
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return sorted(found)


def content(folder: Path) -> dict[str, bytes]:
    names = ("documents.parquet", "corpus.json", "tokens.npy", "offsets.npy")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.mark.parametrize("which", [1, 2])
def test_a_worker_of_a_build_that_is_killed(tmp_path: Path, which: int):
    pattern = write_shards(tmp_path / "in", pages(120), 4)
    words = ["build", "--recipe", "own", "--skip", "language", "--input", pattern, "--workers", "2", "--out"]
    code, told = run([*words, str(tmp_path / "out")], kill=which)
    assert code == 2, told
    (line,) = [line for line in told.splitlines() if line.startswith("t5study: error: ")]
    assert "was killed, perhaps for want of memory; run the same command again with fewer --workers" in line
    assert not (tmp_path / "out").exists()
    assert run([*words, str(tmp_path / "out")])[0] == 0
    assert run([*words, str(tmp_path / "unbroken")])[0] == 0
    assert content(tmp_path / "out") == content(tmp_path / "unbroken")


def test_a_worker_that_makes_tokens_is_killed(tmp_path: Path):
    (tmp_path / "text.txt").write_text("\n\n".join(page.text for page in pages(200)))
    assert run(["build", "--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "corpus")])[0] == 0
    words = ["tokens", "--corpus", str(tmp_path / "corpus"), "--vocab", "bytes", "--workers", "2", "--out"]
    code, told = run([*words, str(tmp_path / "out")], kill=1)
    assert code == 2, told
    assert told.splitlines()[-1].startswith("t5study: error: tokens: a worker was killed")
    assert not (tmp_path / "out").exists()
    assert run([*words, str(tmp_path / "out")])[0] == 0
    assert run([*words[:-3], "--out", str(tmp_path / "alone")])[0] == 0
    assert content(tmp_path / "out") == content(tmp_path / "alone")
