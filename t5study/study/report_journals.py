"""Curves out of a study's journals: losses by step, scores by checkpoint; of several fine-tunings their mean."""

from __future__ import annotations

import math
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.journal import read_journal
from t5study.study.report_fields import REMEDY
from t5study.study.report_input import Run, Study


def journal(study: Study, folder: str | None, name: str = "journal.jsonl") -> list[dict[str, Any]]:
    """The rows of a run's journal, found in the store or where it is still being built; [] where there is none.
    UserError if it is damaged, or if the folder is not below store/."""
    if not folder:
        return []
    store = study.folder / "store"
    path = store / folder / name
    if not path.resolve().is_relative_to(store.resolve()):
        raise UserError(f"{study.folder / 'scores.json'}: found the folder {folder!r}, not below {store}; {REMEDY}")
    return read_journal(path) if path.is_file() else []


def losses(study: Study, run: Run, stage: str) -> list[tuple[float, float]]:
    """(step, nats a target token) of a run's "pretrain" or "finetune" stage; of several fine-tunings the mean, at the
    steps that all of them have."""
    folders = ((run.pretrain,) if run.pretrain else ()) if stage == "pretrain" else run.finetunes
    told = [
        {row["step"]: row["loss"] for row in journal(study, folder) if _finite(row.get("loss"))} for folder in folders
    ]
    steps = sorted(set.intersection(*map(set, told))) if told else []
    return [(step, math.fsum(found[step] for found in told) / len(told)) for step in steps]


def evaluations(study: Study, run: Run, kind: str) -> list[tuple[float, float]]:
    """(step, mean over tasks) at every checkpoint of fine-tuning: of the targets' nats ("likelihood") or of the
    tasks' metrics ("metric"). Checkpoints at which a task was not scored are left out."""
    scored: dict[float, dict[str, Any]] = {}
    for folder in run.finetunes:
        for row in journal(study, folder, "evaluations.jsonl"):
            scored.setdefault(row["step"], {}).update(row.get("tasks", {}))
    names = [task["name"] for task in study.tasks if task["name"] in _scored(study)]
    told = []
    for step, tasks in sorted(scored.items()):
        found = [tasks.get(name, {}) for name in names]
        if kind == "likelihood":
            values = [each.get("nats_per_token") for each in found]
        else:
            values = [each.get("metrics", {}).get(each.get("metric")) for each in found]
        if values and all(map(_finite, values)):
            told.append((step, math.fsum(values) / len(values)))
    return told


def _scored(study: Study) -> set[str]:
    """Names of the tasks that have scores: all, but for those of a benchmark that are only trained on."""
    if not study.benchmarks:
        return {task["name"] for task in study.tasks}
    return {name for one in study.benchmarks for group in one.groups for name in group}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
