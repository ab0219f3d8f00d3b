"""The estimate: what stages will take, on this machine or on one that is described, and how long it is until all are
done.

    clock = clock_here(store, stages, machine, workers=2)      as such stages took in this store; else from a probe
    clock = clock_of(peak=312, utilisation=0.4)                of a device of so many TFLOP/s
    estimate(missing, goals, clock, workers=2)                 hours, FLOPs, memory, disk

A stage's seconds are those of one worker on a quiet machine. `busy` is how much longer the probe took because others
were at work here too; what is promised is both, since nobody knows how busy the machine will be.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from statistics import median
from typing import Any

from t5study.ground.machine import Machine
from t5study.ground.store import Store, read_json
from t5study.model.footprint import training
from t5study.model.shapes import flops, parameters
from t5study.study.conductor import urgency
from t5study.study.probe import BUDGET_S, Speed, key_of, probe
from t5study.study.stages import COST, Stage, folder, has, stage_id
from t5study.train.optim import AdamW

_START_S = 1.0  # of a stage: to build a model, read its data and write it down
WORKER_S = 5.0  # of a worker: to import everything
_USUAL_FLOPS_PER_S = 6e10  # of a core for which `work` of text and tasks is right; another is faster or slower
_IN_BF16 = 1.5  # times as many, of a core that multiplies bf16 itself; text and tasks are as fast as in fp32
_TELLING_FLOPS = 1e9  # of a step: in a smaller one a core does other things than multiply
_GUESSED = {"cpu": _USUAL_FLOPS_PER_S, "cuda": 5e13}  # FLOP/s, where nothing is known of a machine
_KEPT = 2  # checkpoints beside a run while it goes on


@dataclass(frozen=True)
class Clock:
    """seconds: of a stage, on one worker of a quiet machine. source: where that is from, for people. busy: by how much
    it is longer now. process: bytes of a worker as measured, 0 if nobody did. measure: which of a stage's costs they
    are to be compared with. precision: that training is timed in, "" of a machine that is described."""

    seconds: Callable[[Stage], float]
    source: str
    busy: float = 1.0
    process: int = 0
    measure: str = "seconds"
    precision: str = ""


@dataclass(frozen=True)
class Estimate:
    """seconds: until all is done, with the machine as busy as it is; quiet_s: on a quiet one. processor_s: of all
    workers together. flops: of training, rows taken as full. memory: bytes of a run's weights, gradients and optimiser.
    disk: bytes of the models that stay and the checkpoints of what runs."""

    stages: int
    seconds: float
    quiet_s: float
    processor_s: float
    flops: float
    tokens: int
    parameters: int
    memory: int
    disk: int


def estimate(missing: Mapping[str, Stage], goals: Iterable[str], clock: Clock, workers: int) -> Estimate:
    """Of stages that are not there, parents first. goals: ids of the last stages, those that are wanted."""
    trained = [stage for stage in missing.values() if _trains(stage)]
    memory = max(map(memory_of, trained), default=0)
    quiet = makespan(missing, goals, clock.seconds, workers) + WORKER_S * bool(missing)
    return Estimate(
        stages=len(missing),
        seconds=quiet * clock.busy,
        quiet_s=quiet,
        processor_s=sum(map(clock.seconds, missing.values())),
        flops=sum(map(flops_of, trained)),
        tokens=sum(map(tokens_of, missing.values())),
        parameters=max(map(parameters_of, trained), default=0),
        memory=memory,
        disk=sum(4 * parameters_of(stage) for stage in trained) + _KEPT * workers * memory,
    )


def makespan(
    missing: Mapping[str, Stage], goals: Iterable[str], seconds: Callable[[Stage], float], workers: int
) -> float:
    """Seconds until all is done if a free worker always takes what the conductor would give it."""
    order = urgency(dict(missing), goals)
    parents = {name: {stage_id(parent) for parent in missing[name].parents} & missing.keys() for name in missing}
    heirs = dict[str, list[str]]()
    for name, above in parents.items():
        for parent in above:
            heirs.setdefault(parent, []).append(name)
    ready = [(order[name], name) for name, above in parents.items() if not above]
    heapify(ready)
    under_way, now = list[tuple[float, str]](), 0.0
    while ready or under_way:
        while ready and len(under_way) < workers:
            name = heappop(ready)[1]
            heappush(under_way, (now + seconds(missing[name]), name))
        now = under_way[0][0]
        while under_way and under_way[0][0] == now:
            ended = heappop(under_way)[1]
            for name in heirs.get(ended, ()):
                parents[name].discard(ended)
                if not parents[name]:
                    heappush(ready, (order[name], name))
    return now


# --- by arithmetic ------------------------------------------------------------------------------------------------


def tokens_of(stage: Any) -> int:
    """Tokens a stage of training reads and writes at most: what its rows hold."""
    return stage.steps_of_training * stage.rows * (stage.source_length + stage.target_length) if _trains(stage) else 0


def flops_of(stage: Any) -> float:
    """FLOPs of a stage's training, its rows taken as full."""
    if not _trains(stage):
        return 0.0
    return stage.steps_of_training * stage.rows * _row(stage)


def parameters_of(stage: Any) -> int:
    return parameters(stage.shape, stage.architecture) if _trains(stage) else 0


def memory_of(stage: Any) -> int:
    """Bytes of the weights, gradients and optimiser of a run; what it computes with comes on top."""
    if not _trains(stage):
        return 0
    name = "AdamW, float32" if isinstance(stage.optimizer, AdamW) else "Adafactor, float32"
    return next(found for way, found in training(stage.shape, stage.architecture) if way.name == name)


def _trains(stage: Any) -> bool:
    """Whether it has steps of its own; an ensemble scores and has none."""
    return hasattr(stage, "steps")


def _row(stage: Any) -> int:
    return flops(stage.shape, stage.architecture, stage.source_length, stage.target_length)


# --- clocks -------------------------------------------------------------------------------------------------------


def clock_of(peak: float, utilisation: float) -> Clock:
    """Of a device of `peak` TFLOP/s, of which training uses a part. Scoring is what its stage says, in FLOPs of
    training; text and tasks are a processor's work and take what they take here."""

    def seconds(stage: Any) -> float:
        if members := getattr(stage, "members", ()):  # it scores as they do
            return stage.work / members[0].work * seconds(members[0])
        if not _trains(stage):
            return stage.work
        scored = getattr(stage, "scoring", 0.0) / stage.work
        return _START_S + flops_of(stage) / (1 - scored) / (peak * 1e12 * utilisation)

    return Clock(seconds, f"{peak:g} TFLOP/s a device, of which training uses {utilisation:.0%}")


def clock_here(
    store: Store, stages: Iterable[Stage], machine: Machine, workers: int, budget: float = BUDGET_S
) -> Clock:
    """As stages of the same kind of step took in this store (the median of them: the first one of a machine compiles
    loops too). Where there are none, from a probe of so many seconds; where that has no time left, by FLOPs from the
    stage known that is nearest."""
    measure = "seconds" if machine.device == "cuda" else "processor_s"
    took, like, left = dict[Hashable, list[float]](), dict[Hashable, Stage](), list[Stage]()
    busy = list[float]()
    for stage in stages:
        if has(store, stage):
            cost = read_json(folder(store, stage) / COST)
            if cost.get("precision", machine.precision) != machine.precision:
                continue  # it was built on another machine, of which it tells
            own = cost.get(measure, cost["seconds"])
            took.setdefault(_kind(stage), []).append(own / stage.work)
            like.setdefault(_kind(stage), stage)
            busy.append(max(1.0, cost["seconds"] / max(own, 1e-9)))
        else:
            left.append(stage)
    unknown = [stage for stage in left if _trains(stage) and _kind(stage) not in took]
    speeds = probe(unknown, machine, workers, budget) if unknown and budget else {}
    known: list[tuple[Any, Speed]] = [(stage, speeds[key_of(stage)]) for stage in unknown if key_of(stage) in speeds]
    steps = [(flops_of(stage) / stage.steps_of_training, speed.step_s) for stage, speed in known]
    reached = [work / step_s for work, step_s in steps if work >= _TELLING_FLOPS]
    usual = _GUESSED[machine.device] * (_IN_BF16 if (machine.device, machine.precision) == ("cpu", "bf16") else 1.0)
    core = usual / median(reached) if reached and machine.device == "cpu" else 1.0
    there: list[tuple[Any, float]] = [(stage, probed_seconds(stage, speed)) for stage, speed in known]
    there += [(stage, median(took[kind]) * stage.work) for kind, stage in like.items() if _trains(stage)]

    def seconds(stage: Any) -> float:
        if members := getattr(stage, "members", ()):  # it scores as they do
            return stage.work / members[0].work * seconds(members[0])
        if found := took.get(_kind(stage)):
            return median(found) * stage.work
        if not _trains(stage):
            return stage.work * core
        if speed := speeds.get(key_of(stage)):
            return probed_seconds(stage, speed)
        alike = [one for one in there if one[0].kind == stage.kind and one[0].architecture == stage.architecture]
        if near := min(alike or there, key=lambda one: abs(_row(one[0]) - _row(stage)), default=None):
            return near[1] * stage.work / near[0].work
        return _START_S + flops_of(stage) * stage.work / (stage.work - getattr(stage, "scoring", 0.0)) / usual

    if known:
        source = f"a probe of {len(speeds)} kinds of steps just now"
        tried = sum(speed.tried_s for _, speed in known)  # a short look at a busy machine tells little
        busy = [sum(speed.busy * speed.tried_s for _, speed in known) / tried]
        process = max(speed.peak for _, speed in known)
    else:
        source, process = ("as stages before took" if took else "guessed: no step was tried"), 0
    return Clock(seconds, source, median(busy or [1.0]), process, measure, machine.precision)


def probed_seconds(stage: Any, speed: Speed) -> float:
    """A stage's training and its scoring, from a step and a row."""
    rows = 0
    if getattr(stage, "scoring", 0.0) and speed.row_s:
        tasks = len(stage.scored or stage.tasks)
        rows = stage.steps_of_training // stage.evaluate_every * tasks * (stage.evaluation_rows or 1000)
    return _START_S + stage.steps_of_training * speed.step_s + rows * speed.row_s


def _kind(stage: Any) -> Hashable:
    return key_of(stage) if _trains(stage) else stage.kind
