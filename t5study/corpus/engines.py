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
import socket
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
        answer = pipe.recv()
    except _GONE:
        raise _killed(stage) from None
    return _done(answer)


def _killed(stage: str) -> UserError:
    return UserError(
        f"a worker of the stage {stage} was killed, perhaps for want of memory; run the same command again with "
        "fewer --workers, and it goes on"
    )


Answer = tuple[Done, None] | tuple[None, str | OSError]  # what was done, or why not: a user's error is its line


def _answered(job: Job, stage: str, number: int) -> Answer:
    """Runs a task where no exception can be raised to whoever waits for it."""
    try:
        return run_task(job, stage, number), None
    except UserError as error:
        return None, str(error)
    except OSError as error:
        return None, error


def _done(answer: Answer) -> Done:
    done, error = answer
    if isinstance(error, str):
        raise UserError(error)
    if error is not None:
        raise error
    assert done is not None
    return done


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
            pipe.send(_answered(job, stage, number))
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
            _start(ray, self.workers)
        remote = ray.remote(max_retries=3)(_answered)
        table = ray.put(job)
        waiting = [remote.remote(table, stage, number) for number in numbers]
        while waiting:
            ready, waiting = ray.wait(waiting)
            try:
                answers = ray.get(ready)
            except ray.exceptions.RayTaskError:  # an error of ours
                raise
            except ray.exceptions.RayError as error:
                raise UserError(
                    f"--engine ray: a task of the stage {stage} was lost ({one_line(error)}); run the same command "
                    "again, and it goes on"
                ) from None
            for answer in answers:
                yield _done(answer)

    def close(self) -> None:
        """The cluster stays up for the next build; one of our own ends with this process."""


def _start(ray: Any, workers: int) -> None:
    """Joins the cluster of RAY_ADDRESS, or starts one here. UserError if that cannot be done."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        reached(address)
    here = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **here)
    except Exception as error:  # what Ray raises then has no class of its own
        told = f"no cluster answered at {address}" if address else "none could be started on this machine"
        see = "that it is up (ray status)" if address else "what ray start --head says"
        raise UserError(f"--engine ray: {told} ({one_line(error)}); see {see}, or use --engine pool") from None


def reached(address: str, seconds: float = 10.0) -> None:
    """UserError if nothing listens at host:port, which Ray itself tries for more than five minutes. What has no port
    ("auto") is Ray's to find."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except (OSError, OverflowError, ValueError) as error:  # also a port or a name that is none
        raise UserError(
            f"--engine ray: nothing answers at {address} ({one_line(error)}); see that it is up (ray status), or use "
            "--engine pool"
        ) from None


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
