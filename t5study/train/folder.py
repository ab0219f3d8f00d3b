"""The folder of one run: whose it is, who is at work in it, and its files up to a checkpoint.

FOLDER/
  run.json                what the run was asked to be; another run is refused
  journal.jsonl           one row a step
  evaluations.jsonl       one row an evaluation
  checkpoints/            checkpoint.py
  summary.json            written last: the run is done
  speeds.json, .jsonl     wall-clock (speeds.py); never the same twice, and nothing depends on it
  .lock                   held (flock) by the process at work here; removed when it leaves
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.fingerprint import canonical, fingerprint
from t5study.ground.store import read_json, write_json

JOURNAL, EVALUATIONS, SUMMARY = "journal.jsonl", "evaluations.jsonl", "summary.json"
RUN, CHECKPOINTS, LOCK = "run.json", "checkpoints", ".lock"


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies, or would lie."""
    return folder / CHECKPOINTS / f"step-{step:06d}"


def steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, good or not, the newest first. UserError if the folder may not be looked into: that
    there are none is what a run begins anew for."""
    try:
        names = os.listdir(folder / CHECKPOINTS)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise not_readable(error) from None
    return sorted((int(m[1]) for name in names if (m := re.fullmatch(r"step-(\d{6,15})", name))), reverse=True)


def keep(folder: Path, newest: int, up_to: int, spare: int | None = None) -> None:
    """Removes all checkpoints up to a step but the newest few. Later ones (damaged, since passed over) stay."""
    for step in [step for step in steps(folder) if step <= up_to][newest:]:
        if step != spare:
            shutil.rmtree(step_folder(folder, step))


def drop_after(folder: Path, step: int) -> None:
    """Removes all checkpoints of later steps: the run goes another way from this one on."""
    for later in steps(folder):
        if later > step:
            shutil.rmtree(step_folder(folder, later))


def clean(folder: Path) -> None:
    """Removes what a save left that was killed. The caller holds the folder's lock, so nobody is writing here."""
    for leftover in (folder / CHECKPOINTS).glob(".step-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def not_readable(error: PermissionError) -> UserError:
    """What is told of a file or folder that belongs to somebody else."""
    return UserError(f"{error.filename}: may not be read; give this user the right to read it")


def run_of(folder: Path) -> dict[str, Any]:
    """What run.json says. UserError if the folder is no run's."""
    try:
        if not (folder / RUN).is_file():
            raise UserError(f"{folder}: has no run.json, so no run began here; give the --out of a `train` command")
        found = read_json(folder / RUN)
    except PermissionError as error:
        raise not_readable(error) from None
    return found if isinstance(found, dict) else {}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder for this process. UserError, at once, naming the process that holds it.

    The kernel frees the lock of a process that dies, so a killed run leaves nothing to clean up.
    """
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise UserError(
                f"{folder}: {holder} is training here; wait for it, stop it or choose another folder"
            ) from None
        if _same_file(handle, path):
            break
        os.close(handle)  # its holder removed it between the two calls
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def claim(folder: Path, run: Any) -> None:
    """Makes a folder this run's, or sees that it is. UserError if it is another run's, naming what differs."""
    path = folder / RUN
    if path.exists():
        try:
            found = read_json(path)
        except PermissionError as error:
            raise not_readable(error) from None
        if not isinstance(found, dict) or found.get("fingerprint") != fingerprint(run):
            value = found.get("run") if isinstance(found, dict) else None
            raise UserError(
                f"{folder}: holds another run{_difference(value, canonical(run))}; choose another folder, or delete it"
            )
    elif (folder / JOURNAL).exists() or (folder / CHECKPOINTS).exists():
        raise UserError(
            f"{folder}: holds a journal or checkpoints but no run.json; choose another folder, or delete it"
        )
    else:
        write_json(path, {"fingerprint": fingerprint(run), "run": canonical(run)})


def _difference(found: Any, asked: Any) -> str:
    """The first field in which two canonical runs differ, for people."""
    try:
        for name, value in asked["fields"].items():
            if found["fields"][name] != value:
                return f" ({name}: {_short(found['fields'][name])} there, {_short(value)} asked for)"
    except (KeyError, TypeError):
        pass
    return ""


def _short(value: Any) -> str:
    if isinstance(value, dict) and "float" in value:
        return f"{float.fromhex(value['float']):g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def truncate(path: Path, size: int) -> None:
    """Cuts a file to its first bytes, making an empty one if there is none."""
    with open(path, "ab") as file:
        file.truncate(size)
