"""Jobs: each stage as a job of a scheduler, through submitit. What Pool (workers.py) is on one machine.

    pool = Jobs(store.root, size=16, cluster="slurm", options={"partition": "gpu", "timeout_min": "240"})

A job builds its stage into the store and ends; what it is called there and how far it is, its lock and its journal say.
So nothing is lost with a conductor that is killed: its jobs go on, and the next conductor finds what they do, or did,
in the store. A job that finds its stage in other hands ends at once. One whose time is up saves and leaves, and its
stage goes on in another.

submitit keeps what it is given and what comes back as pickles, in `.jobs` beside the stages: whoever may write there
may run code as you, as with any folder of jobs. Logs of jobs that failed stay there.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.machine import here, use
from t5study.ground.store import Store
from t5study.study import builds
from t5study.study.ranked import Silent
from t5study.study.stages import Place, Stage, has, stage_id
from t5study.study.workers import Broken, Done, Message, Step, attempt

FOLDER = ".jobs"
_LOOK_S = 2.0  # between two looks at the journals of those that run
_LAG_S = {"slurm": 30.0, "local": 0.5}  # until what a job wrote on another host is seen here
_SHARED = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "nodes", "tasks_per_node")
_DEFAULTS = {"timeout_min": "1440"}


def run_stage(stage: Stage, root: Path, threads: int | None, ranks: int, precision: str | None = None) -> Message:
    """What a job does, on its own host and with the devices that it was given there."""
    try:
        machine = here(threads=threads, precision=precision)
    except UserError as error:  # a host without bf16: another job would go the same way
        return Broken(f"{platform.node()}: {error}, or hosts that have it, by --slurm", final=True)
    use(machine)
    return attempt(stage, Place(Store(root), machine, Silent()), ranks)


@dataclass
class _Seat:
    """A job, its stage, and what was last seen of it. ended: since when the scheduler says that it has."""

    stage: Stage
    job: Any
    looked: float
    step: int = 0
    ended: float | None = None


class Jobs:
    """Up to `size` jobs of a cluster ("slurm", or "local": here, for trying it out) on one store, known by number, from
    0. options: of sbatch, by the names that submitit has for them. threads, ranks, precision: of each."""

    def __init__(
        self,
        root: Path,
        size: int,
        cluster: str = "slurm",
        options: Mapping[str, str] | None = None,
        threads: int | None = None,
        ranks: int = 1,
        precision: str | None = None,
    ):
        self._root, self._cluster, self._threads, self._ranks = root, cluster, threads, ranks
        self._precision = precision
        self._seats: list[_Seat | None] = [None] * size
        self._names: dict[int, str] = {}
        self._executor = _executor(root / FOLDER, cluster, dict(options or {}), (threads or 1) * ranks)

    @property
    def engine(self) -> str:
        return "slurm" if self._cluster == "slurm" else f"submitit-{self._cluster}"

    @property
    def size(self) -> int:
        return len(self._seats)

    def name(self, k: int) -> str:
        """The job of that number for people; one that has ended too, until another takes its place."""
        return f"job {self._names.get(k, k + 1)}"

    def free(self) -> list[int]:
        """Numbers without a job."""
        return [k for k, seat in enumerate(self._seats) if seat is None]

    def give(self, k: int, stage: Stage) -> None:
        """Submits a stage. UserError if the scheduler does not take it."""
        try:
            job = self._executor.submit(run_stage, stage, self._root, self._threads, self._ranks, self._precision)
        except Exception as error:  # sbatch's own, submitit's, or the system's: all of them say what is wrong
            told = " ".join(str(error).split())[-300:]
            raise UserError(f"--engine {self.engine}: the job was not taken ({told}); see to --slurm") from None
        row = builds.last_row(self._store, stage_id(stage))  # of an attempt before this one
        self._seats[k] = _Seat(stage, job, time.monotonic(), row["step"] if row else 0)
        self._names[k] = job.job_id

    def messages(self, seconds: float) -> Iterator[tuple[int, Stage, Message]]:
        """What is known of the jobs, waiting up to so many seconds for the first news. A death is told as Broken."""
        until = time.monotonic() + seconds
        while True:
            news = [(k, seat, said) for k, seat in enumerate(self._seats) if seat and (said := self._news(seat))]
            if news or time.monotonic() >= until:
                break
            time.sleep(min(0.05, seconds))
        for k, seat, said in news:
            if not isinstance(said, Step):
                self._seats[k] = None
            yield k, seat.stage, said

    def _news(self, seat: _Seat) -> Message | None:
        now = time.monotonic()
        if not seat.job.done():
            return self._look(seat, now)
        if seat.job.paths.result_pickle.exists():
            return self._result(seat)
        seat.ended = seat.ended or now
        if now - seat.ended < _LAG_S[self._cluster]:
            return None
        if has(self._store, seat.stage):  # it died after its work
            return Done(None)
        return Broken(f"its job ended without a word ({seat.job.state})", final=False)

    def _look(self, seat: _Seat, now: float) -> Step | None:
        """A step, if there are new ones in the journal."""
        if now - seat.looked < _LOOK_S:
            return None
        row = builds.last_row(self._store, stage_id(seat.stage))
        before, seat.looked = seat.looked, now
        if not row or row["step"] == seat.step:
            return None
        speed = row.get("tokens", 0) * max(0, row["step"] - seat.step) / (now - before)
        seat.step = row["step"]
        return Step(row["step"], row.get("loss"), speed)

    def _result(self, seat: _Seat) -> Message:
        job = seat.job
        try:
            said = job.result()
        except Exception as error:  # of submitit: what the job raised, or that it could not be read
            return Broken(f"its job failed, see {job.paths.stderr}", final=False, trace=str(error))
        if not isinstance(said, Broken):
            for path in job.paths.folder.glob(f"{job.job_id}_*"):
                path.unlink(missing_ok=True)
        return said

    @property
    def _store(self) -> Store:
        return Store(self._root)

    def stop(self, grace: float) -> None:
        """Asks jobs to save and leave, and waits for that as long as a grace period; the scheduler ends the others."""
        left = [seat.job for seat in self._seats if seat]
        for job in left:
            if self._cluster == "slurm":
                job.cancel(check=False)
            else:
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(int(job.job_id), signal.SIGTERM)  # submitit's own way would give it a second
        until = time.monotonic() + grace
        while left and time.monotonic() < until:
            left = [job for job in left if not job.done()]
            time.sleep(0.05)
        for job in left:
            if self._cluster != "slurm":
                job.cancel(check=False)
        self._seats = [None] * self.size


def _executor(folder: Path, cluster: str, options: dict[str, str], cpus: int) -> Any:
    """submitit's, with what is asked for; UserError if it is not there or knows no such option."""
    try:
        import submitit
    except ImportError:
        raise UserError("--engine: submitit is not installed; run: pip install 't5study[slurm]'") from None
    given = _DEFAULTS | {"cpus_per_task": str(cpus)} | options
    parameters: dict[str, Any] = {"name": "t5study"}
    for name, text in given.items():
        known = name if name in _SHARED else f"slurm_{name}"
        parameters[known] = float(text) if name == "mem_gb" else int(text) if text.isdecimal() else text
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**parameters)
    except RuntimeError as error:
        raise UserError(f"--engine {cluster}: {error}; give it on a host where sbatch is") from None
    except (NameError, ValueError, AssertionError) as error:
        raise UserError(f"--slurm: {str(error).partition(chr(10))[0][:300]}") from None
    return executor
