"""Workers: processes that build stages side by side, one torch thread each, because a small run cannot fill two cores.

The parent sends a stage down a pipe; the worker builds it and reports how it gets on. A worker that dies takes nothing
with it: the stage's folder has what its last checkpoint had, and the parent starts another. Workers die with the
parent (the kernel sees to it), so a killed study leaves none behind.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, ClassVar

from t5study.ground.errors import Stopped, UserError
from t5study.ground.machine import Machine, die_with_parent, threads_of_children, use
from t5study.ground.store import Busy, Store
from t5study.study.ranked import Bug, Died, build_on, ranks_of
from t5study.study.stages import Place, Stage, build, result

# --- what a worker says ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A step of training is done, or (text) something else is going on."""

    step: int = 0
    loss: float | None = None
    tokens_per_second: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class Done:
    """The stage is in the store. loss: of its last step, if it was training."""

    loss: float | None = None


@dataclass(frozen=True)
class Broken:
    """The stage could not be built. final: building it again would end the same way, so do not. begun: a worker had it
    before it died; False if it died starting up."""

    reason: str
    final: bool
    trace: str = ""
    begun: bool = True


@dataclass(frozen=True)
class Elsewhere:
    """Another process builds the stage. who: it."""

    who: str


@dataclass(frozen=True)
class Left:
    """The worker was told to go, and has saved."""

    reason: str


@dataclass(frozen=True)
class Begun:
    """The worker is up and has the stage."""


Message = Step | Done | Broken | Elsewhere | Left


# --- in the worker ------------------------------------------------------------------------------------------------


class _Reporter:
    """Tells the parent how a stage gets on, a few times a second at most."""

    def __init__(self, parent: Connection, every: float = 0.5):
        self._parent, self._every = parent, every
        self._told: float | None = None
        self._tokens = 0

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None:
        self._tokens += tokens
        now = time.monotonic()
        if self._told is None:  # the first: where a run begins, or goes on
            self._parent.send(Step(step, loss))
        elif now - self._told >= self._every:
            self._parent.send(Step(step, loss, self._tokens / (now - self._told)))
        else:
            return
        self._told, self._tokens = now, 0

    def say(self, text: str) -> None:
        self._parent.send(Step(text=text))
        if self._told is not None:
            self._told, self._tokens = time.monotonic(), 0  # what it says takes time that is no step's

    def close(self) -> None:
        """Nothing to take down."""


def _work(pipe: Connection, root: Path, machine: Machine, parent: int, ranks: int, gpus: str | None) -> None:
    """A worker's life: stages until the pipe closes."""
    die_with_parent()
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus  # before anything here has looked for a GPU
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    use(machine)
    store = Store(root)
    with suppress(EOFError, BrokenPipeError):
        while True:
            stage = pipe.recv()
            pipe.send(Begun())
            message = attempt(stage, Place(store, machine, _Reporter(pipe)), ranks)
            pipe.send(message)
            if leaves(message):
                return


def attempt(stage: Stage, place: Place, ranks: int = 1) -> Message:
    """Builds a stage, by so many processes if it can be shared among them, and says what came of it."""
    try:
        if (shared := ranks_of(stage, ranks)) > 1:
            build(stage, place, wait=False, by=partial(build_on, shared))
        else:
            build(stage, place, wait=False)
        return Done(result(place.store, stage)["last_loss"] if stage.steps_of_training else None)
    except Busy as busy:
        return Elsewhere(busy.holder["who"])
    except Stopped as stopped:
        return Left(str(stopped).partition(";")[0])
    except UserError as error:
        return Broken(str(error), final=True)
    except Died as died:
        return Broken(str(died), final=False)
    except Bug as bug:
        return Broken(str(bug).strip().rpartition("\n")[2], final=True, trace=str(bug))
    except MemoryError:
        return Broken("out of memory", final=False)
    except Exception as error:  # a bug of ours: the study goes on without the stage, and tells
        return Broken(f"{type(error).__name__}: {error}", final=True, trace=traceback.format_exc())


def leaves(message: Message) -> bool:
    """Whether a worker that says so is gone after it."""
    return isinstance(message, Left) or (isinstance(message, Broken) and not message.final)


# --- in the parent ------------------------------------------------------------------------------------------------


class _Worker:
    def __init__(self, root: Path, machine: Machine, ranks: int, gpus: str | None):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        args = (theirs, root, machine, os.getpid(), ranks, gpus)
        self.process = context.Process(target=_work, args=args, daemon=ranks == 1)  # a daemon may start no ranks
        self.process.start()
        theirs.close()
        self.stage: Stage | None = None
        self.begun = False  # it


class Pool:
    """Up to `size` workers on one store, started when there is work for them. Workers are known by number, from 0.
    ranks: processes that share one training. gpus: what each worker sees of them, () for all."""

    def __init__(self, root: Path, size: int, machine: Machine, ranks: int = 1, gpus: Sequence[str] = ()):
        self._root, self._machine, self._ranks, self._gpus = root, machine, ranks, gpus
        self._workers: list[_Worker | None] = [None] * size
        self._processes: dict[int, int] = {}
        threads_of_children(machine.threads)

    engine: ClassVar[str] = "local"

    @property
    def size(self) -> int:
        return len(self._workers)

    def name(self, k: int) -> str:
        """A worker for people; one that has died too, until another takes its place."""
        return f"worker {k + 1}" + (f" (process {self._processes[k]})" if k in self._processes else "")

    def free(self) -> list[int]:
        """Workers without a stage."""
        return [k for k, worker in enumerate(self._workers) if worker is None or worker.stage is None]

    def give(self, k: int, stage: Stage) -> None:
        """Hands a stage to a free worker."""
        gpus = self._gpus[k] if self._gpus else None
        worker = self._workers[k] or _Worker(self._root, self._machine, self._ranks, gpus)
        self._workers[k], self._processes[k] = worker, worker.process.pid or 0
        worker.stage, worker.begun = stage, False
        with suppress(BrokenPipeError):  # it died idle: `messages` will see that
            worker.pipe.send(stage)

    def messages(self, seconds: float) -> Iterator[tuple[int, Stage, Message]]:
        """What workers have said, waiting up to so many seconds for the first word. A death is told as Broken."""
        busy = {worker.pipe: k for k, worker in enumerate(self._workers) if worker and worker.stage}
        for pipe in wait(list(busy), seconds):
            k = busy[pipe]  # type: ignore[index]
            worker = self._workers[k]
            assert worker is not None
            assert worker.stage is not None
            stage = worker.stage
            try:
                message: Any = worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join()  # its pipe closes a moment before it is gone
                message = Broken(_death(worker.process.exitcode), final=False, begun=worker.begun)
            if isinstance(message, Begun):
                worker.begun = True
                continue
            if leaves(message):
                worker.process.join()
                worker.pipe.close()
                self._workers[k] = None
            elif not isinstance(message, Step):
                worker.stage = None
            yield k, stage, message

    def stop(self, grace: float) -> None:
        """Asks workers to save and leave; those that have not after `grace` seconds are killed (and lose what came
        after their last checkpoint)."""
        alive = [worker for worker in self._workers if worker]
        for worker in alive:
            worker.process.terminate()
        until = time.monotonic() + grace
        for worker in alive:
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers = [None] * self.size


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", which is what happens when memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with code {code}"
