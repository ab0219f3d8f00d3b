"""Parts: the tensors of a checkpoint in one file, or in a file for each of several ranks.

    model.safetensors                      all of every weight
    model-00001-of-00002.safetensors       the rows that the first of two ranks keeps of it (shards.py)
    model-00002-of-00002.safetensors       the second's

Rows are cut as torch.chunk cuts. What has none (a count of steps), and what every rank keeps whole (Adafactor's means
by column), lies in the first part alone: so a reader need not know what was cut, it is what all parts have. Cutting
and joining move bytes and compute nothing.

>>> [len(part["a"]) for part in cut({"a": torch.zeros(5, 2)}, 4)]
[2, 2, 1, 0]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

GROUPS = ("model", "optimizer")  # what a checkpoint has tensors of


def names(group: str, parts: int) -> list[str]:
    """The files of a group, in order."""
    if parts == 1:
        return [f"{group}.safetensors"]
    return [f"{group}-{part:05d}-of-{parts:05d}.safetensors" for part in range(1, parts + 1)]


def parts_of(files: Iterable[str]) -> int:
    """How many parts these files are named as; 0 if they are not those of all groups, whole, and no others."""
    found = sorted(files)
    last = re.fullmatch(rf"{GROUPS[0]}-\d{{5}}-of-(\d{{5}})\.safetensors", found[0]) if found else None
    parts = int(last[1]) if last else 1
    return parts if parts and found == sorted(name for group in GROUPS for name in names(group, parts)) else 0


def rows(count: int, part: int, parts: int) -> slice:
    """Which of so many rows are in a part (from 0). The last parts may have fewer than others, or none."""
    share = -(-count // parts)
    first = min(part * share, count)
    return slice(first, min(first + share, count))


def in_rows(name: str, tensor: Tensor) -> bool:
    """Whether ranks keep rows of a tensor of this name, rather than all of it each."""
    return tensor.dim() > 0 and not name.endswith("/columns")


def cut(tensors: Mapping[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """What each part has of whole tensors: views, not copies."""
    if parts == 1:
        return [dict(tensors)]
    return [
        {
            name: tensor[rows(len(tensor), part, parts)] if in_rows(name, tensor) else tensor
            for name, tensor in tensors.items()
            if part == 0 or in_rows(name, tensor)
        }
        for part in range(parts)
    ]


def join(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Whole tensors from all parts. ValueError, naming one, for rows that do not fit together."""
    if len(found) == 1:
        return dict(found[0])
    joined = {}
    for name in sorted({name for part in found for name in part}):
        there = [part[name] for part in found if name in part]
        if len(there) == 1 and name in found[0]:
            joined[name] = there[0]
            continue
        if len(there) < len(found):
            raise ValueError(f"{name}: found in {len(there)} of {len(found)} parts")
        if len({(t.dim(), t.shape[1:], t.dtype) for t in there}) > 1 or there[0].dim() == 0:
            raise ValueError(f"{name}: found rows of several forms in the parts")
        count = sum(map(len, there))
        if [len(t) for t in there] != [len(range(count)[rows(count, part, len(found))]) for part in range(len(found))]:
            raise ValueError(f"{name}: found rows that are not cut as ranks keep them")
        joined[name] = torch.cat(there)
    return joined
