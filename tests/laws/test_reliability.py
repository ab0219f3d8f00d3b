"""The map of docs/reliability.md holds: every number of its list is there, and every test it names is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ITEMS = (*range(31, 41), *range(51, 69))  # bad input, of the pipeline, of checkpoints and of the command line
SETS = tuple(range(1, 21))  # what a run has to stand


def _rows(kind: str) -> dict[str, str]:
    """First cell -> row, of the table whose rows begin with such a cell."""
    lines = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines()
    return {found[1]: line for line in lines if (found := re.match(rf"\| ({kind})[ |]", line))}


@cache
def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def _named(row: str) -> list[tuple[Path, str]]:
    """The tests that a row names. A file without a folder is of tests/train, and what has no file is of the last."""
    found, path = [], Path()
    for file, function in re.findall(r"([\w/]+\.py)?::(\w+)", row):
        if file:
            path = ROOT / (file if file.startswith("tests/") else f"tests/train/{file}")
        found.append((path, function))
    return found


def test_every_number_is_there_once():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for kind, expected in ((r"\d+", [str(item) for item in ITEMS]), (r"R\d+", [f"R{number}" for number in SETS])):
        assert list(_rows(kind)) == expected
        assert len(re.findall(rf"^\| {kind}[ |]", text, re.MULTILINE)) == len(expected)


@pytest.mark.parametrize("item", [*map(str, ITEMS), *(f"R{number}" for number in SETS)])
def test_what_it_names_is_there(item: str):
    named = _named(_rows(item)[item])
    assert named
    for path, function in named:
        assert path.is_file(), path
        assert function in _functions(path), f"{path.name} has no {function}"
