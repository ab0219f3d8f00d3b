"""`study status`: what of a study is done, under way, failed or missing, who is at it and how long it takes.

    print(text(look(Path("study-laptop"))))

Read from its folder alone, while it runs or after it was killed, from any host that sees the folder; nothing in it is
changed. Done is what is in the store, under way is what a process holds the lock of: the kernel takes that from the
dead. Failed is what a conductor has given up; the study's command tries it again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from t5study.ground.journal import duration
from t5study.ground.store import MANIFEST, Store, read_json
from t5study.study import builds, wanted
from t5study.study.pace import Left, Pace, seen, total
from t5study.study.stages import COST
from t5study.study.wanted import PLAN, Row

CONDUCTOR = "conductor"


@dataclass(frozen=True)
class Running:
    """A stage that a process builds. since: seconds since 1970. step: of `steps`, with its loss; None before the first
    one, and where nothing is trained."""

    stage: str
    label: str
    who: str
    since: float
    step: int | None
    steps: int
    loss: float | None


@dataclass(frozen=True)
class Status:
    """done, missing: stages as (id, label). failed: with the reason. conductors: processes that hand out stages, and
    since when. share: part of the work that is done. seconds_left: None if nothing tells."""

    folder: str
    workers: int
    engine: str
    done: tuple[tuple[str, str], ...]
    running: tuple[Running, ...]
    failed: tuple[tuple[str, str, str], ...]
    missing: tuple[tuple[str, str], ...]
    conductors: tuple[tuple[str, float], ...]
    share: float
    seconds_left: float | None
    kinds: dict[str, dict[str, int]]
    now: float


def look(out: Path, now: float | None = None) -> Status:
    """How a study is getting on. UserError if the folder has none."""
    now = time.time() if now is None else now
    rows, workers, engine = wanted.read(out)
    store = Store(out / "store")
    # Locks first: a stage that ends between the two looks is done then, and not one that nobody has.
    held = {row.id: store.holder(*row.id.split("/")) for row in rows}
    done = {row.id for row in rows if (store.root / row.id / MANIFEST).is_file()}
    running = {row.id: _running(store, row, held[row.id]) for row in rows if held[row.id] and row.id not in done}
    failed = _failed(store, rows, done, running)
    missing = [row for row in rows if row.id not in done and row.id not in running and row.id not in failed]
    shares = {name: (one.step or 0) / max(1, one.steps) for name, one in running.items()}
    state = {row.id: _word(row.id, done, running, failed) for row in rows}
    works = {row.id: row.work for row in rows}
    return Status(
        folder=str(out),
        workers=workers,
        engine=engine,
        done=tuple((row.id, row.label) for row in rows if row.id in done),
        running=tuple(running.values()),
        failed=tuple((row.id, row.label, failed[row.id]) for row in rows if row.id in failed),
        missing=tuple((row.id, row.label) for row in missing),
        conductors=conductors(store),
        share=sum(works[name] for name in done) / total(works.values())
        + sum(works[name] * share for name, share in shares.items()) / total(works.values()),
        seconds_left=_seconds_left(store, rows, done, running, failed, shares, workers, now),
        kinds={
            kind: dict(Counter(state[row.id] for row in rows if row.kind == kind))
            for kind in dict.fromkeys(row.kind for row in rows)
        },
        now=now,
    )


def conductors(store: Store) -> tuple[tuple[str, float], ...]:
    """Processes that hand out the stages of a store now, and since when."""
    return tuple(sorted((one["who"], one["since"]) for one in store.holders(CONDUCTOR)))


def _running(store: Store, row: Row, holder: Mapping[str, Any] | None) -> Running:
    assert holder is not None
    last = builds.last_row(store, row.id) or {}
    return Running(row.id, row.label, holder["who"], holder["since"], last.get("step"), row.steps, last.get("loss"))


def _failed(
    store: Store, rows: Sequence[Row], done: set[str], running: Mapping[str, Running]
) -> dict[str, str]:  # stages that were given up, and those that rest on them -> why
    last = {event.stage: event for event in builds.events(store)}
    found: dict[str, str] = {}
    for row in rows:  # parents come first
        if row.id in done or row.id in running:
            continue
        if (event := last.get(row.id)) and event.what == "failed":
            found[row.id] = event.note
        elif why := next((found[parent] for parent in row.parents if parent in found), None):
            found[row.id] = why
    return found


def _word(name: str, done: set[str], running: Mapping[str, Running], failed: Mapping[str, str]) -> str:
    return "done" if name in done else "running" if name in running else "failed" if name in failed else "missing"


def _seconds_left(
    store: Store,
    rows: Sequence[Row],
    done: set[str],
    running: Mapping[str, Running],
    failed: Mapping[str, str],
    shares: Mapping[str, float],
    workers: int,
    now: float,
) -> float | None:
    left = {
        row.id: Left(row.kind, row.work, shares.get(row.id, 0.0), row.parents)
        for row in rows
        if row.id not in done and row.id not in failed
    }
    if not left:
        return 0.0
    if promised := _as_promised(store, rows, left):
        return Pace({kind: (1.0, 1.0) for kind in {one.kind for one in left.values()}}).left(promised, workers)
    pace = seen(store, ((row.id, row.kind, row.work) for row in rows))
    if (seconds := pace.left(left, workers)) is not None:
        return seconds
    kinds = {row.id: row.kind for row in rows}
    for name, one in running.items():  # nothing has ended yet: what is under way tells a little
        if shares[name] > 0.1:
            pace.saw(kinds[name], now - one.since, left[name].work * shares[name])
    return pace.left(left, workers)


def _as_promised(store: Store, rows: Sequence[Row], left: Mapping[str, Left]) -> dict[str, Left]:
    """What is left with the seconds that the plan promised for it as its work, by as much more as what is there took;
    {} where the plan does not know all of it."""
    path = store.root.parent / PLAN
    plan = read_json(path) if path.is_file() else {}
    known = plan.get("stages", {}) if isinstance(plan, dict) else {}
    if not left.keys() <= known.keys():
        return {}
    ended = [row.id for row in rows if row.id in known and (store.root / row.id / COST).is_file()]
    took = sum(read_json(store.root / name / COST)["seconds"] for name in ended)
    promised = sum(known[name] for name in ended)
    longer = took / promised if promised else plan.get("busy", 1.0)
    return {name: replace(one, work=known[name] * longer) for name, one in left.items()}


# --- for people and for programs ----------------------------------------------------------------------------------


def as_json(status: Status) -> dict[str, Any]:
    """All of it, by names."""
    return asdict(status) | {
        "done": [{"stage": name, "label": label} for name, label in status.done],
        "running": [asdict(one) for one in status.running],
        "failed": [{"stage": name, "label": label, "reason": why} for name, label, why in status.failed],
        "missing": [{"stage": name, "label": label} for name, label in status.missing],
        "conductors": [{"who": who, "since": since} for who, since in status.conductors],
        "counts": counts(status),
    }


def counts(status: Status) -> dict[str, int]:
    """How many stages are in each state."""
    return {name: len(getattr(status, name)) for name in ("done", "running", "failed", "missing")}


def text(status: Status) -> str:
    """What people read: counts, who is at what, what failed and why, what is still to come."""
    told = ", ".join(f"{number} {name}" for name, number in counts(status).items() if number)
    lines = [f"{status.folder}: {told}; {status.share:.0%} of the work"]
    lines += [f"  {kind}: {', '.join(f'{n} {word}' for word, n in by.items())}" for kind, by in status.kinds.items()]
    lines.append(_outlook(status))
    lines += [_line(one, status.now) for one in status.running]
    whys = dict[str, list[str]]()
    for _, label, why in status.failed:
        whys.setdefault(why, []).append(label)
    for why, labels in whys.items():
        behind = [label for label in labels if not why.startswith(f"{label}: ")]
        lines.append(f"failed: {why}" + (f" (and with it: {_some(behind)})" if behind else ""))
    if status.missing:
        lines.append(f"missing: {_some([label for _, label in status.missing])}")
    return "\n".join(lines)


def _outlook(status: Status) -> str:
    if not status.running and not status.missing:
        return "nothing is left to do" + ("; its command tries again what failed" if status.failed else "")
    left = "" if status.seconds_left is None else f"; about {duration(status.seconds_left)} left"
    if not status.conductors:
        return f"nobody hands out stages here: give the study's command again{left.replace(' left', ' are left then')}"
    who = ", ".join(f"{who} for {duration(max(0.0, status.now - since))}" for who, since in status.conductors)
    return f"{status.workers} workers ({status.engine}), handed out by {who}{left}"


def _line(one: Running, now: float) -> str:
    parts = [f"running: {one.label}"]
    if one.steps:
        parts.append(f"step {one.step or 0:,}/{one.steps:,}" + (f", loss {one.loss:.3f}" if one.loss else ""))
    return " · ".join([*parts, f"{one.who} for {duration(max(0.0, now - one.since))}"])


def _some(labels: Sequence[str], most: int = 6) -> str:
    """A few of them, each once."""
    told = [f"{label} ({n} times)" if n > 1 else label for label, n in Counter(labels).items()]
    return "; ".join(told[:most]) + (f"; and {len(told) - most} more" if len(told) > most else "")
