"""A value -> its name: equal values have equal fingerprints, however they were typed in and on whatever machine."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash


def canonical(value: Any) -> Any:
    """A value as plain JSON, the same for equal values however they were typed in.

    Dataclass fields are coerced to their declared type first (3 and 3.0 must not train twice), and a field whose
    metadata says `{"fingerprint": False}` is left out (a path, a display name), one whose metadata says
    `{"fingerprint": "if set"}` is left out at its default: values made before the field was thought of keep their
    fingerprint. Machines and paths never enter: a Path raises.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Span:
    ...     mean: float
    >>> fingerprint(Span(3)) == fingerprint(Span(3.0))
    True
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return {"float": float(value).hex()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        fields = {
            field.name: canonical(_coerced(getattr(value, field.name), hints[field.name]))
            for field in dataclasses.fields(value)
            if _counts(field, getattr(value, field.name))
        }
        return {"type": type(value).__name__, "fields": fields}
    if isinstance(value, Mapping):
        return {"map": sorted(([canonical(k), canonical(v)] for k, v in value.items()), key=json.dumps)}
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    raise TypeError(f"a {type(value).__name__} cannot be part of a fingerprint: {value!r}")


@lru_cache(maxsize=1 << 10)
def _hints(kind: type) -> dict[str, Any]:
    """A class's declared types: looked up once, for a study's stages hold each other."""
    return typing.get_type_hints(kind)


def _counts(field: dataclasses.Field[Any], value: Any) -> bool:
    rule = field.metadata.get("fingerprint", True)
    return value != field.default if rule == "if set" else rule


def _coerced(value: Any, hint: Any) -> Any:
    """A number as its declared type: int where float is declared, 3.0 where int is declared."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and float in options and int not in options:
        return float(value)
    if isinstance(value, float) and int in options and float not in options:
        if not value.is_integer():
            raise ValueError(f"{value!r} where a whole number is declared")
        return int(value)
    return value


def fingerprint(value: Any) -> str:
    """32 hex characters that name a value: xxh3-128 of its canonical JSON."""
    return xxhash.xxh3_128_hexdigest(json.dumps(canonical(value), sort_keys=True).encode())
