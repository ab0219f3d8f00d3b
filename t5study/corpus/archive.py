"""The records of web archives (WET, WARC), plain or gzip, a member a record or one for all.

What is damaged costs one record, never the file; a file that cannot be unpacked costs itself, never the build. Both are
counted. Memory is bounded by RECORD bytes a record, and a file that unpacks beyond belief is left where that shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from isal import igzip_lib, isal_zlib

from t5study.corpus.page import Drops, Page

DAMAGED = cast(type[Exception], igzip_lib.IsalError)  # its stub calls it an instance
RECORD = 1 << 24  # bytes of a record; Common Crawl cuts a page at 1 MiB
RATIO = 200  # a page packs 3 to 10 times; a bomb 1,000
BELIEVED = 1 << 26  # bytes that any file may unpack to
HEADER = 1 << 16
_READ = 1 << 16  # small: what stands behind a gzip member is copied once a member
_MAGIC = b"\x1f\x8b\x08"
_RECORD_BEGINS = re.compile(rb"(?:\A|\n)WARC/1\.[01]\r?\n")
_HEADER_ENDS = re.compile(rb"\r?\n\r?\n|(?:\A|\n)WARC/1\.")  # at a blank line; at the next record it is none

Record = tuple[str, dict[str, str], bytes]  # where it stands, its header with lower-case names, its body


# --- bytes --------------------------------------------------------------------------------------------------------


def blocks(path: Path, drops: Drops) -> Iterator[bytes | None]:
    """The unpacked bytes in pieces; None where some are missing, so that what was begun there is not believed."""
    total, most = 0, max(BELIEVED, RATIO * path.stat().st_size)
    with open(path, "rb") as file:
        packed = file.read(len(_MAGIC)) == _MAGIC
        file.seek(0)
        if not packed and path.suffix.lower() == ".gz":
            drops.add("file that is no gzip", str(path))
            return
        for block in _members(path, file, drops) if packed else iter(lambda: file.read(_READ), b""):
            total += len(block or b"")
            if packed and total > most:
                drops.add(f"file that unpacks to {RATIO} times its size", str(path))
                yield None
                return
            yield block


def _members(path: Path, file: Any, drops: Drops) -> Iterator[bytes | None]:
    """Unpacks gzip members one after another. Where one is damaged, goes on at the next that can be found."""
    member, waiting = isal_zlib.decompressobj(31), b""
    begun = False
    while True:
        if not waiting and not (waiting := file.read(_READ)):
            break
        if not begun:
            if len(waiting) < len(_MAGIC):
                waiting += file.read(_READ)
            if not waiting.startswith(_MAGIC):  # padding or rubbish between members
                at = waiting.find(_MAGIC)
                waiting = waiting[at:] if at >= 0 else b""
                continue
        try:
            out = member.decompress(waiting, 1 << 20)
        except DAMAGED:
            drops.add("damaged gzip member", str(path))
            yield None
            at = waiting.find(_MAGIC, 1)
            member, waiting, begun = isal_zlib.decompressobj(31), waiting[at:] if at >= 0 else b"", False
            continue
        begun = True
        if out:
            yield out
        if member.eof:
            waiting, member, begun = member.unused_data, isal_zlib.decompressobj(31), False
        else:
            waiting = member.unconsumed_tail
    if begun:
        drops.add("gzip member that was cut", str(path))
        yield None


# --- lengths, as the standard says --------------------------------------------------------------------------------


def records(path: Path, blocks: Iterator[bytes | None], drops: Drops) -> Iterator[Record]:
    """(where, header with lower-case names, body) of every record. A record is believed if another one, or the end of
    the file, follows it: a wrong length then costs one record."""
    held, number, ended, broken = bytearray(), -1, False, False

    def fill(size: int) -> bool:
        """Whether `size` bytes are held, or come to be."""
        nonlocal ended, broken
        while len(held) < size and not ended and not broken:
            block = next(blocks, b"")
            ended, broken = block == b"", block is None
            held.extend(block or b"")
        return len(held) >= size

    while True:
        begins = _RECORD_BEGINS.search(held)
        if not begins:
            del held[: max(0, len(held) - 12)]
            if broken:
                held.clear()
                broken = False
            elif ended:
                if number < 0:
                    drops.add("file without a record", str(path))
                return
            fill(len(held) + 1)
            continue
        del held[: begins.end()]
        number += 1
        where = f"record {number} of {path}"
        header = header_of(held, fill)
        if header is None:
            drops.add("record with a bad header", where)
            continue
        fields, at = header
        size = fields.get("content-length", "")
        if not size.isascii() or not size.isdigit() or len(size) > 12:
            drops.add("record with a bad length", where)
        elif int(size) > RECORD:
            drops.add(f"record above {RECORD >> 20} MiB", where)
        elif not fill(at + int(size)):
            drops.add("record that was cut", where)
        else:
            end = at + int(size)
            fill(end + 16)
            if re.match(rb"(\r?\n)*(WARC/1\.|\Z)", held[end : end + 16]):
                yield where, fields, bytes(held[at:end])
                del held[: max(end - 1, 0)]  # the newline before the next mark stays findable
                continue
            drops.add("record with a wrong length", where)
        del held[:at]


def header_of(held: bytearray, fill: Any) -> tuple[dict[str, str], int] | None:
    """A record's or a response's header and where its body begins. None if it is none, or does not end."""
    size = 1 << 10
    while not (ends := _HEADER_ENDS.search(held, 0, HEADER)):
        size *= 4
        if size > 4 * HEADER or not fill(size):
            ends = _HEADER_ENDS.search(held, 0, HEADER)
            break
    if not ends or ends[0].endswith(b"."):
        return None
    fields: dict[str, str] = {}
    for line in held[: ends.start()].decode("utf-8", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon and not line[:1].isspace():
            fields[name.strip().lower()] = value.strip()
    return fields, ends.end()


def converted(header: dict[str, str], body: bytes, where: str, drops: Drops) -> Page | None:
    url = header.get("warc-target-uri", "").strip("<>")
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        drops.add("not UTF-8", where)
        return None
    if reason := "" if url and text else "without text" if url else "without a URL":
        drops.add(reason, where)
        return None
    return Page(text, url, header.get("warc-date", ""), header.get("warc-identified-content-language", ""))
