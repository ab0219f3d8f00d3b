"""Addresses of tasks: "glue/cola" is tasks/glue.py, TASKS["cola"]; "my.tsv" is a file (files.py).

A module is a benchmark by lying here: nothing is registered.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path

from t5study.ground.errors import UserError
from t5study.tasks.files import SUFFIXES, task_from_file
from t5study.tasks.task import DATA, Factory, Task

MACHINERY = ("task", "files", "records", "sources", "pronouns", "hub", "benchmarks", "splits", "addresses")


def find(address: str, metric: str | None = None, data: Path | None = None) -> Task:
    """The task at an address. "pydocs/package" is tasks/pydocs.py, TASKS["package"]; anything else is a file's path
    (see tasks/files.py), and `metric` is for a file that names none. A module may have `other(name)` too: a factory
    for a name that TASKS cannot list (a pair of languages), or None.

    data: the folder of the benchmarks' files (else the environment variable T5STUDY_DATA says it). UserError if there
    is no such task, or a file that it is made of is missing.
    """
    module, _, name = address.partition("/")
    if module in _modules():
        found = importlib.import_module(f"t5study.tasks.{module}")
        factory: Factory | None = found.TASKS.get(name)
        if factory is None and hasattr(found, "other"):
            factory = found.other(name)
        if factory is not None:
            if data is None and (told := os.environ.get(DATA)):
                data = Path(told)
            return factory(data=data)
    if is_task_file(address):
        return task_from_file(Path(address), metric)
    raise UserError(
        f"task {address!r}: found neither a file nor a task of that name; "
        f"give a .jsonl or .tsv file, or one of {', '.join(names())}"
    )


def names() -> tuple[str, ...]:
    """Addresses of all built-in tasks."""
    tasks = {module: importlib.import_module(f"t5study.tasks.{module}").TASKS for module in _modules()}
    return tuple(f"{module}/{name}" for module, found in tasks.items() for name in found)


def _modules() -> tuple[str, ...]:
    """The files beside this one that hold tasks: all but the machinery."""
    here = [str(Path(__file__).parent)]
    return tuple(module.name for module in pkgutil.iter_modules(here) if module.name not in MACHINERY)


def is_task_file(address: str) -> bool:
    """Whether an address is meant as a file: it has such a name, or a file of that name exists."""
    return address.endswith(SUFFIXES) or Path(address).is_file()
