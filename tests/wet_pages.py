"""Invented web pages, and WET files of them: what the tests of a recipe's build read."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from t5study.corpus.page import Page

SUBJECTS = [
    "the river",
    "a careful gardener",
    "our old neighbour",
    "this small museum",
    "the night train",
    "every baker in town",
]
VERBS = ["follows", "remembers", "describes", "avoids", "repairs", "brings back", "never mentions", "slowly changes"]
OBJECTS = ["the road to the harbour", "a letter from the north", "what the children planted", "the colour of the roof"]
WHENS = ["in the early spring", "after a long day of work", "before anyone else is awake", "when the market closes"]
MENU = ["Home", "About us", "Contact", "Log in to read more"]
SHARED = [
    "This page was written by people who like to walk. They walk in all weather. You may write to them.",
    "Please leave the path as you found it for others.",
    "The opening hours may change without a notice on holidays.",
]


def sentence(draw: random.Random) -> str:
    words = f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)} {draw.choice(WHENS)}"
    return words[0].upper() + words[1:] + draw.choice(["."] * 8 + ["!", "?"])


def pages(count: int, seed: int = 0) -> list[Page]:
    """Pages with menus, lines that others have too, the same URL twice, brackets, pages that are too short."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        lines = draw.sample(MENU, 2)
        for _ in range(draw.randint(0, 7)):
            lines.append(" ".join(sentence(draw) for _ in range(draw.randint(1, 5))))
            if draw.random() < 0.3:
                lines.append(draw.choice(SHARED))
        if draw.random() < 0.1:
            lines += draw.sample(lines, 1)
        if draw.random() < 0.05:
            lines.append("The page shows { a bracket in a line of words.")
        number = draw.randrange(i + 1) if draw.random() < 0.08 else i
        scheme = draw.choice(["http://", "https://www.", "https://"])
        minute = draw.randrange(60)
        made.append(Page("\n".join(lines), f"{scheme}example.org/{number}", f"2019-04-18T10:{minute:02d}:00Z"))
    return made


def record(page: Page) -> bytes:
    body = page.text.encode()
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {page.url}\r\nWARC-Date: {page.timestamp}\r\n"
    return (
        head.encode() + f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"
    )


def write_wet(path: Path, made: list[Page]) -> Path:
    """A WET file as Common Crawl packs it: a gzip member a record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 4\r\n\r\nx: y\r\n\r\n"
    path.write_bytes(b"".join(gzip.compress(one, 1, mtime=0) for one in [info, *map(record, made)]))
    return path


def write_shards(folder: Path, made: list[Page], shards: int, seed: int = 0) -> str:
    """The pages dealt out over files in a drawn order; returns the pattern that stands for them."""
    made = made.copy()
    random.Random(seed).shuffle(made)
    for i in range(shards):
        write_wet(folder / f"part-{i}.warc.wet.gz", made[i::shards])
    return str(folder / "*.wet.gz")
