"""The floors: a room imports only from lower floors and in no circle, and `__init__.py` files are empty."""

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


@pytest.mark.parametrize(
    ("room", "line", "told"),
    [
        ("metrics", "from t5study import evaluate", "t5study.metrics.metric -> t5study.evaluate"),
        ("metrics", "from t5study.metrics import counts", ""),
        ("tasks", "def later():\n    from t5study.tasks import wmt", "- .task -> .wmt (1 import)"),
    ],
)
def test_a_room_that_looks_upstairs_or_a_circle_is_seen(tmp_path: Path, room: str, line: str, told: str):
    """The contracts are not empty: the same tree with one import too many breaks them."""
    shutil.copytree(ROOT / "t5study", tmp_path / "t5study", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / "t5study" / room / f"{room.removesuffix('s')}.py", "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = _lint(tmp_path)
    assert done.returncode == bool(told), done.stdout
    assert told in done.stdout


def test_init_files_are_empty():
    found = {path: path.stat().st_size for path in (ROOT / "t5study").rglob("__init__.py")}
    assert found
    assert not any(found.values()), found
