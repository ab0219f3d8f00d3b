"""What a study will take: the order of the conductor played through, costs out of a store, a described machine."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_study import Toy, put, toy_setting

from t5study.ground.machine import Machine
from t5study.ground.store import Store
from t5study.study.baseline import BASELINE
from t5study.study.estimate import Clock, clock_here, clock_of, estimate, flops_of, makespan, memory_of
from t5study.study.planned import totals
from t5study.study.plans import unfold
from t5study.study.probe import key_of, probe, take_turn
from t5study.study.scales import PAPER
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


@settings(deadline=None)
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


def test_memory_disk_and_money_are_those_computed_by_hand():
    run = unfold(BASELINE, toy_setting())  # SMOKE: d_model 32, 2 heads of 16, d_ff 64, 2 + 2 layers, 512 rows
    attention, feed_forward, bias = 4 * 32 * 32, 2 * 32 * 64, 32 * 2  # of 32 distances and 2 heads
    encoder = 2 * (attention + feed_forward + 2 * 32) + bias + 32
    decoder = 2 * (2 * attention + feed_forward + 3 * 32) + bias + 32
    weights = 512 * 32 + encoder + decoder
    assert weights == 57_856
    memory = 12 * weights  # weight, gradient and second moment, 4 bytes each: no matrix is large enough to be factored
    assert memory_of(run) == 694_272
    stages = needed([run])
    clock = Clock(lambda stage: 1800.0 if stage.steps_of_training else 0.0, "by hand", busy=1.5, process=300_000_000)
    found = estimate(stages, [stage_id(run)], clock, 4)
    assert found.disk == 2 * 4 * weights + 2 * 4 * memory  # two models, two checkpoints of each of four runs
    flops = flops_of(run) + flops_of(run.start)
    assert (found.quiet_s, found.seconds, found.processor_s, found.flops) == (3605.0, 5407.5, 3600.0, flops)
    assert totals(found, clock, 4, None, 2.0) == [
        "about 1 h 00 min with 4 workers here (by hand); 1 h 30 min if the machine stays as busy as it is",
        f"1 h 00 min of a worker in all, {flops:.3g} FLOPs",
        "up to 57,856 parameters; memory a run: 1 MB for weights, gradients and optimiser; 300 MB a process as probed",
        "disk: 6 MB for models and checkpoints, text and predictions on top",
        "money: 3.00 at 2 an hour of the machine",
    ]


def test_the_papers_baseline_takes_the_papers_flops():
    """Section 3.1: 2^19 steps of 128 rows, 512 tokens in. Two for each weight and token, and for each product of
    attention; the backward pass takes twice as many."""
    run = unfold(BASELINE, replace(toy_setting(), scale=PAPER))
    start = run.start
    assert isinstance(start, Pretrain)
    sources, targets, matrix = 512, start.target_length, 768**2
    seen = (
        12 * (4 * matrix + 8 * matrix + 2 * matrix) * sources
    )  # encoder; keys and values of what the decoder looks at
    seen += (12 * (6 * matrix + 8 * matrix) + 768 * 32_128) * targets  # decoder and softmax
    products = 12 * 2 * 768 * (sources**2 + targets**2 + sources * targets)
    assert flops_of(start) == pytest.approx(3 * 2 * (seen + products) * 128 * 2**19, rel=0.01)
    hours = clock_of(312, 0.4).seconds(start) / 3600
    assert hours == pytest.approx(flops_of(start) / (312e12 * 0.4) / 3600, rel=1e-3)
    assert clock_of(624, 0.4).seconds(start) == pytest.approx(clock_of(312, 0.8).seconds(start))


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


def test_probes_take_gpus_by_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    turn, seen = multiprocessing.get_context("spawn").Value("i", 0), list[str]()
    for _ in range(3):
        take_turn(("4", "5"), turn)
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    take_turn((), turn)
    assert seen == ["4", "5", "4"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
