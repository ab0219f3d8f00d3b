"""A stage by several processes at once: torchrun's own launcher inside the worker that has the stage.

    build_on(ranks, stage, work, place)

The worker holds the stage's lock and starts the ranks, which share out every step's rows (train/parallel.py) and meet
by gloo, between GPUs by nccl. If one dies the others end, and the stage goes on from its last checkpoint in another
attempt. What the ranks do stands in the stage's journal, from which the worker tells its steps.
"""

from __future__ import annotations

import math
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t5study.ground.errors import Lost, Stopped, UserError
from t5study.ground.machine import Machine, die_with_parent, use
from t5study.ground.store import Store
from t5study.study import builds
from t5study.study.stages import Place, Progress, Stage, stage_id

_LOOK_S = 1.0  # between two looks at the journal
_WORSE = ("bug", "error", "stopped", "lost", "done")  # of several ranks' ends, the first of these is the stage's


class Died(Exception):
    """A rank died, or lost the others: the stage may be tried again."""


class Bug(Exception):
    """An error in a rank, with its traceback as text."""


def ranks_of(stage: Stage, asked: int) -> int:
    """Among how many processes a stage is shared: as many as asked for, or as can have equally many of its rows.

    >>> from t5study.study.stages import Stage
    >>> ranks_of(Stage(), 8)
    1
    """
    rows = getattr(stage, "rows", 0) if stage.steps_of_training else 0
    return math.gcd(rows, asked) if isinstance(rows, int) and rows else 1


def build_on(ranks: int, stage: Stage, work: Path, place: Place) -> None:
    """Fills the folder `work` as stage.build does, by so many processes. Stopped, UserError, Died or Bug."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=stage_id(stage).replace("/", "-"),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,  # the conductor tries again, and counts
        start_method="spawn",
        monitor_interval=0.2,
    )
    with _handlers_kept(), _told(stage, place):
        try:
            ends = elastic_launch(config, _rank)(stage, place.store.root, work, place.machine)
        except SignalException as told:
            raise Stopped(int(told.sigval)) from None
        except ChildFailedError as failed:
            rank, failure = failed.get_first_failure()
            code = failure.exitcode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise Died(f"rank {rank} of {ranks} {how}") from None
    what, told = min(ends.values(), key=lambda end: _WORSE.index(end[0]))
    if what == "stopped":
        raise Stopped(int(told))
    if what != "done":
        raise {"bug": Bug, "error": UserError, "lost": Died}[what](told)


class Silent:
    """Progress that nobody is told of: where journals say it."""

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None:
        """Nothing to say."""

    def say(self, text: str) -> None:
        """Nothing to say."""

    def close(self) -> None:
        """Nothing to take down."""


def _rank(stage: Stage, root: Path, work: Path, machine: Machine) -> tuple[str, str]:
    """One rank's life; how it ended, and what it has to say."""
    from t5study.train.parallel import joined

    die_with_parent()
    use(machine)
    try:
        with joined(machine) as ranks:
            stage.build(work, Place(Store(root), machine, Silent(), ranks))
    except Stopped as stopped:
        return "stopped", str(stopped.signum)
    except Lost as lost:
        return "lost", str(lost).partition(";")[0]
    except UserError as error:
        return "error", str(error)
    except Exception:
        return "bug", traceback.format_exc()
    return "done", ""


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """The launcher sets handlers of signals and leaves them."""
    kept = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    try:
        yield
    finally:
        for one, handler in kept.items():
            signal.signal(one, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def _told(stage: Stage, place: Place) -> Iterator[None]:
    """Tells the steps that the ranks make, out of the journal."""
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(stage, place, place.progress, over), daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(stage: Stage, place: Place, progress: Progress, over: threading.Event) -> None:
    seen: dict[str, Any] | None = builds.last_row(place.store, stage_id(stage))  # of an attempt before this one
    step = seen["step"] if seen else 0
    while not over.wait(_LOOK_S):
        row = builds.last_row(place.store, stage_id(stage))
        if row and row["step"] != step:
            progress.update(row["step"], tokens=row.get("tokens", 0) * max(1, row["step"] - step), loss=row.get("loss"))
            step = row["step"]
