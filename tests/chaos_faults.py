"""Chaos from within: the sets of chaos.py whose runs are given faults (faults.py), on one rank or on two."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults import digest
from tiny_run import IDS, LENGTHS, OBJECTIVE, RUN, make, outcome, text

from t5study.feed.sources import DocumentSource
from t5study.ground.journal import read_journal
from t5study.train.checkpoint import Damaged, steps, verify

if TYPE_CHECKING:
    from chaos import Place

SHORT: dict[str, Any] = {"steps": 30, "save_every": 5, "evaluate_every": 0}


def short(place: Place, **changes: Any) -> dict[str, bytes]:
    """The outcome of the short run that nothing befalls."""
    folder = place.new()
    place.runs.start(folder, **{**SHORT, **changes})
    assert place.runs.wait() == 0
    return outcome(folder)


def goes_on(place: Place, folder: Path, bytes: dict[str, bytes], **changes: Any) -> bool:
    """Whether a run, with nothing in its way any more, comes to these bytes."""
    place.runs.start(folder, **{**SHORT, **changes})
    good = place.runs.wait() == 0 and outcome(folder) == bytes
    shutil.rmtree(folder.parent, ignore_errors=True)  # it may be a disk of its own
    return good


def good_left(folder: Path) -> bool:
    """Whether all checkpoints are good, and there is one."""
    try:
        return bool([verify(folder, step) for step in steps(folder)])
    except Damaged:
        return False


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Whether a folder lies on a disk of 16 MiB of its own meanwhile: root alone may have that."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    mounted = sys.platform == "linux" and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full_disks(place: Place) -> tuple[int, int]:
    """a disk, or a file's limit, full at drawn bytes of a save, a quota told at the sync, a folder that is closed, no
    room at the start: exit 74, told with path and bytes, the checkpoint before is whole, the same command goes on"""
    n, good, limits, unbroken = max(4, place.many(26)), 0, 0, short(place)
    sizes = [len(content) for name, content in unbroken.items() if "checkpoints" in name]
    for i in range(n):
        folder, at, blind = place.new().parent / "disk" / "run", place.draw.randrange(6, 25), i // 2 % 2 == 0
        with small_disk(folder.parent) as small:
            kind = {1: "quota", 2: "start", 3: "closed"}.get(i % 13, "disk" if small and i % 4 < 2 else "limit")
            wrong = {
                "quota": {"errno": 122, "at": place.draw.randrange(2, 6)},
                "start": {"disk": 100_000},
                "closed": {"closed": place.draw.choice(("", "checkpoints")), "limit_at": at},
                # Who asks what is free either hears it, before anything is written, or finds out.
                "disk": {"fill": place.draw.randrange(sum(sizes)), "limit_at": at}
                | ({"disk": 1 << 40} if blind else {}),
                "limit": {"limit": place.draw.randrange(10_000, max(sizes)), "limit_at": at},
            }[kind]
            limits += kind == "limit"
            place.runs.start(folder, faults=wrong, async_save=bool(i % 2), **SHORT)
            code = place.runs.wait()
            told = (folder / "err.txt").read_text().strip().splitlines()[-1]
            right = code == 74 and str(folder) in told
            right = right and ("cannot be written to" if kind == "closed" else " are free") in told
            for path in (folder, *folder.glob("checkpoints")):
                path.chmod(0o755)
            (folder.parent / "ballast").unlink(missing_ok=True)
            good += right and (kind == "start" or good_left(folder)) and goes_on(place, folder, unbroken)
    place.told = f"{limits} by a limit"
    return good, n


def while_steps_go_on(place: Place) -> tuple[int, int]:
    """saves while steps go on: plain, with a slow disk, failing, or killed at drawn moments, some in a save, some
    between a save's end and the oldest's removal; bytes are those of a run that waits, and there is a good checkpoint
    at every moment"""
    hows = ("kill", "slow", "fail", "kill in a save", "kill after a save", "plain")
    n, good, unbroken = max(len(hows), place.many(50)), 0, short(place)
    for i in range(n):
        folder, how = place.new(), hows[i % len(hows)]
        wrong: dict[str, Any] = {
            "slow": {"slow": 0.3},
            "fail": {"errno": 28, "at": place.draw.randrange(2, 6)},
            "kill in a save": {"slow": 0.1},
            "kill after a save": {"strikes": [["published", place.draw.choice((15, 20, 25)), 0, "SIGKILL"]]},
        }.get(how, {})
        pid = place.runs.start(folder, async_save=True, faults=wrong, **SHORT)
        right = True
        if how in ("kill", "kill in a save"):
            _kill(pid, folder, place.draw.randrange(6, 25), in_save="save" in how)
        code = place.runs.wait()
        if how == "kill after a save":
            right = code == -9 and len(steps(folder)) == 3
        elif "kill" in how:
            right = code in (-9, 0)
        else:
            right = code == (74 if how == "fail" else 0)
        good += right and good_left(folder) and goes_on(place, folder, unbroken, async_save=bool(i % 2))
    return good, n


def _kill(pid: int, folder: Path, step: int, in_save: bool) -> None:
    journal, limit = folder / "journal.jsonl", time.monotonic() + 300
    while time.monotonic() < limit and not (folder / "summary.json").exists():
        there = journal.exists() and journal.read_bytes().count(b"\n") >= step and steps(folder)
        if there and (not in_save or any((folder / "checkpoints").glob(".step-*.tmp"))):
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.0005)


def bad_steps(place: Place) -> tuple[int, int]:
    """NaN or Inf in the loss, a gradient or a batch, on one rank or on one of two: all ranks decide alike, the report
    names step, rank, weight and examples, and what is left out has moved nothing"""
    n, good = place.many(100), 0
    for i in range(n):
        folder, world = place.new(), 1 + i % 2
        rank, step = place.draw.randrange(world), place.draw.randrange(2, 6)
        where, value = ("loss", "gradient", "batch")[i % 3], place.draw.choice(("nan", "inf"))
        action = ("stop", "skip", "rewind")[i // 3 % 3]
        guard = ["rewind", 0.0, 3] if action == "rewind" else [action]
        wrong = {"bad": {"where": where, "value": value, "steps": [step], "rank": rank}}
        codes = place.ranks.go(world, folder, wrong=wrong, guard=guard, steps=6, save_every=1, evaluate_every=1)
        told = folder.with_name(f"{folder.name}.0.txt").read_text()
        right = codes == [2 if action == "stop" else 0] * world and f"step {step}: found" in told
        right = right and " in examples " in told and (world == 1 or f" on rank {rank} in" in told)
        right = right and (where != "gradient" or "(first in " in told)
        if action == "skip":
            sums = [row["sum"] for row in read_journal(folder / "evaluations.jsonl")]
            right = right and [k + 1 for k in range(1, 6) if sums[k] == sums[k - 1]] == [step]
        if action == "stop":
            right = right and steps(folder)[0] == step - 1
        else:
            right = right and len({folder.with_name(f"run.weights.{r}").read_text() for r in range(world)}) == 1
        good += right
        shutil.rmtree(folder.parent)
    return good, n


def spikes(place: Place) -> tuple[int, int]:
    """a loss of 1e9 nats at a drawn step is left out and nothing else is; killed about then, within the window of
    losses that it is judged by, a run ends in the same bytes"""
    n, good, unbroken = place.many(20), 0, {}
    for _ in range(n):
        folder, step = place.new(), place.draw.randrange(22, 28)
        wrong = {"bad": {"where": "loss", "value": "1e9", "steps": [step]}}
        how = {"guard": ["skip", 10.0], "faults": wrong}
        if step not in unbroken:
            unbroken[step] = short(place, **how)
        pid = place.runs.start(folder, **how, **SHORT)
        _kill(pid, folder, step + place.draw.randrange(-2, 2), in_save=False)
        right = place.runs.wait() in (-9, 0)
        rows = unbroken[step]["journal.jsonl"].splitlines()
        right = right and [row["step"] for row in map(json.loads, rows) if "skipped" in row] == [step]
        good += right and goes_on(place, folder, unbroken[step], **how)
    return good, n


def lost_loaders(place: Place) -> tuple[int, int]:
    """the thread that makes batches raises, hangs or ends without a word, at the first, a middle or the last batch, of
    a run alone or on one of two ranks: the cause is told, the other rank ends, the same command ends in the same bytes
    """
    n, good, unbroken = place.many(30), 0, {}
    for i in range(n):
        world, how = 1 + i % 2, ("raise", "hang", "die")[i % 3]
        if world not in unbroken:
            folder = place.new()
            assert place.ranks.go(world, folder, **SHORT) == [0] * world
            unbroken[world] = outcome(folder)
        folder, rank = place.new(), place.draw.randrange(world)
        batch = (1, place.draw.randrange(2, 30), 30)[i // 3 % 3]
        codes = place.ranks.go(world, folder, wrong={"stream": how, "batch": batch, "rank": rank}, **SHORT)
        right = codes == [1 if r == rank and how == "raise" else 75 for r in range(world)]
        said = {"raise": "shard-00003", "hang": "no batch from example", "die": "the thread that makes batches ended"}
        right = right and said[how] in folder.with_name(f"{folder.name}.{rank}.txt").read_text()
        right = right and place.ranks.go(world, folder, **SHORT) == [0] * world
        good += right and outcome(folder) == unbroken[world]
        shutil.rmtree(folder.parent)
    return good, n


def ledgers(place: Place) -> tuple[int, int]:
    """two kill -9 in the first epoch, about its edge, in a later one or anywhere: every step's batch, made once or
    again, is the one of a stream that is read from its start, no example is lost or comes twice, one row a step"""
    documents, steps, expected = 60, 110, {}
    offsets = text()[1][: documents + 1]
    examples = len(DocumentSource(text()[0][: offsets[-1]], offsets, OBJECTIVE, LENGTHS, IDS, RUN.seed))
    stream, position = make(documents=documents)[1], 0
    for step in range(1, steps + 1):  # every batch begins at the example after the last one's last
        batch, position = stream.batch(position)
        expected[step] = digest(batch)
    an_epoch = steps * examples // position
    bands = ((6, an_epoch - 16), (an_epoch - 8, an_epoch + 4), (an_epoch + 8, steps - 12), (6, steps - 12))
    how = {"steps": steps, "save_every": 5, "evaluate_every": 0, "documents": documents}
    n, good = place.many(32), 0
    for i in range(n):
        folder = place.new()
        ledger = folder.with_name("ledger")
        at = place.draw.randrange(*bands[i % 4])
        codes = []
        for step in (at, at + 6, 0):  # 0: to the end
            pid = place.runs.start(folder, faults={"ledger": str(ledger)}, **how)
            if step:
                _kill(pid, folder, step, in_save=False)
            codes.append(place.runs.wait())
        found = [tuple(json.loads(line)) for line in ledger.read_text().splitlines()]
        right = codes == [-9, -9, 0] and {step for step, _ in found} == set(expected)
        right = right and all(expected[step] == batch for step, batch in found) and len(found) >= len(expected)
        rows = [row["step"] for row in read_journal(folder / "journal.jsonl")]
        good += right and rows == list(expected)
        shutil.rmtree(folder.parent)
    return good, n
