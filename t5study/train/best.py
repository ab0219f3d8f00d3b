"""The best checkpoint of every task, kept: in a run on several tasks each has its own (paper, section 3.1.2).

OUT/
  best.json           {"glue/cola": {"step": 500, "value": 31.2, "model": "best/0000500"}, ...}
  best/0000500/       a model folder; one that is the best of several tasks lies there once

What is kept follows from the run's evaluations and the weights at hand, so a run that was interrupted keeps the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from t5study.ground.journal import read_journal
from t5study.ground.store import MANIFEST, read_json, write_json
from t5study.train.folder import EVALUATIONS

BEST, FOLDER = "best.json", "best"


def best_step(values: Mapping[int, float]) -> int:
    """The step of the highest value, the earliest of equals.

    >>> best_step({100: 51.0, 200: 53.5, 300: 53.5})
    200
    """
    return min(values, key=lambda step: (-values[step], step))


def keep_best(out: Path, step: int, values: Mapping[str, float], save: Callable[[Path], None]) -> None:
    """After an evaluation at `step`: saves the model if it is a task's best so far, and lets go of those that are no
    task's any more. values: each task's own metric. save(folder): writes the model as it is now; the folder is not
    there."""
    path = out / EVALUATIONS
    rows = read_journal(path) if path.exists() else []
    told = {name: {step: value} for name, value in values.items()}
    for row in rows:
        if row["step"] < step and (_folder(out, row["step"]) / MANIFEST).is_file():
            for name in values:
                told[name][row["step"]] = row[name]["metrics"][row[name]["metric"]]
    chosen = {name: best_step(found) for name, found in told.items()}
    if step in chosen.values():
        shutil.rmtree(_folder(out, step), ignore_errors=True)  # of a process that died after it had been written
        save(_folder(out, step))
    facts = {
        name: {"step": one, "value": told[name][one], "model": f"{FOLDER}/{_folder(out, one).name}"}
        for name, one in chosen.items()
    }
    if not (out / BEST).exists() or read_json(out / BEST) != facts:
        write_json(out / BEST, facts)
    for kept in (out / FOLDER).iterdir():
        if kept.name not in {_folder(out, one).name for one in chosen.values()}:
            shutil.rmtree(kept)


def read_best(out: Path) -> dict[str, Any]:
    """What best.json says; {} if nothing was evaluated."""
    return read_json(out / BEST) if (out / BEST).exists() else {}


def _folder(out: Path, step: int) -> Path:
    return out / FOLDER / f"{step:07d}"
