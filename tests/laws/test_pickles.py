"""Nothing is unpickled: code that came with a file would run. Our own files are JSON, safetensors, parquet and npy."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "torch.jit.load", "dcp.load", "pd.read_pickle", "eval", "exec"}
# What jobs of a scheduler are sent by, to ourselves (study/jobs.py says who may write there); it is never read.
MAY = {"t5study/study/own.py": {"cloudpickle"}}


def found(path: Path) -> set[str]:
    """What a file imports of MODULES, and what it calls of CALLS."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {one.name.partition(".")[0] for one in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module.partition(".")[0]} & MODULES
        elif isinstance(node, ast.Call):
            names |= {ast.unparse(node.func)} & CALLS
        elif isinstance(node, ast.keyword) and node.arg in ("weights_only", "allow_pickle"):
            names |= {f"{node.arg}={ast.unparse(node.value)}"} & {"weights_only=False", "allow_pickle=True"}
    return names


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "t5study").rglob("*.py")))
def test_no_file_unpickles(path: str):
    assert found(ROOT / path) <= MAY.get(path, set())


def test_it_would_be_found(tmp_path: Path):
    (tmp_path / "bad.py").write_text(
        "import pickle\nx = torch.load(f, weights_only=False)\nnp.load(f, allow_pickle=True)\n"
    )
    assert found(tmp_path / "bad.py") == {"pickle", "torch.load", "weights_only=False", "allow_pickle=True"}
