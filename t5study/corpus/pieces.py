"""A piece: a part of an input file on its way through a build, its pages and what is compared of them.

    pages.parquet                            pages that the rules of single pages left, in their order
    kept.npy        int32 (P,)               of each page its place among those, or -1
    counted.npy     int32 (T, 3)             (page, rule, how often), the rules' names in names.json
    urls.npy        uint64 (K, 8)            a row a URL: its md5, and which of its pages is to be taken (dedup.send)
    url_place.npy   int32 (P,)               where a page's row stands in it, -1 if the piece has a better page
    owners.npy      uint64 (D, 2)            of each page kept, what decides whose a span is: md5 of its URL, then text
    keys.npy        uint64 (U, 2)            a row a span of the pages kept, in their order; owned.npy: whose
    compared.npy    bool (U,)                whether it is a span at all that others may have
    sizes.npy       int32 (S,)               sentences of each line of the pages kept, where spans are windows
    lines.npy       int32 (D,)               how many of these lines are a page's

The largest piece is what a task holds in memory; an input file makes as many as it needs. Pages go through the rules
in batches, each rule over a batch before the next: one page after another, every rule's tables would push those of the
others out of the processor's caches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from t5study.corpus import dedup
from t5study.corpus.page import Drop, Page, batched
from t5study.corpus.recipes import Recipe
from t5study.corpus.rules_url import url_key
from t5study.corpus.samples import Samples
from t5study.ground.store import write_json

CHARACTERS, SPANS, PAGES_MOST = 1 << 27, 1 << 22, 1 << 20
FORM = 2  # of the files above: pieces of another form are not gone on with
BATCH = 64  # pages
_GROUP = 1 << 22  # characters of a row group: what a reader holds at a time
PAGES = pa.schema([(name, pa.large_string()) for name in ("text", "url", "timestamp", "language")])


class Piece:
    """A part of an input on its way to disk. counted: (page, name, how often) of every rule, so that what the rules
    did to pages that lose their URL can be left out of the account."""

    def __init__(self, recipe: Recipe, folder: Path):
        folder.mkdir()
        self.recipe, self.folder = recipe, folder
        self.names: dict[str, int] = {}
        self.counted: list[tuple[int, int, int]] = []
        self.urls: list[bytes] = []
        self.values: list[bytes] = []
        self.kept: list[int] = []  # of each page its place among those kept, or -1
        self.owners: list[bytes] = []  # of those kept
        self.keys: list[bytes] = []
        self.owned: list[int] = []  # of each key its place among those kept
        self.sizes: list[int] = []
        self.lines: list[int] = []
        self.characters = 0
        self._texts = Table(folder / "pages.parquet", PAGES)

    def add(self, pages: Sequence[Page], samples: Samples) -> None:
        """A batch of pages."""
        from t5study.corpus.rules_spans import spans

        recipe, counts = self.recipe, [Counter[str]() for _ in pages]
        if recipe.one_url:
            self.urls += [url_key(recipe.address(page)) for page in pages]
            self.values += [_preference(page, recipe) for page in pages]
        left = [recipe.before(page, count) for page, count in zip(pages, counts, strict=True)]
        told = [spans(one.text, recipe.profile) if recipe.dedup and isinstance(one, Page) else ([], []) for one in left]
        for page, found, (said, sizes), counted in zip(pages, left, told, counts, strict=True):
            for name, count in counted.items():
                self.counted.append((len(self.kept), self.names.setdefault(name, len(self.names)), count))
            if isinstance(found, Drop):
                samples.add(found.reason, page)
                self.kept.append(-1)
                continue
            at = len(self.owners)
            self.kept.append(at)
            self.owners.append(url_key(recipe.owner(page))[:8] + xxhash.xxh3_64_digest(as_bytes(found.text)))
            self.keys += [dedup.text_key(as_bytes(span)) if span else b"" for span in said]
            self.owned += [at] * len(said)
            self.sizes += sizes
            self.lines.append(len(sizes))
            self.characters += len(found.text)
            self._texts.add((found.text, found.url, found.timestamp, found.language), len(found.text))

    @property
    def full(self) -> bool:
        return self.characters >= CHARACTERS or len(self.keys) >= SPANS or len(self.kept) >= PAGES_MOST

    def close(self) -> None:
        self._texts.close()
        dedup.save(self.folder / "kept.npy", np.array(self.kept, np.int32))
        dedup.save(self.folder / "counted.npy", np.array(self.counted, np.int32).reshape(-1, 3))
        write_json(self.folder / "names.json", list(self.names))
        if self.recipe.one_url:
            keys_P2, values_PW = dedup.as_keys(self.urls), dedup.as_keys(self.values, 6)
            sent = dedup.send(self.folder / "urls", keys_P2, values_PW, winner_P := dedup.winners(keys_P2, values_PW))
            dedup.save(self.folder / "url_place.npy", np.where(winner_P == np.arange(len(winner_P)), sent.place_N, -1))
        if self.recipe.dedup:
            dedup.save(self.folder / "owners.npy", dedup.as_keys(self.owners))
            dedup.save(self.folder / "keys.npy", dedup.as_keys([key or bytes(16) for key in self.keys]))
            dedup.save(self.folder / "compared.npy", np.array([bool(key) for key in self.keys], bool))
            dedup.save(self.folder / "owned.npy", np.array(self.owned, np.int32))
            dedup.save(self.folder / "sizes.npy", np.array(self.sizes, np.int32))
            dedup.save(self.folder / "lines.npy", np.array(self.lines, np.int32))


def batches(pages: Iterable[Page]) -> Iterator[list[Page]]:
    """Pages as `Piece.add` takes them."""
    return batched(pages, BATCH, lambda page: len(page.text))


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _preference(page: Page, recipe: Recipe) -> bytes:
    """48 bytes, least for the page that its URL keeps: the newest, or the one with the largest md5 of its text. Where
    the official code takes whichever comes last, ours takes the latter, so that it is always the same."""
    date = as_bytes(page.timestamp)[:24].ljust(24, b"\0")
    text = url_key(page.text) + xxhash.xxh3_64_digest(as_bytes(page.url))
    first, second = (date, text) if recipe.profile.same_url == "newest" else (text, date)
    return bytes(255 - byte for byte in first + second)


class Table:
    """A parquet file that is written a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema):
        self.schema, self.rows, self.characters = schema, [], 0
        self.writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)

    def add(self, row: tuple[Any, ...], characters: int) -> None:
        self.rows.append(row)
        self.characters += characters
        if self.characters >= _GROUP:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self.rows, strict=True), self.schema, strict=True)
            ]
            self.writer.write_table(pa.table(columns, schema=self.schema))
        self.rows, self.characters = [], 0

    def close(self) -> None:
        self.flush()
        self.writer.close()
