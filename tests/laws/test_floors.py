"""The floors: a room imports only from lower floors, and `__init__.py` files are empty."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _lint(cwd: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.exists():
        pytest.skip("import-linter is not installed here (extra: dev)")
    environment = {**os.environ, "PYTHONPATH": str(cwd)}
    return subprocess.run(
        [command, "--no-cache"], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_the_floors_are_kept():
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_room_that_looks_upstairs_is_seen(tmp_path: Path):
    """The contract is not empty: the same tree with one import too many breaks it."""
    shutil.copytree(ROOT / "t5study", tmp_path / "t5study", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / "t5study" / "metrics" / "metric.py", "a", encoding="utf-8") as file:
        file.write("\nfrom t5study import evaluate\n")
    done = _lint(tmp_path)
    assert done.returncode == 1
    assert "t5study.metrics.metric -> t5study.evaluate" in done.stdout


def test_init_files_are_empty():
    found = {path: path.stat().st_size for path in (ROOT / "t5study").rglob("__init__.py")}
    assert found
    assert not any(found.values()), found
