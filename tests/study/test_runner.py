"""The rounds end to end, on own text and own tasks, at the SMOKE scale: with real training in real workers.

One unbroken study is played for all tests here; others are killed again and again, whole or worker by worker, and must
end in the same bytes with no stage done twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from t5study.ground.errors import UserError
from t5study.ground.store import MANIFEST, Store, verify
from t5study.study import planned, runner
from t5study.study.asked import Asked
from t5study.study.builds import events
from t5study.study.decide import Until
from t5study.study.report_input import read_study
from t5study.study.scales import SMOKE
from t5study.study.search import run_rounds

ROOT = Path(__file__).resolve().parents[2]
SYLLABLES = [
    "ba",
    "do",
    "ki",
    "lu",
    "mer",
    "nal",
    "pos",
    "rit",
    "sun",
    "tav",
    "wen",
    "yor",
    "zel",
    "cra",
    "ple",
    "stri",
]


@dataclass(frozen=True)
class Given:
    """What a user would give: text and tasks of their own."""

    text: list[str]
    tasks: list[str]

    def ask(self, out: Path, **more: Any) -> dict[str, Any]:
        return {"asked": replace(Asked("smoke", self.text, self.tasks), **more), "out": out, "workers": 2}


@dataclass(frozen=True)
class Played:
    given: Given
    out: Path
    said: str
    seconds: float


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("given")
    chance = np.random.default_rng(0)

    words = ["".join(chance.choice(SYLLABLES, int(chance.integers(1, 5)))) for _ in range(400)]

    def sentence() -> str:
        return f"The {' '.join(chance.choice(words, int(chance.integers(4, 12))))} sleeps."

    with open(folder / "my text.jsonl", "w", encoding="utf-8") as file:
        for _ in range(300):
            file.write(json.dumps({"text": " ".join(sentence() for _ in range(4))}) + "\n")
    rows = [
        {"input": f"colour: {word} {k}", "target": "warm" if word < "m" else "cold"}
        for k in range(6)
        for word in words[:15]
    ]
    lines = [{"metric": "accuracy", "name": "colour"}, *rows]
    (folder / "colour.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    lines = [
        f"second word: {(words := sentence().split())[0]} {words[1]} {words[2]} {k}\t{words[1]}" for k in range(90)
    ]
    (folder / "second.tsv").write_text("# metric: squad\ninput\ttarget\n" + "\n".join(lines) + "\n")
    return Given([str(folder / "my *.jsonl")], [str(folder / "colour.jsonl"), str(folder / "second.tsv")])


@pytest.fixture(scope="module")
def played(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Played:
    out = tmp_path_factory.mktemp("unbroken") / "study"
    began = time.monotonic()
    said = run_rounds(**given.ask(out))
    return Played(given, out, said, time.monotonic() - began)


def stages(out: Path) -> dict[str, int]:
    """Finished stages and when each appeared."""
    return {
        str(path.parent.relative_to(out)): path.stat().st_mtime_ns for path in (out / "store").glob(f"*/*/{MANIFEST}")
    }


def test_the_rounds_are_played_and_told(played: Played):
    lines = played.said.splitlines()
    assert [line.split(".")[0] for line in lines[:4]] == ["round 1", "round 2", "round 3", "round 4"]
    assert lines[-1] == "stages run: 38"  # text, vocabulary, tokens, two tasks, 15 and 18 runs
    study = read_study(played.out)
    assert [told.winner for told in study.rounds].count(None) == 0
    assert [column.name for column in study.columns] == [
        "colour", "second", "mean", "colour nats", "second nats", "mean nats",
    ]  # fmt: skip
    assert len(study.runs) == 18
    assert all(
        cell.state == "measured" for run in study.runs.values() for cell in run.cells.values() if hasattr(cell, "state")
    )
    assert study.noise["mean nats"].runs == SMOKE.seeds
    assert study.noise["mean nats"].std > 0  # seeds differ
    assert study.corpus["documents"] == 300 or study.corpus["tokens"] == SMOKE.max_tokens
    assert set(study.costs["runs"]) == set(study.runs)


@pytest.mark.slow
def test_rounds_until_decided_add_seeds_and_end_in_the_same_bytes(given: Given, tmp_path: Path):
    """SMOKE tells nothing apart, so all goes to the most seeds; given no time, nothing further is run."""
    out = tmp_path / "study"
    run_rounds(**given.ask(out), until=Until(most_seeds=2, seconds=0.0))
    assert {run.seed for run in read_study(out).runs.values() if run.pretrain} == {0, 1, 2}
    assert "after 1 seed" in read_study(out).rounds[0].verdict
    said = run_rounds(**given.ask(out), until=Until(most_seeds=2))
    study = read_study(out)
    assert len(study.runs) > 18
    assert all(len(each.runs) >= 2 for turn in study.rounds for each in turn.candidates if each.label in turn.ties)
    assert "after 2 seeds" in said
    before = (out / "scores.json").read_bytes()
    assert run_rounds(**given.ask(out)).endswith("everything was there: nothing was run")  # it is still such a study
    assert (out / "scores.json").read_bytes() == before


def test_every_stage_is_whole_and_lean(played: Played):
    for name in stages(played.out):
        verify(played.out / name)
    assert not list((played.out / "store" / ".partial").iterdir())
    for kind, rows in [("pretrain", SMOKE.pretrain_steps), ("finetune", SMOKE.finetune_steps)]:
        for folder in (played.out / "store" / kind).iterdir():
            steps = [json.loads(line)["step"] for line in (folder / "journal.jsonl").read_text().splitlines()]
            assert steps == list(range(1, rows + 1))
            assert (folder / "model" / "model.safetensors").is_file()
            assert not (folder / "checkpoints").exists()


def test_predictions_are_kept_for_the_checkpoints_that_count(played: Played):
    study = read_study(played.out)
    run = next(run for run in study.runs.values() if run.seed == 0 and run.label == "replace spans 15%")
    folder = played.out / "store" / str(run.finetune)
    counted = {getattr(cell, "step", None) for name, cell in run.cells.items() if "mean" not in name} | {
        SMOKE.finetune_steps
    }
    assert {int(path.name) for path in (folder / "predictions").iterdir()} == counted
    table = pq.read_table(folder / "predictions" / f"{SMOKE.finetune_steps:07d}" / "00-colour.parquet")
    assert table.num_rows == study.tasks[0]["validation_rows"]


def test_played_again_nothing_is_run(played: Played):
    before, scores = stages(played.out), (played.out / "scores.json").stat().st_mtime_ns
    said = run_rounds(**played.given.ask(played.out))
    assert said.splitlines()[:4] == played.said.splitlines()[:4]
    assert said.splitlines()[-1] == "everything was there: nothing was run"
    assert stages(played.out) == before
    assert (played.out / "scores.json").stat().st_mtime_ns == scores


def test_tables_after_the_rounds_share_their_runs_and_keep_the_rounds(played: Played, tmp_path: Path):
    before = json.loads((played.out / "scores.json").read_text())
    there = set(stages(played.out))
    runner.run_tables(**played.given.ask(played.out), tables="4,5")
    assert set(stages(played.out)) == there  # rounds 1 and 2 are tables 4 and 5
    after = json.loads((played.out / "scores.json").read_text())
    assert after == before
    asked = json.loads((played.out / "study.json").read_text())
    assert (asked["rounds"], asked["tables"]) == (True, ["4", "5"])


def test_another_question_is_refused_and_touches_nothing(played: Played, tmp_path: Path):
    asked = (played.out / "study.json").read_bytes()
    with pytest.raises(
        UserError,
        match=r"was asked another question \(scale.name: smoke there, laptop now\); choose another --out, or delete it",
    ):
        run_rounds(**played.given.ask(played.out, scale="laptop"))
    with pytest.raises(UserError, match=r"\(other tasks, or other rows in them\)"):
        run_rounds(**played.given.ask(played.out, tasks=played.given.tasks[:1]))
    (tmp_path / "other.txt").write_text("Other text, of another day.")
    with pytest.raises(UserError, match=r"\(other text"):
        run_rounds(**played.given.ask(played.out, text=[str(tmp_path / "other.txt")]))
    with pytest.raises(UserError, match="found something that is no study"):
        run_rounds(**played.given.ask(tmp_path))
    assert (played.out / "study.json").read_bytes() == asked


def test_two_tasks_of_one_column_are_refused(played: Played, tmp_path: Path):
    twin = tmp_path / "colour.jsonl"
    twin.write_bytes(Path(played.given.tasks[0]).read_bytes())
    with pytest.raises(UserError, match="its column would be called 'colour'"):
        run_rounds(**played.given.ask(tmp_path / "out", tasks=[*played.given.tasks, str(twin)]))
    assert not (tmp_path / "out").exists()


def test_a_plan_of_what_is_there_says_so(played: Played):
    before = stages(played.out)
    told = planned.plan(**played.given.ask(played.out), tables="4,5")
    assert "nothing is missing" in told
    assert stages(played.out) == before


def test_a_plan_trains_and_writes_nothing(played: Played, tmp_path: Path):
    told = planned.plan(**played.given.ask(tmp_path / "new"))
    rows = {line.split()[0]: line.split() for line in told.splitlines() if line}
    assert rows["pretrain"][1:3] == ["0", "15"]
    assert rows["finetune"][1:3] == ["0", "18"]
    assert (
        int(rows["pretrain"][3].replace(",", ""))
        > 15 * SMOKE.pretrain_steps * SMOKE.pretrain_rows * SMOKE.source_length
    )
    assert "kinds of steps just now" in told
    assert not (tmp_path / "new").exists()


# --- kills --------------------------------------------------------------------------------------------------------


def start(given: Given, out: Path) -> subprocess.Popen[bytes]:
    script = out.parent / "rounds.py"
    script.write_text(
        "from pathlib import Path\n"
        "from t5study.study.asked import Asked\n"
        "from t5study.study.search import run_rounds\n"
        f"if __name__ == '__main__':\n    run_rounds(**{given.ask(Path(str(out)))!r})\n".replace("PosixPath", "Path")
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(out.parent / "said.txt", "a", encoding="utf-8") as said:
        return subprocess.Popen([sys.executable, script], env=environment, stderr=said)


def progress(out: Path) -> int:
    """Steps of training that have left a trace: those under way, and a stage's worth for each that is finished."""
    store = out / "store"
    finished = len(list(store.glob(f"*/*/{MANIFEST}"))) * 8
    under_way = 0
    for path in store.glob(".partial/*/journal.jsonl"):
        try:
            under_way += path.read_bytes().count(b"\n")
        except FileNotFoundError:  # it has just been finished
            continue
    return finished + under_way


def moments(seed: int, kills: int, most: int) -> Iterator[int]:
    """Random marks of progress to kill at, ascending."""
    yield from sorted(np.random.default_rng(seed).integers(1, most, kills).tolist())


def killed_and_run(played: Played, out: Path, kills: int, seed: int) -> int:
    """Plays a study, killing it with -9 so many times; returns how many kills came in time."""
    out.parent.mkdir(exist_ok=True)
    hits = 0
    for mark in moments(seed, kills, progress(played.out)):
        study = start(played.given, out)
        until = time.monotonic() + 120
        while progress(out) < mark and study.poll() is None:
            assert time.monotonic() < until, "no progress"
            time.sleep(0.005)
        hits += study.poll() is None
        study.kill()
        study.wait()
    assert start(played.given, out).wait(timeout=240) == 0, (out.parent / "said.txt").read_text()[-3000:]
    return hits


def compare(one: Path, other: Path) -> None:
    assert (one / "scores.json").read_bytes() == (other / "scores.json").read_bytes()
    assert set(stages(one)) == set(stages(other))
    for name in stages(one):
        for file in ("journal.jsonl", "evaluations.jsonl", "result.json", "model/model.safetensors"):
            if (one / name / file).exists():
                assert (one / name / file).read_bytes() == (other / name / file).read_bytes(), (name, file)


def test_killed_and_run_again_it_ends_in_the_same_bytes(played: Played, tmp_path: Path):
    assert killed_and_run(played, tmp_path / "study", kills=2, seed=1) == 2
    compare(played.out, tmp_path / "study")


def workers_of(study: subprocess.Popen[bytes]) -> list[int]:
    """Processes of a study that build stages: its children but multiprocessing's own helper."""
    found = []
    for child in psutil.Process(study.pid).children():
        with suppress(psutil.Error):  # it has ended between the two calls
            if any("spawn_main" in word for word in child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


def workers_killed_and_run(played: Played, out: Path, kills: int, seed: int) -> int:
    """Plays a study in one go, killing one of its two workers with -9 so many times, each time further on; returns how
    many it killed."""
    chance = np.random.default_rng(seed)
    out.parent.mkdir(exist_ok=True)
    study, killed, last = start(played.given, out), 0, 0
    for mark in moments(seed, kills, progress(played.out) - 16):
        until = time.monotonic() + 1200
        while study.poll() is None and (progress(out) < max(mark, last + 1) or not (workers := workers_of(study))):
            assert time.monotonic() < until, "no progress"
            time.sleep(0.005)
        if study.poll() is None:
            last = progress(out)
            os.kill(int(chance.choice(workers)), signal.SIGKILL)
            killed += 1
    assert study.wait(timeout=1500) == 0, (out.parent / "said.txt").read_text()[-3000:]
    return killed


def stages_done_twice(out: Path) -> list[str]:
    """Stages that were begun, or done, after they were in the store."""
    twice, there = [], set()
    for event in events(Store(out / "store")):
        if event.stage in there:
            twice.append(f"{event.what} again: {event.stage}")
        elif event.what == "done":
            there.add(event.stage)
    return twice


def compare_killed(played: Played, out: Path, killed: int) -> None:
    """The same bytes; nothing done twice; what was begun again was killed half-way."""
    compare(played.out, out)
    assert stages_done_twice(out) == []
    told = events(Store(out / "store"))
    begun, done = ([event.stage for event in told if event.what == what] for what in ("begun", "done"))
    assert len(set(begun)) == len(stages(out))
    assert len(stages(out)) - killed <= len(done) <= len(stages(out))  # one that is killed as it ends cannot tell it
    assert len(begun) <= len(stages(out)) + killed


def test_workers_killed_and_it_ends_in_the_same_bytes(played: Played, tmp_path: Path):
    assert stages_done_twice(played.out) == []
    assert workers_killed_and_run(played, tmp_path / "study", kills=2, seed=4) == 2
    compare_killed(played, tmp_path / "study", killed=2)


@pytest.mark.slow
def test_workers_killed_twenty_times_and_the_same_bytes(played: Played, tmp_path: Path):
    killed = workers_killed_and_run(played, tmp_path / "study", kills=20, seed=5)
    assert killed >= 18
    compare_killed(played, tmp_path / "study", killed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_ten_kills_and_the_same_bytes(played: Played, tmp_path: Path, seed: int):
    assert killed_and_run(played, tmp_path / "study", kills=10, seed=seed) >= 9
    compare(played.out, tmp_path / "study")


@pytest.mark.slow
def test_two_studies_in_one_folder_do_the_work_once(played: Played, tmp_path: Path):
    studies = [start(played.given, tmp_path / "study") for _ in range(2)]
    assert [study.wait(timeout=1500) for study in studies] == [0, 0]
    compare(played.out, tmp_path / "study")
    assert stages_done_twice(tmp_path / "study") == []
