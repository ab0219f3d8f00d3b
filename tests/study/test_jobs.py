"""Stages as jobs of a scheduler: submitit's local executor, and a Slurm of four scripts."""

from __future__ import annotations

import io
import os
import platform
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_study import Toy, toy_result

from t5study.ground.errors import UserError
from t5study.ground.store import Store, read_json
from t5study.study.builds import events
from t5study.study.conductor import Conductor
from t5study.study.engine import Engine
from t5study.study.jobs import Jobs
from t5study.study.stages import COST, folder, stage_id
from t5study.study.status import look
from t5study.study.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300.0


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find the stages of these tests."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))


def conducted(store: Store, act: Callable[[Conductor], None], cluster: str = "local", size: int = 2, **options: str):
    out = io.StringIO()
    jobs = Jobs(store.root, size, cluster, options)
    with Conductor(store, jobs, Watch(size, out=out), attempts=2) as conductor:
        act(conductor)
    return conductor, out.getvalue()


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_jobs_build_stages_die_and_fail_as_workers_do(tmp_path: Path):
    store = Store(tmp_path / "store")
    text = Toy("text", training=False)
    cast = [Toy("one", after=(text,)), Toy("unlucky", "dies once", (text,)), Toy("wrong", "wrong", (text,))]
    conductor, said = conducted(store, lambda conductor: conductor.run(cast))
    assert {conductor.has(toy) for toy in (text, *cast[:2])} == {True}
    assert conductor.reason(cast[2]) == "wrong: wrong: found nonsense; give sense"
    assert "unlucky: its job ended without a word" in said
    assert toy_result(store, text)["process"] not in (os.getpid(), toy_result(store, cast[0])["process"])
    told = [event.what for event in events(store) if event.stage == stage_id(cast[1])]
    assert told == ["begun", "begun", "done"]
    assert look(tmp_path).engine == "submitit-local"


@pytest.mark.slow
def test_a_job_outlives_its_conductor_and_the_next_one_takes_what_it_built(tmp_path: Path):
    """As after kill -9: the first conductor forgets its job, the second finds its stage in the job's hands."""
    store, go = Store(tmp_path / "store"), tmp_path / "go"
    slow = Toy("slow", "waits", go=str(go))
    first = Jobs(store.root, 1, "local")
    first.give(0, slow)
    wait_for(lambda: store.holder(*stage_id(slow).split("/")) is not None)

    def act(conductor: Conductor) -> None:
        conductor.run([Toy("other")], [slow])
        assert [one.label for one in look(tmp_path).running] == ["slow"]
        go.touch()
        conductor.run([slow])

    conductor, _ = conducted(store, act, size=1)
    assert conductor.built == [stage_id(Toy("other"))]
    assert [event.what for event in events(store) if event.stage == stage_id(slow)] == ["begun", "done"]
    wait_for(lambda: bool(list(first.messages(0.1))))


def test_a_host_without_the_precision_asked_for_fails_its_stage_in_one_line(tmp_path: Path):
    """No host has fp16, so that this one refuses it as a processor without bf16 does that: in the job, and once."""
    store = Store(tmp_path / "store")
    text = Toy("text", training=False)
    out = io.StringIO()
    with Conductor(store, Jobs(store.root, 1, "local", precision="fp16"), Watch(1, out=out)) as conductor:
        conductor.run([toy := Toy("one")])
        why = f"one: {platform.node()}: machine: precision: found 'fp16'; give fp32 or bf16, or hosts that have it, "
        assert conductor.reason(toy) == why + "by --slurm"
        assert f"failed: {why}by --slurm; the study goes on without it" in out.getvalue()
        with pytest.raises(UserError, match=rf"^{platform.node()}: machine: precision: found 'fp16'"):
            conductor.run([Toy("two", after=(text,))])  # nothing goes on without the text
    assert [event.what for event in events(store)] == ["failed", "failed"]
    assert look(tmp_path).failed


def test_a_job_trains_in_the_precision_asked_for(tmp_path: Path):
    store = Store(tmp_path / "store")
    toy = Toy("one")
    with Conductor(store, Jobs(store.root, 1, "local", precision="fp32"), Watch(1, out=io.StringIO())) as conductor:
        conductor.run([toy])
    assert read_json(folder(store, toy) / COST)["precision"] == "fp32"


def test_options_that_nobody_knows_and_a_host_without_slurm_are_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(UserError, match=r"^--slurm: Unknown argument 'particle'"):
        Jobs(tmp_path, 1, "local", {"particle": "x"})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"^--engine slurm: Could not detect"):
        Jobs(tmp_path, 1, "slurm")
    with pytest.raises(UserError, match="found without --engine slurm"):
        Engine("local", options=(("partition", "gpu"),))
    with pytest.raises(UserError, match="give one of local, slurm"):
        Engine("cloud")


# --- a Slurm of four scripts --------------------------------------------------------------------------------------

SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
out = re.search(r"#SBATCH --output=(\\S+)", text)[1].strip("'\\"")
with open({jobs!r}, "a") as file:
    file.write("")
number = str(1000 + len(os.listdir({jobs!r} + ".d")))
env = {{**os.environ, "SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0",
       "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "here"}}
log = open(out.replace("%j", number).replace("%A", number), "w")
job = subprocess.Popen(["bash", sys.argv[1]], env=env, stdout=log, stderr=log, start_new_session=True)
open({jobs!r} + ".d/" + number, "w").write(str(job.pid) + "\\n" + text)
print("Submitted batch job", number)
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do if [[ "$1" == "--output" || "$1" == "--error" ]]; then shift 2; else shift; fi; done
exec "$@"
"""
SACCT = """#!{python}
import os
print("JobID|State|NodeList")
for number in os.listdir({jobs!r} + ".d"):
    pid = open({jobs!r} + ".d/" + number).readline().strip()
    try:
        state = open("/proc/" + pid + "/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        state = "gone"
    print(number + "|" + ("RUNNING" if state not in ("Z", "gone") else "COMPLETED") + "|here")
"""
# As Slurm does it: SIGTERM, which submitit's jobs hear only while they train, and SIGKILL for who is still there later.
SCANCEL = """#!{python}
import os, signal, sys, time
group = int(open({jobs!r} + ".d/" + sys.argv[-1]).readline())
os.killpg(group, signal.SIGTERM)
if os.fork() == 0:
    os.setsid()
    until = time.monotonic() + 2
    while time.monotonic() < until:
        time.sleep(0.1)
        os.killpg(group, 0)  # ends this process, too, where none is left
    os.killpg(group, signal.SIGKILL)
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sbatch, srun, sacct and scancel that run jobs here; returns the folder of the scripts that were submitted."""
    scripts, jobs = tmp_path / "bin", tmp_path / "jobs"
    scripts.mkdir()
    (tmp_path / "jobs.d").mkdir()
    for name, code in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SCANCEL}.items():
        path = scripts / name
        path.write_text(code.format(python=sys.executable, jobs=str(jobs)) if "{jobs" in code else code)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "jobs.d"


def test_each_stage_is_a_slurm_job_with_what_was_asked_for(tmp_path: Path, slurm: Path):
    store = Store(tmp_path / "store")
    one = Toy("one")
    conductor, _ = conducted(
        store, lambda conductor: conductor.run([one]), "slurm", partition="gpu", gpus_per_node="2", timeout_min="240"
    )
    assert conductor.built == [stage_id(one)]
    (script,) = slurm.iterdir()
    for line in ("--partition=gpu", "--gpus-per-node=2", "--time=240", "--job-name=t5study", "--cpus-per-task=1"):
        assert f"#SBATCH {line}\n" in script.read_text()
    (begun, _) = events(store)
    assert begun.who.endswith(f", job {script.name}")


@pytest.mark.slow
def test_slurm_jobs_are_ended_with_their_conductor(tmp_path: Path, slurm: Path):
    store = Store(tmp_path / "store")
    slow = Toy("slow", "waits", go="/nowhere")

    def act(conductor: Conductor) -> None:
        conductor.run([Toy("quick")], [slow])
        wait_for(lambda: store.holder(*stage_id(slow).split("/")) is not None)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(BaseException, match="stopped by signal 15"):
            conductor.run([slow])

    conducted(store, act, "slurm", size=2)
    wait_for(lambda: store.holder(*stage_id(slow).split("/")) is None)
    assert [event.what for event in events(store) if event.stage == stage_id(slow)] == ["begun"]
    assert look(tmp_path).running == ()
