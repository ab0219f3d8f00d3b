"""Stages: pieces of work as frozen values, each with a folder of the store under its fingerprint.

A stage holds the stages before it, so its fingerprint says all that went into it. What two experiments share is one
value, and is done once. Where files lie, how often a run saves, and the machine are in none.

    stage_id(stage)          "pretrain/3f2a...c9": its folder in the store, and what tells stages apart
    needed([stage])          it and all that it needs, parents first
    build(stage, place)      makes it, if its parents are there
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from t5study.ground.fingerprint import fingerprint
from t5study.ground.machine import Machine
from t5study.ground.store import MANIFEST, Store, read_json, write_json
from t5study.study import builds

RESULT, COST = "result.json", "cost.json"
UNSIGNED: Any = {"fingerprint": False}  # metadata of a field that is in no fingerprint
IF_SET: Any = {"fingerprint": "if set"}  # of one that is in none at its default
_PREPARATION_S = 5.0


class Progress(Protocol):
    """Who is told how a stage is getting on."""

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where stages are built: the store they go to, the machine, and who is told. ranks: which of the processes that
    build one stage together this is (train/parallel.py); None if it builds it alone."""

    store: Store
    machine: Machine
    progress: Progress
    ranks: Any = None

    def folder(self, stage: Stage) -> Path:
        """The finished stage's folder."""
        return folder(self.store, stage)


class Stage:
    """One piece of work. kind: its shelf in the store."""

    kind: ClassVar[str]

    @property
    def label(self) -> str:
        """For people."""
        return self.kind

    @property
    def parents(self) -> tuple[Stage, ...]:
        """What must be in the store before."""
        return ()

    @property
    def steps_of_training(self) -> int:
        """0 if it is none."""
        return 0

    @property
    def work(self) -> float:
        """Seconds or so, on a core that nobody has measured: for what to begin with, and what part is done."""
        return _PREPARATION_S

    def build(self, work: Path, place: Place) -> None:
        """Fills the folder `work`, which may hold what a process that was killed had done."""
        raise NotImplementedError


@lru_cache(maxsize=1 << 14)
def stage_id(stage: Stage) -> str:
    """The stage's folder in the store, as text: what tells stages apart."""
    return f"{stage.kind}/{fingerprint(stage)}"


def folder(store: Store, stage: Stage) -> Path:
    """Where the stage lies in a store, or would lie."""
    return store.root / stage_id(stage)


def has(store: Store, stage: Stage) -> bool:
    """Whether the stage is in a store, whole."""
    return (folder(store, stage) / MANIFEST).is_file()


def needed(stages: Iterable[Stage]) -> dict[str, Stage]:
    """Stages with all that they need, each once, parents first, by their ids."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        name = stage_id(stage)
        if name not in found:
            for parent in stage.parents:
                visit(parent)
            found[name] = stage

    for stage in stages:
        visit(stage)
    return found


Build = Callable[["Stage", Path, Place], None]


def build(stage: Stage, place: Place, *, wait: bool = True, by: Build | None = None) -> Path:
    """Makes a stage whose parents are there, and notes what it cost (cost.json: seconds of wall-clock and of processor
    time, of the process that finished it and those it started, and the precision that these trained in; work that a
    killed process had done before is not in it). Another process that builds it is waited for, or Busy is raised. by:
    fills the folder, if not the stage itself does. What began and ended when is in the store's journals (builds.py)."""
    name, begun = stage_id(stage), False

    def timed(work: Path) -> None:
        nonlocal begun
        begun = True
        builds.note(place.store, name, "begun")
        began, before = time.monotonic(), sum(os.times()[:4])
        if by:
            by(stage, work, place)
        else:
            stage.build(work, place)
        cost = {"seconds": time.monotonic() - began, "processor_s": sum(os.times()[:4]) - before}
        told = {"precision": place.machine.precision} if stage.steps_of_training else {}
        write_json(work / COST, {name: round(seconds, 3) for name, seconds in cost.items()} | told)

    parents = [stage_id(parent) for parent in stage.parents]
    path = place.store.make(stage.kind, stage, timed, parents, wait=wait)
    if begun:
        builds.note(place.store, name, "done")
    return path


def result(store: Store, stage: Stage) -> dict[str, Any]:
    """The numbers of a finished stage."""
    return read_json(folder(store, stage) / RESULT)
