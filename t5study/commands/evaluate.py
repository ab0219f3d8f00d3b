"""The command evaluate: a model and tasks -> scores and predictions."""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5study.commands.asked import machine_of, needs, tasks_of
from t5study.ground.errors import UserError

if TYPE_CHECKING:
    from t5study.evaluate.methods import Asking


def evaluate(args: argparse.Namespace) -> None:
    needs(args, "checkpoint", "task")
    from t5study.decode.methods import Greedy
    from t5study.evaluate import cache as room
    from t5study.evaluate.methods import Rank
    from t5study.ground.fingerprint import canonical
    from t5study.ground.store import Store, whole_file
    from t5study.model import released

    machine = machine_of(args)
    method = _method(args)
    tasks = tasks_of(args)
    rows = {task.name: room.rows_of(task, args.split, args.limit) for task in tasks}
    files = _files([task.name for task in tasks])
    shape = released.shape_of(args.checkpoint)
    vocab = released.load_vocab(args.checkpoint, shape, args.vocab)
    weights = released.digest(args.checkpoint)

    @cache
    def load() -> tuple[Any, Any]:
        model, _ = released.load_released(args.checkpoint)
        return model.to(machine.device), vocab

    if args.out:
        settings = {"method": canonical(method), "split": args.split, "limit": args.limit}
        lengths = {"source-length": args.source_length, "target-length": args.target_length}
        room.claim(args.out, {"checkpoint": weights, "vocab": vocab.digest, **settings, **lengths})
    scores: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as passing:
        store = Store(args.cache or (args.out / ".kept" if args.out else passing))
        for task in tasks:
            value = room.EvaluationValue(
                weights=weights,
                vocabulary=vocab.digest,
                task=task.value,
                split=args.split,
                rows=room.digest_of(rows[task.name]),
                source_length=args.source_length or task.input_length,
                target_length=args.target_length or task.target_length,
                method=method if task.choices or not isinstance(method, Rank) else Greedy(),
            )
            folder = room.evaluated(store, value, task, rows[task.name], load, args.batch_rows)
            scores[task.name] = room.summary_of(folder)
            told = " (greedy: it has no fixed labels to rank)" if value.method != method else ""
            print(_line(task.name, scores[task.name]) + told, flush=True)
            if args.out:
                with whole_file(args.out / files[task.name]) as beside:
                    shutil.copyfile(folder / room.PREDICTIONS, beside)
    averages = _averages(scores)
    for name, value in averages.items():
        print(f"{name}: {value:.2f} on average")
    if args.out:
        _write(args.out / room.SCORES, weights, scores)
        print(f"scores and predictions: {args.out}")


def _write(path: Path, weights: str, scores: Mapping[str, Any]) -> None:
    """Adds to what the folder has: tasks may be asked for one after another."""
    from t5study.ground.store import read_json, write_json

    before = read_json(path)["tasks"] if path.exists() else {}
    tasks = {**before, **scores}
    write_json(path, {"model": weights, "tasks": tasks, "averages": _averages(tasks)})


def _averages(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Of every benchmark all of whose tasks were scored, and that has more than one."""
    from t5study.tasks.benchmarks import BENCHMARKS

    values = {name: one["metrics"][one["metric"]] for name, one in scores.items() if "metrics" in one}
    found = [one for one in BENCHMARKS.values() if len(one.tasks) > 1 and set(one.tasks) <= set(values)]
    return {one.name: one.average(values) for one in found}


def _method(args: argparse.Namespace) -> Asking:
    from t5study.decode.methods import Beam
    from t5study.evaluate.methods import asking

    if args.method != "beam":
        for name in ("beams", "alpha"):
            if getattr(args, name) is not None:
                raise UserError(f"command line: --{name} is for --method beam; give that, or leave it out")
        return asking(args.method)
    return Beam(args.beams or 4, 0.6 if args.alpha is None else args.alpha)


def _files(names: list[str]) -> dict[str, str]:
    """The name of each task's file of predictions."""
    clean = {name: re.sub(r"[^\w.-]+", "-", name).strip(".")[:80] or "task" for name in names}
    files = {name: f"{file}.parquet" for name, file in clean.items()}
    for name, file in files.items():
        if list(files.values()).count(file) > 1:
            raise UserError(f"command line: --task: the predictions of two tasks would both be {file}; rename {name}")
    return files


def _line(name: str, summary: dict[str, Any]) -> str:
    counts = f"{summary['n']} examples, {summary['unreadable']} unreadable"
    if "metrics" not in summary:
        return f"{name}: {counts}; no labels to score with"

    def said(value: float, interval: list[float], digits: int) -> str:
        return f"{value:.{digits}f} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"

    intervals = summary["intervals"]
    numbers = [f"{one} {said(value, intervals[one], 1)}" for one, value in summary["metrics"].items()]
    nats = f"{said(summary['nats_per_token'], intervals['nats'], 3)} nats a target token"
    return f"{name}: {', '.join([*numbers, nats])}; {counts}"
