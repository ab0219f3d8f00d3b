"""One page of raw text on its way to becoming a document, and the account of those that did not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


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
