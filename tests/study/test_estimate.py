"""What a study will take: the order of the conductor played through, costs out of a store, a described machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_study import Toy, put, toy_setting

from t5study.ground.machine import Machine
from t5study.ground.store import Store
from t5study.study.baseline import BASELINE
from t5study.study.estimate import clock_here, clock_of, estimate, flops_of, makespan, memory_of
from t5study.study.plans import unfold
from t5study.study.probe import key_of, probe
from t5study.study.stages import COST, Stage, folder, needed, stage_id
from t5study.study.training import Pretrain


def _span(stages: list[Toy], workers: int) -> float:
    every = needed(stages)
    return makespan(every, every, lambda stage: stage.work, workers)


def test_workers_take_what_the_conductor_would_give_them():
    text = Toy("text", weight=2.0)
    long, short = Toy("long", after=(text,), weight=5.0), Toy("short", after=(text,), weight=1.0)
    tuned = Toy("tuned", after=(short,), weight=3.0)
    assert _span([long, tuned], 1) == 11
    assert _span([long, tuned], 2) == 7  # text, then long beside short and tuned
    assert _span([long, tuned], 9) == 7  # no shorter than the longest way
    rows = Toy("rows", weight=4.0)
    assert _span([Toy("last", after=(text, rows), weight=1.0)], 2) == 5  # what others wait for


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 8)), min_size=1, max_size=9), st.integers(1, 4))
def test_no_schedule_is_shorter_than_its_longest_way_or_longer_than_all_in_a_row(drawn, workers):
    stages: list[Toy] = []
    for k, (weight, parent) in enumerate(drawn):
        stages.append(Toy(str(k), after=(stages[parent],) if parent < k else (), weight=float(weight)))

    def way(stage: Stage) -> float:
        return stage.work + max(map(way, stage.parents), default=0.0)

    total = sum(stage.work for stage in stages)
    assert max(total / workers, max(map(way, stages))) <= _span(stages, workers) + 1e-9
    # A list schedule: never a worker idle while there is something to begin.
    assert _span(stages, workers) <= total / workers + max(map(way, stages)) + 1e-9
    assert _span(stages, 1) == pytest.approx(total)


def test_what_is_there_says_what_is_missing_takes(tmp_path: Path):
    store, setting = Store(tmp_path / "store"), toy_setting()
    runs = [unfold(BASELINE.but(seed=seed), setting) for seed in range(5)]
    for run, seconds in zip(runs[:3], (9.0, 3.0, 3.0), strict=True):  # the first one compiled loops
        for stage in needed([run]).values():
            put(store, stage, {})
            (folder(store, stage) / COST).write_text(json.dumps({"seconds": 2 * seconds, "processor_s": seconds}))
    stages = needed(runs)
    clock = clock_here(store, stages.values(), Machine(), 2)
    assert (clock.source, clock.busy) == ("as stages before took", 2.0)
    assert clock.seconds(runs[3]) == pytest.approx(3.0)
    missing = {name: stage for name, stage in stages.items() if stage in (runs[3], runs[3].start, runs[4])}
    found = estimate({**missing, stage_id(runs[4].start): runs[4].start} if runs[4].start else missing, [], clock, 2)
    assert found.processor_s == pytest.approx(12.0)
    assert found.seconds == pytest.approx(2 * found.quiet_s)


def test_a_described_machine_is_arithmetic():
    run = unfold(BASELINE, toy_setting())
    start = run.start
    assert isinstance(start, Pretrain)
    flops = start.steps * start.rows * start.shape.flops(start.source_length, start.target_length)
    assert flops_of(start) == flops
    assert clock_of(1e-6, 0.5).seconds(start) == pytest.approx(1 + flops / 0.5e6)
    assert clock_of(1e-6, 0.5).seconds(run) > 1 + flops_of(run) / 0.5e6  # scored too
    assert (
        8 * start.shape.parameters < memory_of(start) <= 12 * start.shape.parameters
    )  # small matrices are not factored


def test_a_probe_tries_each_kind_of_step_once():
    run = unfold(BASELINE, toy_setting())
    start = run.start
    assert isinstance(start, Pretrain)
    stages = [start, replace(start, seed=5), run, replace(run, seed=7)]
    assert len({key_of(stage) for stage in stages}) == 2
    found = probe(stages, Machine(), 1)
    assert found.keys() == {key_of(start), key_of(run)}
    assert all(speed.step_s > 0 and speed.busy >= 1 and speed.peak > 1 << 20 for speed in found.values())
    assert (found[key_of(start)].row_s, found[key_of(run)].row_s > 0) == (0.0, True)
    assert 0 < found[key_of(start)].tokens <= start.rows * (start.source_length + start.target_length)
