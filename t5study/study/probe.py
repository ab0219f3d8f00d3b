"""The probe: what a step of training and a scored row take on this machine, from a few real ones on random tokens.

    probe(stages, machine, workers=2)      {key_of(stage): Speed}, each distinct kind of step once

A step is made as a run makes it: examples out of a source, packed, arranged, gradients, the optimiser. As many probes
go on side by side as the study would have workers, because they slow each other. What is common in the study comes
first; after `budget` seconds no further one is begun, and the estimate goes by FLOPs.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Hashable, Iterable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from t5study.ground.machine import Machine, die_with_parent, threads_of_children, use
from t5study.ground.pairs import Ids, Pair
from t5study.study.stages import Stage

BUDGET_S = 20.0
_STEP_FLOPS = {"cpu": 4e10, "cuda": 2e13}  # a larger step is cut to so much, and its time multiplied
_LARGEST = {"cpu": 1e8, "cuda": 1e11}  # numbers of a model; a larger one takes long to make and to move
_UNIT_S = 0.5  # steps of one kind are repeated for so long
_SCORED = 64  # rows


@dataclass(frozen=True)
class Speed:
    """Seconds on one worker while the others work too. step_s: of a step. row_s: of a row scored, 0 where none is.
    busy: seconds that pass for each that the processor works for us, 1 on a quiet machine; tried_s: of how many of them
    that is known. tokens: of a step, padding left out. peak: bytes of the process at most."""

    step_s: float
    row_s: float
    busy: float
    tokens: float
    peak: int
    tried_s: float


def key_of(stage: Any) -> Hashable:
    """What the time of a step depends on: two stages of one key are probed once."""
    names = ("objective", "shape", "architecture", "rows", "source_length", "target_length", "optimizer", "tuning")
    values = tuple(getattr(stage, name, None) for name in names)
    return (stage.kind, *values, bool(stage.dropout), bool(getattr(stage, "scoring", 0.0)))


def probe(stages: Iterable[Stage], machine: Machine, workers: int, budget: float = BUDGET_S) -> dict[Hashable, Speed]:
    """Speeds by `key_of`, of stages of training. Models that are too large to be tried, or that would not fit into
    memory, one in every worker, are left out, and those there was no time for: the most work comes first. Where loops
    have not been compiled yet, that comes on top."""
    work, first = dict[Hashable, float](), dict[Hashable, Stage]()
    for stage in stages:
        key = key_of(stage)
        work[key] = work.get(key, 0.0) + stage.work
        first.setdefault(key, stage)
    units = [first[key] for key in sorted(work, key=lambda key: -work[key]) if _fits(first[key], machine, workers)]
    if not units:
        return {}
    from t5study.study.gpus import gpus_here, turns

    context = multiprocessing.get_context("spawn")
    threads_of_children(machine.threads)
    turn, gpus = context.Value("i", 0), turns(gpus_here(), workers) if machine.device == "cuda" else ()
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(machine, gpus, turn)) as pool:
        until = time.time() + BUDGET_S
        _all(pool, _compiled, [units[0]] * workers, machine, until)
        until = time.time() + budget
        asked = units if len(units) >= workers else units * -(-workers // len(units))
        found = _all(pool, _unit, asked, machine, until)
    return {key_of(unit): speed for unit, speed in zip(asked, found, strict=True) if speed}


def _all(pool: Executor, what: Any, units: list[Stage], machine: Machine, until: float) -> list[Any]:
    """What comes of some units; None of those whose process died, as it does where memory runs out."""
    try:
        begun = [pool.submit(what, unit, machine, until) for unit in units]
    except BrokenExecutor:
        return [None] * len(units)
    wait(begun)
    return [None if _for_memory(one.exception()) else one.result() for one in begun]


def _for_memory(error: BaseException | None) -> bool:
    """Whether this is how it ends where there is too little memory, here or on a GPU."""
    return isinstance(error, BrokenExecutor | MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _fits(stage: Any, machine: Machine, workers: int) -> bool:
    import psutil

    from t5study.model.shapes import parameters

    numbers = parameters(stage.shape, stage.architecture)
    return numbers <= _LARGEST[machine.device] and 12 * numbers * workers < psutil.virtual_memory().available


# --- in a process of the pool -------------------------------------------------------------------------------------


def _begin(machine: Machine, gpus: tuple[str, ...], turn: Any) -> None:
    die_with_parent()
    take_turn(gpus, turn)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends them
    use(machine)


def take_turn(gpus: tuple[str, ...], turn: Any) -> None:
    """Sees the GPU that a worker of the study would, before anything has looked for one. turn: a counter that all
    processes share, of those that have begun."""
    if gpus:
        with turn.get_lock():
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[turn.value % len(gpus)]
            turn.value += 1


def _compiled(stage: Any, machine: Machine, until: float) -> None:
    """Loops and kernels are compiled once on a machine, and loaded once a process: no probe counts that."""
    _Trial(stage, machine).step()


def _unit(stage: Any, machine: Machine, until: float) -> Speed | None:
    if time.time() > until:
        return None
    trial = _Trial(stage, machine)
    trial.step()  # memory is asked for once
    wall, own, tokens = [], [], []
    began = time.perf_counter()
    while len(own) < 3 or (time.perf_counter() - began < _UNIT_S and len(own) < 200):
        clocks = time.perf_counter(), time.process_time()
        tokens.append(trial.step())
        wall.append(time.perf_counter() - clocks[0])
        own.append(time.process_time() - clocks[1])
        if wall[0] > 10:
            break
    # On a GPU the processor does not wait: what passes is what it takes.
    seconds = wall if machine.device == "cuda" else own
    busy = max(1.0, sum(wall) / max(sum(seconds), 1e-9))
    row = trial.row_seconds() if getattr(stage, "scoring", 0.0) else 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Speed(
        float(np.mean(seconds)) * trial.times, row, busy, float(np.mean(tokens)) * trial.times, peak, sum(seconds)
    )


class _Trial:
    """A stage's training on random tokens. times: what a step has to be multiplied by, where it was cut."""

    def __init__(self, stage: Any, machine: Machine):
        from t5study.feed.stream import Stream
        from t5study.model import architectures
        from t5study.model.shapes import flops
        from t5study.train.tuning import AllParameters, Movement, begin

        row = flops(stage.shape, stage.architecture, stage.source_length, stage.target_length)
        rows = max(1, min(stage.rows, int(_STEP_FLOPS[machine.device] / row)))
        self.stage, self.machine, self.times = stage, machine, stage.rows / rows
        self.chance, self.taken, self.position = np.random.default_rng(0), 0, 0
        tuning = getattr(stage, "tuning", None) or AllParameters()
        self.model = begin(tuning, architectures.build(stage.shape, 0, stage.architecture), 0)
        self.model.to(machine.device)
        self.movement = Movement(tuning, self.model, max(1, stage.steps_of_training))
        self.optimizer = self.movement.optimizer(stage.optimizer, 0)
        self.weights = list(self.model.parameters())
        self.stream = Stream(self._source(), rows, stage.source_length, stage.target_length)

    def step(self) -> int:
        """Makes one; returns its tokens."""
        from t5study.train.step import gradients

        batch, self.position = self.stream.batch(self.position)
        self.taken += 1
        stage = self.stage
        taken = gradients(
            self.model,
            self.weights,
            batch,
            self.taken,
            seed=0,
            dropout=stage.dropout,
            z_loss=stage.z_loss,
            machine=self.machine,
        )
        self.optimizer.step(0.0)
        return taken.tokens

    def row_seconds(self) -> float:
        """Of a row's likelihood and of its answer."""
        from t5study.decode import generate, weights
        from t5study.evaluate.parts import Parts
        from t5study.evaluate.scoring import likelihoods
        from t5study.ground.pairs import pad_rows

        pairs = self._pairs(_SCORED)
        source_RS, _ = pad_rows([pair.source for pair in pairs])
        longest = max(4, self.stage.target_length // 3)  # of the embedded tasks: 17 of 48 on average
        took = []
        for _ in range(2):  # the first compiles
            clocks = time.perf_counter(), time.process_time()
            likelihoods(self.model, pairs, len(pairs), Parts())
            generate.generate(weights.ready(self.model), source_RS, longest, batch_rows=len(pairs))
            took.append(
                time.perf_counter() - clocks[0] if self.machine.device == "cuda" else time.process_time() - clocks[1]
            )
        return took[-1] / len(pairs)

    def _source(self) -> Any:
        from t5study.feed.sources import DocumentSource, PairSource

        stage, ids = self.stage, Ids(self.stage.shape.table_rows)
        if objective := getattr(stage, "objective", None):
            lengths = objective.lengths(stage.source_length)
            size = 500  # tokens of a document: of C4's, on average
            tokens = self._ids(size * max(64, 4 * stage.rows))
            return DocumentSource(tokens, np.arange(0, len(tokens) + 1, size), objective, lengths, ids, 0)
        return PairSource(self._pairs(32 * stage.rows), 0, stage.source_length, stage.target_length)

    def _pairs(self, n: int) -> list[Pair]:
        """Rows of a task: 0.4 of what a row holds on average, and targets of a sixth, as the embedded tasks have."""
        stage = self.stage
        sources = self.chance.integers(max(2, stage.source_length // 8), max(3, 3 * stage.source_length // 4), n)
        return [Pair(self._ids(s), self._ids(min(stage.target_length, max(2, s // 6)))) for s in sources]

    def _ids(self, n: int) -> np.ndarray:
        return self.chance.integers(3, self.stage.shape.table_rows - 128, n).astype(np.int32)
