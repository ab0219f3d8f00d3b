"""Web archives -> pages: Common Crawl's WET (text) and WARC (HTML), plain or gzip, a member a record or one for all.

Two ways to cut a WET file into pages. They differ on a few pages in a million, and a corpus says which one it used:

    lines     as the official C4 code reads: line by line, deaf to Content-Length. Lines are stripped, blank ones go,
              and so does any line of the text that begins with WARC, CONTENT- or Content-
    length    as the WARC standard says: Content-Length bytes are the text

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
_MARK = b"WARC/1.0"
_URL, _DATE, _LANGUAGE = "WARC-Target-URI:", "WARC-Date:", "WARC-Identified-Content-Language:"
_NOT_TEXT = ("WARC", "CONTENT-", "Content-")
_RECORD_BEGINS = re.compile(rb"(?:\A|\n)WARC/1\.[01]\r?\n")
_HEADER_ENDS = re.compile(rb"\r?\n\r?\n|(?:\A|\n)WARC/1\.")  # at a blank line; at the next record it is none

Record = tuple[str, dict[str, str], bytes]  # where it stands, its header with lower-case names, its body


def read_web(path: Path, drops: Drops, lengths: bool = False) -> Iterator[Page]:
    """Pages of a .wet or .warc file, in its order. `lengths`: read a WET by Content-Length (a WARC always is).

    Counted in `drops`: what is damaged, and records that are pages but hold none (no URL, no text, not UTF-8). Records
    of other kinds (warcinfo, request, metadata) are not pages and are passed over.
    """
    blocks = _blocks(path, drops)
    if ".warc" in path.name.lower() and ".wet" not in path.name.lower():
        from t5study.corpus.html import archive_pages

        yield from archive_pages(path, records(path, blocks, drops), drops)
    elif lengths:
        for at, header, body in records(path, blocks, drops):
            if header.get("warc-type") == "conversion" and (page := converted(header, body, at, drops)):
                yield page
    else:
        for at, record in _between_marks(path, blocks, drops):
            if page := _page_of_lines(record, at, drops):
                yield page


# --- bytes --------------------------------------------------------------------------------------------------------


def _blocks(path: Path, drops: Drops) -> Iterator[bytes | None]:
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


# --- lines, as the official code reads ----------------------------------------------------------------------------


def _between_marks(path: Path, blocks: Iterator[bytes | None], drops: Drops) -> Iterator[tuple[str, bytes]]:
    """(where, bytes) of what stands between two lines that say WARC/1.0 and nothing else."""
    held, looked, number, bad = bytearray(), 0, 0, False
    for block in blocks:
        if block is None:  # what is held breaks off: to be dropped up to the next mark
            held, looked, bad = bytearray(), 0, True
            continue
        held += block
        start = 0
        while (at := held.find(_MARK, looked)) >= 0:
            end = _line_end(held, at)
            if end < 0:  # the line goes on in the next block
                break
            begin = max(held.rfind(b"\n", start, at), held.rfind(b"\r", start, at)) + 1
            begin = max(begin, start)
            looked = at + len(_MARK)
            if held[begin:end].decode("utf-8", "replace").strip() == "WARC/1.0":
                if not bad and begin > start:
                    yield f"record {number} of {path}", bytes(held[start:begin])
                number, start, looked, bad = number + 1, end, end, False
        looked = at if at >= 0 else max(looked, len(held) - len(_MARK) + 1, start)
        del held[:start]
        looked -= start
        if len(held) > RECORD:
            if not bad:
                drops.add(f"record above {RECORD >> 20} MiB", f"record {number} of {path}")
            keep = bytes(held[looked:])
            held, looked, bad = bytearray(keep), 0, True
    if held and not bad:
        if _line_end(held, 0) < 0 and held.strip() == _MARK:
            return
        yield f"record {number} of {path}", bytes(held)


def _line_end(held: bytearray, at: int) -> int:
    end = held.find(b"\n", at)
    other = held.find(b"\r", at, end if end >= 0 else len(held))
    return other if other >= 0 else end


def _page_of_lines(record: bytes, where: str, drops: Drops) -> Page | None:
    first, _, rest = record.lstrip(b"\r\n").partition(b"\r\n\r\n")  # where lines end otherwise, all of it is `first`
    try:
        head, body = first.decode(), rest.decode()
    except UnicodeDecodeError:
        drops.add("not UTF-8", where)
        return None
    head, body = (part.replace("\r\n", "\n").replace("\r", "\n") if "\r" in part else part for part in (head, body))
    found: dict[str, str] = {}
    kept = _kept_lines(head, found)
    # The words that a line of a header begins with are rare in a text: without them each line is only stripped.
    if "WARC" in body or "ontent-" in body or "CONTENT-" in body:
        kept += _kept_lines(body, found)
    else:
        kept += [stripped for line in body.split("\n") if (stripped := line.strip())]
    url = found.get(_URL, "")
    if not url:
        drops.add("without a URL", where)
    elif not kept:
        drops.add("without text", where)
    else:
        return Page("\n".join(kept), url, found.get(_DATE, ""), found.get(_LANGUAGE, ""))
    return None


def _kept_lines(text: str, found: dict[str, str]) -> list[str]:
    """The lines that are no header's. One that begins like a header's is taken for one, wherever it stands."""
    kept = []
    for line in text.split("\n"):
        line = line.strip()
        for name in (_URL, _DATE, _LANGUAGE):
            if line.startswith(name):
                found[name] = line[len(name) :].strip()
        if line and not line.startswith(_NOT_TEXT):
            kept.append(line)
    return kept


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
