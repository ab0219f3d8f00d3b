"""`data get` against a hub on this machine: locks, pins, cache, offline, whole folders that `--data` reads."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_hub import COMMIT, Request, Server, git, hub, listed, serving

from t5study.ground.download import Limits
from t5study.ground.errors import UserError
from t5study.tasks.addresses import find, names
from t5study.tasks.hub import BENCHMARKS, LOCK, Lock, get, named, read_lock, resolve

QUICK = Limits(timeout=2, tries=2, pause=0)
SQUAD = BENCHMARKS["squad"]


def _parquet(**columns: list[Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _squad(question: str = "Who rang?") -> dict[str, bytes]:
    files = {"README.md": b"# words"}
    for split in ("train", "validation"):
        rows: dict[str, list[Any]] = {
            "id": [f"{split}-1"],
            "question": [question],
            "context": ["Ann rang the bell."],
            "answers": [{"text": ["Ann"], "answer_start": [0]}],
        }
        files[f"plain_text/{split}-00000-of-00001.parquet"] = _parquet(**rows)
    return files


def _get(server: Server | None, folder: Path, **more: Any) -> Lock:
    endpoint = server.address if server else "http://127.0.0.1:9"
    benchmark = more.pop("benchmark", SQUAD)
    return get(benchmark, folder / "data", folder / "cache", endpoint=endpoint, limits=QUICK, **more)


def test_a_benchmark_comes_whole_and_is_read(tmp_path: Path) -> None:
    told: list[str] = []
    with serving(hub({"rajpurkar/squad": _squad()})) as server:
        lock = _get(server, tmp_path, tell=told.append)
        assert len(server.asked) == 3
        assert _get(server, tmp_path) == lock, "the second time it is only checked"
        assert len(server.asked) == 3
    assert lock.commit == COMMIT
    assert [one.to for one in lock.files] == ["train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"]
    assert all(text.startswith("squad: plain_text/") for text in told)
    (row,) = find("squad/v1", data=tmp_path / "data").rows("train")
    assert (row.input, row.target) == ("question: Who rang ? context: Ann rang the bell . ", "Ann")


def test_every_part_of_glue_lies_where_its_task_looks(tmp_path: Path) -> None:
    """With the hub's columns and integers for labels, hidden ones in the test split."""
    glue = BENCHMARKS["glue"]
    keys = {"cola": "sentence", "sst2": "sentence", "qqp": "question1 question2", "qnli": "question sentence"}
    keys |= {name: "premise hypothesis" for name in ("mnli", "ax")}
    files = {}
    for part in glue.parts:
        columns = keys.get(part, "sentence1 sentence2").split()
        splits = ["train", "validation", "test"]
        if part == "mnli":
            splits = ["train", *(f"{split}_{kind}" for split in splits[1:] for kind in ("matched", "mismatched"))]
        for split in ["test"] if part == "ax" else splits:
            rows: dict[str, list[Any]] = {name: [f"Ann saw Bob because he waved at {name}."] for name in columns}
            if part == "wnli":
                rows["sentence2"] = ["Bob waved at sentence1."]
            hidden = split.startswith("test")
            rows["label"] = [-1 if hidden else 1] if part != "stsb" else [-1.0 if hidden else 2.5]
            files[f"{part}/{split}-00000-of-00001.parquet"] = _parquet(**rows, idx=[0])
    with serving(hub({"nyu-mll/glue": files})) as server:
        _get(server, tmp_path, benchmark=glue)
    for address in (name for name in names() if name.startswith("glue/")):
        if address == "glue/ax":
            continue  # the hub hides its labels, and a task of no labelled row is none
        task = find(address, data=tmp_path / "data")
        assert task.rows("test"), address
        assert len(task.rows("validation")) == 1, address
        assert bool(task.rows("train")) == (address not in ("glue/wnli", "glue/mnli_mismatched")), address


def test_every_part_of_superglue_lies_where_its_task_looks(tmp_path: Path) -> None:
    """With the hub's columns: a row an answer in MultiRC, lists in ReCoRD, spans as texts in WSC."""
    superglue = BENCHMARKS["superglue"]
    nli = {"premise": ["Ann rang."], "hypothesis": ["Ann was heard."]}
    rows: dict[str, dict[str, list[Any]]] = {
        "boolq": {"question": ["did Ann ring"], "passage": ["Ann rang."]},
        "cb": nli,
        "copa": {"premise": ["Ann rang."], "choice1": ["Bob came."], "choice2": ["Bob left."], "question": ["effect"]},
        "multirc": {"paragraph": ["Ann rang."], "question": ["Who rang?"], "answer": ["Ann"]},
        "record": {
            "passage": ["Ann rang.\n@highlight\nBob came"],
            "query": ["@placeholder rang"],
            "entities": [["Ann", "Bob"]],
            "answers": [["Ann"]],
        },
        "rte": nli,
        "wic": {"word": ["ring"], "sentence1": ["a ring"], "sentence2": ["to ring"]}
        | {f"{end}{i}": [0] for end in ("start", "end") for i in (1, 2)},
        "wsc.fixed": {
            "text": ["Ann rang because she was late."],
            "span1_index": [0],
            "span2_index": [3],
            "span1_text": ["Ann"],
            "span2_text": ["she"],
        },
        "axb": {"sentence1": ["Ann rang."], "sentence2": ["Ann was heard."]},
        "axg": nli,
    }
    places = {"multirc": {"paragraph": 0, "question": 0, "answer": 0}, "record": {"passage": 0, "query": 0}}
    files = {}
    for part in superglue.parts:
        for split in ("test",) if part.startswith("ax") else ("train", "validation"):
            columns = {**rows[part], "idx": [places.get(part, 0)]} | ({} if part == "record" else {"label": [1]})
            files[f"{part}/{split}-00000-of-00001.parquet"] = _parquet(**columns)
    with serving(hub({"aps/super_glue": files})) as server:
        _get(server, tmp_path, benchmark=superglue)
    for address in (name for name in names() if name.startswith("superglue/") and name != "superglue/dpr"):
        (row,) = find(address, data=tmp_path / "data").rows("validation")
        assert row.input.split()[0] == {"axb": "rte", "axg": "rte", "wsc": "wsc:"}.get(address[10:], address[10:])


def test_all_parts_are_named_and_none_twice() -> None:
    folders = [one.folder for one in BENCHMARKS.values()]
    assert len(set(folders)) == len(folders)
    assert [one.name for one in named(["squad", "glue", "squad"])] == ["squad", "glue"]
    with pytest.raises(UserError, match="benchmark: found 'gleu'; give some of glue, superglue, "):
        named(["gleu"])


# --- which bytes ------------------------------------------------------------------------------------------------


def test_what_was_taken_once_is_taken_ever_after(tmp_path: Path) -> None:
    """The hub's main moves on: a second folder still gets the first commit, out of the cache, without a question."""
    with serving(hub({"rajpurkar/squad": _squad()})) as server:
        first = _get(server, tmp_path)
    newer = "f" * 40
    with serving(hub({"rajpurkar/squad": _squad("Who sang?")}, newer)) as server:
        again = get(SQUAD, tmp_path / "second", tmp_path / "cache", endpoint=server.address, limits=QUICK)
        assert (again, server.asked) == (first, [])
        with pytest.raises(UserError, match=f"squad: found revision main, not {newer}; give another folder"):
            _get(server, tmp_path, revision=newer)
        third = get(
            SQUAD, tmp_path / "third", tmp_path / "cache", revision="main", endpoint=server.address, limits=QUICK
        )
    assert third.commit == newer
    assert "Who sang ?" in find("squad/v1", data=tmp_path / "third").rows("train")[0].input
    assert "Who rang ?" in find("squad/v1", data=tmp_path / "second").rows("train")[0].input


def test_pins_make_another_machine_take_the_same_bytes(tmp_path: Path) -> None:
    with serving(hub({"rajpurkar/squad": _squad()})) as server:
        lock = _get(server, tmp_path / "here")
    pins = tmp_path / "here" / "data" / "squad" / LOCK
    with serving(hub({"rajpurkar/squad": _squad()})) as server:
        assert _get(server, tmp_path / "there", pins=pins) == lock
        assert not [path for path, _ in server.asked if path.startswith("/api/")], (
            "pins ask nobody which revision it is"
        )
    changed = {name: body[:-1] + b"?" for name, body in _squad().items()}
    with (
        serving(hub({"rajpurkar/squad": changed})) as server,
        pytest.raises(UserError, match=r"train-00000-of-00001.parquet: found another file than the one pinned"),
    ):
        _get(server, tmp_path / "elsewhere", pins=pins)
    assert not (tmp_path / "elsewhere" / "data" / "squad").exists()
    other = json.loads(pins.read_text()) | {"commit": "e" * 40}
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=rf"squad: found commit {COMMIT[:12]}, not the pinned e{{12}}; give another"):
        _get(None, tmp_path / "here", pins=tmp_path / "other.json")


def test_offline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"squad.lock.json: no such file, so squad was never fetched; run it once with"):
        _get(None, tmp_path, offline=True)
    with serving(hub({"rajpurkar/squad": _squad()})) as server:
        lock = _get(server, tmp_path)
    shutil.rmtree(tmp_path / "data")
    assert _get(None, tmp_path, offline=True) == lock
    shutil.rmtree(tmp_path / "data")
    spoilt = tmp_path / "cache" / "files" / lock.files[0].digest
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"found no whole copy of plain_text/train-00000-of-00001.parquet; run it once"):
        _get(None, tmp_path, offline=True)
    assert not (tmp_path / "data" / "squad").exists()


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """The second file breaks off: nothing lies in the data folder. The next call goes on, the first file is kept."""
    whole = hub({"rajpurkar/squad": _squad()})

    def broken(request: Request) -> None:
        if "/validation-" in request.path:
            request.head(200, Content_Length=str(len(_squad()["plain_text/validation-00000-of-00001.parquet"])))
            request.wfile.write(b"PAR1")
        else:
            whole(request)

    with serving(broken) as server, pytest.raises(UserError, match="kept, run the same command again to go on"):
        _get(server, tmp_path)
    assert not (tmp_path / "data" / "squad").exists()
    with serving(whole) as server:
        _get(server, tmp_path)
        assert [path.rpartition("/")[2][:10] for path, _ in server.asked] == ["validation"], (
            "neither the list nor train"
        )
    assert find("squad/v1", data=tmp_path / "data").rows("validation")


def test_what_lies_there_is_checked(tmp_path: Path) -> None:
    with serving(hub({"rajpurkar/squad": _squad()})) as server:
        lock = _get(server, tmp_path)
    file = tmp_path / "data" / "squad" / lock.files[1].to
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(
        UserError, match=rf"{lock.files[1].to}: missing, or not what {LOCK} says; delete .*squad and get"
    ):
        _get(None, tmp_path)
    own = tmp_path / "own" / "data" / "squad"
    own.mkdir(parents=True)
    (own / "train-v1.1.json").write_text("{}")
    with pytest.raises(UserError, match=r"squad: found files that `data get` did not write; give another folder"):
        _get(None, tmp_path / "own")


# --- what the hub says ------------------------------------------------------------------------------------------


def test_the_answer_is_read_as_the_hubs_own_client_reads_it(tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    files = {**_squad(), "plain_text/small.parquet": b"PAR1"}
    with serving(hub({"rajpurkar/squad": files})) as server:
        lock = resolve(SQUAD, "main", server.address, QUICK)
        client = huggingface_hub.HfApi(endpoint=server.address, token=False)
        theirs = client.dataset_info("rajpurkar/squad", revision="main", files_metadata=True)
    assert lock.commit == theirs.sha
    found = {one.rfilename: (one.size, one.lfs.sha256 if one.lfs else one.blob_id) for one in theirs.siblings}
    assert {one.source: (one.bytes, one.digest) for one in lock.files} == {
        name: facts for name, facts in found.items() if name.endswith(".parquet")
    }
    assert lock.files[-1].digest == git(b"PAR1")
    url = huggingface_hub.hf_hub_url(
        "rajpurkar/squad", "plain_text/small.parquet", repo_type="dataset", revision=COMMIT
    )
    assert url.endswith(f"/datasets/rajpurkar/squad/resolve/{COMMIT}/plain_text/small.parquet")


def _says(**change: Any) -> dict[str, Any]:
    return {"sha": COMMIT, "siblings": listed({"plain_text/train.parquet": bytes(200)})} | change


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "found no list of files"),
        ([], "found no list of files"),
        (_says(siblings=7), "found no list of files"),
        (_says(siblings=listed({"README.md": b"#"})), r"no parquet file in plain_text/; give --revision refs/convert"),
        (_says(sha="main"), "found the commit 'main'; a commit has 40 hex digits"),
        (_says(siblings=listed({"plain_text/../../train.parquet": bytes(200)})), "with no usable name, size or digest"),
        (_says(siblings=listed({"plain_text//train.parquet": bytes(200)})), "with no usable name, size or digest"),
        (_says(siblings=2 * listed({"plain_text/a.parquet": bytes(200)})), "found no files, or two of one name"),
        (
            _says(siblings=[{"rfilename": "plain_text/a.parquet", "size": -1, "blobId": "a" * 40}]),
            "with no usable name, size or digest",
        ),
        (
            _says(siblings=[{"rfilename": "plain_text/a.parquet", "size": 3, "blobId": "../../etc"}]),
            "with no usable name, size or digest",
        ),
    ],
)
def test_a_hub_that_is_none(tmp_path: Path, told: Any, message: str) -> None:
    with (
        serving(lambda request: request.send(200, json.dumps(told).encode())) as server,
        pytest.raises(UserError, match=message),
    ):
        _get(server, tmp_path)
    assert not (tmp_path / "data").exists()


def test_pins_that_are_none(tmp_path: Path) -> None:
    pins = tmp_path / "pins.json"
    for text, message in [
        ("{", "damaged JSON"),
        ("[]", "found no lock of a benchmark"),
        ("7", "found no lock of a benchmark"),
        ('{"benchmark": "squad"}', "found no lock of a benchmark"),
        ('{"benchmark": "x", "repository": "", "revision": "", "commit": "", "files": []}', "found pins of 'x'; give"),
    ]:
        pins.write_text(text)
        with pytest.raises(UserError, match=message):
            read_lock(pins, SQUAD)


# --- the command ------------------------------------------------------------------------------------------------


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "t5study", "data", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_a_killed_command_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL while the first file is under way, after 120,000 bytes of it. The next command asks for the rest."""
    body = np.random.default_rng(0).bytes(300_000)
    files = {"plain_text/train.parquet": body, "plain_text/validation.parquet": body[::-1]}
    honest, leave = hub({"rajpurkar/squad": files}), threading.Event()

    def stalls(request: Request) -> None:
        if not request.path.startswith("/datasets/"):
            honest(request)
            return
        request.head(200, Content_Length=str(len(body)), ETag='"v1"')
        request.wfile.write(body[:120_000])
        leave.wait(60)

    words = [sys.executable, "-m", "t5study", "data", "get", "squad", "--data", str(tmp_path / "data")]
    words += ["--cache", str(tmp_path / "cache"), "--endpoint"]
    with serving(stalls) as server:
        running = subprocess.Popen([*words, server.address], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            while sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.partial")) != 120_000:
                assert running.poll() is None, "it ended by itself"
                assert not leave.wait(0.02)
        finally:
            running.kill()
            running.wait()
            leave.set()
    assert not (tmp_path / "data").exists()
    with serving(honest) as server:
        done = subprocess.run([*words, server.address], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert [headers.get("Range") for _, headers in server.asked] == ["bytes=120000-", None]
    assert (tmp_path / "data" / "squad" / "train.parquet").read_bytes() == body


def test_the_command(tmp_path: Path) -> None:
    data, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    with serving(hub({"rajpurkar/squad": _squad()})) as server:
        done = _run("get", "squad", "--data", data, T5STUDY_CACHE=cache, HF_ENDPOINT=server.address + "/")
    assert done.returncode == 0, done.stderr
    assert f"{data}/squad: 2 files, " in done.stdout
    assert done.stderr.startswith("squad: plain_text/train-00000-of-00001.parquet, ")
    shown = _run("list", "--data", data)
    assert shown.returncode == 0
    lines = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert set(lines) == set(BENCHMARKS)
    assert lines["squad"].endswith("squad/v1  (there)")
    assert "there" not in lines["glue"]
    for words, message in [
        (["get", "gleu"], "benchmark: found 'gleu'; give some of"),
        (["get", "squad", "glue", "--pins", f"{data}/x.json"], "--pins: found 2 benchmarks; a pin file is of one"),
        (["get", "squad", "--pins", f"{data}/x.json", "--revision", "main"], "--pins: found beside --revision"),
        (["get", "squad", "--pins", f"{data}/x.json", "--data", data], "x.json: no such file"),
    ]:
        failed = _run(*words, T5STUDY_CACHE=cache)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1
