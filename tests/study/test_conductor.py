"""The conductor with real worker processes: order, deaths, mistakes, signals."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_study import Quiet, Toy, toy_result

from t5study.ground.errors import UserError
from t5study.ground.machine import Machine
from t5study.ground.store import Store
from t5study.study.builds import events
from t5study.study.conductor import Conductor
from t5study.study.stages import Place, build, stage_id
from t5study.study.watch import Watch
from t5study.study.workers import Pool, Step

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def conducted(
    store: Store, workers: int, act: Callable[[Conductor], None], every: float = 10.0, gpus: tuple[str, ...] = ()
) -> tuple[Conductor, str]:
    """Runs `act` with a conductor; returns it and what people saw."""
    out = io.StringIO()
    pool = Pool(store.root, workers, Machine(), gpus=gpus)
    with Conductor(store, pool, Watch(workers, every=every, out=out), attempts=2) as conductor:
        act(conductor)
    return conductor, out.getvalue()


def wait_for(done: Callable[[], bool], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Conductor, str, dict[str, Toy]]:
    """One study of every kind of stage: workers are costly to start, so all that ends by itself is tried in one go."""
    store = Store(tmp_path_factory.mktemp("study") / "store")
    text = Toy("text", training=False)
    short, long = Toy("short", after=(text,), weight=0.5), Toy("long", after=(text,), weight=5.0)
    tuned = Toy("tuned", after=(long,), weight=1.0)
    cast = {
        "text": text,
        "short": short,
        "long": long,
        "tuned": tuned,
        "unlucky": Toy("unlucky", "dies once", (text,), weight=4.0),
        "deadly": Toy("deadly", "dies", (text,), weight=3.0),
        "wrong": Toy("wrong", "wrong", (text,), weight=2.5),
        "broken": Toy("broken", "broken", (text,), weight=2.0),
    }
    cast["heir"] = Toy("heir", after=(cast["wrong"],), weight=0.5)
    cast["other text"] = Toy("other text", "wrong", training=False)
    cast["on it"] = Toy("on it", after=(cast["other text"],), weight=0.1)
    spare = Toy("spare", after=(text,), weight=9.0)

    def act(conductor: Conductor) -> None:
        conductor.run(cast.values(), [spare])

    conductor, said = conducted(store, 1, act)
    return store, conductor, said, cast | {"spare": spare}


def test_the_longest_way_goes_first_and_what_is_not_wanted_last(played):
    _, conductor, _, cast = played
    names = {stage_id(toy): name for name, toy in cast.items()}
    assert [names[one] for one in conductor.built if names[one] != "spare"] == [
        "text",
        "long",
        "unlucky",
        "tuned",
        "short",
    ]
    assert "spare" not in {names[one] for one in conductor.built}  # one worker was never idle


def test_a_worker_that_dies_is_replaced_and_its_stage_tried_again(played):
    store, _, said, cast = played
    assert toy_result(store, cast["unlucky"])["name"] == "unlucky"
    died = toy_result(store, cast["text"])["process"]
    assert f"worker 1 (process {died}): unlucky: its process was killed by SIGKILL" in said
    assert toy_result(store, cast["text"])["process"] != toy_result(store, cast["tuned"])["process"]


def test_a_stage_that_kills_every_worker_fails_and_the_study_goes_on(played):
    _, conductor, said, cast = played
    assert conductor.reason(cast["deadly"]) is not None
    assert "(2 times)" in conductor.reason(cast["deadly"])
    assert "failed: deadly: its process was killed by SIGKILL" in said
    assert conductor.reason(cast["short"]) is None


def test_a_mistake_is_not_tried_again_and_takes_what_rests_on_it_along(played):
    _, conductor, said, cast = played
    assert conductor.reason(cast["wrong"]) == "wrong: wrong: found nonsense; give sense"
    assert conductor.reason(cast["heir"]) == conductor.reason(cast["wrong"])
    assert "wrong: found nonsense; give sense; trying again" not in said
    assert not conductor.has(cast["heir"])


def test_a_text_that_only_some_rest_on_takes_only_those_along(played):
    _, conductor, _, cast = played
    assert conductor.reason(cast["on it"]) == "other text: other text: found nonsense; give sense"
    assert conductor.has(cast["short"])


def test_the_journals_tell_what_began_ended_and_failed(played):
    store, conductor, _, cast = played
    told = {name: [event.what for event in events(store) if event.stage == stage_id(toy)] for name, toy in cast.items()}
    assert told["tuned"] == ["begun", "done"]
    assert told["unlucky"] == ["begun", "begun", "done"]
    assert told["deadly"] == ["begun", "begun", "failed"]
    assert told["heir"] == told["spare"] == []
    (failed,) = [event for event in events(store) if event.stage == stage_id(cast["wrong"]) and event.what == "failed"]
    assert failed.note == conductor.reason(cast["wrong"])


def test_a_bug_leaves_its_traceback(played):
    store, conductor, said, cast = played
    assert conductor.reason(cast["broken"]) == "broken: RuntimeError: a bug"
    (trace,) = (store.root.parent / "failures").iterdir()
    assert "in build" in trace.read_text()
    assert str(trace) in said


def test_what_is_there_is_not_built_again(played):
    store, _, _, cast = played
    again, said = conducted(store, 2, lambda conductor: conductor.run([cast["tuned"], cast["unlucky"]]))
    assert again.built == []
    assert said == ""  # nothing to do, nothing to say, no worker started


def test_a_stage_that_everything_rests_on_stops_the_study(tmp_path: Path):
    text = Toy("text", "wrong", training=False)
    with pytest.raises(UserError, match=r"^text: found nonsense; give sense$"):
        conducted(Store(tmp_path / "store"), 1, lambda conductor: conductor.run([Toy("run", after=(text,))]))


def test_two_workers_work_at_once_and_a_spare_stage_fills_one(tmp_path: Path):
    store, go = Store(tmp_path / "store"), tmp_path / "go"
    slow = Toy("slow", "waits", go=str(go))
    spare = Toy("spare", weight=0.1)
    follower = Toy("follower", "waits", go=str(store.root / ".partial"), weight=0.5)

    def act(conductor: Conductor) -> None:
        # `slow` ends when `follower` has been built, which the other worker does meanwhile.
        conductor.run([follower], [spare, slow])
        go.touch()
        conductor.run([slow, spare])

    conductor, _ = conducted(store, 2, act, gpus=("3", "5"))
    assert len(conductor.built) == 3
    assert {toy_result(store, toy)["gpus"] for toy in (slow, spare)} <= {"3", "5"}
    assert toy_result(store, slow)["gpus"] != toy_result(store, follower)["gpus"]  # each worker has its own


class Deaths:
    """A conductor's count of attempts, told where each goes on."""

    def __init__(self, folder: Path, steps: list[int]):
        self.conductor = Conductor(Store(folder), Pool(folder, 1, Machine()), Watch(1, out=io.StringIO()))
        for step in steps:
            self.conductor._attempts["run"] = self.conductor._attempts.get("run", 0) + 1
            self.conductor._heard.discard("run")
            self.conductor._hear("run", Step(step))


def test_deaths_are_counted_anew_where_a_run_has_got_further(tmp_path: Path):
    assert Deaths(tmp_path, [1, 1, 1]).conductor._attempts["run"] == 3
    assert Deaths(tmp_path, [1, 1, 11, 11]).conductor._attempts["run"] == 2
    assert Deaths(tmp_path, [1, 11, 21, 31, 41]).conductor._attempts["run"] == 1


def test_what_another_study_builds_is_left_to_it(tmp_path: Path):
    """Another study builds `theirs`; ours does the rest meanwhile and then finds it in the store."""
    store, go = Store(tmp_path / "store"), tmp_path / "go"
    theirs, ours = Toy("theirs", "waits", go=str(go), weight=9.0), Toy("ours")
    other = threading.Thread(target=build, args=(theirs, Place(store, Machine(), Quiet())))
    other.start()
    wait_for(lambda: store.holder(*stage_id(theirs).split("/")) is not None)

    def act(conductor: Conductor) -> None:
        conductor.run([ours], [theirs])  # one worker: it would hang if it took `theirs`, which goes first
        go.touch()
        conductor.run([theirs])

    conductor, _ = conducted(store, 1, act)
    other.join()
    assert conductor.built == [stage_id(ours)]
    assert toy_result(store, theirs)["process"] == os.getpid()
    assert [event.what for event in events(store) if event.stage == stage_id(theirs)] == ["begun", "done"]


def run_waiting(out: Path, *more: str) -> subprocess.Popen[str]:
    """A study of one stage that waits for a file that never comes, in a process of its own."""
    code = f"""
import sys
from pathlib import Path
from t5study.ground.errors import Stopped
from t5study.ground.store import Store
from t5study.study.engine import Engine
from toy_study import Toy
if __name__ == "__main__":
    try:
        with Engine(workers=1).conduct(Store(Path({str(out)!r}))) as conductor:
            conductor.run([Toy("one", "waits", go="/nowhere")])
    except Stopped as stopped:
        print(stopped)
        sys.exit(stopped.code)
"""
    script = out.parent / "study.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}"}
    return subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)


def children(process: int) -> list[int]:
    """Ids of a process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            found.append(int(stat.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
def test_a_killed_study_leaves_no_workers(tmp_path: Path):
    study = run_waiting(tmp_path / "store")
    wait_for(lambda: any((tmp_path / "store").glob(".partial/*/waiting")))
    workers = children(study.pid)
    assert workers
    study.kill()
    study.wait()
    wait_for(lambda: not any(map(alive, workers)))


def test_sigterm_stops_workers_and_exits_75(tmp_path: Path):
    study = run_waiting(tmp_path / "store")
    wait_for(lambda: any((tmp_path / "store").glob(".partial/*/waiting")))
    workers = children(study.pid)
    study.send_signal(signal.SIGTERM)
    out, _ = study.communicate(timeout=300)
    assert study.returncode == 75
    assert out == "stopped by signal 15; run the same command again to go on\n"
    wait_for(lambda: not any(map(alive, workers)))  # multiprocessing's own helper ends a moment after the study
    assert not list((tmp_path / "store").glob("toy/*"))
