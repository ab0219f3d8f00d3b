"""What was left out, to look at: a few pages of every reason, or all of them.

The few are those whose hashes are smallest, so the same pages are shown however the input was dealt out.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xxhash

from t5study.corpus.page import Page
from t5study.ground.store import write_json

SHOWN = 5
_EXCERPT = 400


class Samples:
    """Collects pages that are left out. whole: keeps every one of them, in rejects.jsonl."""

    def __init__(self, whole: bool = False):
        self.whole = whole
        self.few: dict[str, list[tuple[int, str, str]]] = {}
        self.all: list[tuple[str, str, str]] = []

    def add(self, reason: str, page: Page) -> None:
        if self.whole:
            self.all.append((reason, page.url, page.text))
        key = xxhash.xxh3_64_intdigest(page.url.encode("utf-8", "surrogatepass"))
        held = self.few.setdefault(reason, [])
        entry = (-key, page.url, page.text[:_EXCERPT])
        if len(held) < SHOWN:
            heapq.heappush(held, entry)
        elif entry > held[0]:
            heapq.heapreplace(held, entry)

    def write(self, folder: Path) -> None:
        """samples.json, and rejects.jsonl if every page is kept."""
        few = {reason: [list(one) for one in sorted(held, reverse=True)] for reason, held in self.few.items()}
        write_json(folder / "samples.json", few)
        if self.whole:
            with open(folder / "rejects.jsonl", "w", encoding="utf-8") as file:
                for reason, url, text in self.all:
                    file.write(json.dumps({"reason": reason, "url": url, "text": text}) + "\n")


def merged(samples: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """The few of all tasks' few: {reason: [{"url", "text"}, ...]}."""
    found: dict[str, list[tuple[int, str, str]]] = {}
    for few in samples:
        for reason, held in few.items():
            found.setdefault(reason, []).extend((key, url, text) for key, url, text in held)
    return {
        reason: [{"url": url, "text": text} for _, url, text in sorted(held, reverse=True)[:SHOWN]]
        for reason, held in sorted(found.items())
    }
