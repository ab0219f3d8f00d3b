"""A build's job, and where on disk its tasks leave what they made: a folder each, which appears whole or not at all.

    FOLDER/STAGE/000007/done.json     task 7 of a stage is done; beside it, its files
    FOLDER/read/000007/0000/          the first piece (pieces.py) of input file 7
    FOLDER/spans/000007/spans.npy     what piece 7 sends to the reducers (dedup.py), as urls.npy in the piece itself

The stages themselves: stages.py.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from t5study.corpus import dedup
from t5study.corpus.recipes import Recipe
from t5study.ground.store import publish, read_json


@dataclass(frozen=True)
class Input:
    """A file as it was found."""

    path: Path
    size: int
    changed: int


@dataclass(frozen=True)
class Job:
    """All that a task needs to know beside its stage and its number. folder: where the build's pieces lie."""

    folder: Path
    recipe: Recipe
    inputs: tuple[Input, ...]
    seed: int = 0
    lengths: bool = False
    memory: int = 1 << 28  # bytes of a reducer
    rejects: bool = False  # keep every page that is left out, not a few of each reason


def place(job: Job, stage: str, task: int) -> Path:
    return job.folder / stage / f"{task:06d}"


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder that appears when the block is done. Two that make the same one do no harm: the first one's stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        try:
            publish(work, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


# Every task asks for these two, which read a file of every piece and never change once their stage is done: a process
# reads them once a build. (A stage that is not done has a file missing, which raises and is not remembered.)


@lru_cache(maxsize=4)
def pieces(job: Job) -> list[Path]:
    """The pieces of all inputs, in the order of the inputs."""
    return [
        place(job, "read", task) / f"{number:04d}"
        for task in range(len(job.inputs))
        for number in range(read_json(place(job, "read", task) / "done.json")["pieces"])
    ]


@lru_cache(maxsize=8)
def ranges(job: Job, rows: str) -> list[tuple[int, int]]:
    """Ranges of buckets for `urls` (rows of the pieces) or `least` (rows that `spans` wrote), a range a task."""
    return dedup.ranges((np.load(f"{path}.index.npy") for path in sent(job, rows)), job.memory)


def sent(job: Job, rows: str) -> list[Path]:
    """What every piece has sent, without the endings of its two files."""
    if rows == "urls":
        return [piece / "urls" for piece in pieces(job)]
    return [place(job, "spans", number) / "spans" for number in range(len(pieces(job)))]
