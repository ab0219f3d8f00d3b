"""One page of raw text on its way to becoming a document, and the account of those that did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Page:
    """text: what it says. url: where it came from, as a person would look it up; it plays no part in training.

    timestamp: when it was fetched, as the archive writes it ("2019-04-18T12:57:54Z"). language: if the source says it.
    """

    text: str
    url: str = ""
    timestamp: str = ""
    language: str = ""


@dataclass(frozen=True)
class Drop:
    """What a rule returns instead of a page it leaves out."""

    reason: str


def batched(items: Iterable[T], most: int, characters: Callable[[T], int]) -> Iterator[list[T]]:
    """Pages or texts in their order, `most` at a time, or fewer where a million characters are together before."""
    batch: list[T] = []
    size = 0
    for item in items:
        batch.append(item)
        size += characters(item)
        if size >= _CHARACTERS or len(batch) >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def dropped(reason: str, counts: Counter[str]) -> Drop:
    """A page goes, and is counted."""
    counts[reason] += 1
    return Drop(reason)


@dataclass
class Drops:
    """Pages that were left out: how many for each reason, and where the first of them stands."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def __str__(self) -> str:
        """'2 empty (the first in a.txt), 1 not UTF-8 (the first in b.txt)'"""
        told = [f"{count:,} {reason} (the first in {self.first[reason]})" for reason, count in self.counts.items()]
        return ", ".join(told) or "none was read"
