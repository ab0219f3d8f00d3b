"""The runner: what is missing, what it costs here; then does it.

    print(plan(Asked("laptop"), out=Path("study-laptop")))       what there is to do, in seconds on this machine
    run_tables(Asked("laptop"), out=Path("study-laptop"))        every row of the declared tables

The rounds (rounds.py) come to as many runs as the tables do, and share most of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from t5study.ground.errors import UserError
from t5study.ground.journal import duration
from t5study.ground.machine import Machine, here, use
from t5study.ground.pairs import Batch
from t5study.ground.store import Store, read_json
from t5study.study import ledger, rounds
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.conductor import Conductor
from t5study.study.experiment import Experiment
from t5study.study.ledger import NO_PRETRAINING, Ledger, seeds_of
from t5study.study.multitask import MultiTaskTraining
from t5study.study.question import ask, workers_here
from t5study.study.stages import COST, Stage, folder, has, needed, stage_id
from t5study.study.table import Table, in_order
from t5study.study.tables.declared import EVERY, SEARCH, TABLES
from t5study.study.tables.later import LATER
from t5study.study.training import Finetune, Pretrain

Trained = Pretrain | Finetune | MultiTaskTraining
_PROBE_FLOPS = 4e11  # a probe's step is cut to so much, and its time multiplied


def chosen_tables(text: str) -> tuple[Table, ...]:
    """Tables by their numbers; "search": those that the rounds go through; "all" of
    the paper's; "later": those of later papers. UserError for any other.

    >>> [table.number for table in chosen_tables("4, 1")]
    ['1', '4']
    """
    named = {"search": SEARCH, "all": TABLES, "later": LATER}
    if text.strip() in named:
        return named[text.strip()]
    numbers = [part.strip() for part in text.split(",")]
    known = {table.number for table in EVERY}
    for number in numbers:
        if number not in known:
            some = ", ".join(sorted(known, key=in_order))
            raise UserError(f"--tables: found {number!r}; give search, all, later, or some of {some}")
    return tuple(table for table in EVERY if table.number in numbers)


def experiments_of(tables: Sequence[Table], seeds: int) -> list[Experiment]:
    """All rows of some tables, each once; the baseline and fine-tuning without pre-training from several seeds."""
    repeated = [*seeds_of(BASELINE, seeds), *seeds_of(NO_PRETRAINING, seeds)]
    rows = [row.experiment for table in tables for row in table.rows]
    return list(dict.fromkeys([*repeated, *rows]))


def run_tables(asked: Asked, out: Path, workers: int | None = None, tables: str = "search") -> None:
    """Runs what is missing of some tables and writes scores.json and costs.json; shows progress on stderr.

    UserError for every mistake of the user's; Stopped after SIGINT or SIGTERM, when the workers have saved.
    """
    wanted = chosen_tables(tables)
    question = ask(asked)
    out = Path(out)
    claimed = question.claim(out, tables=[table.number for table in wanted])
    store, machine = Store(out / "store"), here()
    seeds = question.scale.seeds
    with Conductor(store, workers_here(machine, workers), machine) as conductor:
        conductor.run(*[[stage for one in experiments_of(wanted, seeds) for stage in question.stages(one)]] * 2)
        before = chosen_tables(",".join(claimed["tables"]))  # what was asked earlier stays in the scores
        experiments, told = experiments_of(before, seeds), []
        if claimed["rounds"]:
            tournament = rounds.replay(question, store, conductor.reason)
            experiments, told = [*experiments, *tournament.experiments], tournament.told
        ledger.write(out, Ledger(question, store, conductor.reason), experiments, told)


# --- the plan -----------------------------------------------------------------------------------------------------


def plan(asked: Asked, out: Path, workers: int | None = None, tables: str = "search") -> str:
    """What some tables need, what of it is missing, and what that costs here. Trains nothing and writes nothing.

    Seconds are what stages of that kind took in this folder (costs), else what a few steps of the scale's own shape
    take now. UserError as `run_tables` has them.
    """
    wanted = chosen_tables(tables)
    question = ask(asked)
    out, store, machine = Path(out), Store(Path(out) / "store"), here()
    question.compare(out)
    size = workers_here(machine, workers)
    experiments = experiments_of(wanted, question.scale.seeds)
    stages = needed(stage for one in experiments for stage in question.stages(one))
    missing = {name: stage for name, stage in stages.items() if not has(store, stage)}
    clock = _Clock.of(store, stages, missing, machine)
    rows = [("stage", "there", "missing", "tokens at most", "seconds each", "seconds in all")]
    for kind in dict.fromkeys(stage.kind for stage in stages.values()):
        here_all = [stage for stage in stages.values() if stage.kind == kind]
        left = [stage for stage in missing.values() if stage.kind == kind]
        seconds = [clock.seconds(stage) for stage in left]
        ends = [f"{end:,.0f}" for end in (min(seconds), max(seconds))] if seconds else ["-"]
        each = " to ".join(dict.fromkeys(ends))
        rows.append(
            (
                kind,
                f"{len(here_all) - len(left)}",
                f"{len(left)}",
                f"{sum(map(_tokens, left)):,}" if any(map(_tokens, left)) else "-",
                each,
                f"{sum(seconds):,.0f}" if seconds else "-",
            )
        )
    total = _makespan(missing, clock, size)
    runs = len({stage for one in experiments for stage in question.stages(one)})
    absent = [f"not run: {why}" for why in dict.fromkeys(map(question.absent, experiments)) if why]
    named = "tables " + ", ".join(table.number for table in wanted)
    head = [
        f"{question.scale.name} scale, text: {question.corpus_name}, "
        f"tasks: {', '.join(one.name or one.rows.label for one in question.setting.tasks)}",
        f"{named}: {runs} runs, what they share is done once",
        "",
    ]
    tail = [
        "",
        f"about {duration(total)} with {size} worker{'s' * (size > 1)} here ({clock.source})"
        if missing
        else "nothing is missing",
        "the rounds come to as many runs as tables 1, 4, 5, 6 and 7 together",
    ]
    return "\n".join([*head, *_aligned(rows), *([""] if absent else []), *absent, *tail])


def _tokens(stage: Stage) -> int:
    """Tokens a stage of training reads and writes at most: what its rows hold."""
    if isinstance(stage, Trained):
        return stage.steps * stage.rows * (stage.source_length + stage.target_length)
    return 0


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


@dataclass(frozen=True)
class _Clock:
    """Seconds that a stage takes on one worker. per_work: by kind, for stages of training; source: where from."""

    per_work: dict[str, float]
    preparation: dict[str, float]
    source: str

    def seconds(self, stage: Stage) -> float:
        if not stage.steps_of_training:
            return self.preparation.get(stage.kind, stage.work)
        return stage.work * self.per_work[stage.kind]

    @staticmethod
    def of(store: Store, stages: dict[str, Stage], missing: dict[str, Stage], machine: Machine) -> _Clock:
        """From what is in the store, where there is enough of it; else from a probe."""
        took: dict[str, list[tuple[float, float]]] = {}
        for name, stage in stages.items():
            if name not in missing:
                took.setdefault(stage.kind, []).append((read_json(folder(store, stage) / COST)["seconds"], stage.work))
        per_work = {kind: sum(s for s, _ in known) / sum(w for _, w in known) for kind, known in took.items()}
        preparation = {kind: sum(s for s, _ in known) / len(known) for kind, known in took.items()}
        unknown = {stage.kind: stage for stage in missing.values() if stage.steps_of_training}
        unknown = {kind: stage for kind, stage in unknown.items() if kind not in per_work}
        for kind, stage in unknown.items():
            if not isinstance(stage, Trained):  # an ensemble: it scores, as fine-tuning does
                stage = next(one for one in stages.values() if isinstance(one, Finetune))
                per_work[kind] = per_work.get(stage.kind) or _probe(stage, machine)
            else:
                per_work[kind] = _probe(stage, machine)
        told = f"a probe of {', '.join(unknown)} steps just now" if unknown else "as stages before took"
        return _Clock(per_work, preparation, told)


def _probe(stage: Trained, machine: Machine) -> float:
    """Seconds for a unit of a stage's work, from a few real steps on full rows of arbitrary tokens."""
    import numpy as np

    from t5study.model import architectures
    from t5study.model.shapes import flops

    use(machine)
    row = flops(stage.shape, stage.architecture, stage.source_length, stage.target_length)
    rows = max(1, min(stage.rows, int(_PROBE_FLOPS / row)))
    model = architectures.build(stage.shape, 0, stage.architecture)
    model.to(machine.device)
    optimizer = stage.optimizer.build(model)
    chance = np.random.default_rng(0)

    def side(length: int) -> list[np.ndarray]:
        ids = chance.integers(3, stage.shape.table_rows, (rows, length)).astype(np.int32)
        position = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
        return [ids, np.ones_like(ids), position]

    batch = Batch(*side(stage.source_length), *side(stage.target_length))
    times = []
    for _ in range(4):
        began = time.perf_counter()
        dropout = architectures.Dropout(stage.dropout, 0, len(times)) if stage.dropout else None
        model.loss_sum(model.arrange(batch, machine.device), dropout, stage.z_loss).total.backward()
        optimizer.step(0.0)
        times.append(time.perf_counter() - began)
    measured = min(times[1:]) * stage.rows / rows * stage.steps
    return measured / (stage.work - (0.0 if isinstance(stage, Pretrain) else stage.scoring))


def _makespan(missing: dict[str, Stage], clock: _Clock, workers: int) -> float:
    """Seconds until all is done: stages as the conductor takes them, one after another on the first free worker."""
    free = [0.0] * workers
    ends: dict[str, float] = {}
    for name, stage in missing.items():  # parents come first
        ready = max((ends.get(stage_id(parent), 0.0) for parent in stage.parents), default=0.0)
        k = min(range(workers), key=free.__getitem__)
        ends[name] = free[k] = max(free[k], ready) + clock.seconds(stage)
    return max(ends.values(), default=0.0)
