"""Chaos among ranks: the sets of chaos.py in which a process of a run is sent a signal, at a named moment of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from little_models import fine_tuning
from strikes import Strike, begun, came
from tiny_run import outcome

from t5study.ground.journal import read_journal
from t5study.train.checkpoint import steps

if TYPE_CHECKING:
    from chaos import Place

Rhythm = dict[str, int]  # steps, save_every, evaluate_every
FINE_TUNING: Rhythm = {"steps": 12, "save_every": 4, "evaluate_every": 3}
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP")
RANKS, RESTARTS = 4, 10
HUNG_S = 900  # that five restarts may take
LATE_S = 0.03  # that a kill comes after its moment, at most: about a step of four ranks


def struck(place: Place, moments: Sequence[str], world: int, rhythm: Rhythm, name: str, late_s: float) -> list[Strike]:
    """A strike at each of these moments, at drawn steps one after another, to drawn ranks."""
    step, found, ranks = 0, list[Strike](), place.draw.sample(range(world), world)
    for i, moment in enumerate(moments):
        every = {"save": rhythm["save_every"], "evaluation": rhythm["evaluate_every"]}.get(moment, 1)
        step += place.draw.randrange(1, rhythm["save_every"]) if moment != "load" else 0
        step = -(-step // every) * every
        found.append(Strike(moment, step, ranks[i % world], name, place.draw.random() * late_s))
    return found


def most(seconds: Sequence[float]) -> str:
    """What 95 of a hundred do not exceed."""
    if not seconds:
        return "never"
    return f"95 % within {sorted(seconds)[int(0.95 * (len(seconds) - 1) + 0.5)]:.1f} s"


# --- R9: signals --------------------------------------------------------------------------------------------------


class Kinds:
    """Runs of either kind on one rank or on two, and what they come to when nothing befalls them."""

    def __init__(self, place: Place):
        self.place, self.words, self.ends = place, list[str](), dict[tuple[str, int], dict[str, bytes]]()
        self.rhythms = {"pre-training": place.rhythm, "fine-tuning": FINE_TUNING}

    def go(self, kind: str, world: int, folder: Path, strikes: Sequence[Strike] = ()) -> list[int]:
        rhythm, wrong = self.rhythms[kind], {"strikes": [astuple(one) for one in strikes]}
        if kind == "pre-training":
            return self.place.ranks.go(world, folder, wrong=wrong, **rhythm)
        self.words = self.words or fine_tuning(self.place.new().parent)
        flags = [str(word) for name, n in rhythm.items() for word in (f"--{name.replace('_', '-')}", n)]
        return self.place.ranks.command(
            world, [*self.words, *flags, "--out", str(folder)], folder.with_name("told"), wrong
        )

    def end(self, kind: str, world: int) -> dict[str, bytes]:
        if (kind, world) not in self.ends:
            folder = self.place.new()
            assert self.go(kind, world, folder) == [0] * world
            self.ends[kind, world] = outcome(folder)
        return self.ends[kind, world]


def signals(place: Place) -> tuple[int, int]:
    """SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP to a run alone or to one of two ranks, as it loads, makes a step, saves
    or evaluates; every fourth run is a fine-tuning by the real command: all ranks stop after one step, which is saved,
    with the right exit code, and the same command ends in the same bytes"""
    kinds, took = Kinds(place), list[float]()
    moments = ("load", "step", "save", "evaluation")
    cases = [(name, moment, world) for name in SIGNALS for moment in moments for world in (1, 2)]
    place.draw.shuffle(cases)
    n, good = place.many(len(cases)), 0
    for i, (name, moment, world) in enumerate(cases[:n]):
        folder, kind = place.new(), "fine-tuning" if i % 4 == 3 else "pre-training"
        codes = kinds.go(kind, world, folder, struck(place, [moment], world, kinds.rhythms[kind], name, 0.0))
        at = came(folder, 0)
        right = at is not None and codes == [130 if name == "SIGINT" else 75] * world
        took.append(time.monotonic() - (at or 0.0))
        right = right and steps(folder)[0] == len(read_journal(folder / "journal.jsonl")) == begun(folder)[-1][0]
        right = right and kinds.go(kind, world, folder) == [0] * world
        good += right and outcome(folder) == kinds.end(kind, world)
        shutil.rmtree(folder.parent)
    place.told = f"{most(took)} from the signal to the end of all ranks"
    return good, n


# --- R10: ranks that are killed -----------------------------------------------------------------------------------


def killed(place: Place) -> list[Strike]:
    """Five kills of one of four ranks, at every moment there is and twice in a step."""
    moments = ["load", "step", "step", "save", "evaluation"]
    place.draw.shuffle(moments)
    return struck(place, moments, RANKS, place.rhythm, "SIGKILL", LATE_S)


def again(place: Place, folder: Path, strikes: Sequence[Strike]) -> tuple[bool, list[float]]:
    """Whether all strikes came and none of them cost more steps than lie between two saves; seconds from each to the
    first step that was begun after it."""
    took, right, log = list[float](), True, begun(folder)
    for number in range(len(strikes)):
        at = came(folder, number) or 0.0
        start = next((i for i, (step, when) in enumerate(log) if step == 0 and when > at), len(log))
        first = next((one for one in log[start:] if one[0]), None)
        if not at or first is None:
            return False, took
        took.append(first[1] - at)
        right = right and (log[start - 1][0] or first[0] - 1) - first[0] + 1 <= place.run.save_every
    return right, took


def lost_ranks(place: Place) -> tuple[int, int]:
    """kill -9 of one of four ranks, five times a run, as the first loads, makes a step, saves or evaluates: the others
    end, all start again and make no more steps twice than lie between two saves, the end is the same"""
    n, good, left, ended, restarted = place.many(10), 0, 0, list[float](), list[float]()
    unbroken = place.new()
    assert place.ranks.go(RANKS, unbroken, **place.rhythm) == [0] * RANKS
    for _ in range(n):
        folder, strikes, right = place.new(), killed(place), True
        wrong = {"strikes": [astuple(one) for one in strikes]}
        for number, strike in enumerate(strikes):
            codes = place.ranks.go(RANKS, folder, wrong=wrong, **place.rhythm)
            ended.append(time.monotonic() - (came(folder, number) or 0.0))
            others = {code for rank, code in enumerate(codes) if rank != strike.rank}
            right = right and codes[strike.rank] == -9 and others <= {75, -9}
            left += -9 in others
        right = right and place.ranks.go(RANKS, folder, wrong=wrong, **place.rhythm) == [0] * RANKS
        back, took = again(place, folder, strikes)
        restarted += took
        good += right and back and outcome(folder) == outcome(unbroken)
    place.told = f"{most(ended)} from the kill to the end of all others, {most(restarted)} to the next step"
    place.told += f"; after {left} of {len(ended)} kills gloo told some ranks nothing, and they were killed after 30 s"
    return good, n


def lost_ranks_of_torchrun(place: Place) -> tuple[int, int]:
    """the same five kills under the real torchrun, which starts the ranks again (--max-restarts 10)"""
    n, good, hung, restarted = place.many(10), 0, 0, list[float]()
    unbroken = place.new()
    assert place.ranks.go(RANKS, unbroken, **place.rhythm) == [0] * RANKS
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={RANKS}", f"--max-restarts={RESTARTS}"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(Path(__file__).with_name("rank_runs.py"))]
    for _ in range(n):
        folder, strikes = place.new(), killed(place)
        how = {**place.rhythm, "wrong": {"strikes": [astuple(one) for one in strikes]}}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        with open(folder.with_name("told"), "wb") as told:
            ranks = subprocess.Popen(
                [*command, str(folder), json.dumps(how)], env=environment, stdout=told, stderr=told
            )
            try:
                ranks.wait(HUNG_S)
            except subprocess.TimeoutExpired:
                ranks.terminate()  # it ends the ranks
                hung += 1
            ended = ranks.wait()
        back, took = again(place, folder, strikes)
        restarted += took
        right = ended == 0 and back and outcome(folder) == outcome(unbroken)
        good += right
        if not right:
            print(folder.with_name("told").read_text()[-3000:], file=sys.stderr)
    place.told = f"{most(restarted)} from the kill to the next step" + (f"; {hung} hung" if hung else "")
    return good, n
