"""The conductor: builds the stages that are missing, keeps every worker busy, and survives what happens to them.

    with Engine().conduct(store) as conductor:
        conductor.run(asked, meanwhile)

returns when every stage asked for is in the store or has failed. Stages of `meanwhile` fill workers that would be idle;
those still running go on into the next `run`. Stages with the longest way to go come first. What is in the store is
not touched, so a study that was killed goes on where it stopped. Several conductors may work on one store: what one of
them is building the others leave to it, and take up if it dies.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5study.ground.errors import Stopped, UserError
from t5study.ground.store import Store, this_process
from t5study.study import builds, wanted
from t5study.study.pace import seen
from t5study.study.stages import Stage, has, needed, stage_id
from t5study.study.status import CONDUCTOR
from t5study.study.watch import Watch
from t5study.study.workers import Broken, Done, Elsewhere, Left, Pool, Step

if TYPE_CHECKING:
    from t5study.study.jobs import Jobs

ATTEMPTS = 5  # a stage whose worker died is tried again; one that kills five where it stands is not worth a sixth
STARTS = 20  # workers that die before they have a stage say nothing of it, but something is wrong here
GRACE = 25.0  # seconds to save in: schedulers commonly kill after 30


class Conductor:
    """pool: who builds. failed: stage id -> reason, of this session. built: ids of the stages it has built, in order.
    attempts: how often a stage is begun whose worker dies; one that got further before it died, and saved, begins to
    count anew, and of a worker that dies before it has the stage nothing is counted but that."""

    def __init__(self, store: Store, pool: Pool | Jobs, watch: Watch | None = None, attempts: int = ATTEMPTS):
        self.attempts = attempts
        self.store, self.failed, self.built = store, dict[str, str](), list[str]()
        self._pool = pool
        self._watch = watch or Watch(pool.size)
        self._running: dict[str, int] = {}
        self._attempts: dict[str, int] = {}
        self._unbegun: dict[str, int] = {}  # workers that died before they had a stage
        self._from: dict[str, int] = {}  # the step that a stage's last attempt went on with
        self._heard: set[str] = set()  # stages whose worker has told a step of this attempt
        self._signum: int | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._known = ExitStack()  # that this process conducts is known to others while it holds a lock

    def __enter__(self) -> Conductor:
        self._known.enter_context(self.store.hold(CONDUCTOR, this_process(), passing=True))
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        """Whatever ends the study, workers save first. A second Ctrl-C does not wait for them."""
        try:
            self._pool.stop(GRACE if self._running else 0.0)
        except KeyboardInterrupt:
            self._pool.stop(0.0)
        finally:
            self._known.close()
            self._watch.close()
            for signum, handler in self._before.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _note(self, signum: int, frame: object) -> None:
        if self._signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signum is None:
            with suppress(OSError):
                os.write(2, b"\nt5study: workers finish their step, save and leave\n")
        self._signum = signum

    # --- what is there ------------------------------------------------------------------------------------------

    def has(self, stage: Stage) -> bool:
        """Whether the stage is in the store."""
        return has(self.store, stage)

    def reason(self, stage: Stage) -> str | None:
        """Why the stage failed in this session; None if it did not."""
        return self.failed.get(stage_id(stage))

    # --- running ------------------------------------------------------------------------------------------------

    def run(self, asked: Iterable[Stage], meanwhile: Iterable[Stage] = (), expected: Iterable[Stage] = ()) -> None:
        """Builds what is missing of `asked`, and of `meanwhile` as there is room. expected: all that the study will
        come to as far as is known, for the share done. Raises Stopped after a signal; UserError if a stage fails that
        everything rests on (text, vocabulary, tasks)."""
        goals = needed(asked)
        stages = goals | needed(meanwhile)
        hoped = needed(expected := list(expected)) | stages
        wanted.note(self.store.root.parent, self.store, stages, expected, self._pool.size, self._pool.engine)
        # One that a worker still has may lie in the store already: it is there when the worker has said so.
        there = {name for name, stage in hoped.items() if name not in self._running and has(self.store, stage)}
        if goals.keys() <= there:
            return
        self._watch.expect(hoped, there, seen(self.store, ((n, hoped[n].kind, hoped[n].work) for n in there)))
        order = urgency(stages, goals.keys())
        waiting = {name for name in stages if name not in there and name not in self.failed}
        while any(name in waiting for name in goals):
            self._fail_heirs(stages, waiting)
            ready = [
                name
                for name in sorted(waiting - self._running.keys(), key=order.__getitem__)
                if all(stage_id(parent) in there for parent in stages[name].parents)
            ]
            others = 0
            for name in ready:
                if not (free := self._pool.free()):
                    break
                if has(self.store, stages[name]):  # another study has built it meanwhile
                    self._arrived(name, there, waiting)
                elif self._elsewhere(name):
                    others += 1
                else:
                    self._begin(free[0], name, stages[name])
            self._watch.others = others
            for k, stage, message in self._pool.messages(0.25):
                name = stage_id(stage)
                if isinstance(message, Step):
                    self._hear(name, message)
                    self._watch.step(k, message)
                    continue
                del self._running[name]
                self._watch.end(k, message if isinstance(message, Done) else None)
                if isinstance(message, Done):
                    self._arrived(name, there, waiting)
                    self.built.append(name)
                elif isinstance(message, Broken) and self._signum is None:
                    self._broken(k, stage, message, stages, waiting)
                elif isinstance(message, Left) and self._signum is None:
                    self._watch.say(f"{self._pool.name(k)}: {message.reason}; {stage.label} goes on with another")
                if isinstance(message, Left | Elsewhere):
                    self._attempts[name] -= 1  # it did not die of it
            self._watch.show()
            if self._signum is not None:
                raise Stopped(self._signum)

    def _begin(self, k: int, name: str, stage: Stage) -> None:
        self._running[name] = k
        self._attempts[name] = self._attempts.get(name, 0) + 1
        self._heard.discard(name)
        self._pool.give(k, stage)
        self._watch.begin(k, stage)

    def _arrived(self, name: str, there: set[str], waiting: set[str]) -> None:
        there.add(name)
        waiting.discard(name)
        self._watch.arrived(name)

    def _elsewhere(self, name: str) -> bool:
        """Whether a process that is none of ours builds the stage: ours are not asked for what they have."""
        return self.store.holder(*name.split("/")) is not None

    def _hear(self, name: str, step: Step) -> None:
        """An attempt that goes on further on than the one before has gained something, however that one ended."""
        if step.text or name in self._heard:
            return
        self._heard.add(name)
        if name in self._from and step.step > self._from[name]:
            self._attempts[name] = 1
        self._from[name] = max(step.step, self._from.get(name, 0))

    def _broken(self, k: int, stage: Stage, broken: Broken, stages: dict[str, Stage], waiting: set[str]) -> None:
        """A stage could not be built: it is tried again, or given up."""
        name = stage_id(stage)
        if not broken.begun:
            self._unbegun[name] = self._unbegun.get(name, 0) + 1
            self._attempts[name] -= 1
        again = self._attempts[name] < self.attempts and self._unbegun.get(name, 0) < STARTS
        if not broken.final and again:
            self._watch.say(f"{self._pool.name(k)}: {stage.label}: {broken.reason}; trying again")
            return
        tried = "" if broken.final else f" ({max(self._attempts[name], self._unbegun.get(name, 0))} times)"
        self.failed[name] = f"{stage.label}: {broken.reason}{tried}"
        builds.note(self.store, name, "failed", self.failed[name])
        waiting.discard(name)
        self._watch.lost(name)
        if broken.trace:
            path = _keep_trace(self.store.root.parent, name, broken.trace)
            self._watch.say(f"{stage.label}: the traceback is in {path}")
        if not stage.steps_of_training and _rests_on_it(name, stage, stages):
            raise UserError(broken.reason if broken.final else f"{self.failed[name]}; nothing can go on without it")
        self._watch.say(f"failed: {self.failed[name]}; the study goes on without it")

    def _fail_heirs(self, stages: dict[str, Stage], waiting: set[str]) -> None:
        """What rests on a failed stage fails with it."""
        for name in list(stages):  # parents come first
            for parent in stages[name].parents:
                if name in waiting and (reason := self.failed.get(stage_id(parent))):
                    self.failed[name] = reason
                    waiting.discard(name)
                    self._watch.lost(name)


def urgency(stages: dict[str, Stage], goals: Iterable[str]) -> dict[str, tuple[bool, float, int]]:
    """What sorts stages: goals first, and among them those with the longest way to go, their own work counted. So
    fine-tuning waits while there is pre-training to begin, and all workers end at about the same time."""
    way = {name: 0.0 for name in stages}
    for name in reversed(stages):  # children come last, so they are seen before their parents
        way[name] += stages[name].work
        for parent in stages[name].parents:
            above = stage_id(parent)
            if above in way:  # else it is in the store, and nothing waits for it
                way[above] = max(way[above], way[name])
    goals = set(goals)
    return {name: (name not in goals, -way[name], place) for place, name in enumerate(stages)}


def _rests_on_it(name: str, stage: Stage, stages: dict[str, Stage]) -> bool:
    """Whether there is nothing to go on with: whatever is trained on text has this text, not one of its own beside it.
    Rows of tasks are asked for by every score."""
    below = [needed([one]) for one in stages.values() if one.steps_of_training]
    alike = [one for one in below if any(parent.kind == stage.kind for parent in one.values())]
    return stage.kind == "tasks" or all(name in one for one in alike)


def _keep_trace(out: Path, name: str, trace: str) -> Path:
    path = out / "failures" / f"{name.replace('/', '-')}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(trace, encoding="utf-8")
    return path
