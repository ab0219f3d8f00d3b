"""Web archives -> pages: Common Crawl's WET (text) and WARC (HTML), plain or gzip, a member a record or one for all.

Two ways to cut a WET file into pages. They differ on a few pages in a million, and a corpus says which one it used:

    lines     as the official C4 code reads: line by line, deaf to Content-Length. Lines are stripped, blank ones go,
              and so does any line of the text that begins with WARC, CONTENT- or Content-
    length    as the WARC standard says: Content-Length bytes are the text

archive.py has the bytes and the records, html.py the pages of a WARC.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from t5study.corpus.archive import RECORD, blocks, converted, records
from t5study.corpus.html import archive_pages
from t5study.corpus.page import Drops, Page

_MARK = b"WARC/1.0"
_URL, _DATE, _LANGUAGE = "WARC-Target-URI:", "WARC-Date:", "WARC-Identified-Content-Language:"
_NOT_TEXT = ("WARC", "CONTENT-", "Content-")


def read_web(path: Path, drops: Drops, lengths: bool = False) -> Iterator[Page]:
    """Pages of a .wet or .warc file, in its order. `lengths`: read a WET by Content-Length (a WARC always is).

    Counted in `drops`: what is damaged, and records that are pages but hold none (no URL, no text, not UTF-8). Records
    of other kinds (warcinfo, request, metadata) are not pages and are passed over.
    """
    unpacked = blocks(path, drops)
    if ".warc" in path.name.lower() and ".wet" not in path.name.lower():
        yield from archive_pages(path, records(path, unpacked, drops), drops)
    elif lengths:
        for at, header, body in records(path, unpacked, drops):
            if header.get("warc-type") == "conversion" and (page := converted(header, body, at, drops)):
                yield page
    else:
        for at, record in _between_marks(path, unpacked, drops):
            if page := _page_of_lines(record, at, drops):
                yield page


# --- lines, as the official code reads ----------------------------------------------------------------------------


def _between_marks(path: Path, unpacked: Iterator[bytes | None], drops: Drops) -> Iterator[tuple[str, bytes]]:
    """(where, bytes) of what stands between two lines that say WARC/1.0 and nothing else."""
    held, looked, number, bad = bytearray(), 0, 0, False
    for block in unpacked:
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
