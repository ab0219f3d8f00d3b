"""Files -> pages: plain text, JSON lines, parquet, web archives and wiki dumps, packed or not.

    .txt .md .rst              a file is a document; a large one is cut into several at the end of a paragraph
    .jsonl .json               one object a line, its text under "text" (C4 names such files .json.gz)
    .parquet                   a column "text"
    .wet .warc                 web archives (web.py)
    .xml                       a dump of a wiki (wikipedia.py), also .bz2
    .gz .zst behind any of the first two kinds; .gz behind web archives

What breaks a file's form stops the reading with one line that names it: a damaged archive, invalid JSON, no "text".
What breaks one document's text leaves it out, counted by reason: bytes that are not UTF-8, NUL characters, half a
surrogate pair, null, nothing but white space. A corpus is then known to the document, and one bad page costs one page.
Web archives are damaged often and large: there a damaged record costs itself and is counted.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from t5study.corpus.files import PACKED, one_line, read_lines, read_table, read_text, told
from t5study.corpus.hosted import HUB, check_blob, hosted_files
from t5study.corpus.page import Drops, Page
from t5study.ground.errors import UserError
from t5study.ground.store import MANIFEST, digest_file

READING = 1  # raise it when the same files give other pages
TEXT, LINES, TABLE = (".txt", ".md", ".rst"), (".jsonl", ".json"), (".parquet",)
WEB, DUMP = (".wet", ".warc"), (".xml",)


@dataclass(frozen=True)
class TextValue:
    """What decides the pages: the files' contents, in whatever order and under whatever names."""

    digests: tuple[str, ...]
    reading: int = READING


@dataclass(frozen=True)
class TextFile:
    """A file as it was found: its size, time of change and digest."""

    path: Path
    size: int
    changed: int
    digest: str


@dataclass(frozen=True)
class TextFiles:
    """Files that were found, in the order of their paths."""

    files: tuple[TextFile, ...]

    @property
    def value(self) -> TextValue:
        """What enters fingerprints."""
        return TextValue(tuple(sorted(file.digest for file in self.files)))

    def pages(self, drops: Drops | None = None) -> Iterator[Page]:
        """All documents, file by file. What is left out is counted in `drops`. UserError as the module says, and if
        a file is no longer what it was when it was found."""
        drops = Drops() if drops is None else drops
        for file in self.files:
            yield from _whole(file.path, drops, lambda file=file: _unchanged(file))


def read_file(path: Path, drops: Drops, lengths: bool = False) -> Iterator[Page]:
    """All documents of one file. lengths: a WET is cut by Content-Length, not as the official code does.
    UserError as the module says, and if the file changes meanwhile."""
    file = _found(path, digest="")
    yield from _whole(path, drops, lambda: _unchanged(file), lengths)


def _whole(path: Path, drops: Drops, unchanged: Callable[[], None], lengths: bool = False) -> Iterator[Page]:
    unchanged()
    try:
        check_blob(path)
        yield from _reader(path, lengths)(path, drops)
    except FileNotFoundError:
        raise UserError(f"{told(path)}: was deleted while it was read; put it back") from None
    except OSError as error:
        raise UserError(f"{told(path)}: cannot be read ({one_line(error)}); get a fresh copy") from None
    unchanged()


def text_files(patterns: Sequence[str]) -> TextFiles:
    """The files that names and patterns (`*`, `**`, `?`, `[...]`) stand for, each once. UserError if one stands for
    none, or for a file of another kind."""
    return TextFiles(tuple(_found(path, digest_file(path)) for path in find_files(patterns)))


def find_files(patterns: Sequence[str]) -> list[Path]:
    """As text_files, in the order of their paths, nothing read yet. `hub:owner/name/pattern` stands for files of a
    data set on the Hugging Face hub, which are fetched (extra `hub`)."""
    found: dict[Path, Path] = {}
    for pattern in patterns:
        find = hosted_files if str(pattern).startswith(HUB) else _expanded
        for path in find(str(pattern)):
            found.setdefault(path.resolve(), path)
    files = sorted(found.values())
    for path in files:
        _reader(path)
        if not os.access(path, os.R_OK):
            raise UserError(f"{told(path)}: cannot be read (Permission denied); give a file that can")
    return files


def _found(path: Path, digest: str) -> TextFile:
    try:
        status = path.stat()
        return TextFile(path, status.st_size, status.st_mtime_ns, digest)
    except FileNotFoundError:
        raise UserError(f"{told(path)}: was deleted while it was read; put it back") from None
    except OSError as error:
        raise UserError(f"{told(path)}: cannot be read ({error.strerror}); give a file that can") from None


def _expanded(pattern: str) -> list[Path]:
    path = Path(os.path.expanduser(pattern))
    if path.is_dir():
        raise UserError(f"{told(path)}: found a folder; give a pattern such as {told(path / '*.txt')!r}")
    if path.exists():
        return [path]
    if not glob.has_magic(pattern):
        raise UserError(f"{told(path)}: no such file; give the path of a text file, or a pattern in quotes")
    matched = [Path(one) for one in glob.glob(str(path), recursive=True) if not os.path.isdir(one)]
    if not matched:
        raise UserError(f"{pattern!r}: matches no file; give a path or a pattern that does")
    for one in matched:
        if _is_listed(one):
            raise UserError(
                f"{told(one)}: lies in a folder that t5study built; name it without a pattern if it is meant"
            )
    return matched


def _is_listed(path: Path) -> bool:
    """Whether a manifest beside it lists it: then it is an output, caught by a pattern that is too wide."""
    try:
        manifest = json.loads((path.parent / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and path.name in manifest.get("files", {})


def _reader(path: Path, lengths: bool = False) -> Callable[[Path, Drops], Iterator[Page]]:
    whole = path.name.lower()
    name = whole
    for packing in PACKED:
        name = name.removesuffix(packing)
    if name.endswith(TEXT):
        return read_text
    if name.endswith(LINES):
        return read_lines
    if whole.endswith(TABLE):
        return read_table
    if whole.removesuffix(".gz").endswith(WEB):
        from t5study.corpus.web import read_web

        return partial(read_web, lengths=lengths)
    if whole.removesuffix(".bz2").removesuffix(".gz").endswith(DUMP):
        from t5study.corpus.wikipedia import read_dump

        return read_dump
    kinds = ", ".join((*TEXT, *LINES, *TABLE, *WEB, *DUMP))
    hint = "unpack it and give" if re.search(r"\.(tar|tgz|zip|7z|bz2|xz|rar|warc)\b", name) else "give"
    raise UserError(
        f"{told(path)}: found a file of another kind; {hint} {kinds} (.gz or .zst behind text and JSON lines, .gz "
        "behind web archives, .bz2 or .gz behind .xml)"
    )


def _unchanged(file: TextFile) -> None:
    try:
        status = file.path.stat()
    except OSError:
        raise UserError(f"{told(file.path)}: was deleted while it was read; put it back") from None
    if (status.st_size, status.st_mtime_ns) != (file.size, file.changed):
        raise UserError(f"{told(file.path)}: was changed while it was read; wait until it is written, then run again")
