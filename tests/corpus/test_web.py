"""WET and WARC: the official code's lines, the standard's lengths, and every damage a record or a file at most."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from pathlib import Path

import pytest
from shared_data import SHARED
from wet_pages import pages, record, write_wet

from t5study.corpus import archive
from t5study.corpus.page import Drops, Page
from t5study.corpus.read import read_file, text_files
from t5study.corpus.web import read_web

MADE = pages(60, seed=3)


def read(path: Path, lengths: bool = False) -> tuple[list[Page], dict[str, int]]:
    drops = Drops()
    return list(read_web(path, drops, lengths)), drops.counts


def wet(url: str, body: bytes, length: int | str | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2019\r\nContent-Length: {size}"
    return head.encode() + b"\r\n\r\n" + body + b"\r\n\r\n"


# --- what a page is -----------------------------------------------------------------------------------------------


def said_plainly(content: str) -> list[tuple[str, str]]:
    """Pages of a WET as the official code finds them: a loop over lines."""
    found: list[tuple[str, str]] = []
    url, lines = "", []
    for line in [*content.replace("\r\n", "\n").replace("\r", "\n").split("\n"), "WARC/1.0"]:
        line = line.strip()
        if line == "WARC/1.0":
            if url and lines:
                found.append((url, "\n".join(lines)))
            url, lines = "", []
        if line.startswith("WARC-Target-URI:"):
            url = line[16:].strip()
        if line and not line.startswith(("WARC", "CONTENT-", "Content-")):
            lines.append(line)
    return found


def test_lines_are_read_as_the_official_code_reads_them(tmp_path: Path):
    """Drawn files of what is awkward: marks inside texts, header words, odd ends of lines, blocks cut anywhere."""
    marks = ["WARC/1.0", " WARC/1.0 ", "\u3000WARC/1.0", "xWARC/1.0", "WARC/1.0x", "WARC-Target-URI: http://b"]
    headers = ["Content-x", "CONTENT- y", "WARCraft is a game", "the Content-Type"]
    words = [*marks, *headers, "a\x0bb", "", "  ", "\x85", "café", "a\u2028b"]
    for seed in range(150):
        draw = random.Random(seed)
        content = ""
        for i in range(draw.randint(1, 6)):
            body = [draw.choice(words) for _ in range(draw.randint(0, 9))]
            end = draw.choice(["\n", "\r\n", "\r"])
            content += (
                f"WARC/1.0{end}WARC-Target-URI: http://a/{i}{end}{end}" + end.join(body) + end * draw.randint(1, 3)
            )
        path = tmp_path / "a.warc.wet"
        path.write_bytes(content.encode())
        found, _ = read(path)
        assert [(page.url, page.text) for page in found] == said_plainly(content), seed
        (tmp_path / "a.warc.wet.gz").write_bytes(gzip.compress(content.encode()))
        assert read(tmp_path / "a.warc.wet.gz")[0] == found


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_a_mark_on_the_edge_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int):
    path = tmp_path / "a.wet"
    path.write_bytes(b"".join(map(record, MADE[:8])))
    whole = {lengths: read(path, lengths) for lengths in (False, True)}
    assert len(whole[False][0]) == len(whole[True][0]) == 8
    monkeypatch.setattr(archive, "_READ", block)
    assert {lengths: read(path, lengths) for lengths in (False, True)} == whole


def test_members_a_record_and_one_member_for_all(tmp_path: Path):
    path = write_wet(tmp_path / "a.warc.wet.gz", MADE)
    found, counts = read(path)
    assert [page.url for page in found] == [page.url for page in MADE]
    assert [page.timestamp for page in found] == [page.timestamp for page in MADE]
    assert counts == {"without a URL": 1}
    for content in (gzip.decompress(path.read_bytes()), b"".join(map(record, MADE))):
        (tmp_path / "one.wet.gz").write_bytes(gzip.compress(content) + b"\0" * 100)
        assert read(tmp_path / "one.wet.gz")[0] == found
    assert [page.text for page in text_files([str(path)]).pages()] == [page.text for page in found]


def test_lengths_and_lines_differ_as_they_should(tmp_path: Path):
    body = "A line of text.  \n\nWARC/1.0\nContent-Type is a header\nThe last line."
    path = tmp_path / "a.wet"
    path.write_bytes(wet("http://a", body.encode()) + wet("http://b", b"Other."))
    assert [page.text for page in read(path, lengths=True)[0]] == [body, "Other."]
    assert [page.text for page in read(path)[0]] == ["A line of text.", "Other."]


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_costs_a_record(tmp_path: Path):
    """Wherever it is: the pages of all other members come, as they were written."""
    path = write_wet(tmp_path / "a.warc.wet.gz", MADE)
    whole, texts = path.read_bytes(), [page.text for page in read(path)[0]]
    draw = random.Random(0)
    for lengths in (False, True):
        for _ in range(60):
            hurt = bytearray(whole)
            hurt[draw.randrange(len(hurt))] ^= 1 << draw.randrange(8)
            path.write_bytes(hurt)
            found, counts = read(path, lengths)
            assert len(found) >= len(MADE) - 2
            if len(found) < len(MADE):
                assert sum(counts.values()) > 0
            assert sum(page.text not in texts for page in found) <= (0 if not lengths else len(found))


def test_a_file_cut_anywhere_gives_what_stands_before(tmp_path: Path):
    path = write_wet(tmp_path / "a.warc.wet.gz", MADE[:12])
    whole = path.read_bytes()
    texts = [page.text for page in read(path)[0]]
    draw = random.Random(1)
    for _ in range(60):
        path.write_bytes(whole[: draw.randrange(1, len(whole))])
        found, _ = read(path)
        assert [page.text for page in found] == texts[: len(found)]


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (3, "record with a wrong length"),
        (10**6, "record that was cut"),
        (60, "record with a wrong length"),
        (-5, "record with a bad length"),
        ("x", "record with a bad length"),
        (10**11, "record above 16 MiB"),
        ("9" * 4000, "record with a bad length"),
        ("", "record with a bad length"),
    ],
)
def test_a_wrong_length_costs_that_record(tmp_path: Path, length: int | str, reason: str):
    path = tmp_path / "a.wet"
    good = [wet(f"http://{i}", f"Page {i} is here.".encode()) for i in range(3)]
    path.write_bytes(good[0] + wet("http://bad", b"It has a length that is wrong.", length) + good[1] + good[2])
    found, counts = read(path, lengths=True)
    assert [page.url for page in found] == ["http://0", "http://1", "http://2"]
    assert counts == {reason: 1}
    assert len(read(path)[0]) == 4  # lines do not look at lengths


def test_records_without_what_a_page_needs(tmp_path: Path):
    path = tmp_path / "a.wet"
    path.write_bytes(
        wet("", b"No URL.") + wet("http://a", b" \r\n ") + wet("http://b", b"caf\xe9") + wet("http://c", b"Yes.")
    )
    for lengths in (False, True):
        found, counts = read(path, lengths)
        assert [page.text for page in found] == ["Yes."]
        assert counts == {"without a URL": 1, "without text": 1, "not UTF-8": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n" * 10**6,
        b"\0" * 1000,
        b"WARC/1.0",
        b"WARC/1.0\r\n",
        b"WARC/1.0\r\n" * 5000,
        "\ufeffWARC/1.0\n".encode("utf-16"),
    ],
)
def test_files_with_nothing_in_them(tmp_path: Path, content: bytes):
    for name in ("a.wet", "a.wet.gz", "a.warc", "b.warc.gz"):
        (tmp_path / name).write_bytes(content)
        for lengths in (False, True):
            assert read(tmp_path / name, lengths)[0] == []
    for packed in (gzip.compress(content), gzip.compress(gzip.compress(content))):
        (tmp_path / "c.wet.gz").write_bytes(packed)
        assert read(tmp_path / "c.wet.gz")[0] == []


def test_a_file_of_something_else_is_counted(tmp_path: Path):
    (tmp_path / "a.wet.gz").write_bytes(gzip.compress(gzip.compress(record(MADE[0]))))
    assert read(tmp_path / "a.wet.gz", lengths=True) == ([], {"file without a record": 1})
    assert read(tmp_path / "a.wet.gz") == ([], {"not UTF-8": 1})


def test_a_bomb_is_left_where_it_shows_and_memory_stays_small(tmp_path: Path):
    """256 MiB of one letter: a record beyond its bytes, and a file beyond belief. A header without an end, too."""
    path = tmp_path / "bomb.warc.wet.gz"
    member = gzip.compress(b"a" * (1 << 24), 9)
    path.write_bytes(gzip.compress(wet("http://a", b"First.")) + member * 16 + gzip.compress(wet("http://b", b"Last.")))
    for lengths in (False, True):
        tracemalloc.start()
        found, counts = read(path, lengths)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert held < 5 * archive.RECORD
        assert counts["file that unpacks to 200 times its size"] == 1
        assert [page.text for page in found] in ([], ["First."])
    (tmp_path / "head.warc").write_bytes(b"WARC/1.0\r\n" + b"X-Long: y\r\n" * 500_000 + wet("http://c", b"x"))
    assert read(tmp_path / "head.warc", True)[1]["record with a bad header"] == 1


# --- WARC ------------------------------------------------------------------------------------------------------------

HTML = (
    "<html><head><title>t</title><style>p {}</style></head><body><p>Où est <b>la gare</b> ?</p><script>x</script><p>Là."
)


def response(url: str, head: str, content: bytes, status: int = 200) -> bytes:
    body = f"HTTP/1.1 {status} OK\r\n{head}\r\n\r\n".encode() + content
    top = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2020\r\nContent-Length: {len(body)}"
    return top.encode() + b"\r\n\r\n" + body + b"\r\n\r\n"


def test_html_out_of_a_warc(tmp_path: Path):
    pytest.importorskip("resiliparse", reason="resiliparse is not installed")
    path = tmp_path / "a.warc.gz"
    utf8, latin = HTML.encode(), HTML.encode("latin-1")
    chunked = b"5\r\n" + utf8[:5] + b"\r\n" + f"{len(utf8) - 5:x}".encode() + b";x=y\r\n" + utf8[5:] + b"\r\n0\r\n\r\n"
    kind = "Content-Type: text/html"
    records = [
        response("http://a", f"{kind}; charset=utf-8", utf8),
        response("http://b", f"{kind}; charset=ISO-8859-1", latin),
        response("http://c", f"{kind};charset=utf-8\r\nTransfer-Encoding: chunked", chunked),
        response("http://d", f"{kind}; charset=utf-8\r\nContent-Encoding: gzip", gzip.compress(utf8)),
        response("http://e", kind, utf8, status=404),
        response("http://f", "Content-Type: image/png", b"\x89PNG"),
        response("http://g", f"{kind}; charset=utf-8\r\nContent-Encoding: gzip", b"\x1f\x8b\x08 torn"),
        response("http://h", "Content-Type: text/plain; charset=no-such", b"Plain words."),
        wet("http://i", b"Converted."),
        response("http://j", kind, b"<p><script>only this"),
    ]
    path.write_bytes(b"".join(map(gzip.compress, records)))
    found, counts = read(path)
    assert [page.url[-1] for page in found] == ["a", "b", "c", "d", "h", "i"]
    assert len({page.text for page in found[:4]}) == 1
    assert "Où est la gare ?" in found[0].text
    assert "Là." in found[0].text
    assert "x" not in found[0].text.split()
    assert found[4].text == "Plain words."
    assert counts == {
        "response of another status": 1,
        "response of another kind": 1,
        "response that is not whole": 1,
        "without text": 1,
    }


@pytest.mark.skipif(SHARED is None, reason="the shared web archives are not on this machine")
def test_real_archives():
    assert SHARED is not None
    pytest.importorskip("resiliparse", reason="resiliparse is not installed")
    wanted = {"dolma/sample-0000.warc.gz": 22, "resiliparse/warcfile.warc.gz": 16, "resiliparse/clipped.warc.gz": 0}
    wanted |= {f"warcio/{name}.warc.gz": 1 for name in ("example", "example-bad-non-chunked", "example-resource")}
    wanted |= {f"warcio/{name}.warc": 1 for name in ("example", "example-iana.org-chunked")}
    wanted |= {"warcio/example-trunc.warc": 0, "warcio/post-test.warc.gz": 0}
    wanted |= {f"commoncrawl_whirlwind/whirlwind.{kind}": 1 for kind in ("warc", "warc.gz", "warc.wet", "warc.wet.gz")}
    for name, count in wanted.items():
        for lengths in (False, True):
            found = list(read_file(SHARED / "webcrawl" / name, Drops(), lengths))
            assert len(found) == count, name
            assert all(page.url.startswith("http") and len(page.text) > 100 for page in found)
