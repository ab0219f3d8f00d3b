"""What a study's stages were promised to take, in plan.json, and how far off that was.

    promise = Promise(out, store, machine, workers)
    promise.note(stages)                  before they are run: those that are missing, each promised once
    told(out)                             by kind of stage and in all: promised, took, error

A promise stands: a study that is stopped and goes on keeps its first one. Where plan.json has it all, nothing is
probed and a study begins at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5study.ground.errors import UserError
from t5study.ground.journal import duration
from t5study.ground.machine import Machine, describe
from t5study.ground.store import Store, read_json, write_json
from t5study.study.probe import BUDGET_S
from t5study.study.stages import COST, Stage, has, needed, stage_id
from t5study.study.wanted import PLAN

if TYPE_CHECKING:
    from t5study.study.estimate import Clock, Estimate

FORMAT = 1
_PROBED = 0.01  # of a study, at most, before it begins
_ORDER = ("corpus", "vocabulary", "tokens", "tasks", "pretrain", "multitask", "finetune", "ensemble", "all")
_LEAST_S = 2.0  # a probe that may not take so long tells nothing


@dataclass(frozen=True)
class Kept:
    """Stages of a kind that were promised and are there. promised_s, took_s: seconds of all of them together."""

    kind: str
    stages: int
    promised_s: float
    took_s: float

    @property
    def error(self) -> float | None:
        """0.1: a tenth more was promised than they took. None of what took no second: that is only starting."""
        return self.promised_s / self.took_s - 1 if self.took_s >= 1 else None

    def line(self) -> str:
        """
        >>> Kept("pretrain", 2, 66.0, 60.0).line()
        'pretrain: 2 stages, promised 1 min 06 s, took 1 min 00 s, +10 %'
        """
        stages = f"{self.stages:,} stage{'s' * (self.stages != 1)}"
        off = "" if self.error is None else f", {self.error:+.0%}".replace("%", " %")
        return f"{self.kind}: {stages}, promised {duration(self.promised_s)}, took {duration(self.took_s)}{off}"


# --- plan.json ----------------------------------------------------------------------------------------------------


def read(out: Path) -> dict[str, Any]:
    """plan.json of a study's folder; {} if there is none, or none that can be read: it is made anew."""
    try:
        plan = read_json(Path(out) / PLAN)
    except (OSError, UserError):
        return {}
    good = isinstance(plan, dict) and plan.get("format") == FORMAT and isinstance(plan.get("stages"), dict)
    return plan if good else {}


def _of(plan: dict[str, Any], precision: str) -> dict[str, Any]:
    """A plan, if it is of that precision or does not say; else {}: it was made before its study was begun in another,
    or for another machine."""
    return plan if not precision or plan.get("precision", precision) == precision else {}


def write(
    out: Path, store: Store, missing: Mapping[str, Stage], clock: Clock, found: Estimate, where: str, workers: int
) -> None:
    """Promises what is missing, as a clock has it. What was promised before and is there since stays promised, if it is
    measured in the same way and precision."""
    before = _of(read(out), clock.precision)
    before = before if before.get("measure") == clock.measure else {}
    stands = {name: seconds for name, seconds in before.get("stages", {}).items() if (store.root / name).is_dir()}
    plan = {
        "format": FORMAT,
        "machine": where,
        "workers": workers,
        "measure": clock.measure,
        **({"precision": clock.precision} if clock.precision else {}),
        "sources": list(dict.fromkeys([*(before.get("sources", ()) if stands else ()), clock.source])),
        "busy": round(clock.busy, 3),
        "estimate": {name: round(value, 3) for name, value in asdict(found).items()},
        "stages": stands | {name: round(clock.seconds(stage), 3) for name, stage in missing.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / PLAN, plan)


class Promise:
    """The promises of a run. Where they are lacking, it is probed for a hundredth of what all is guessed to take, and
    not at all if that is too short to tell anything."""

    def __init__(self, out: Path, store: Store, machine: Machine, workers: int):
        self.out, self.store, self.machine, self.workers = Path(out), store, machine, workers
        self._clock: Clock | None = None

    def note(self, wanted: Iterable[Stage], expected: Iterable[Stage] = ()) -> None:
        """Promises the stages of some that are missing and not promised. expected: those that may come."""
        from t5study.study.estimate import clock_here, estimate  # `study status` needs none of what these need

        ends = list(wanted)
        stages = needed([*ends, *expected])
        missing = {name: stage for name, stage in stages.items() if not has(self.store, stage)}
        plan = _of(read(self.out), self.machine.precision)
        if missing.keys() <= plan.get("stages", {}).keys():
            return
        if self._clock is None:
            guessed = sum(stage.work for stage in missing.values()) / self.workers
            budget = min(BUDGET_S, _PROBED * guessed)
            budget = budget if budget >= _LEAST_S else 0.0
            if budget:
                print(f"study: tries a few steps, for {duration(budget)}: for {PLAN}", file=sys.stderr, flush=True)
            self._clock = clock_here(self.store, stages.values(), self.machine, self.workers, budget)
        clock = self._clock
        known = plan["stages"] if plan.get("measure") == clock.measure else {}
        standing = replace(clock, seconds=lambda stage: known.get(stage_id(stage), clock.seconds(stage)))
        found = estimate(missing, map(stage_id, ends), standing, self.workers)
        write(self.out, self.store, missing, standing, found, describe(), self.workers)


# --- afterwards ---------------------------------------------------------------------------------------------------


def kept(out: Path) -> list[Kept]:
    """What was promised of what is there, by kind of stage; the last is all of it. [] if nothing was."""
    plan, found = read(out), dict[str, Kept]()
    for name, seconds in plan.get("stages", {}).items():
        path = Path(out) / "store" / name / COST
        if path.is_file():
            cost = read_json(path)
            took = cost.get(plan["measure"], cost["seconds"])
            for kind in (name.partition("/")[0], "all"):
                old = found.get(kind, Kept(kind, 0, 0.0, 0.0))
                found[kind] = Kept(kind, old.stages + 1, old.promised_s + seconds, old.took_s + took)
    return sorted(found.values(), key=lambda one: _ORDER.index(one.kind) if one.kind in _ORDER else -1)


def lines(out: Path) -> list[str]:
    """The same for people; [] if nothing was promised, or nothing of it is there."""
    found = kept(out)
    return [f"what {PLAN} promised of what is there:", *(f"  {one.line()}" for one in found)] if found else []


def told(out: Path) -> dict[str, Any]:
    """The same for costs.json, under "estimate"; {} if nothing was promised."""
    if not (found := kept(out)):
        return {}
    plan = read(out)
    kinds = [asdict(one) | {"error": one.error} for one in found]
    rounded = [
        {name: round(value, 3) if isinstance(value, float) else value for name, value in one.items()} for one in kinds
    ]
    told = {name: plan[name] for name in ("machine", "workers", "measure", "sources", "busy")}
    return {"estimate": told | {"kinds": rounded[:-1], "all": rounded[-1]}}
