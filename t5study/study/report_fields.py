"""A JSON file read field by field, so that what is missing or wrong can be named in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.store import read_json

REMEDY = "run the study again to have it written anew (what is trained stays)"


@dataclass(frozen=True)
class Field:
    """A value in a JSON file, and where it stands: so that what is wrong can be named."""

    value: Any
    file: Path
    where: str = ""

    def __getitem__(self, key: str | int) -> Field:
        where = f"{self.where}.{key}" if self.where else str(key)
        if isinstance(key, str) and key not in self.map():
            raise UserError(f"{self.file}: field {where} is missing; {REMEDY}")
        return Field(self.value[key], self.file, where)

    def get(self, key: str) -> Field | None:
        """The field, or None where it is missing or null."""
        return self[key] if self.map().get(key) is not None else None

    def __iter__(self) -> Iterator[Field]:
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return (self[i] for i in range(len(self.value)))

    def items(self) -> Iterator[tuple[str, Field]]:
        return ((key, self[key]) for key in self.map())

    def map(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return self.value

    def map_of(self, texts: tuple[str, ...], wholes: tuple[str, ...]) -> dict[str, Any]:
        """An object that has these texts and whole numbers; what else it has stays."""
        for name in texts:
            self[name].text()
        for name in wholes:
            self[name].whole()
        return self.map()

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("a text")
        return self.value

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise self.wrong("a finite number")
        return self.value

    def whole(self) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.wrong("a whole number")
        return self.value

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def figures(self) -> dict[str, float]:
        return {key: each.number() for key, each in self.items()}

    def texts(self) -> tuple[str, ...]:
        return tuple(each.text() for each in self)

    def wrong(self, wanted: str) -> UserError:
        found = repr(self.value)
        found = found if len(found) <= 60 else found[:57] + "..."
        return UserError(f"{self.file}: field {self.where or '(whole file)'}: found {found}, not {wanted}; {REMEDY}")


def object_in(path: Path) -> dict[str, Any]:
    """The object that a file holds; {} where there is no such file."""
    return Field(read_json(path), path).map() if path.is_file() else {}
