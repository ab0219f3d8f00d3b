"""Who runs the tasks of a stage: this process, processes of this machine, a Ray cluster, or one of many array jobs.

    Local(workers)        processes here; 1 runs everything in this one
    OnRay(workers)        a Ray cluster (RAY_ADDRESS, else one on this machine); folders must be seen by all of it
    Share(i, n)           the i-th of n parts, for a Slurm array: every n-th task of a stage, then on to the next
                          stage if all of this one is there, else it leaves and says so

All run the same function on the same table, and results do not depend on who does.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from typing import Any, Protocol

from t5study.corpus.files import one_line
from t5study.corpus.job import Job, place
from t5study.corpus.stages import Done, run_task
from t5study.ground.errors import UserError


class Engine(Protocol):
    def run(self, job: Job, stage: str, numbers: Sequence[int]) -> Iterator[Done]:
        """Runs the tasks of a stage and yields what each has done, as it is done."""
        ...

    def close(self) -> None:
        """Lets go of whatever ran the tasks."""
        ...


class NotYet(UserError):
    """A stage whose other parts are still to be done by others."""


class Local:
    """Processes of this machine, started when the first stage has enough for them to do. They are spawned, so none
    inherits a lock held by a thread of ours, or our end of another's pipe: when we die, each of them reads the end of
    its pipe and leaves."""

    def __init__(self, workers: int = 1):
        self.workers = workers
        self._pool: dict[Any, Any] = {}

    def run(self, job: Job, stage: str, numbers: Sequence[int]) -> Iterator[Done]:
        if min(self.workers, len(numbers)) <= 1:
            for number in numbers:
                yield run_task(job, stage, number)
            return
        while len(self._pool) < min(self.workers, len(numbers)):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pool[ours] = process
        waiting, busy = list(numbers)[::-1], set()
        for ours in self._pool:
            if waiting:
                _give(ours, job, stage, waiting.pop())
                busy.add(ours)
        while busy:
            for ours in connection.wait(list(busy)):
                assert isinstance(ours, connection.Connection)
                done = _answer(ours, stage)
                if waiting:
                    _give(ours, job, stage, waiting.pop())
                else:
                    busy.discard(ours)
                yield done

    def close(self) -> None:
        for ours, process in self._pool.items():
            ours.close()
            process.terminate()
        for process in self._pool.values():
            process.join()
        self._pool = {}


_CONTEXT = get_context("spawn")


# A pipe whose other end died: closed, or with what nobody will read any more.
_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


def _give(pipe: Any, job: Job, stage: str, number: int) -> None:
    try:
        pipe.send((job, stage, number))
    except _GONE:
        raise _killed(stage) from None


def _answer(pipe: Any, stage: str) -> Done:
    try:
        done, error = pipe.recv()
    except _GONE:
        raise _killed(stage) from None
    if isinstance(error, str):
        raise UserError(error)
    if error is not None:
        raise error
    return done


def _killed(stage: str) -> UserError:
    return UserError(
        f"a worker of the stage {stage} was killed, perhaps for want of memory; run the same command again with "
        "fewer --workers, and it goes on"
    )


def _work(pipe: Any) -> None:
    """A worker's life: tasks come in, answers go out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            job, stage, number = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[Done | None, str | OSError | None] = (run_task(job, stage, number), None)
        except UserError as error:
            answer = (None, str(error))
        except OSError as error:
            answer = (None, error)
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return


@dataclass(frozen=True)
class OnRay:
    workers: int = 1

    def run(self, job: Job, stage: str, numbers: Sequence[int]) -> Iterator[Done]:
        try:
            ray: Any = importlib.import_module("ray")  # an extra, which a checker of types need not have
        except ImportError:
            raise UserError("--engine ray: needs the package ray: pip install 't5study[ray]'") from None
        if not ray.is_initialized():
            address = os.environ.get("RAY_ADDRESS")
            here = {"address": address} if address else {"num_cpus": self.workers, "include_dashboard": False}
            try:
                ray.init(log_to_driver=False, **here)
            except Exception as error:  # what Ray raises then has no class of its own
                raise UserError(
                    f"--engine ray: no cluster {f'at {address} ' if address else ''}answered ({one_line(error)}); see "
                    "that it is up (ray status), or use --engine pool"
                ) from None
        remote = ray.remote(max_retries=3)(_on_ray)
        table = ray.put(job)
        waiting = [remote.remote(table, stage, number) for number in numbers]
        while waiting:
            ready, waiting = ray.wait(waiting)
            for done, told in ray.get(ready):
                if told is not None:
                    raise UserError(told)
                yield done

    def close(self) -> None:
        """The cluster stays up for the next build; one of our own ends with this process."""


def _on_ray(job: Job, stage: str, number: int) -> tuple[Done | None, str | None]:
    try:
        return run_task(job, stage, number), None
    except UserError as error:
        return None, str(error)


@dataclass(frozen=True)
class Share:
    """part: 0 to parts - 1."""

    part: int
    parts: int

    def run(self, job: Job, stage: str, numbers: Sequence[int]) -> Iterator[Done]:
        for number in numbers:
            if number % self.parts == self.part:
                yield run_task(job, stage, number)
        if missing := [number for number in numbers if not place(job, stage, number).is_dir()]:
            raise NotYet(
                f"part {self.part + 1} of {self.parts} of the stage {stage} is done, {len(missing)} of its tasks are "
                "still to be done by other parts; run this part again when they are"
            )

    def close(self) -> None:
        """Nothing is held."""


def parse_engine(words: Sequence[str], workers: int) -> Engine:
    """pool, ray, or: task 3/10. UserError for anything else.

    >>> parse_engine(["task", "3/10"], 1)
    Share(part=2, parts=10)
    """
    match list(words):
        case ["pool"]:
            return Local(workers)
        case ["ray"]:
            return OnRay(workers)
        case ["task", share] if found := re.fullmatch(r"(\d{1,6})/(\d{1,6})", share):
            part, parts = int(found[1]), int(found[2])
            if 1 <= part <= parts:
                return Share(part - 1, parts)
    raise UserError(f"--engine: found {' '.join(words)[:60]!r}; give pool, ray, or task 3/10 for the third of ten")
