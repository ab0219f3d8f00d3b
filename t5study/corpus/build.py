"""Pages -> documents.parquet: the corpus that tokens are made of.

Documents stand in an order set by a hash of their text, so the beginning of a corpus is a fair sample of all of it:
a token budget is spent by reading from the front. Text is kept as it was read; white space at its ends is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from t5study.corpus.page import Drops, Page
from t5study.ground.errors import UserError
from t5study.ground.seeds import check_seed
from t5study.ground.store import verify, write_json, write_manifest

DOCUMENTS = "documents.parquet"
_DOCUMENTS = re.compile(r"documents(-\d{5}-of-\d{5})?\.parquet")  # one, or the shares of a large corpus
_GROUP_CHARACTERS = 1 << 24
_SCHEMA = pa.schema([("text", pa.large_string()), ("url", pa.string())])


class PageSource(Protocol):
    """Where pages come from: read.TextFiles, pydocs.Pydocs."""

    @property
    def value(self) -> Any: ...
    def pages(self, drops: Drops | None = None) -> Iterator[Page]: ...


def build_corpus(source: PageSource, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Fills a folder with documents.parquet, corpus.json (counts) and manifest.json, and returns the counts:
    documents, characters, and a number for each reason for which pages were left out.

    The same pages give the same bytes, in whatever order they come. They are held in memory while they are sorted.
    UserError if no document remains.
    """
    seed = check_seed(seed)
    drops = Drops()
    documents: list[tuple[int, str, str]] = []
    for page in source.pages(drops):
        if text := page.text.strip():
            documents.append((xxhash.xxh3_64_intdigest(text.encode(), seed=seed), text, page.url))
        else:
            drops.add("empty", page.url)
    if not documents:
        raise UserError(f"corpus: no document remains: {drops}; give text files in UTF-8 with text in them")
    documents.sort()
    with pq.ParquetWriter(folder / DOCUMENTS, _SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        for group in _groups(documents):
            texts, urls = [text for _, text, _ in group], [url for _, _, url in group]
            writer.write_table(pa.table([pa.array(texts, pa.large_string()), pa.array(urls)], schema=_SCHEMA))
    counts = {"documents": len(documents), "characters": sum(len(text) for _, text, _ in documents), **drops.counts}
    write_json(folder / "corpus.json", counts)
    write_manifest(folder)
    return counts


def _groups(documents: Iterable[tuple[int, str, str]]) -> Iterator[list[tuple[int, str, str]]]:
    """Row groups of about 16 million characters: what a reader holds at a time."""
    group, characters = [], 0
    for document in documents:
        group.append(document)
        characters += len(document[1])
        if characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def has_documents(folder: Path) -> bool:
    """Whether a folder looks like a corpus."""
    return any(_DOCUMENTS.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else False


def read_documents(folder: Path) -> Iterator[str]:
    """Texts of a corpus in its order. The folder is checked against its manifest first: UserError if it is damaged."""
    folder = Path(folder)
    names = sorted(name for name in verify(folder)["files"] if _DOCUMENTS.fullmatch(name))
    if not names:
        raise UserError(f"{folder}: holds no {DOCUMENTS}; give a folder that `t5study corpus build` wrote")

    def texts() -> Iterator[str]:
        for name in names:
            with pq.ParquetFile(folder / name, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_size=256, columns=["text"]):
                    yield from batch.column("text").to_pylist()

    return texts()
