"""The journals of a store: which process began, ended or gave up which stage, and when.

    store/.builds/HOST-PID.jsonl     a file a process, so that hosts need not take turns; a line an event

They tell people, and tests, what happened; nothing is decided by them. What is done is what is in the store.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from t5study.ground.store import Store, this_process

FOLDER = ".builds"


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
                event = Event(
                    float(row["time"]), str(row["stage"]), str(row["what"]), str(row["who"]), str(row.get("note", ""))
                )
            except (
                ValueError,
                KeyError,
                TypeError,
            ):  # a line that the power cut in two
                continue
            yield event
