"""Engines beside each other, a process each: they take turns, and the clock is each process's own processor time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Workers = dict[str, subprocess.Popen]


def talkative(shape: Any = None):
    """A model, of t5-small's shape by default, whose weights are fresh and whose answers vary with the source and never
    end."""
    import torch

    from t5study.ground.pairs import EOS, PAD
    from t5study.model.architectures import build
    from t5study.model.shapes import size

    model = build(shape or size("small", 32_128), seed=0)
    with torch.no_grad():
        for layer in model.decoder:
            for weight in (layer.attention.out, layer.cross.out, layer.feed.wo):
                weight *= 6
        model.embedding[[PAD, EOS]] = 0
    return model


def on_one_thread() -> None:
    """What every engine's process begins with."""
    import torch

    from t5study.ground.machine import Machine, use

    torch.set_num_threads(1)
    use(Machine())


def serve(run: Callable[..., dict[str, Any]]) -> None:
    """An engine's life: asked on standard input; what `run` says, with its seconds, on standard output."""
    for line in sys.stdin:
        asked = json.loads(line)
        start = time.process_time()
        found = run(*asked)
        print(json.dumps({"seconds": time.process_time() - start, **found}), flush=True)


@contextmanager
def started(file: str, engines: Iterable[str], folder: Path) -> Iterator[Workers]:
    """`python FILE --work ENGINE FOLDER` for each engine."""
    command = [sys.executable, file, "--work"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {engine: subprocess.Popen([*command, engine, str(folder)], **pipes) for engine in engines}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.kill()


def in_turns(workers: Workers, asked: Sequence[Any], turns: int) -> tuple[dict[str, dict], dict[str, list[float]]]:
    """What each engine says first, which warms it up, and then its seconds in each turn."""
    first = {engine: _ask(worker, asked) for engine, worker in workers.items()}
    seconds: dict[str, list[float]] = {engine: [] for engine in workers}
    for _ in range(turns):
        for engine, worker in workers.items():
            seconds[engine].append(_ask(worker, asked)["seconds"])
    return first, seconds


def _ask(worker: subprocess.Popen, asked: Sequence[Any]) -> dict:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(asked) + "\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())
