"""Chaos: what must never lose a step, tried on real processes that are killed, stopped, locked out and damaged.

    python tests/chaos.py                          the full sets; the table of docs/reliability.md on standard output
    python tests/chaos.py --share 0.1 --seed 1     a tenth of each

A run is the tiny one: 200 steps, saved every 10; of 30, saved every 5, where a part is tried. "The same" is all of its
bytes but the wall-clock's. With no failure in 200 the true rate is below 1.5 % (95 %).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import chaos_faults
import chaos_precision
import chaos_ranks
from rank_runs import RankRuns
from tiny_run import RUN, Runs, go, outcome

from t5study.ground.errors import UserError
from t5study.train.checkpoint import FILES, Damaged, steps, verify
from t5study.train.folder import alone
from t5study.train.run import TrainRun

DEADLINE_S = 300
BRIEF = {"steps": 30, "save_every": 5, "evaluate_every": 10}  # the run of a part of a set


def changes_of(part: float) -> dict[str, int]:
    return BRIEF if part < 1 else {}


@dataclass
class Place:
    """Where a set is tried. part: of the full set. unbroken: the run's folder and its bytes."""

    part: float
    draw: random.Random
    runs: Runs
    ranks: RankRuns
    folder: Path
    unbroken: Path
    bytes: dict[str, bytes] = field(default_factory=dict)
    told: str = ""  # what a set has measured beside

    @property
    def changes(self) -> dict[str, int]:
        """What the run has other than the tiny one."""
        return changes_of(self.part)

    @property
    def run(self) -> TrainRun:
        return replace(RUN, **self.changes)

    @property
    def rhythm(self) -> dict[str, int]:
        """What the run has of steps, saves and evaluations."""
        return {name: getattr(self.run, name) for name in BRIEF}

    @property
    def last(self) -> int:
        """The last step after which a save is still to come."""
        return self.run.steps - self.run.save_every - 1

    def many(self, of: int) -> int:
        return max(1, round(of * self.part))

    def new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / "run"

    def same(self, folder: Path) -> bool:
        """Whether a run came to the unbroken one's bytes; then it need not be kept."""
        found = outcome(folder) == self.bytes
        if found:
            shutil.rmtree(folder.parent)
        return found


# --- ending runs --------------------------------------------------------------------------------------------------


def rows(folder: Path) -> int:
    with suppress(FileNotFoundError):
        return (folder / "journal.jsonl").read_bytes().count(b"\n")
    return 0


def saving(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".step-*.tmp"))


def end_at(place: Place, folder: Path, step: int, how: str) -> int:
    """Starts a run and ends it once so many steps are in its journal: "kill" at once, "save" in the next save, or by a
    signal's name. Returns how it ended."""
    pid = place.runs.start(folder, **place.changes)
    limit = time.monotonic() + DEADLINE_S
    while time.monotonic() < limit and not (folder / "summary.json").exists():
        if rows(folder) >= step and (how != "save" or saving(folder)):
            os.kill(pid, signal.SIGKILL if how in ("kill", "save") else signal.Signals[how])
            break
        time.sleep(0.0005)
    return place.runs.wait()


def to_the_end(place: Place, folder: Path) -> bool:
    place.runs.start(folder, **place.changes)
    return place.runs.wait() == 0 and place.same(folder)


# --- the sets -----------------------------------------------------------------------------------------------------


def kills(place: Place) -> tuple[int, int]:
    """kill -9 at drawn moments, every other one inside a save; each run then goes on to its end"""
    n, good = place.many(200), 0
    for i in range(n):
        folder = place.new()
        end_at(place, folder, place.draw.randrange(0, place.last), ("kill", "save")[i % 2])
        good += to_the_end(place, folder)
    return good, n


def chains(place: Place) -> tuple[int, int]:
    """ten kill -9 in one run, 1 to a fifth of its steps apart, one during start-up and one in the first save"""
    n, good = place.many(20), 0
    for _ in range(n):
        folder, step = place.new(), 0
        end_at(place, folder, 0, "kill")
        end_at(place, folder, 0, "save")
        for _ in range(8):
            step = min(step + place.draw.randrange(1, place.run.steps // 5), place.last)
            end_at(place, folder, step, place.draw.choice(("kill", "save")))
        good += to_the_end(place, folder)
    return good, n


def damage(place: Place) -> tuple[int, int]:
    """1,000 bits flipped, 200 cuts, 50 files swapped with another step's, 50 deleted: found before a number is used"""
    folder, other = place.new(), place.new()
    shutil.copytree(place.unbroken, folder)
    end_at(place, other, place.last, "SIGTERM")
    path, names = folder / "checkpoints" / f"step-{place.run.steps:06d}", (*FILES, "manifest.json")
    elsewhere = other / "checkpoints" / f"step-{steps(other)[0]:06d}"
    kinds = [
        kind for kind, of in (("flip", 1000), ("cut", 200), ("swap", 50), ("delete", 50)) for _ in range(place.many(of))
    ]
    good = 0
    for kind in kinds:
        file = path / place.draw.choice(names)
        kept = file.read_bytes()
        if kind == "flip":
            changed = bytearray(kept)
            changed[place.draw.randrange(len(kept))] ^= 1 << place.draw.randrange(8)
            file.write_bytes(changed)
        elif kind == "cut":
            file.write_bytes(kept[: place.draw.randrange(len(kept))])
        elif kind == "swap":
            file.write_bytes((elsewhere / file.name).read_bytes())
        else:
            file.unlink()
        try:
            verify(folder, place.run.steps)
        except Damaged:
            good += 1
        file.write_bytes(kept)
    verify(folder, place.run.steps)
    return good, len(kinds)


HOLD = (
    "import sys\nfrom pathlib import Path\nfrom t5study.train.folder import alone\n"
    "with alone(Path(sys.argv[1])):\n    print('in', flush=True)\n    sys.stdin.read()\n"
)


def locks(place: Place) -> tuple[int, int]:
    """a second process is refused within a second, told who is there; a lock whose holder was killed holds nobody up"""
    n, stale, good = place.many(100), place.many(20), 0
    place.folder.mkdir(exist_ok=True)
    for _ in range(stale):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(place.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        for _ in range(n // stale):
            began = time.monotonic()
            try:
                with alone(place.folder):
                    pass
            except UserError as error:
                good += f"process {holder.pid} on " in str(error) and time.monotonic() - began < 1
        holder.kill()
        holder.communicate()
        with suppress(UserError), alone(place.folder):
            good += 1
    return good, n // stale * stale + stale


SETS: dict[str, Callable[[Place], tuple[int, int]]] = {
    "R1 kills": kills,
    "R2 chains": chains,
    "R3 ledgers": chaos_faults.ledgers,
    "R5 full disks": chaos_faults.full_disks,
    "R7 damage": damage,
    "R9 signals": chaos_ranks.signals,
    "R10 ranks": chaos_ranks.lost_ranks,
    "R10 torchrun": chaos_ranks.lost_ranks_of_torchrun,
    "R11 bad steps": chaos_faults.bad_steps,
    "R12 spikes": chaos_faults.spikes,
    "R13 precisions": chaos_precision.precisions,
    "R14 loaders": chaos_faults.lost_loaders,
    "R17 async": chaos_faults.while_steps_go_on,
    "R20 locks": locks,
}


IN_FULL_ONLY = ("R10 torchrun",)  # minutes of imports; tests/train/test_faults.py kills one rank under torchrun


class Found(NamedTuple):
    good: int
    of: int
    seconds: float
    told: str


@contextmanager
def ground(share: float) -> Iterator[tuple[Runs, RankRuns, Path]]:
    """What all sets stand on: processes to fork runs from, and a folder with the run that nothing befell."""
    with tempfile.TemporaryDirectory() as folder, closing(Runs()) as runs, RankRuns() as ranks:
        go(Path(folder) / "unbroken", replace(RUN, **changes_of(share)))
        yield runs, ranks, Path(folder)


def run(name: str, share: float, seed: int, runs: Runs, ranks: RankRuns, folder: Path) -> Found:
    """How many of a set's were good, of how many."""
    unbroken = folder / "unbroken"
    own = folder / name.replace(" ", "-")
    place = Place(share, random.Random(seed), runs, ranks, own, unbroken, outcome(unbroken))
    place.folder.mkdir()
    began = time.monotonic()
    good, of = SETS[name](place)
    return Found(good, of, time.monotonic() - began, place.told)


def table(found: dict[str, Found]) -> str:
    lines = ["| set | what is tried | good | minutes |", "|---|---|---|---|"]
    for name, (good, of, seconds, told) in found.items():
        tried = " ".join((SETS[name].__doc__ or "").split())
        lines.append(f"| {name} | {tried} | {good:,} of {of:,}{told and '; '}{told} | {seconds / 60:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Reliability's numbers, by trying.")
    parser.add_argument("--share", type=float, default=1.0, help="part of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    args = parser.parse_args()
    # Under nohup, or in the background, these are ignored, and runs leave ignored signals so.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = {}
    with ground(args.share) as grounds:
        for name in args.sets:
            found[name] = run(name, args.share, args.seed, *grounds)
            print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)
    print(table(found), end="")
    return int(any(one.good < one.of for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
