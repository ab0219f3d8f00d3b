"""The engine of a study: who builds its stages.

    Engine("local", workers=4, ranks=2).conduct(store)          four workers here, two processes for each training
    Engine("slurm", workers=16, options=(("partition", "gpu"), ("gpus_per_node", "1"))).conduct(store)

Never part of a question or a fingerprint: a study that was begun on a laptop may go on on a cluster. Only to a
precision its folder keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from t5study.ground.errors import UserError
from t5study.ground.machine import Machine, here
from t5study.ground.store import Store
from t5study.study.gpus import gpus_here, turns
from t5study.study.question import workers_here

if TYPE_CHECKING:
    from t5study.study.conductor import Conductor
    from t5study.study.jobs import Jobs
    from t5study.study.promised import Promise
    from t5study.study.question import Question
    from t5study.study.workers import Pool

ENGINES = ("local", "slurm", "submitit-local")
JOBS = 16  # at a time, unless said otherwise


@dataclass(frozen=True)
class Engine:
    """name: "local" for workers on this machine, "slurm" for jobs, "submitit-local" to try those out here. workers: how
    many at a time, None for as many as fit. threads: torch threads of a process. ranks: processes that share one
    training. options: of a job, as submitit names them. precision: "fp32" or "bf16", that training multiplies in; None
    for what the study's folder has, else the machine."""

    name: str = "local"
    workers: int | None = None
    threads: int | None = None
    ranks: int = 1
    options: tuple[tuple[str, str], ...] = ()
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UserError(f"--engine: found {self.name!r}; give one of {', '.join(ENGINES)}")
        if self.options and self.name == "local":
            raise UserError("--slurm: found without --engine slurm; give that too, or leave it out")
        if self.precision not in (None, "fp32", "bf16"):
            raise UserError(f"--precision: found {self.precision!r}; give fp32 or bf16")

    def on(self, question: Question, out: Path) -> Engine:
        """The same in the precision of a study's folder. UserError if that is another than this has, or if workers here
        would be to build in one that the machine does not have. Nothing is written before that is known."""
        begun = question.compare(out, self.precision).get("precision")
        engine = replace(self, precision=begun or self.precision)
        if self.name == "local":
            try:
                here(precision=engine.precision)
            except UserError:
                if not begun:
                    raise
                raise UserError(
                    f"{out}: was begun with --precision {begun}, which this CPU has no instructions for; go on where "
                    "there are some, or choose another --out"
                ) from None
        return engine

    @cached_property
    def machine(self) -> Machine:
        """This one; what jobs find on theirs is theirs."""
        return here(threads=self.threads, precision=self.precision)

    @cached_property
    def gpus(self) -> tuple[str, ...]:
        """Those that workers here take by turns."""
        return gpus_here() if self.name == "local" and self.machine.device == "cuda" else ()

    @cached_property
    def size(self) -> int:
        """How many stages are built at a time."""
        if self.name != "local":
            return self.workers or JOBS
        return workers_here(self.machine, self.workers, self.ranks, len(self.gpus))

    def promise(self, out: Path, store: Store) -> Promise | None:
        """Of how long stages will take; None where they are built elsewhere, of which a probe here knows nothing."""
        from t5study.study.promised import Promise

        return Promise(out, store, self.machine, self.size) if self.name == "local" else None

    def conduct(self, store: Store) -> Conductor:
        """A conductor that hands a store's stages to whom this engine has."""
        from t5study.study.conductor import Conductor

        return Conductor(store, self._pool(store))

    def _pool(self, store: Store) -> Pool | Jobs:
        from t5study.study.workers import Pool

        if self.name == "local":
            gpus = turns(self.gpus, self.size, self.ranks)
            return Pool(store.root, self.size, self.machine, self.ranks, gpus)
        from t5study.study.jobs import Jobs

        cluster = self.name.removeprefix("submitit-")
        return Jobs(store.root, self.size, cluster, dict(self.options), self.threads, self.ranks, self.precision)
