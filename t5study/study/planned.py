"""`study plan`: what some tables come to, what of it is missing and what that costs, as text; or what fits into a time.

print(plan(Asked("laptop"), out=Path("study-laptop")))                    on this machine
print(plan(Asked("paper"), out=Path("study"), given=Given(312, 0.4, 8)))  on eight devices of 312 TFLOP/s
print(fitted(Asked(), None, seconds=8 * 3600))                            the scale and the rows that fit into 8 hours
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from t5study.ground.journal import duration
from t5study.ground.machine import describe
from t5study.ground.store import Store, read_json
from t5study.study import promised
from t5study.study.asked import Asked
from t5study.study.budget import Choice, Clocks, Offer, choose
from t5study.study.engine import Engine
from t5study.study.estimate import Clock, Estimate, clock_here, clock_of, estimate, tokens_of
from t5study.study.experiment import Experiment
from t5study.study.own import typed
from t5study.study.probe import BUDGET_S
from t5study.study.question import ASKED, Question, ask
from t5study.study.runner import addresses, chosen, experiments_of
from t5study.study.scales import SCALES
from t5study.study.stages import Stage, has, needed, stage_id
from t5study.study.table import Table


@dataclass(frozen=True)
class Given:
    """A machine that is not here. peak: TFLOP/s of a device. utilisation: the part of it that training uses. devices:
    each takes a run at a time. memory: GB of a device, None if it need not be asked."""

    peak: float
    utilisation: float = 0.4
    devices: int = 1
    memory: float | None = None

    @property
    def label(self) -> str:
        return f"{self.devices} device{'s' * (self.devices > 1)} of {self.peak:g} TFLOP/s"


def plan(
    asked: Asked,
    out: Path,
    workers: int | None = None,
    tables: str = "search",
    given: Given | None = None,
    price: float | None = None,
    keep: bool = False,
    precision: str | None = None,
) -> str:
    """What some tables need, what of it is missing, and what that costs. Trains nothing, and writes plan.json if it is
    to keep what it says.

    price: of an hour of the whole machine. precision: of training, None for that of the folder, else the machine's own.
    UserError as `runner.run_tables` has them.
    """
    question = ask(typed(asked, Path(out), tables))
    wanted = chosen(tables, question.own)
    question.compare(Path(out), precision)
    size, clocks = _machine(given, workers, precision)
    return _text(question, Path(out), wanted, size, clocks, given, price, keep)


def fitted(
    asked: Asked,
    out: Path | None,
    seconds: float,
    workers: int | None = None,
    tables: str = "search",
    given: Given | None = None,
    price: float | None = None,
    scale: str | None = None,
    precision: str | None = None,
) -> str:
    """The same for what fits into so many seconds, with what does not and the command that runs it. scale: the only one
    that is looked at, None for all. out: the study's folder, which may have a scale already; None for study-SCALE.

    UserError if at no scale the baseline fits.
    """
    first = ask(typed(asked, out or Path(f"study-{asked.scale}"), tables))
    wanted = chosen(tables, first.own)
    size, clocks = _machine(given, workers, precision)
    scales = [scale] if scale else _scales(out)
    questions = [first.at(name) for name in scales]

    def folder(name: str) -> Path:
        return out or Path(f"study-{name}")

    for question in questions:
        question.compare(folder(question.scale.name), precision)
    choice = choose(
        questions,
        lambda question: Store(folder(question.scale.name) / "store"),
        wanted,
        clocks,
        size,
        seconds,
        _memory(given, size),
    )
    taken = choice.taken
    question = next(one for one in questions if one.scale.name == taken.scale)
    rest = _text(
        question, folder(taken.scale), taken.tables, size, lambda *_: choice.clock, given, price, out is not None
    )
    everything = taken.fit == taken.asked
    names = tables if everything else ",".join(addresses(taken.tables, first.own))
    precision = precision or question.compare(folder(taken.scale)).get("precision")
    command = _command(question.asked, out, names, workers, precision)
    return "\n".join([*_offers(choice, size, given), *_left_out(taken), "", "run it:", f"  {command}", "", rest])


def _machine(given: Given | None, workers: int | None, precision: str | None) -> tuple[int, Clocks]:
    """How many runs side by side, and what says how long they take."""
    if given:
        return given.devices, lambda question, store, stages, budget: clock_of(given.peak, given.utilisation)
    engine = Engine(workers=workers, precision=precision)  # as `study run` will have it

    def clock(question: Question, store: Store, stages: list[Stage], budget: float) -> Clock:
        return clock_here(store, stages, engine.on(question, store.root.parent).machine, engine.size, budget)

    return engine.size, clock


def _memory(given: Given | None, size: int) -> int | None:
    """Bytes that a run may take; None if nobody can say."""
    if given:
        return None if given.memory is None else round(given.memory * 1e9)
    import psutil
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available // size


def _scales(out: Path | None) -> list[str]:
    """By size; of a folder that is a study's, its own."""
    path = Path(out) / ASKED if out else None
    there = read_json(path) if path and path.is_file() else {}
    scale = there.get("scale") if isinstance(there, dict) else None
    return [scale] if isinstance(scale, str) else list(SCALES)


def _text(
    question: Question,
    out: Path,
    wanted: Sequence[Table],
    size: int,
    clocks: Clocks,
    given: Given | None,
    price: float | None,
    keep: bool,
) -> str:
    store = Store(out / "store")
    experiments = experiments_of(wanted, question.scale.seeds)
    last = list(dict.fromkeys(stage for one in experiments for stage in question.stages(one)))
    stages = needed(last)
    missing = {name: stage for name, stage in stages.items() if not has(store, stage)}
    clock = clocks(question, store, list(stages.values()), BUDGET_S)
    found = estimate(missing, map(stage_id, last), clock, size)
    if keep and missing:
        promised.write(out, store, missing, clock, found, given.label if given else describe(), size)
    absent = [f"not run: {why}" for why in dict.fromkeys(map(question.absent, experiments)) if why]
    head = [
        f"{question.scale.name} scale, text: {question.corpus_name}, "
        f"tasks: {', '.join(one.name or one.rows.label for one in question.setting.tasks)}",
        f"tables {', '.join(table.number for table in wanted)}: {len(last)} runs, what they share is done once",
        *twins(wanted),
        "",
    ]
    tail = [*totals(found, clock, size, given, price)] if missing else ["nothing is missing"]
    rounds = "the rounds come to as many runs as tables 1, 4, 5, 6 and 7 together"
    table = _aligned(_kinds(stages, missing, clock))
    kept = promised.lines(out)
    return "\n".join(
        [
            *head, *table, *([""] if absent else []), *absent, "", *tail, rounds,
            *([""] if kept else []), *kept,
        ]
    )  # fmt: skip


# --- what fits ----------------------------------------------------------------------------------------------------


def _offers(choice: Choice, size: int, given: Given | None) -> list[str]:
    taken = choice.taken
    rows: list[tuple[str, ...]] = [
        ("scale", "the baseline, all seeds", "all that was asked", "experiments that fit", "")
    ]
    for one in choice.offers:
        fit = f"{one.fit} of {one.asked}" if one.fits else one.why or "none"
        mark = "<- taken" if one == taken else ""
        rows.append((one.scale, duration(one.least_s), duration(one.all_s), fit, mark))
    where = given.label if given else f"{size} worker{'s' * (size > 1)} here"
    busy = f", as busy as it is ({choice.clock.busy:.1f} times as long as quiet)" if choice.clock.busy > 1.1 else ""
    return [
        f"{duration(taken.seconds)} with {where}{busy}",
        "the largest scale at which half fits is taken, --scale asks for another",
        *(line.rstrip() for line in _aligned(rows)),
    ]


def _left_out(taken: Offer) -> list[str]:
    if not taken.left:
        return ["", "nothing is left out"]
    return ["", "left out:", *(f"  {', '.join(one.rows)} {one.label}: {one.why}" for one in taken.left)]


def _command(asked: Asked, out: Path | None, tables: str, workers: int | None, precision: str | None) -> str:
    """The line that runs it."""
    words = asked.words()
    for flag, value in (("--out", out), ("--workers", workers), ("--precision", precision)):
        words += [flag, str(value)] if value is not None else []
    return shlex.join(["t5study", "study", "run", *words, "--tables", tables])


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


def totals(found: Estimate, clock: Clock, size: int, given: Given | None, price: float | None) -> list[str]:
    """Hours, FLOPs, memory, disk and money, a line each."""
    who = f"{size} device{'s' * (size > 1)}" if given else f"{size} worker{'s' * (size > 1)} here"
    who += f" in {clock.precision}" if clock.precision else ""
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
