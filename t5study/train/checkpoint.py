"""Checkpoints of a run: written whole, checked before a number of them is used, never unpickled.

    FOLDER/checkpoints/step-000100/
      model.safetensors        weights by name, float32
      optimizer.safetensors    the optimiser's state by name
      state.json               format, step, position in the stream, run, and how much of each journal belongs to it
      manifest.json            size and xxh3 digest of the three, and a seal: its own

Tensors may also lie in a file for each of several ranks (parts.py); readers take either.

A checkpoint is written under another name, synced and renamed, and the one before it stays until then, so that
whatever happens there is a whole one. Formats do not protect weights: a flipped bit in a safetensors file loads
without a word in 60 of 60 trials, so every byte is compared with its digest, and tensors are made from the very
bytes that were compared. A checkpoint that fails is told on stderr and the one before it is taken.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from t5study.ground.errors import UserError
from t5study.ground.store import MANIFEST, read_json, whole_folder, write_manifest
from t5study.train.folder import CHECKPOINTS, keep, not_readable, step_folder, steps
from t5study.train.parts import GROUPS, cut, join, names, parts_of
from t5study.train.room import require_room, told_if_full

FORMAT = 1
KEPT = 2  # while a run goes on: one to resume from, one to fall back to
STATE = "state.json"
FILES = ("model.safetensors", "optimizer.safetensors", STATE)  # of one that is in no parts
_LARGEST_JSON = 64 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` steps. position: of the stream. run: the run's fingerprint. journals: file name -> Prefix."""

    step: int
    position: int
    run: str
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    journals: Mapping[str, Prefix]


@dataclass(frozen=True)
class Prefix:
    """The first `bytes` bytes of a file and their xxh3 digest."""

    bytes: int
    xxh3: str

    @staticmethod
    def of(path: Path, most: int | None = None) -> Prefix:
        """The prefix of a file as it is: all of it, or at most so many bytes."""
        digest, left = xxhash.xxh3_128(), path.stat().st_size if most is None else most
        read = 0
        with open(path, "rb") as file:
            while block := file.read(min(left - read, 1 << 22)):
                digest.update(block)
                read += len(block)
        return Prefix(read, digest.hexdigest())


@dataclass(frozen=True)
class Verified:
    """A good checkpoint. run: fingerprint. position: of the stream. bytes: of its files. parts: parts.py."""

    run: str
    position: int
    bytes: int
    parts: int = 1


class Damaged(Exception):
    """What is wrong with a checkpoint, and where: the reason to take the one before it."""


def size(*groups: Mapping[str, Tensor]) -> int:
    """About the bytes that a checkpoint of these tensors takes on disk."""
    return sum(tensor.numel() * tensor.element_size() for group in groups for tensor in group.values()) + (1 << 16)


# --- writing ------------------------------------------------------------------------------------------------------


def save(folder: Path, checkpoint: Checkpoint, value: Any = None, spare: int | None = None) -> Path:
    """Writes FOLDER/checkpoints/step-N and then removes all but the newest two up to it, and that of step `spare`.

    NoRoom, with the checkpoints before it untouched, if there is no room or no right to write.
    """
    path = step_folder(folder, checkpoint.step)
    needed = size(checkpoint.weights, checkpoint.optimizer)
    with told_if_full(folder, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        require_room(path.parent, needed)
        if path.exists():
            shutil.rmtree(path)  # had it been good, the run would have gone on from it
        with whole_folder(path) as work:
            write(work, checkpoint)
            write_manifest(work, value, step=checkpoint.step)
            seal(work / MANIFEST)
    keep(folder, KEPT, up_to=checkpoint.step, spare=spare)
    return path


def write(work: Path, checkpoint: Checkpoint, parts: int = 1) -> None:
    """All files of a checkpoint but the manifest. Plain writes: nobody looks in here yet, and all of it is synced
    before it gets its name."""
    for group, tensors in zip(GROUPS, (checkpoint.weights, checkpoint.optimizer), strict=True):
        for name, part in zip(names(group, parts), cut(tensors, parts), strict=True):
            safetensors.save_file(_on_cpu(part), work / name)
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "position": checkpoint.position,
        "run": checkpoint.run,
        "journals": {name: [p.bytes, p.xxh3] for name, p in checkpoint.journals.items()},
    }
    (work / STATE).write_text(json.dumps(state, sort_keys=True, indent=1) + "\n")


def seal(manifest: Path, **changes: Any) -> None:
    """Adds a digest of the manifest itself, whose bits flip as easily as any others."""
    content = {**read_json(manifest), **changes}
    manifest.write_text(json.dumps({**content, "seal": _seal(content)}, sort_keys=True, indent=1) + "\n")


def _seal(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    return xxhash.xxh3_128_hexdigest(json.dumps(rest, sort_keys=True).encode())


def require_room_for_run(folder: Path, checkpoint_bytes: int) -> None:
    """NoRoom if the disk has no room for the checkpoints a run keeps and the one it is writing."""
    have = sum(path.stat().st_size for path in (folder / CHECKPOINTS).rglob("*") if path.is_file())
    require_room(folder, max(int((KEPT + 1) * checkpoint_bytes * 1.05) - have, 0))


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


# --- reading ------------------------------------------------------------------------------------------------------


def load_latest(
    folder: Path,
    run: str,
    weights: Mapping[str, Tensor],
    optimizer: Callable[[int], Mapping[str, Tensor]],
    strict: bool = False,
) -> Checkpoint | None:
    """The newest good checkpoint of a run, or None if there is none at all.

    weights, optimizer(step): tensors of the names, shapes and types that are expected (at a later step an optimiser may
    have more of them). A damaged checkpoint is told on stderr and passed over, unless that is not wanted (`strict`).
    UserError if all are damaged, or one is another run's, too new, or may not be read.
    """
    found = steps(folder)
    damage = ""
    for step in found:
        try:
            checkpoint = read(folder, step, weights, optimizer(step))
        except Damaged as error:
            damage = str(error)
            if strict:
                raise UserError(f"{damage}; leave --strict out to go on from the checkpoint before it") from None
            print(f"t5study: warning: {damage}; passed over", file=sys.stderr)
            continue
        except PermissionError as error:
            raise not_readable(error) from None
        if checkpoint.run != run:
            raise UserError(
                f"{step_folder(folder, step)}: belongs to another run; choose another folder or delete this one"
            )
        if damage:
            print(f"t5study: going on from step {step:,}", file=sys.stderr)
        return checkpoint
    if found:
        raise UserError(f"{damage}; no checkpoint here is good; delete {folder} to start over, or restore a copy")
    return None


def verify(folder: Path, step: int) -> Verified:
    """Checks all of a checkpoint but whether its tensors are those of a certain model. Damaged: what is wrong, and
    where. UserError if it is too new, PermissionError if it may not be read."""
    found = _opened(folder, step)
    verified = Verified(found.run, found.position, sum(map(len, found.contents.values())), found.parts)
    for group in GROUPS:
        _tensors(found, group)
    return verified


def read(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor] | None = None,
    optimizer: Mapping[str, Tensor] | None = None,
) -> Checkpoint:
    """A checkpoint, checked as `verify` does, and that its tensors are like those given, if some are."""
    opened, tensors = _opened(folder, step), []
    for group, like in zip(GROUPS, (weights, optimizer), strict=True):
        tensors.append(_tensors(opened, group))
        if like is not None:
            _fit(tensors[-1], like, opened.path / names(group, opened.parts)[0])
    return Checkpoint(step, opened.position, opened.run, tensors[0], tensors[1], opened.journals)


@dataclass(frozen=True)
class _Opened:
    """What a checkpoint says, and its files' bytes: all compared with their digests."""

    path: Path
    position: int
    run: str
    journals: Mapping[str, Prefix]
    contents: dict[str, bytes]
    parts: int


def _opened(folder: Path, step: int) -> _Opened:
    path = step_folder(folder, step)
    content = _read(path / MANIFEST, None)
    manifest = _json(content, path / MANIFEST)
    files = manifest.get("files")
    if manifest.get("seal") != _seal(manifest) or not content.endswith(b"\n"):
        raise Damaged(f"{path / MANIFEST}: its digest differs from its seal")
    parts = parts_of(files.keys() - {STATE}) if isinstance(files, dict) and STATE in files else 0
    if manifest.get("step") != step or not isinstance(files, dict) or not parts:
        raise Damaged(f"{path / MANIFEST}: is not the manifest of step {step}")
    contents = {name: _read(path / name, entry) for name, entry in files.items()}
    state = _json(contents[STATE], path / STATE)
    if isinstance(state.get("format"), int) and state["format"] > FORMAT:
        raise UserError(
            f"{path / STATE}: has format {state['format']}; this version reads up to {FORMAT}, install a newer"
        )
    try:
        journals = {str(name): Prefix(int(size), str(xxh3)) for name, (size, xxh3) in state["journals"].items()}
        position, run = int(state["position"]), str(state["run"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Damaged(f"{path / STATE}: lacks a field of a checkpoint's state") from None
    if state.get("step") != step or state.get("format") != FORMAT or position < 0:
        raise Damaged(f"{path / STATE}: is not the state of step {step}")
    for name, prefix in journals.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise Damaged(f"{folder / name}: missing, though {path.name} relies on it")
        if Prefix.of(folder / name, prefix.bytes) != prefix:
            raise Damaged(f"{folder / name}: its first {prefix.bytes:,} bytes are not those {path.name} was saved with")
    return _Opened(path, position, run, journals, contents, parts)


def _read(path: Path, entry: Any) -> bytes:
    """A regular file's bytes, as many and with the digest the manifest says. Follows no link, waits for no pipe."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Damaged(f"{path}: missing, so this checkpoint is not whole") from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise
        raise Damaged(f"{path}: cannot be opened ({error.strerror})") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{path}: found something that is not a plain file")
        expected = status.st_size if entry is None else entry.get("bytes") if isinstance(entry, dict) else None
        if status.st_size != expected or (entry is None and status.st_size > _LARGEST_JSON):
            raise Damaged(f"{path}: found {status.st_size:,} bytes, the manifest says {expected}")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(status.st_size + 1)
    finally:
        os.close(handle)
    if entry is None:
        return content
    if xxhash.xxh3_128_hexdigest(content) != entry.get("xxh3"):
        raise Damaged(f"{path}: its digest differs from the manifest")
    return content


def _json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise Damaged(f"{path}: found damaged JSON") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path}: found a {type(value).__name__} where an object belongs")
    return value


def _tensors(opened: _Opened, group: str) -> dict[str, Tensor]:
    """A group's tensors, finite and whole. Lets go of the bytes that they are made from."""
    found, files = [], names(group, opened.parts)
    for name in files:
        try:
            tensors = safetensors.load(opened.contents.pop(name))
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            told = " ".join(str(error).split())[:200]
            raise Damaged(f"{opened.path / name}: is not a safetensors file ({told})") from None
        for key, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise Damaged(f"{opened.path / name}: {key}: found numbers that are not finite")
        found.append(tensors)
    try:
        return join(found)
    except ValueError as error:
        raise Damaged(f"{opened.path / files[0]}: {error}") from None


def _fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Damaged, unless they are exactly those expected by name, shape and type."""
    for name in sorted(tensors.keys() ^ expected.keys()):
        raise Damaged(f"{path}: {name}: {'missing' if name in expected else 'unknown to this model and optimiser'}")
    for name, tensor in tensors.items():
        like = expected[name]
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise Damaged(
                f"{path}: {name}: found {tensor.dtype} of shape {tuple(tensor.shape)}, expected {like.dtype} of shape "
                f"{tuple(like.shape)}"
            )
