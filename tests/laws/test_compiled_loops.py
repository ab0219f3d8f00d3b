"""Runs are equal byte for byte, and so is the arithmetic of a process that compiles the loops to that of one that loads
them from numba's cache."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from numba.core.dispatcher import Dispatcher
from tiny_run import outcome

import t5study

# As wide as Adafactor needs to keep means of rows and columns, so that every loop of a step has a part.
_RUN = """
import sys
from dataclasses import replace
from pathlib import Path
from tiny_run import IDS, RUN, go
from t5study.model.shapes import Shape
go(Path(sys.argv[1]), replace(RUN, shape=Shape(128, 256, 32, 4, 1, 1, IDS.table_rows), steps=3, evaluate_every=0))
"""


def loops() -> Iterator[Dispatcher]:
    """Every compiled function of the package."""
    for module in pkgutil.walk_packages(t5study.__path__, "t5study."):
        if not module.name.endswith("__main__"):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, Dispatcher) and value.py_func.__module__ == module.name:
                    yield value


def test_a_loop_called_by_a_loop_is_inlined_into_it():
    called = {
        inner
        for outer in loops()
        for name in outer.py_func.__code__.co_names
        if isinstance(inner := outer.py_func.__globals__.get(name), Dispatcher)
    }
    assert len(called) > 10
    for inner in called:
        options = inner.targetoptions
        assert options.get("forceinline") or options.get("inline") == "always", inner.py_func


def test_a_process_that_compiles_the_loops_trains_to_the_same_bytes_as_one_that_loads_them(tmp_path: Path):
    environment = {
        **os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)
    }  # fmt: skip
    for name in ("compiles", "loads"):
        subprocess.run([sys.executable, "-c", _RUN, str(tmp_path / name)], env=environment, check=True)
        assert list((tmp_path / "cache").rglob("*adafactor*.nbc"))
    assert outcome(tmp_path / "loads") == outcome(tmp_path / "compiles")
