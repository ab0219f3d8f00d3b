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

import xxhash
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


def test_a_loop_with_parts_of_another_file_is_compiled_anew_when_they_change():
    """numba's cache looks at a loop's own file only, so that file holds the other's digest."""
    borrowed = {
        (module_of(part), outer.py_func.__module__)
        for outer in loops()
        for name in outer.py_func.__code__.co_names
        if module_of(part := outer.py_func.__globals__.get(name)) not in ("", outer.py_func.__module__)
    }
    assert len(borrowed) > 2
    for lender, borrower in borrowed:
        digest = xxhash.xxh3_64_hexdigest(source(lender).read_bytes())
        assert digest in source(borrower).read_text(), f"{borrower}: put {digest!r} where it has {lender}'s digest"


def module_of(part: object) -> str:
    """Of a compiled part: numba's own, a function in LLVM's language, or one that stands for several."""
    function = getattr(part, "py_func", None) or getattr(part, "_defn", None) or part
    module = getattr(function, "__module__", "")
    return module if module.startswith("t5study.") else ""


def source(module: str) -> Path:
    return Path(importlib.import_module(module).__file__ or "")


def test_a_process_that_compiles_the_loops_trains_to_the_same_bytes_as_one_that_loads_them(tmp_path: Path):
    environment = {
        **os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)
    }  # fmt: skip
    for name in ("compiles", "loads"):
        subprocess.run([sys.executable, "-c", _RUN, str(tmp_path / name)], env=environment, check=True)
        assert list((tmp_path / "cache").rglob("*adafactor*.nbc"))
    assert outcome(tmp_path / "loads") == outcome(tmp_path / "compiles")
