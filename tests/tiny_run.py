"""A real pre-training run of a few seconds, for tests that kill it and for the golden losses.

    python tests/tiny_run.py FOLDER          the run, start to end or from where it was stopped
    python tests/tiny_run.py losses          its first losses as text: tests/golden/tiny_pretraining.txt
    python tests/tiny_run.py serve           runs as forked processes, by lines on standard input (see `Runs`)

Two layers a stack at d_model 64 on 50,000 tokens of made-up text, span corruption, packed rows, dropout, Adafactor.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import faults
import numpy as np

from t5study.feed.sources import DocumentSource
from t5study.feed.stream import Stream
from t5study.ground.errors import Lost, NoRoom, Stopped, UserError
from t5study.ground.machine import Machine
from t5study.ground.pairs import Ids
from t5study.ground.seeds import stream as random_stream
from t5study.model import architectures
from t5study.model.shapes import Shape
from t5study.objectives import SpanCorruption
from t5study.train.guard import Guard
from t5study.train.loop import train
from t5study.train.optim import Adafactor, Constant
from t5study.train.run import TrainRun
from t5study.train.tuning import parse

IDS = Ids(size=1_000)
SHAPE = Shape(64, 128, 32, 2, 2, 2, IDS.table_rows)
OBJECTIVE = SpanCorruption()
LENGTHS = OBJECTIVE.lengths(32)
RUN = TrainRun(
    shape=SHAPE,
    architecture="encoder_decoder",
    steps=200,
    rows=4,
    source_length=32,
    target_length=LENGTHS.targets,
    optimizer=Adafactor(),
    schedule=Constant(0.02),
    dropout=0.1,
    seed=3,
    save_every=10,
    data=(OBJECTIVE, "made-up text"),
    init="fresh",
    evaluate_every=50,
)


@functools.cache
def text() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and offsets of 500 documents: common words, and each word with a habit of what follows it."""
    chance = random_stream(0, "made-up text")
    n = 50_000
    common = np.minimum(chance.zipf(1.3, n), IDS.pieces - 3)
    follows = chance.permutation(IDS.pieces - 3)
    habit = chance.random(n) < 0.6
    tokens = np.zeros(n, np.int64)
    for i in range(1, n):
        tokens[i] = follows[tokens[i - 1]] if habit[i] else common[i] - 1
    return (tokens + 3).astype(np.uint16), np.arange(0, n + 1, 100)


def make(run: TrainRun = RUN, documents: int = 500) -> tuple[Any, Stream]:
    """A fresh model and the stream of a run, of all documents or of the first few."""
    tokens, offsets = text()
    offsets = offsets[: documents + 1]
    source = DocumentSource(tokens[: offsets[-1]], offsets, OBJECTIVE, LENGTHS, IDS, run.seed)
    return architectures.build(run.shape, run.seed), Stream(source, run.rows, run.source_length, run.target_length)


def evaluate(step: int, model: Any) -> dict[str, Any]:
    """A number that depends on every weight."""
    return {"sum": float(sum(p.double().abs().sum() for p in model.parameters()))}


class Quiet:
    """Progress that nobody watches."""

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None:
        pass

    def close(self) -> None:
        pass


class Watched:
    """Progress that notes what it is told, and calls `at[step]` when a step is done."""

    def __init__(self, at: dict[int, Any] | None = None):
        self.at, self.seen, self.closed = at or {}, [], 0

    def update(self, step: int, *, tokens: int, loss: float) -> None:
        self.seen.append((step, tokens, loss))
        if step in self.at:
            self.at[step]()

    def close(self) -> None:
        self.closed += 1


def go(
    folder: Path, run: TrainRun = RUN, machine: Machine | None = None, documents: int = 500, **how: Any
) -> dict[str, Any]:
    """how: of train()."""
    model, stream = make(run, documents)
    return train(run, model, stream, folder, machine or Machine(), evaluate=evaluate, progress=Quiet(), **how)


def outcome(folder: Path) -> dict[str, bytes]:
    """All that must be the same however a run came to its end: every file but the wall-clock's."""
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("speeds.json", "speeds.jsonl", "err.txt")
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def losses(steps: int = 30) -> str:
    """The first losses, a line each, to five digits."""
    with tempfile.TemporaryDirectory() as folder:
        go(Path(folder), replace(RUN, steps=steps, evaluate_every=0))
        rows = [json.loads(line) for line in (Path(folder) / "journal.jsonl").read_text().splitlines()]
    return "".join(f"{row['step']} {row['loss']:.5g}\n" for row in rows)


# --- as processes -------------------------------------------------------------------------------------------------


class Runs:
    """Runs as processes of their own, forked from one that has imported torch and made one step: no seconds of import
    and of compiled loops that are read from their cache each. On one thread, as forks have to be."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, __file__, "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )

    def _said(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())

    def start(self, folder: Path, **changes: Any) -> int:
        """Starts the run in a folder, with some fields of it changed, of fewer documents, saved while steps go on
        (async_save), or with faults (faults.py); returns the process's id."""
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps([str(folder), changes]) + "\n")
        return self._said()

    def wait(self) -> int:
        """How the run ended: its exit code, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(self._said())

    def close(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()
        assert self.server.stdout is not None
        self.server.stdout.close()


def serve() -> None:
    with tempfile.TemporaryDirectory() as folder:
        go(Path(folder) / "one", replace(RUN, steps=1))
    for line in sys.stdin:
        folder, changes = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(_child(Path(folder), changes))
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


def read(changes: dict[str, Any]) -> dict[str, Any]:
    """Changed fields of a run, from JSON. guard: [action, spike, back]; shape: its own changed fields."""
    types = {"tuning": parse, "guard": lambda value: Guard(*value), "shape": lambda value: replace(SHAPE, **value)}
    return {name: types[name](value) if name in types else value for name, value in changes.items()}


def _child(folder: Path, changes: dict[str, Any]) -> int:
    folder.mkdir(exist_ok=True)
    os.dup2(os.open(folder / "err.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        how = {name: changes.pop(name) for name in ("async_save", "documents") if name in changes}
        with faults.injected(folder, changes.pop("faults", {})):
            go(folder, replace(RUN, **read(changes)), **how)
    except Stopped as stopped:
        return stopped.code
    except (UserError, Lost) as error:
        os.write(2, f"{error}\n".encode())
        return 74 if isinstance(error, NoRoom) else 75 if isinstance(error, Lost) else 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    elif sys.argv[1] == "losses":
        print(losses(), end="")
    else:
        print(go(Path(sys.argv[1])))
