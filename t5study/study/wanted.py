"""stages.json: what a study's commands are about, written down by its conductors so that others can look on.

A stage is a row there: its id, what it is called, and what it rests on. `certain`: all that was called for so far.
`likely`: what the rounds will come to as far as is known, which changes as they are decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.store import Store, read_json, write_json
from t5study.study.stages import Stage, needed, stage_id

STAGES = "stages.json"
PLAN = "plan.json"  # beside it: what they were promised to take (promised.py)
FORMAT = 1


@dataclass(frozen=True)
class Row:
    """A stage as far as people ask: id, label, kind, steps of training (0: none), work, and its parents' ids."""

    id: str
    label: str
    kind: str
    steps: int
    work: float
    parents: tuple[str, ...]


def note(
    out: Path, store: Store, certain: Mapping[str, Stage], likely: Sequence[Stage], workers: int, engine: str
) -> None:
    """Adds what is called for. likely: takes the place of what was, if there is any. workers, engine: of whoever asks
    last."""
    expected = {name: stage for name, stage in needed(likely).items() if name not in certain}
    with store.hold("stages", STAGES):
        before = _read(out) if (out / STAGES).exists() else {}
        found = {
            "format": FORMAT,
            "workers": workers,
            "engine": engine,
            "certain": list((_by_id(before.get("certain", ())) | _told(certain)).values()),
            "likely": list(_told(expected).values()) if likely else before.get("likely", []),
        }
        if found != before:
            write_json(out / STAGES, found)


def read(out: Path) -> tuple[list[Row], int, str]:
    """The stages of a study, parents first, how many workers it was last given, and which engine. UserError if there is
    no study."""
    if not out.is_dir():
        raise UserError(f"{out}: no such folder; give the --out of a `study run` or `study rounds`")
    if not (out / STAGES).exists():
        raise UserError(f"{out}: has no {STAGES}, so nothing was begun here; give its command again, which writes it")
    found = _read(out)
    every = _by_id([*found["certain"], *found["likely"]])
    rows = {
        name: Row(name, row["label"], row["kind"], row["steps"], row["work"], tuple(row["parents"]))
        for name, row in every.items()
    }
    return list(_ordered(rows).values()), found["workers"], found["engine"]


def _read(out: Path) -> dict[str, Any]:
    found = read_json(out / STAGES)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{out / STAGES}: found another format; delete it and give the study's command again")
    return found


def _by_id(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in rows}


def _told(stages: Mapping[str, Stage]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "id": name,
            "label": stage.label,
            "kind": stage.kind,
            "steps": stage.steps_of_training,
            "work": round(stage.work, 3),
            "parents": [stage_id(parent) for parent in stage.parents],
        }
        for name, stage in stages.items()
    }


def _ordered(rows: Mapping[str, Row]) -> dict[str, Row]:
    found: dict[str, Row] = {}

    def visit(row: Row) -> None:
        if row.id not in found:
            for parent in row.parents:
                if parent in rows:
                    visit(rows[parent])
            found[row.id] = row

    for row in rows.values():
        visit(row)
    return found
