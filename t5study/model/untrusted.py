"""Folders that somebody else wrote: files and tensors out of them, each checked before anything relies on it.

A model's folder may come from anywhere. Nothing is unpickled, no link or name leads out of the folder, sizes are
looked at before files are read, digests are compared where a manifest lists them, and every failure is one line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from t5study.ground.errors import UserError
from t5study.ground.store import MANIFEST, digest_file, read_json

FORMAT = 1  # of a folder that we wrote
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTERS, LANGUAGE_MODEL = "adapters.safetensors", "language_model.safetensors"
_LARGEST_JSON = 64 << 20


# --- files --------------------------------------------------------------------------------------------------------


def listed_files(folder: Path) -> dict[str, Any]:
    """What our own manifest says of the files; nothing for a folder that we did not write."""
    if not (folder / MANIFEST).exists():
        return {}
    path = folder / MANIFEST
    manifest = json_object(folder, MANIFEST, {})
    if "code" not in manifest:
        return {}
    newest, files = manifest.get("format", FORMAT), manifest.get("files")
    if newest != FORMAT:
        raise UserError(f"{path}: field format: found {newest!r}, this t5study reads {FORMAT}; use a newer t5study")
    if not isinstance(files, dict) or any(
        not isinstance(entry, dict) or not {"bytes", "xxh3"} <= set(entry) for entry in files.values()
    ):
        raise UserError(f"{path}: field files: found no sizes and digests; write or download the folder again")
    if not {WEIGHTS, INDEX, LANGUAGE_MODEL} & set(files):  # the manifest of something else around the model
        return {}
    return files


def inside(folder: Path, name: str, listed: Mapping[str, Any]) -> Path:
    """The path of a file of the folder, which it may not leave, with the bytes that the manifest lists.

    A link may lead to the store beside `snapshots` that Hugging Face's cache keeps its files in, and nowhere else.
    """
    path = folder / name
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UserError(f"{folder}: found the file name {name[:60]!r}; files of a model lie in its folder itself")
    home = folder.resolve()
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if not path.exists():
        raise UserError(f"{path}: no such file; write or download the folder again")
    if path.resolve().parent not in homes:
        raise UserError(f"{path}: found a link that leads out of the folder; put the file itself there")
    if not path.is_file():
        raise UserError(f"{path}: is no file; write or download the folder again")
    if name in listed and (path.stat().st_size != listed[name]["bytes"] or digest_file(path) != listed[name]["xxh3"]):
        raise UserError(f"{path}: its digest differs from {MANIFEST}; write or download the folder again")
    return path


def json_object(folder: Path, name: str, listed: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON file of the folder that holds one object."""
    path = inside(folder, name, listed)
    if (size := path.stat().st_size) > _LARGEST_JSON:
        raise UserError(f"{path}: found {size:,} bytes; that is no {name}")
    try:
        found = read_json(path)
    except (RecursionError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: found JSON that cannot be read; write or download the folder again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: found no JSON object; write or download the folder again")
    return found


# --- the weights on disk ------------------------------------------------------------------------------------------


class Stored:
    """One tensor of an open safetensors file."""

    def __init__(self, file: Any, path: Path, name: str):
        self.path, self.name = path, name
        self._file, view = file, file.get_slice(name)
        self.shape, self.type = tuple(view.get_shape()), str(view.get_dtype())

    def read(self) -> Tensor:
        """Its numbers, all finite."""
        tensor = self._file.get_tensor(self.name).float()
        if bad := int((~torch.isfinite(tensor)).sum()):
            raise UserError(f"{self.path}: {self.name}: found {bad:,} numbers NaN or infinite; use other weights")
        return tensor


def open_weights(folder: Path, listed: Mapping[str, Any], stack: ExitStack) -> dict[str, Stored]:
    """Every tensor of the folder by its published name, not yet read."""
    if (folder / WEIGHTS).exists() or (folder / WEIGHTS).is_symlink():
        return open_file(folder, WEIGHTS, listed, stack)
    if not (folder / INDEX).exists():
        raise _no_weights(folder)
    names, places = _shards(folder, listed)
    found: dict[str, Stored] = {}
    for name in names:
        for key, tensor in open_file(folder, name, listed, stack).items():
            if key in found:
                raise UserError(
                    f"{folder / name}: {key}: found in {found[key].path.name} too; download the folder again"
                )
            found[key] = tensor
    for key, place in places.items():
        if key not in found or found[key].path.name != place:
            raise UserError(f"{folder / INDEX}: {key}: not found in {place}; download the folder again")
    return found


def open_file(folder: Path, name: str, listed: Mapping[str, Any], stack: ExitStack) -> dict[str, Stored]:
    """Every tensor of one safetensors file of the folder by its name there, not yet read. UserError, when the stack is
    left, if the file has changed in the meantime."""
    path = inside(folder, name, listed)
    before = path.stat()
    try:
        file = stack.enter_context(safe_open(path, framework="pt"))
        tensors = {key: Stored(file, path, key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: found no whole safetensors file ({told}); write or download it again") from None
    stack.callback(_unchanged, path, before)
    return tensors


def _unchanged(path: Path, before: os.stat_result) -> None:
    after = path.stat()
    if (after.st_ino, after.st_size, after.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
        raise UserError(f"{path}: changed while it was read; try again when nothing writes to it")


def _shards(folder: Path, listed: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    places = json_object(folder, INDEX, listed).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise UserError(f"{folder / INDEX}: field weight_map: found no names of files; download the folder again")
    names = sorted(set(places.values()))
    for name in names:
        if not name.endswith(".safetensors"):
            raise UserError(f"{folder / INDEX}: field weight_map: found {name[:60]!r}; only safetensors are read")
    return names, places


_MAY_RUN_CODE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def _no_weights(folder: Path) -> UserError:
    others = sorted(path for path in folder.iterdir() if path.suffix in _MAY_RUN_CODE)
    return may_run_code(others[0]) if others else UserError(f"{folder}: has no {WEIGHTS}; give a folder with one")


def may_run_code(path: Path) -> UserError:
    """Why such a file is not opened, and the way out."""
    return UserError(
        f"{path}: found weights in a format that can run code when it is read, so it is not; where you "
        "trust it, convert it: transformers.T5ForConditionalGeneration.from_pretrained(...).save_pretrained(...) "
        f"writes {WEIGHTS}"
    )
