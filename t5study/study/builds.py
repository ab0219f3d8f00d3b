"""The journals of a store: which process began, ended or gave up which stage, and when.

    store/.builds/HOST-PID.jsonl     a file a process, so that hosts need not take turns; a line an event

They tell people, and tests, what happened; nothing is decided by them. What is done is what is in the store. How far
a stage is that somebody builds stands in its own journal, in its folder under `.partial`.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from t5study.ground.store import Store, this_process

FOLDER, JOURNAL = ".builds", "journal.jsonl"
_TAIL = 1 << 14  # bytes of a journal in which its last row is


@dataclass(frozen=True)
class Event:
    """stage: its id. what: "begun", "done" (it is in the store), or "failed" (given up by a conductor). time: seconds
    since 1970. who: the process. note: why it failed."""

    time: float
    stage: str
    what: str
    who: str
    note: str = ""


def note(store: Store, stage: str, what: str, note: str = "") -> None:
    """Writes an event of this process down, in one write: a kill leaves the line whole or not there."""
    folder = store.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    row = {"time": round(time.time(), 3), "stage": stage, "what": what, "who": this_process()}
    line = json.dumps(row | ({"note": note} if note else {})) + "\n"
    path = folder / f"{socket.gethostname()}-{os.getpid()}.jsonl"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def events(store: Store) -> list[Event]:
    """All that any process has noted, in the order of their clocks."""
    return sorted(_events(store), key=lambda event: event.time)


def _events(store: Store) -> Iterator[Event]:
    for path in sorted((store.root / FOLDER).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                given = {name: str(row[name]) for name in ("stage", "what", "who")}
                event = Event(float(row["time"]), **given, note=str(row.get("note", "")))
            except (ValueError, KeyError, TypeError):  # a line that a loss of power cut in two
                continue
            yield event


def last_row(store: Store, stage: str) -> dict[str, Any] | None:
    """The last whole row of the journal of a stage under way; None if it has none."""
    try:
        with open(store.root / ".partial" / stage.replace("/", "-") / JOURNAL, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().split(b"\n")[:-1]
    except OSError:  # it has not begun, or has just been finished
        return None
    for line in reversed(lines):
        with suppress(ValueError):  # the first of these may lack its beginning
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                return row
    return None
