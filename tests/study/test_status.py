"""`study status`: of stores that toys were put into, and of a study that runs and is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_study import Toy, put

from t5study.__main__ import main
from t5study.ground.errors import UserError
from t5study.ground.store import Store
from t5study.study import builds, wanted
from t5study.study.stages import needed, stage_id
from t5study.study.status import as_json, look, text

TEXT = Toy("text", training=False, weight=0.0)
ONE, TWO, THREE = (Toy(name, after=(TEXT,), weight=2.0) for name in ("one", "two", "three"))
TUNED = Toy("tuned", after=(TWO,), weight=2.0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """`text` and `one` are there, each at 2 s; `two` was given up, and `tuned` with it; nothing is known of `three`."""
    store = Store(tmp_path / "store")
    wanted.note(tmp_path, store, needed([ONE, TWO, THREE, TUNED]), (), 2, "local")
    put(store, TEXT, {})
    put(store, ONE, {})
    for what in ("begun", "begun"):
        builds.note(store, stage_id(TWO), what)
    builds.note(store, stage_id(TWO), "failed", "two: out of memory (2 times)")
    return tmp_path


def test_every_stage_is_in_one_state(out: Path):
    status = look(out)
    assert [label for _, label in status.done] == ["text", "one"]
    assert {label: why for _, label, why in status.failed} == dict.fromkeys(
        ("two", "tuned"), "two: out of memory (2 times)"
    )
    assert [label for _, label in status.missing] == ["three"]
    assert (status.running, status.conductors) == ((), ())
    assert status.share == pytest.approx(2 / 8)
    assert status.kinds == {"toy": {"done": 2, "failed": 2, "missing": 1}}


def test_time_left_goes_by_what_stages_took_and_leaves_out_what_failed(out: Path):
    assert look(out).seconds_left == pytest.approx(4.0)  # 2 s for `text` (no work) and 2 for `one`, of work 2: as long
    (out / "stages.json").write_text((out / "stages.json").read_text().replace('"workers": 2', '"workers": 1'))
    assert look(out).seconds_left == pytest.approx(4.0)


def test_time_left_goes_by_the_plan_where_it_knows_all_that_is_left(out: Path):
    seconds = {stage_id(toy): value for toy, value in ((TEXT, 1.0), (ONE, 1.0), (THREE, 10.0))}
    (out / "plan.json").write_text(json.dumps({"busy": 1.5, "stages": seconds}))
    assert look(out).seconds_left == pytest.approx(20.0)  # `text` and `one` took 4 s, and 2 had been promised
    builds.note(Store(out / "store"), stage_id(TWO), "begun")  # and the plan knows nothing of it
    assert look(out).seconds_left == pytest.approx(8.0)


def test_what_people_read(out: Path):
    assert text(look(out)).splitlines() == [
        f"{out}: 2 done, 2 failed, 1 missing; 25% of the work",
        "  toy: 2 done, 2 failed, 1 missing",
        "nobody hands out stages here: give the study's command again; about 4 s are left then",
        "failed: two: out of memory (2 times) (and with it: tuned)",
        "missing: three",
    ]


def test_what_somebody_builds_is_running_with_its_step(out: Path):
    store = Store(out / "store")
    journal = out / "store" / ".partial" / stage_id(THREE).replace("/", "-") / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"step": 4, "loss": 3.5}\n{"step": 5, "loss": 3.25}\n{"step": 6, "lo')
    with store.hold("toy", THREE):
        (running,) = look(out).running
        assert (running.label, running.step, running.steps, running.loss) == ("three", 5, 10, 3.25)
        assert running.who.startswith("process ")
        assert abs(running.since - time.time()) < 60
        assert "running: three · step 5/10, loss 3.250 · process " in text(look(out))
        assert look(out).share == pytest.approx(3 / 8)
    assert look(out).running == ()


def test_what_failed_once_and_is_begun_again_is_no_failure(out: Path):
    builds.note(Store(out / "store"), stage_id(TWO), "begun")
    assert [label for _, label in look(out).missing] == ["two", "three", "tuned"]


def test_likely_stages_are_replaced_and_certain_ones_kept(tmp_path: Path):
    store = Store(tmp_path / "store")
    wanted.note(tmp_path, store, needed([ONE]), [TWO], 2, "local")
    wanted.note(tmp_path, store, needed([ONE]), [THREE], 3, "slurm")
    rows, workers, engine = wanted.read(tmp_path)
    assert ([row.label for row in rows], workers, engine) == (["text", "one", "three"], 3, "slurm")


def test_json_and_the_command(out: Path, capsys: pytest.CaptureFixture[str]):
    main(["study", "status", str(out), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"done": 2, "running": 0, "failed": 2, "missing": 1}
    assert told == json.loads(json.dumps(as_json(look(out, told["now"]))))
    main(["study", "status", str(out)])
    assert "missing: three" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "told"), [("", "so nothing was begun here"), ("nowhere", "no such folder; give the --out of")]
)
def test_folders_without_a_study(tmp_path: Path, name: str, told: str):
    with pytest.raises(UserError, match=told):
        look(tmp_path / name)


def test_a_killed_conductor_is_not_taken_for_one_at_work(out: Path):
    code = f"""
from pathlib import Path
from t5study.ground.store import Store, this_process
store = Store(Path({str(out / "store")!r}))
with store.hold("conductor", this_process()):
    print("in", flush=True)
    input()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    (who, _since) = look(out).conductors[0]
    assert who.startswith(f"process {process.pid} on ")
    assert "2 workers (local), handed out by process" in text(look(out))
    process.kill()
    process.communicate()
    assert look(out).conductors == ()
