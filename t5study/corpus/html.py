"""The pages of a WARC: HTML as servers sent it -> text, by resiliparse (extra `warc`)."""

from __future__ import annotations

import codecs
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isal import isal_zlib

from t5study.corpus.archive import DAMAGED, RATIO, RECORD, Record, converted, header_of
from t5study.corpus.page import Drops, Page
from t5study.ground.errors import UserError

_PAGE = 1 << 20  # bytes that any page may unpack to


def archive_pages(path: Path, records: Iterator[Record], drops: Drops) -> Iterator[Page]:
    """The text of HTML and plain-text responses. Not Common Crawl's own converter, so not its WET to the letter."""
    try:
        extraction: Any = importlib.import_module("resiliparse.extract.html2text")
        encoding: Any = importlib.import_module("resiliparse.parse.encoding")
    except ImportError:
        raise UserError(
            f"{path}: HTML out of a WARC needs the package resiliparse: pip install 't5study[warc]'; or give WET files"
        ) from None
    for where, header, body in records:
        kind, url = header.get("warc-type"), header.get("warc-target-uri", "").strip("<>")
        if kind == "conversion":
            if page := converted(header, body, where, drops):
                yield page
            continue
        if kind not in ("response", "resource") or not url.startswith(("http://", "https://")):
            continue
        media, content = header.get("content-type", ""), body
        if kind == "response":
            answer = _answer(body)
            if answer is None:
                drops.add("response that is not whole", where)
                continue
            status, media, content = answer
            if status != 200:
                drops.add("response of another status", where)
                continue
        media = media.lower()
        if not media.startswith(("text/html", "application/xhtml", "text/plain")):
            drops.add("response of another kind", where)
            continue
        text = encoding.bytes_to_str(
            content, _charset(media, content) or encoding.detect_encoding(content) or "utf-8", errors="replace"
        )
        if not media.startswith("text/plain"):
            text = extraction.extract_plain_text(text, main_content=False, alt_texts=False, links=False)
        if text := text.replace("\0", "").strip():
            yield Page(text, url, header.get("warc-date", ""))
        else:
            drops.add("without text", where)


def _charset(media: str, content: bytes) -> str:
    """The character set that the server or the page names, if there is such a one."""
    named = re.search(r"charset=[\"']?([\w.:-]+)", media) or re.search(
        r"<meta[^>]{0,200}charset=[\"']?([\w.:-]+)", content[:4096].decode("latin-1"), re.IGNORECASE
    )
    try:
        return "" if named is None else _codec(named[1])
    except LookupError:
        return ""


def _codec(name: str) -> str:
    codec = codecs.lookup(name).name
    return "windows-1252" if codec in ("iso8859-1", "ascii") else codec  # as browsers read it


def _answer(body: bytes) -> tuple[int, str, bytes] | None:
    """(status, media type, content) of an HTTP answer. None if it is none, or what it packs does not unpack."""
    first, _, rest = body.partition(b"\n")
    status = re.match(rb"HTTP/[\d.]+ (\d{3})", first)
    header = header_of(bytearray(rest), lambda size: len(rest) >= size) if status else None
    if status is None or header is None:
        return None
    fields, at = header
    content = rest[at:]
    if "chunked" in fields.get("transfer-encoding", "").lower():
        content = _unchunked(content)
    packing = fields.get("content-encoding", "").lower()
    if packing in ("gzip", "x-gzip", "deflate") and content[:2] == b"\x1f\x8b":
        try:
            member, packed = isal_zlib.decompressobj(31), content
            content = member.decompress(packed, min(RECORD, max(_PAGE, RATIO * len(packed))))
            if not content or member.unconsumed_tail:  # the latter: there is more of it than a page has
                return None
        except DAMAGED:
            return None
    elif packing == "br":
        return None
    return int(status[1]), fields.get("content-type", ""), content


def _unchunked(content: bytes) -> bytes:
    """The chunks of a body put together. One that is not chunked, whatever its header says, stays as it is."""
    parts, at = [], 0
    while size := re.compile(rb"([0-9a-fA-F]{1,8})[^\n]{0,80}\n").match(content, at):
        count = int(size[1], 16)
        if not count:
            return b"".join(parts)
        parts.append(content[size.end() : size.end() + count])
        at = size.end() + count
        while content[at : at + 1] in (b"\r", b"\n"):
            at += 1
    return b"".join(parts) if parts else content
