"""`study plan`: what some tables come to, what of it is missing and what that costs, as text.

print(plan(Asked("laptop"), out=Path("study-laptop")))                    on this machine
print(plan(Asked("paper"), out=Path("study"), given=Given(312, 0.4, 8)))  on eight devices of 312 TFLOP/s
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from t5study.ground.journal import duration
from t5study.ground.machine import here
from t5study.ground.store import Store
from t5study.study.asked import Asked
from t5study.study.estimate import Clock, Estimate, clock_here, clock_of, estimate, tokens_of
from t5study.study.experiment import Experiment
from t5study.study.question import ask, workers_here
from t5study.study.runner import chosen_tables, experiments_of
from t5study.study.stages import Stage, has, needed, stage_id
from t5study.study.table import Table


@dataclass(frozen=True)
class Given:
    """A machine that is not here. peak: TFLOP/s of a device. utilisation: the part of it that training uses. devices:
    each takes a run at a time."""

    peak: float
    utilisation: float = 0.4
    devices: int = 1


def plan(
    asked: Asked,
    out: Path,
    workers: int | None = None,
    tables: str = "search",
    given: Given | None = None,
    price: float | None = None,
) -> str:
    """What some tables need, what of it is missing, and what that costs. Trains nothing and writes nothing.

    price: of an hour of the whole machine. UserError as `runner.run_tables` has them.
    """
    wanted = chosen_tables(tables)
    question = ask(asked)
    store, machine = Store(Path(out) / "store"), here()
    question.compare(Path(out))
    size = given.devices if given else workers_here(machine, workers)
    experiments = experiments_of(wanted, question.scale.seeds)
    last = list(dict.fromkeys(stage for one in experiments for stage in question.stages(one)))
    stages = needed(last)
    missing = {name: stage for name, stage in stages.items() if not has(store, stage)}
    clock = (
        clock_of(given.peak, given.utilisation) if given else clock_here(store, list(stages.values()), machine, size)
    )
    found = estimate(missing, map(stage_id, last), clock, size)
    absent = [f"not run: {why}" for why in dict.fromkeys(map(question.absent, experiments)) if why]
    head = [
        f"{question.scale.name} scale, text: {question.corpus_name}, "
        f"tasks: {', '.join(one.name or one.rows.label for one in question.setting.tasks)}",
        f"tables {', '.join(table.number for table in wanted)}: {len(last)} runs, what they share is done once",
        *twins(wanted),
        "",
    ]
    tail = [*_totals(found, clock, size, given, price)] if missing else ["nothing is missing"]
    rounds = "the rounds come to as many runs as tables 1, 4, 5, 6 and 7 together"
    table = _aligned(_kinds(stages, missing, clock))
    return "\n".join([*head, *table, *([""] if absent else []), *absent, "", *tail, rounds])


def twins(tables: Sequence[Table]) -> list[str]:
    """Rows that are one experiment, and are run once: a line each.

    >>> from t5study.study.runner import chosen_tables
    >>> twins(chosen_tables("2,4"))
    ['one run: LM: Encoder-decoder (table 2), Prefix language modeling (4)']
    """
    rows = dict[Experiment, dict[str, list[str]]]()
    for table in tables:
        for row in table.rows:
            rows.setdefault(row.experiment, {}).setdefault(row.label, []).append(table.number)
    return [
        "one run: " + ", ".join(f"{label} ({word}{', '.join(numbers)})" for word, (label, numbers) in _told(labels))
        for labels in rows.values()
        if sum(map(len, labels.values())) > 1
    ]


def _told(labels: Mapping[str, list[str]]) -> list[tuple[str, tuple[str, list[str]]]]:
    """The first one says what its numbers are."""
    words = ["table " if len(next(iter(labels.values()))) == 1 else "tables ", *[""] * len(labels)]
    return list(zip(words, labels.items(), strict=False))


def _kinds(stages: Mapping[str, Stage], missing: Mapping[str, Stage], clock: Clock) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("stage", "there", "missing", "tokens at most", "seconds each", "seconds in all")]
    for kind in dict.fromkeys(stage.kind for stage in stages.values()):
        every = [stage for stage in stages.values() if stage.kind == kind]
        left = [stage for stage in missing.values() if stage.kind == kind]
        seconds = [clock.seconds(stage) for stage in left]
        ends = [f"{end:,.0f}" for end in (min(seconds), max(seconds))] if seconds else ["-"]
        tokens = sum(map(tokens_of, left))
        rows.append(
            (
                kind,
                f"{len(every) - len(left)}",
                f"{len(left)}",
                f"{tokens:,}" if tokens else "-",
                " to ".join(dict.fromkeys(ends)),
                f"{sum(seconds):,.0f}" if seconds else "-",
            )
        )
    return rows


def _totals(found: Estimate, clock: Clock, size: int, given: Given | None, price: float | None) -> list[str]:
    who = f"{size} device{'s' * (size > 1)}" if given else f"{size} worker{'s' * (size > 1)} here"
    hours = f"about {duration(found.quiet_s)} with {who} ({clock.source})"
    if clock.busy > 1.1:
        hours += f"; {duration(found.seconds)} if the machine stays as busy as it is"
    process = f"; {_bytes(clock.process)} a process as probed" if clock.process else "; activations on top"
    lines = [
        hours,
        f"{duration(found.processor_s)} of {'a device' if given else 'a worker'} in all, {found.flops:.3g} FLOPs",
        f"up to {found.parameters:,} parameters; memory a run: {_bytes(found.memory)} for weights, gradients and "
        f"optimiser{process}",
        f"disk: {_bytes(found.disk)} for models and checkpoints, text and predictions on top",
    ]
    if price is not None:
        lines.append(f"money: {found.seconds / 3600 * price:,.2f} at {price:g} an hour of the machine")
    return lines


def _bytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
