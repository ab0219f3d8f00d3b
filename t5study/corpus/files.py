"""What is inside a file of text: plain text, JSON lines and parquet, packed by gzip or zstd or not at all.

Each reader takes a path and the account of what is left out, and yields pages. What they stop at and what they leave
out stands in read.py.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from t5study.corpus.page import Drops, Page
from t5study.ground.errors import UserError

PACKED = {".gz": "gzip", ".zst": "zstd"}

_BLOCK = 1 << 20
_RECORD = 1 << 26  # bytes of one line, or of a text before its packing must be believable
_RATIO = 200  # text packs 3 to 15 times; a bomb 1,000 (gzip) to 32,000 (zstd)
_DOCUMENT = 1 << 20  # characters after which a plain text is cut
_ROW_GROUP = 1 << 31


def told(path: Path) -> str:
    """A path in a one-line message."""
    return str(path) if str(path).isprintable() else repr(str(path))


def one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:160] or type(error).__name__


# --- bytes ------------------------------------------------------------------------------------------------------


def _blocks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes of a file, about a megabyte at a time. A file that unpacks beyond belief is refused early."""
    packing = PACKED.get(path.suffix.lower())
    total, most = 0, _most(path)
    with pa.OSFile(str(path), "rb") as raw:
        stream = pa.CompressedInputStream(raw, packing) if packing else raw
        while block := stream.read(_BLOCK):
            if packing and not total and block[:4].startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
                raise UserError(f"{told(path)}: found an archive inside the archive; unpack it once")
            total += len(block)
            if packing and total > most:
                raise _bomb(path)
            yield block


def _most(path: Path) -> int:
    """Bytes that a file may unpack to."""
    return max(_RECORD, _RATIO * path.stat().st_size)


def _bomb(path: Path) -> UserError:
    return UserError(
        f"{told(path)}: unpacks to more than {_RATIO} times its {path.stat().st_size:,} bytes, which no text does (a "
        "bomb?); unpack it yourself if it is meant"
    )


# --- plain text -------------------------------------------------------------------------------------------------


def read_text(path: Path, drops: Drops) -> Iterator[Page]:
    """Read twice: once to know that all of it is text, once to cut it into documents."""
    if reason := _no_text(path):
        drops.add(reason, told(path))
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


def read_lines(path: Path, drops: Drops) -> Iterator[Page]:
    for number, raw in _lines(path):
        where = f"line {number} of {told(path)}"
        try:
            fields = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"), object_pairs_hook=_no_twins)
        except UnicodeDecodeError:
            drops.add("not UTF-8", where)
            continue
        except json.JSONDecodeError as error:
            raise UserError(
                f"{told(path)}: line {number}: found invalid JSON ({error.msg} at column {error.colno}); "
                "mend or remove the line, or get a whole copy"
            ) from None
        except RecursionError:
            raise UserError(f"{told(path)}: line {number}: found nesting too deep; mend or remove the line") from None
        except ValueError as error:
            raise UserError(f"{told(path)}: line {number}: found {one_line(error)}; mend or remove the line") from None
        text = _text_of(path, number, fields)
        if reason := "null" if text is None else _unfit(text):
            drops.add(reason, where)
        elif text is not None:
            url, fetched = fields.get("url"), fields.get("timestamp")
            yield Page(
                text,
                url if isinstance(url, str) and not _unfit(url) else f"{path.name}:{number}",
                fetched if isinstance(fetched, str) and not _unfit(fetched) else "",
            )


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
                f"{told(path)}: line {number + 1}: found more than {_RECORD >> 20} MiB in one line; "
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
        raise UserError(f"{told(path)}: line {number}: found a {kind}; give one JSON object a line")
    if "text" not in fields:
        others = ", ".join(map(repr, fields))[:120] or "nothing"
        raise UserError(f'{told(path)}: line {number}: field text: missing, found {others}; name the field "text"')
    text = fields["text"]
    if text is not None and not isinstance(text, str):
        raise UserError(
            f"{told(path)}: line {number}: field text: found {repr(text)[:60]}; write it as text, in quotes"
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


def read_table(path: Path, drops: Drops) -> Iterator[Page]:
    """Strings stay as the file has them, each once and by number where it says so: a kilobyte of parquet may say one of
    a megabyte a million times."""
    total, most = 0, _most(path)
    try:
        with pq.ParquetFile(path) as file:
            _check_table(path, file)
            columns = [name for name in ("text", "url") if name in file.schema_arrow.names]
        row = 0
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=columns) as file:
            for batch in file.iter_batches(batch_size=512, columns=columns):
                urls = batch.column("url") if "url" in columns else None
                for i, value in enumerate(batch.column("text")):
                    row += 1
                    try:
                        text = value.as_py()
                    except UnicodeDecodeError:
                        drops.add("not UTF-8", f"row {row} of {told(path)}")
                        continue
                    if reason := "null" if text is None else _unfit(text):
                        drops.add(reason, f"row {row} of {told(path)}")
                    elif text is not None:
                        if (total := total + len(text)) > most:
                            raise _bomb(path)
                        url = urls[i].as_py() if urls is not None else None
                        yield Page(text, url if isinstance(url, str) else f"{path.name}:{row}")
    except (pa.ArrowException, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"{told(path)}: found damaged parquet ({one_line(error)}); get a fresh copy") from None


def _check_table(path: Path, file: pq.ParquetFile) -> None:
    schema = file.schema_arrow
    if "text" not in schema.names:
        raise UserError(f"{told(path)}: found columns {', '.join(schema.names)[:120]}; name the one with texts 'text'")
    kind = schema.field("text").type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise UserError(f"{told(path)}: column text: found {kind}; give strings")
    most = _most(path)
    for i in range(file.num_row_groups):
        group = file.metadata.row_group(i)
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema in ("text", "url"):
                if (size := column.total_uncompressed_size) > most:
                    raise _bomb(path)
                if size > _ROW_GROUP:
                    raise UserError(
                        f"{told(path)}: row group {i}: found {size:,} bytes of text; write smaller row groups"
                    )
