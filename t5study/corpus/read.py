"""Files of text -> pages: plain text, JSON lines and parquet, packed by gzip or zstd or not at all.

    .txt .md .rst              a file is a document; a large one is cut into several at the end of a paragraph
    .jsonl .json               one object a line, its text under "text" (C4 names such files .json.gz)
    .parquet                   a column "text"
    .gz .zst behind any of the first two kinds

What breaks a file's form stops the reading with one line that names it: a damaged archive, invalid JSON, no "text".
What breaks one document's text leaves it out, counted by reason: bytes that are not UTF-8, NUL characters, half a
surrogate pair, null, nothing but white space. A corpus is then known to the document, and one bad page costs one page.
"""

from __future__ import annotations

import codecs
import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from t5study.corpus.page import Drops, Page
from t5study.ground.errors import UserError
from t5study.ground.store import MANIFEST, digest_file

READING = 1  # raise it when the same files give other pages
TEXT, LINES, TABLE = (".txt", ".md", ".rst"), (".jsonl", ".json"), (".parquet",)
PACKED = {".gz": "gzip", ".zst": "zstd"}

_BLOCK = 1 << 20
_RECORD = 1 << 26  # bytes of one line, or of a text before its packing must be believable
_RATIO = 200  # text packs 3 to 15 times; a bomb 1,000 (gzip) to 32,000 (zstd)
_DOCUMENT = 1 << 20  # characters after which a plain text is cut
_ROW_GROUP = 1 << 31


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
            _unchanged(file)
            read = _reader(file.path)
            try:
                yield from read(file.path, drops)
            except FileNotFoundError:
                raise UserError(f"{_told(file.path)}: was deleted while it was read; put it back") from None
            except OSError as error:
                raise UserError(f"{_told(file.path)}: cannot be read ({_line(error)}); get a fresh copy") from None
            _unchanged(file)


def text_files(patterns: Sequence[str]) -> TextFiles:
    """The files that names and patterns (`*`, `**`, `?`, `[...]`) stand for, each once. UserError if one stands for
    none, or for a file of another kind."""
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path in _expanded(str(pattern)):
            found.setdefault(path.resolve(), path)
    files = []
    for path in sorted(found.values()):
        _reader(path)
        try:
            status = path.stat()
            files.append(TextFile(path, status.st_size, status.st_mtime_ns, digest_file(path)))
        except OSError as error:
            raise UserError(f"{_told(path)}: cannot be read ({error.strerror}); give a file that can") from None
    return TextFiles(tuple(files))


def _expanded(pattern: str) -> list[Path]:
    path = Path(os.path.expanduser(pattern))
    if path.is_dir():
        raise UserError(f"{_told(path)}: found a folder; give a pattern such as {_told(path / '*.txt')!r}")
    if path.exists():
        return [path]
    if not glob.has_magic(pattern):
        raise UserError(f"{_told(path)}: no such file; give the path of a text file, or a pattern in quotes")
    matched = [Path(one) for one in glob.glob(str(path), recursive=True) if not os.path.isdir(one)]
    if not matched:
        raise UserError(f"{pattern!r}: matches no file; give a path or a pattern that does")
    for one in matched:
        if one.suffix == ".parquet" and _is_listed(one):
            raise UserError(
                f"{_told(one)}: lies in a folder that t5study built; name it without a pattern if it is meant"
            )
    return matched


def _is_listed(path: Path) -> bool:
    """Whether a manifest beside it lists it: then it is an output, caught by a pattern that is too wide."""
    try:
        manifest = json.loads((path.parent / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and path.name in manifest.get("files", {})


def _reader(path: Path) -> Callable[[Path, Drops], Iterator[Page]]:
    name = path.name.lower()
    for packing in PACKED:
        name = name.removesuffix(packing)
    if name.endswith(TEXT):
        return _read_text
    if name.endswith(LINES):
        return _read_lines
    if path.name.lower().endswith(TABLE):
        return _read_table
    kinds = ", ".join((*TEXT, *LINES, *TABLE))
    hint = "unpack it and give" if re.search(r"\.(tar|tgz|zip|7z|bz2|xz|rar|warc)\b", name) else "give"
    raise UserError(
        f"{_told(path)}: found a file of another kind; {hint} {kinds} (.gz or .zst behind all but the last)"
    )


def _unchanged(file: TextFile) -> None:
    try:
        status = file.path.stat()
    except OSError:
        raise UserError(f"{_told(file.path)}: was deleted while it was read; put it back") from None
    if (status.st_size, status.st_mtime_ns) != (file.size, file.changed):
        raise UserError(f"{_told(file.path)}: was changed while it was read; wait until it is written, then run again")


def _told(path: Path) -> str:
    """A path in a one-line message."""
    return str(path) if str(path).isprintable() else repr(str(path))


def _line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:160] or type(error).__name__


# --- bytes ------------------------------------------------------------------------------------------------------


def _blocks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes of a file, about a megabyte at a time. A file that unpacks beyond belief is refused early."""
    packing = PACKED.get(path.suffix.lower())
    total, most = 0, max(_RECORD, _RATIO * path.stat().st_size)
    with pa.OSFile(str(path), "rb") as raw:
        stream = pa.CompressedInputStream(raw, packing) if packing else raw
        while block := stream.read(_BLOCK):
            if packing and not total and block[:4].startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
                raise UserError(f"{_told(path)}: found an archive inside the archive; unpack it once")
            total += len(block)
            if packing and total > most:
                raise UserError(
                    f"{_told(path)}: unpacks to more than {_RATIO} times its {path.stat().st_size:,} bytes, which no "
                    "text does; unpack it yourself if it is meant"
                )
            yield block


# --- plain text -------------------------------------------------------------------------------------------------


def _read_text(path: Path, drops: Drops) -> Iterator[Page]:
    """Read twice: once to know that all of it is text, once to cut it into documents."""
    if reason := _no_text(path):
        drops.add(reason, _told(path))
        return
    held = ""
    for part in _characters(path):
        held += part
        while len(held) >= 2 * _DOCUMENT:
            end = _end_of_document(held)
            yield Page(held[:end], path.name)
            held = held[end:]
    yield Page(held, path.name)


def _characters(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    for block in _blocks(path):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _no_text(path: Path) -> str:
    """Why a file's bytes are no text, or "" if they are."""
    try:
        start = next(_blocks(path), b"")
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "UTF-16"
        return "with NUL characters" if any("\0" in part for part in _characters(path)) else ""
    except UnicodeDecodeError:
        return "not UTF-8"


def _end_of_document(text: str) -> int:
    """Where to cut: behind the last blank line of the second half of a document's length, else the last line, else the
    last space, else right there."""
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, _DOCUMENT // 2, _DOCUMENT)
        if at >= 0:
            return at + len(mark)
    return _DOCUMENT


# --- JSON lines -------------------------------------------------------------------------------------------------


def _read_lines(path: Path, drops: Drops) -> Iterator[Page]:
    for number, raw in _lines(path):
        where = f"line {number} of {_told(path)}"
        try:
            fields = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"), object_pairs_hook=_no_twins)
        except UnicodeDecodeError:
            drops.add("not UTF-8", where)
            continue
        except json.JSONDecodeError as error:
            raise UserError(
                f"{_told(path)}: line {number}: found invalid JSON ({error.msg} at column {error.colno}); "
                "mend or remove the line, or get a whole copy"
            ) from None
        except RecursionError:
            raise UserError(f"{_told(path)}: line {number}: found nesting too deep; mend or remove the line") from None
        except ValueError as error:
            raise UserError(f"{_told(path)}: line {number}: found {_line(error)}; mend or remove the line") from None
        text = _text_of(path, number, fields)
        if reason := "null" if text is None else _unfit(text):
            drops.add(reason, where)
        elif text is not None:
            url = fields.get("url")
            yield Page(text, url if isinstance(url, str) and not _unfit(url) else f"{path.name}:{number}")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of every line that is not blank. Only a newline ends a line: U+2028 is text."""
    number, size = 0, 0
    held: list[bytes] = []  # the blocks of a line that has not ended yet
    for block in _blocks(path):
        *whole, rest = block.split(b"\n")
        for line in whole:
            number += 1
            line = b"".join([*held, line])
            held, size = [], 0
            if line.strip():
                yield number, line
        held.append(rest)
        size += len(rest)
        if size > _RECORD:
            raise UserError(
                f"{_told(path)}: line {number + 1}: found more than {_RECORD >> 20} MiB in one line; "
                "give one JSON object a line, or split the document"
            )
    if (line := b"".join(held)).strip():
        yield number + 1, line


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the same key twice")
    return found


def _text_of(path: Path, number: int, fields: Any) -> str | None:
    """The text of a line's object. A NaN in a field that is not read does no harm."""
    if not isinstance(fields, dict):
        kind = "list" if isinstance(fields, list) else "bare value"
        raise UserError(f"{_told(path)}: line {number}: found a {kind}; give one JSON object a line")
    if "text" not in fields:
        others = ", ".join(map(repr, fields))[:120] or "nothing"
        raise UserError(f'{_told(path)}: line {number}: field text: missing, found {others}; name the field "text"')
    text = fields["text"]
    if text is not None and not isinstance(text, str):
        raise UserError(
            f"{_told(path)}: line {number}: field text: found {repr(text)[:60]}; write it as text, in quotes"
        )
    return text


def _unfit(text: str) -> str:
    """Why a text cannot be a document, or "". White space alone is judged where the corpus is built."""
    if "\0" in text:
        return "with NUL characters"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "with half a surrogate pair"
    return ""


# --- parquet ----------------------------------------------------------------------------------------------------


def _read_table(path: Path, drops: Drops) -> Iterator[Page]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_table(path, file)
            columns = [name for name in ("text", "url") if name in file.schema_arrow.names]
            row = 0
            for batch in file.iter_batches(batch_size=512, columns=columns):
                urls = batch.column("url") if "url" in columns else None
                for i, value in enumerate(batch.column("text")):
                    row += 1
                    try:
                        text = value.as_py()
                    except UnicodeDecodeError:
                        drops.add("not UTF-8", f"row {row} of {_told(path)}")
                        continue
                    if reason := "null" if text is None else _unfit(text):
                        drops.add(reason, f"row {row} of {_told(path)}")
                    elif text is not None:
                        url = urls[i].as_py() if urls is not None else None
                        yield Page(text, url if isinstance(url, str) else f"{path.name}:{row}")
    except (pa.ArrowException, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"{_told(path)}: found damaged parquet ({_line(error)}); get a fresh copy") from None


def _check_table(path: Path, file: pq.ParquetFile) -> None:
    schema = file.schema_arrow
    if "text" not in schema.names:
        raise UserError(f"{_told(path)}: found columns {', '.join(schema.names)[:120]}; name the one with texts 'text'")
    kind = schema.field("text").type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise UserError(f"{_told(path)}: column text: found {kind}; give strings")
    at = file.schema.names.index("text") if "text" in file.schema.names else 0
    for i in range(file.num_row_groups):
        if (size := file.metadata.row_group(i).column(at).total_uncompressed_size) > _ROW_GROUP:
            raise UserError(f"{_told(path)}: row group {i}: found {size:,} bytes of text; write smaller row groups")
