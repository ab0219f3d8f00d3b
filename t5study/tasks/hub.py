"""`t5study data get`: benchmarks out of the Hugging Face hub, as parquet, into the folder that `--data` reads.

No revision or digest is written here: the hub is asked once which commit a revision is and what its files are (size and
SHA-256), that goes into a lock file, and from then on only those bytes are taken. The lock lies in the benchmark's
folder (LOCK) and in the cache; a copy of it is a pin file that makes another machine take the same bytes.

    cache/glue.lock.json      what `get glue` took last: taken again, without asking the hub, until a revision is named
    cache/files/<digest>      files by their digest; with them `get` needs no network
    data/glue/CoLA/train-00000-of-00001.parquet, data/glue/t5study-data.json      what `get` writes, whole or not at all
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from t5study.ground.download import PATIENCE, Limits, Wanted, download, is_right, read_json_from
from t5study.ground.errors import UserError
from t5study.ground.store import read_json, whole_folder, write_json

LOCK = "t5study-data.json"
ENDPOINT = "https://huggingface.co"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGESTS = {"sha256": re.compile(r"[0-9a-f]{64}"), "git": _COMMIT}


@dataclass(frozen=True)
class Benchmark:
    """repository: its name on the hub. folder: where it lies under the data folder. parts: a folder of the repository
    -> where its files go under `folder` ("" is the folder itself). tasks: what is made of it."""

    name: str
    repository: str
    folder: str
    parts: Mapping[str, str]
    tasks: str


_GLUE = {
    "cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "qqp": "QQP", "mnli": "MNLI", "qnli": "QNLI",
    "rte": "RTE", "wnli": "WNLI", "ax": "AX",
}  # fmt: skip
_SUPERGLUE = {
    "boolq": "BoolQ", "cb": "CB", "copa": "COPA", "multirc": "MultiRC", "record": "ReCoRD", "rte": "RTE", "wic": "WiC",
    "wsc.fixed": "WSC", "axb": "AX-b", "axg": "AX-g",
}  # fmt: skip

BENCHMARKS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark("glue", "nyu-mll/glue", "glue", _GLUE, "glue/*"),
        Benchmark("superglue", "aps/super_glue", "superglue", _SUPERGLUE, "superglue/* but dpr"),
        Benchmark(
            "dpr",
            "community-datasets/definite_pronoun_resolution",
            "definite_pronoun_resolution",
            {"plain_text": ""},
            "superglue/dpr",
        ),
        Benchmark("squad", "rajpurkar/squad", "squad", {"plain_text": ""}, "squad/v1"),
        Benchmark("squad2", "rajpurkar/squad_v2", "squad_v2", {"squad_v2": ""}, "squad/v2"),
        Benchmark("cnndm", "abisee/cnn_dailymail", "cnn_dailymail", {"3.0.0": ""}, "cnndm/summarize"),
        Benchmark("ende", "wmt/wmt14", "translation/wmt14_de_en", {"de-en": ""}, "wmt/ende"),
        Benchmark("enfr", "wmt/wmt15", "translation/wmt15_fr_en", {"fr-en": ""}, "wmt/enfr"),
        Benchmark("enro", "wmt/wmt16", "translation/wmt16_ro_en", {"ro-en": ""}, "wmt/enro"),
    )
}


# --- locks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pinned:
    """A file of a repository. source: its path there. to: its path under the benchmark's folder."""

    source: str
    to: str
    bytes: int
    digest: str
    algorithm: str


@dataclass(frozen=True)
class Lock:
    """Exactly which bytes a benchmark is made of."""

    benchmark: str
    repository: str
    revision: str
    commit: str
    files: tuple[Pinned, ...]


def resolve(benchmark: Benchmark, revision: str, endpoint: str = ENDPOINT, limits: Limits = PATIENCE) -> Lock:
    """Asks the hub what a revision is. UserError if it has no parquet of some part of the benchmark."""
    address = f"{endpoint}/api/datasets/{benchmark.repository}/revision/{quote(revision, safe='')}?blobs=true"
    told = read_json_from(address, limits=limits)
    try:
        commit, listed = str(told["sha"]), [(str(one["rfilename"]), one) for one in told["siblings"]]
        files = tuple(
            _pinned(one, name, to)
            for name, one in listed
            for part, to in benchmark.parts.items()
            if name.startswith(f"{part}/") and name.endswith(".parquet")
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{address}: found no list of files ({error!r}); is this the address of the hub?") from None
    for part in benchmark.parts:
        if not any(one.source.startswith(f"{part}/") for one in files):
            hint = "give --revision refs/convert/parquet, where the hub keeps its own conversion"
            raise UserError(f"{address}: found no parquet file in {part}/; {hint}")
    return _checked(Lock(benchmark.name, benchmark.repository, revision, commit, files), address)


def _pinned(one: Mapping[str, Any], name: str, to: str) -> Pinned:
    place = "/".join([*([to] if to else []), *name.split("/")[1:]])
    large = one.get("lfs")
    if large:
        return Pinned(name, place, int(large["size"]), str(large["sha256"]), "sha256")
    return Pinned(name, place, int(one["size"]), str(one["blobId"]), "git")


def read_lock(path: Path, benchmark: Benchmark) -> Lock:
    """A lock or pin file. UserError if it is damaged or of another benchmark."""
    told = read_json(path)
    try:
        lock = Lock(**{**told, "files": tuple(Pinned(**one) for one in told["files"])})
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: found no lock of a benchmark ({error}); give one that `data get` wrote") from None
    if (lock.benchmark, lock.repository) != (benchmark.name, benchmark.repository):
        raise UserError(f"{path}: found pins of {lock.benchmark!r}; give those of {benchmark.name!r}")
    return _checked(lock, str(path))


def _checked(lock: Lock, where: str) -> Lock:
    """Names that stay inside the folder, digests that are digests: what comes from outside is not trusted."""
    if not isinstance(lock.commit, str) or not _COMMIT.fullmatch(lock.commit):
        raise UserError(f"{where}: found the commit {str(lock.commit)[:50]!r}; a commit has 40 hex digits")
    if not lock.files or len({one.to for one in lock.files}) != len(lock.files):
        raise UserError(f"{where}: found no files, or two of one name; ask for another revision")
    for one in lock.files:
        paths = [str(path).split("/") for path in (one.source, one.to)]
        right = (
            all(_NAME.fullmatch(part) for path in paths for part in path) and type(one.bytes) is int and one.bytes >= 0
        )
        known = _DIGESTS.get(one.algorithm)
        if not right or known is None or not known.fullmatch(str(one.digest)):
            raise UserError(f"{where}: found the file {str(one.to)[:60]!r} with no usable name, size or digest")
    return lock


# --- getting ----------------------------------------------------------------------------------------------------


def get(
    benchmark: Benchmark,
    data: Path,
    cache: Path,
    *,
    revision: str | None = None,
    pins: Path | None = None,
    offline: bool = False,
    endpoint: str = ENDPOINT,
    limits: Limits = PATIENCE,
    tell: Callable[[str], None] = lambda text: None,
) -> Lock:
    """Brings a benchmark into `data`, or checks what lies there against its lock.

    Which bytes: those of `pins`; else those of the lock that lies in `data`; else those that `cache` had last, unless
    a revision is named; else what the hub calls `revision` ("main"). offline: never ask the network. UserError if what
    lies there is something else, or what is needed cannot be had.
    """
    out = data / benchmark.folder
    lock = read_lock(pins, benchmark) if pins else None
    if (out / LOCK).exists():
        return _check_there(out, benchmark, lock, revision)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: found files that `data get` did not write; give another folder, or move them away")
    kept = cache / f"{benchmark.name}.lock.json"
    if lock is None and kept.exists() and revision is None:
        lock = read_lock(kept, benchmark)
    if lock is None and offline:
        raise UserError(f"{kept}: no such file, so {benchmark.name} was never fetched; run it once with a network")
    if lock is None:
        lock = resolve(benchmark, revision or "main", endpoint, limits)
    write_json(_made(cache) / kept.name, asdict(lock))
    for one in lock.files:
        _bring(lock, one, cache, offline, endpoint, limits, tell)
    if out.exists():
        out.rmdir()  # it is empty
    with whole_folder(out) as work:
        for one in lock.files:
            place = work / one.to
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cache / "files" / one.digest, place)
        write_json(work / LOCK, asdict(lock))
    return lock


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bring(
    lock: Lock, one: Pinned, cache: Path, offline: bool, endpoint: str, limits: Limits, tell: Callable[[str], None]
) -> None:
    url = f"{endpoint}/datasets/{lock.repository}/resolve/{lock.commit}/{quote(one.source)}"
    wanted, path = Wanted(url, one.bytes, one.digest, one.algorithm), cache / "files" / one.digest
    if is_right(path, wanted):
        return
    if offline:
        raise UserError(f"{path}: found no whole copy of {one.source}; run it once with a network")
    tell(f"{lock.benchmark}: {one.source}, {one.bytes:,} bytes")
    download(wanted, path, limits)


def _check_there(out: Path, benchmark: Benchmark, lock: Lock | None, revision: str | None) -> Lock:
    there = read_lock(out / LOCK, benchmark)
    if lock is not None and (lock.commit, lock.files) != (there.commit, there.files):
        raise UserError(
            f"{out}: found commit {there.commit[:12]}, not the pinned {lock.commit[:12]}; give another folder"
        )
    if revision not in (None, there.revision, there.commit):
        raise UserError(f"{out}: found revision {there.revision}, not {revision}; give another folder")
    for one in there.files:
        if not is_right(out / one.to, Wanted("", one.bytes, one.digest, one.algorithm)):
            raise UserError(f"{out / one.to}: missing, or not what {LOCK} says; delete {out} and get it again")
    return there


def cache_folder() -> Path:
    """Where fetched files are kept: T5STUDY_CACHE, else the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("T5STUDY_CACHE") or f"{home}/t5study")


def named(names: Sequence[str]) -> list[Benchmark]:
    """Benchmarks by name. UserError for an unknown one."""
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(f"benchmark: found {name!r}; give some of {', '.join(BENCHMARKS)}")
    return [BENCHMARKS[name] for name in dict.fromkeys(names)]
