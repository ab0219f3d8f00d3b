"""Reads MessagePack as flax writes it: maps, lists, numbers, texts, and arrays as an extension. Nothing is run.

https://github.com/msgpack/msgpack/blob/master/spec.md; flax's extension 1 is an array and 3 a single number, both
MessagePack again: [shape, name of the type, bytes in C order].
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

_ARRAY, _NUMBER = 1, 3
_DEEPEST = 64
# First byte -> what its length or value is written as, big-endian.
_FIXED = {
    0xCA: ">f", 0xCB: ">d",
    0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_LENGTHS = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"),
    0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I"),
    0xC7: ("extension", ">B"), 0xC8: ("extension", ">H"), 0xC9: ("extension", ">I"),
    0xDC: ("list", ">H"), 0xDD: ("list", ">I"),
    0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip
_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}
SIZES = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float64": 8,
    "int32": 4,
    "uint16": 2,
    "int64": 8,
    "uint32": 4,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True)
class Packed:
    """An array as it lies in the file. type: numpy's name for it, or bfloat16."""

    shape: tuple[int, ...]
    type: str
    content: memoryview


def unpack(content: bytes) -> Any:
    """The one value in `content`. ValueError, in a few words, if that is not what is there."""
    reader = _Reader(memoryview(content))
    value = reader.value(0)
    if reader.at != len(content):
        raise ValueError(f"{len(content) - reader.at:,} bytes more than the value")
    return value


class _Reader:
    def __init__(self, content: memoryview):
        self.content, self.at = content, 0

    def take(self, size: int) -> memoryview:
        if size > len(self.content) - self.at:
            raise ValueError("it is cut short")
        self.at += size
        return self.content[self.at - size : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        first = self.take(1)[0]
        if first <= 0x7F:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first <= 0x8F:
            return self.sized("map", first & 0x0F, depth)
        if first <= 0x9F:
            return self.sized("list", first & 0x0F, depth)
        if first <= 0xBF:
            return self.sized("text", first & 0x1F, depth)
        if first in _PLAIN:
            return _PLAIN[first]
        if first in _FIXED:
            return self.number(_FIXED[first])
        if first in _LENGTHS:
            kind, form = _LENGTHS[first]
            return self.sized(kind, self.number(form), depth)
        if 0xD4 <= first <= 0xD8:
            return self.sized("extension", 1 << (first - 0xD4), depth)
        raise ValueError(f"byte {self.at - 1} begins nothing")

    def sized(self, kind: str, size: int, depth: int) -> Any:
        if kind == "bytes":
            return self.take(size)
        if kind == "text":
            return bytes(self.take(size)).decode("utf-8")
        if kind == "list":
            return [self.value(depth + 1) for _ in range(size)]
        if kind == "map":
            found: dict[str, Any] = {}
            for _ in range(size):
                name = self.value(depth + 1)
                if not isinstance(name, str) or name in found:
                    raise ValueError(f"{name!r:.40} is no new name in a map")
                found[name] = self.value(depth + 1)
            return found
        code = self.number(">b")
        end = self.at + size
        if code not in (_ARRAY, _NUMBER):
            raise ValueError(f"an extension {code}, which is no array")
        packed = self.value(depth + 1)
        if self.at != end or not isinstance(packed, list):
            raise ValueError("an array of another length than it says")
        return _array(packed)


def _array(packed: list[Any]) -> Packed:
    match packed:
        case [list() | int() as shape, str() as name, memoryview() as content] if name in SIZES:
            sides = tuple(shape if isinstance(shape, list) else [shape])
            if all(type(side) is int and side >= 0 for side in sides) and prod(sides) * SIZES[name] == len(content):
                return Packed(sides, name, content)
    raise ValueError("an array whose shape, type and bytes do not agree")
