"""Pages in the shared data: what the hosted C4 kept, other filtered crawls, and the texts in web archives."""

from __future__ import annotations

import gzip
import html
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from t5study.corpus.page import Page

_TAG = re.compile(r"(?s)<(script|style).*?</\1>|<[^>]*>")
_ADDRESS = re.compile(rb"(?im)^WARC-Target-URI: *(\S+)")
_TIME = re.compile(rb"(?im)^WARC-Date: *(\S+)")


def hosted(shared: Path) -> list[Page]:
    """Documents of the hub's allenai/c4, version 3.0.1."""
    return list(_json_lines(sorted((shared / "text" / "c4_sample").glob("*.jsonl.gz"))))


def crawled(shared: Path) -> list[Page]:
    """Documents of other crawls, then everything in the archives as text: HTML without its tags, WET as it is."""
    found = list(_json_lines(sorted((shared / "text" / "dolma_cc").glob("*.json*"))))
    for path in sorted((shared / "webcrawl").rglob("*.war*")):
        found += _archive(path)
    return found


def _json_lines(paths: list[Path]) -> Iterator[Page]:
    for path in paths:
        for number, line in enumerate(_unpacked(path).decode("utf-8").splitlines()):
            row = json.loads(line)
            url = row.get("url") or (row.get("metadata") or {}).get("url") or f"{path.name}/{number}"
            yield Page(row["text"], url, "2019-04-20T00:00:00Z")


def _archive(path: Path) -> Iterator[Page]:
    for number, record in enumerate(re.split(rb"(?m)^WARC/1\.[01]\r?$", _unpacked(path))):
        address, time = _ADDRESS.search(record), _TIME.search(record)
        if address:
            text = html.unescape(_TAG.sub("\n", record.decode("utf-8", "replace")))
            when = time[1].decode() if time else "2019-04-20T00:00:00Z"
            yield Page(text, f"{address[1].decode('utf-8', 'replace')}#{path.name}-{number}", when)


def _unpacked(path: Path) -> bytes:
    """What can be unpacked of a file; some of the archives are cut on purpose."""
    raw, out = path.read_bytes(), b""
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error):
        while raw[:2] == b"\x1f\x8b":
            member = zlib.decompressobj(31)
            out, raw = out + member.decompress(raw), member.unused_data
        return out
