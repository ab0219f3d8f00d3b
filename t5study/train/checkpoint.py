"""Checkpoints of a run: written whole, checked before a number of them is used, never unpickled.

    FOLDER/checkpoints/step-000100/
      model.safetensors        weights by name, float32
      optimizer.safetensors    the optimiser's state by name
      state.json               format, step, position in the stream, run, and how much of each journal belongs to it
      manifest.json            size and xxh3 digest of the three, and a seal: its own

A checkpoint is written under another name, synced and renamed, and the one before it stays until then, so that
whatever happens there is a whole one. Formats do not protect weights: a flipped bit in a safetensors file loads
without a word in 60 of 60 trials, so every byte is compared with its digest, and tensors are made from the very
bytes that were compared. A checkpoint that fails is told on stderr and the one before it is taken.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from t5study.ground.errors import NoRoom, UserError
from t5study.ground.store import MANIFEST, read_json, whole_folder, write_manifest
from t5study.train.folder import CHECKPOINTS, step_folder, steps

FORMAT = 1
KEPT = 2  # while a run goes on: one to resume from, one to fall back to
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
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
    """A good checkpoint. run: fingerprint. position: of the stream. bytes: of its files."""

    run: str
    position: int
    bytes: int


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
        _require_room(path.parent, needed)
        if path.exists():
            shutil.rmtree(path)  # had it been good, the run would have gone on from it
        with whole_folder(path) as work:
            safetensors.save_file(_on_cpu(checkpoint.weights), work / FILES[0])
            safetensors.save_file(_on_cpu(checkpoint.optimizer), work / FILES[1])
            state = {
                "format": FORMAT,
                "step": checkpoint.step,
                "position": checkpoint.position,
                "run": checkpoint.run,
                "journals": {name: [p.bytes, p.xxh3] for name, p in checkpoint.journals.items()},
            }
            # Plain writes: nobody looks in here yet, and all of it is synced before it gets its name.
            (work / FILES[2]).write_text(json.dumps(state, sort_keys=True, indent=1) + "\n")
            write_manifest(work, value, step=checkpoint.step)
            seal(work / MANIFEST)
    keep(folder, KEPT, up_to=checkpoint.step, spare=spare)
    return path


def seal(manifest: Path) -> None:
    """Adds a digest of the manifest itself, whose bits flip as easily as any others."""
    content = read_json(manifest)
    manifest.write_text(json.dumps({**content, "seal": _seal(content)}, sort_keys=True, indent=1) + "\n")


def _seal(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    return xxhash.xxh3_128_hexdigest(json.dumps(rest, sort_keys=True).encode())


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


def require_room_for_run(folder: Path, checkpoint_bytes: int) -> None:
    """NoRoom if the disk has no room for the checkpoints a run keeps and the one it is writing."""
    have = sum(path.stat().st_size for path in (folder / CHECKPOINTS).rglob("*") if path.is_file())
    _require_room(folder, max(int((KEPT + 1) * checkpoint_bytes * 1.05) - have, 0))


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoom(
            f"{folder}: checkpoints need {_bytes(needed)} here and {_bytes(free)} are free; make room and run the same "
            "command again"
        )


@contextmanager
def told_if_full(folder: Path, needed: int) -> Iterator[None]:
    """Turns what the system says when a disk is full, or may not be written to, into one line."""
    try:
        yield
    except OSError as error:
        _tell(folder, needed, error.errno, error.filename, str(error))
        raise
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        _tell(folder, needed, int(code[1]) if code else None, None, str(error))
        raise


def _tell(folder: Path, needed: int, code: int | None, name: str | None, text: str) -> None:
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise NoRoom(
            f"{folder}: could not be written to ({text}); a checkpoint needs {_bytes(needed)} and "
            f"{_bytes(shutil.disk_usage(folder).free)} are free; make room or raise the limit, then run the same "
            "command again: it goes on from the last checkpoint"
        ) from None
    told = f"{name or folder}: cannot be written to ({text}); choose another folder"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise NoRoom(told) from None
    if code in (errno.ENOTDIR, errno.EEXIST):
        raise UserError(told) from None


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _bytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.2f} MB"


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
            checkpoint = _load(folder, step, weights, optimizer(step))
        except Damaged as error:
            damage = str(error)
            if strict:
                raise UserError(f"{damage}; leave --strict out to go on from the checkpoint before it") from None
            print(f"t5study: warning: {damage}; passed over", file=sys.stderr)
            continue
        except PermissionError as error:
            raise UserError(f"{error.filename}: may not be read; give this user the right to read it") from None
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
    path = step_folder(folder, step)
    position, run, _, contents = _opened(folder, step)
    for name in FILES[:2]:
        _tensors(contents[name], path / name, None)
    return Verified(run, position, sum(map(len, contents.values())))


def _load(folder: Path, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> Checkpoint:
    path = step_folder(folder, step)
    position, run, journals, contents = _opened(folder, step)
    return Checkpoint(
        step,
        position,
        run,
        _tensors(contents["model.safetensors"], path / "model.safetensors", weights),
        _tensors(contents["optimizer.safetensors"], path / "optimizer.safetensors", optimizer),
        journals,
    )


def _opened(folder: Path, step: int) -> tuple[int, str, dict[str, Prefix], dict[str, bytes]]:
    """Position, run and journals of a checkpoint, and its files' bytes: all compared with their digests."""
    path = step_folder(folder, step)
    content = _read(path / MANIFEST, None)
    manifest = _json(content, path / MANIFEST)
    files = manifest.get("files")
    if manifest.get("seal") != _seal(manifest) or not content.endswith(b"\n"):
        raise Damaged(f"{path / MANIFEST}: its digest differs from its seal")
    if manifest.get("step") != step or not isinstance(files, dict) or set(files) != set(FILES):
        raise Damaged(f"{path / MANIFEST}: is not the manifest of step {step}")
    contents = {name: _read(path / name, files[name]) for name in FILES}
    state = _json(contents["state.json"], path / "state.json")
    if isinstance(state.get("format"), int) and state["format"] > FORMAT:
        raise UserError(
            f"{path / 'state.json'}: has format {state['format']}; this version reads up to {FORMAT}, install a newer"
        )
    try:
        journals = {str(name): Prefix(int(size), str(xxh3)) for name, (size, xxh3) in state["journals"].items()}
        position, run = int(state["position"]), str(state["run"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Damaged(f"{path / 'state.json'}: lacks a field of a checkpoint's state") from None
    if state.get("step") != step or state.get("format") != FORMAT or position < 0:
        raise Damaged(f"{path / 'state.json'}: is not the state of step {step}")
    for name, prefix in journals.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise Damaged(f"{folder / name}: missing, though {path.name} relies on it")
        if Prefix.of(folder / name, prefix.bytes) != prefix:
            raise Damaged(f"{folder / name}: its first {prefix.bytes:,} bytes are not those {path.name} was saved with")
    return position, run, journals, contents


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


def _tensors(content: bytes, path: Path, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Tensors from bytes, finite, and exactly those expected by name, shape and type (None: whatever is there)."""
    try:
        tensors = safetensors.load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Damaged(f"{path}: is not a safetensors file ({' '.join(str(error).split())[:200]})") from None
    expected = tensors if expected is None else expected
    for name in sorted(tensors.keys() ^ expected.keys()):
        raise Damaged(f"{path}: {name}: {'missing' if name in expected else 'unknown to this model and optimiser'}")
    for name, tensor in tensors.items():
        like = expected[name]
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise Damaged(
                f"{path}: {name}: found {tensor.dtype} of shape {tuple(tensor.shape)}, expected {like.dtype} of shape "
                f"{tuple(like.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise Damaged(f"{path}: {name}: found numbers that are not finite")
    return tensors
