"""The store: the fingerprint of a value -> a folder that is there whole or not at all.

Every stage of a study is a frozen value. Equal values have equal fingerprints, so equal work is done once, for all
tables and for all studies that share a store; and since a folder only gets its name when everything in it has been
written and synced, a killed study goes on where it stopped.

    store/
      pretrain/3f2a...c9/          a finished stage; manifest.json names its value, its parents and every file's digest
      .partial/pretrain-3f2a...c9/ one under way; a resumable stage goes on from what it finds here
      .locks/pretrain-3f2a...c9    held (flock) while a process works on it; freed by the kernel if that process dies.
                                   Says who holds it, and since when
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import xxhash

from t5study.ground.errors import UserError
from t5study.ground.fingerprint import canonical, fingerprint

MANIFEST = "manifest.json"


# --- files ------------------------------------------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a name beside `path` to write to; at the end that file is synced and takes the place of `path`.

    `path` stays as it was if the block raises or the process dies.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text beside `path`, syncs it and renames it into place."""
    with whole_file(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path: Path, obj: Any) -> None:
    """Writes JSON (sorted keys, closing newline) beside `path`, syncs it and renames it into place."""
    write_text(path, json.dumps(obj, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, **how: Any) -> Any:
    """Reads JSON. how: of json.loads. UserError, naming the file, if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), **how)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:  # of bytes, of JSON, of a hook
        raise UserError(f"{path}: found damaged JSON ({error}); delete it, or restore it from a copy") from None


def digest_file(path: Path) -> str:
    """xxh3-128 of a file's bytes, in hex. About 10 GB/s, so it can be taken at every save."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(parent))


def publish(work: Path, path: Path) -> None:
    """Syncs everything under `work`, then gives it its final name: the one moment at which it appears."""
    _sync_tree(work)
    os.rename(work, path)
    _sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`; at the end it is synced and renamed to `path`.

    Nothing appears at `path` if the block raises or the process dies. UserError if `path` exists already.
    Leftovers of processes that died are removed on the way in.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path}: exists already; delete it or choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        if not _alive(leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if beside.exists():
        shutil.rmtree(beside)
    beside.mkdir()
    try:
        yield beside
        publish(beside, path)
    finally:
        if beside.exists():
            shutil.rmtree(beside)


def _alive(temporary_name: str) -> bool:
    """Whether the process whose id stands in `.name.<pid>.tmp` still runs."""
    try:
        os.kill(int(temporary_name.split(".")[-2]), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


# --- manifests --------------------------------------------------------------------------------------------------


def code_version() -> str:
    """The installed version of t5study, or "source" when it runs from a source tree."""
    try:
        return metadata.version("t5study")
    except metadata.PackageNotFoundError:
        return "source"


def write_manifest(folder: Path, value: Any = None, parents: Sequence[str] = (), **extra: Any) -> None:
    """Writes manifest.json: the value, its parents, the code version, and size and digest of every file."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "xxh3": digest_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = {
        "value": None if value is None else canonical(value),
        "parents": list(parents),
        "code": code_version(),
        "files": files,
        **extra,
    }
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that was written whole. UserError if there is none."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: has no {MANIFEST}, so it was not written whole; delete it and run again")
    return read_json(folder / MANIFEST, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a manifest, which names nothing twice: JSON alone would keep the last and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"twice: {sorted(name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1)[0]}")
    return found


def verify(folder: Path) -> dict[str, Any]:
    """Checks every file of a folder against its manifest and returns the manifest. UserError names what is wrong."""
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing though the manifest lists it; delete {folder} and run again")
        if path.stat().st_size != entry["bytes"]:
            raise UserError(
                f"{path}: found {path.stat().st_size} bytes, the manifest says {entry['bytes']}; "
                f"delete {folder} and run again"
            )
        if digest_file(path) != entry["xxh3"]:
            raise UserError(f"{path}: its digest differs from the manifest; delete {folder} and run again")
    return manifest


# --- the store --------------------------------------------------------------------------------------------------


class Busy(Exception):
    """Another process is building the stage. holder: who, since when (seconds since 1970)."""

    def __init__(self, holder: Mapping[str, Any]):
        super().__init__(f"{holder['who']} is building it")
        self.holder = dict(holder)


def this_process() -> str:
    """Who holds what this process holds: its number, host and, on a cluster, job."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"process {os.getpid()} on {socket.gethostname()}" + (f", job {job}" if job else "")


class Store:
    """Folders by the fingerprint of the value that made them. Safe for several processes at once, on several hosts if
    their file system carries flock from one to another (NFS from version 4, Lustre mounted with flock)."""

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def path(self, kind: str, value: Any) -> Path:
        """Where the stage lies, or would lie."""
        return self.root / kind / fingerprint(value)

    def partial(self, kind: str, value: Any) -> Path:
        """Where the stage is built: to look at its journal while it runs."""
        return self.root / ".partial" / f"{kind}-{fingerprint(value)}"

    def has(self, kind: str, value: Any) -> bool:
        """Whether the stage is there, whole."""
        return (self.path(kind, value) / MANIFEST).is_file()

    def make(
        self, kind: str, value: Any, build: Callable[[Path], None], parents: Sequence[str] = (), *, wait: bool = True
    ) -> Path:
        """Returns the stage's folder, building it first if it is not there.

        `build(work)` fills the folder `work`. It survives a kill: a resumable build goes on from what it finds,
        any other overwrites. If another process is building the same stage, waits for it, or raises Busy.
        """
        path = self.path(kind, value)
        if self.has(kind, value):
            return path
        with self.hold(kind, value, wait=wait):
            if self.has(kind, value):
                return path
            if path.exists():
                # A folder under its final name without a manifest was not put there by publish(): never trust it.
                shutil.rmtree(path)
            work = self.partial(kind, value)
            work.mkdir(parents=True, exist_ok=True)
            build(work)
            write_manifest(work, value, parents)
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(work, path)
        return path

    def holder(self, kind: str, name: str) -> dict[str, Any] | None:
        """Who is building the stage of that kind and fingerprint, as `who` and `since` (seconds since 1970); None if
        nobody is. A process that was killed holds nothing."""
        try:
            handle = os.open(self.root / ".locks" / f"{kind}-{name}", os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(handle)
        finally:
            os.close(handle)
        return None

    def holders(self, kind: str) -> list[dict[str, Any]]:
        """Whoever holds a lock of that kind now, each as `holder` tells it."""
        names = [path.name.removeprefix(f"{kind}-") for path in (self.root / ".locks").glob(f"{kind}-*")]
        return [found for name in names if (found := self.holder(kind, name))]

    @contextmanager
    def hold(self, kind: str, value: Any, *, wait: bool = True, passing: bool = False) -> Iterator[None]:
        """Holds the lock of a stage, or of anything else that one process at a time does. If another has it, waits, or
        raises Busy. passing: nobody else will ever want it, so its file goes with it."""
        path = self.root / ".locks" / f"{kind}-{fingerprint(value)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Busy(_holder(handle)) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"who": this_process(), "since": round(time.time(), 3)}).encode(), 0)
            try:
                yield
            finally:
                if passing:
                    path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _holder(handle: int) -> dict[str, Any]:
    """What a lock's holder wrote into it; it may be about to."""
    try:
        found = json.loads(os.pread(handle, 1000, 0))
        return {"who": str(found["who"]), "since": float(found["since"])}
    except (ValueError, KeyError, TypeError):
        return {"who": "another process", "since": time.time()}
