"""The command evaluate: a model and tasks -> scores."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from t5study.commands.asked import machine_of, needs, tasks_of


def evaluate(args: argparse.Namespace) -> None:
    needs(args, "checkpoint", "task")
    from t5study import evaluate as room
    from t5study.ground.store import whole_folder, write_json, write_manifest
    from t5study.model import released

    machine = machine_of(args)
    tasks = tasks_of(args)
    with ExitStack() as stack:
        out = stack.enter_context(whole_folder(args.out)) if args.out else None
        model, shape = released.load_released(args.checkpoint)
        vocab = released.load_vocab(args.checkpoint, shape, args.vocab)
        model.to(machine.device)
        scores = {}
        for task in tasks:
            result = room.evaluate(model, vocab, task)
            scores[task.name] = result.summary()
            print(_line(task.name, scores[task.name]), flush=True)
            if out:
                room.save_predictions(result, out / f"{task.name.replace('/', '-')}.parquet")
        if out:
            write_json(out / "scores.json", {"model": released.digest(args.checkpoint), "tasks": scores})
            write_manifest(out)
    if args.out:
        print(f"scores and predictions: {args.out}")


def _line(name: str, summary: dict) -> str:
    def said(value: float, interval: list[float], digits: int) -> str:
        return f"{value:.{digits}f} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"

    intervals = summary["intervals"]
    numbers = [f"{one} {said(value, intervals[one], 1)}" for one, value in summary["metrics"].items()]
    nats = f"{said(summary['nats_per_token'], intervals['nats'], 3)} nats a target token"
    return f"{name}: {', '.join([*numbers, nats])}; {summary['n']} examples, {summary['unreadable']} unreadable"
