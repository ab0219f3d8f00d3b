"""Reading files of text: every kind, every packing, and what is done with what is no text."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from shared_data import SHARED

from t5study.corpus.page import Drops
from t5study.corpus.read import TextFiles, text_files
from t5study.ground.errors import UserError
from t5study.ground.fingerprint import fingerprint
from t5study.ground.store import write_manifest

ROOT = Path(__file__).resolve().parents[2]


def texts(path: Path | str, drops: Drops | None = None) -> list[str]:
    return [page.text for page in text_files([str(path)]).pages(drops)]


def refusal(path: Path | str) -> str:
    with pytest.raises(UserError) as error:
        texts(path)
    message = str(error.value)
    assert "\n" not in message
    return message


def write(path: Path, content: bytes | str) -> Path:
    content = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


# --- kinds and packings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".txt", ".md", ".rst", ".TXT"])
def test_plain_text_is_one_document(tmp_path: Path, kind: str, packing: str):
    path = write(tmp_path / f"a{kind}{packing}", "First line.\n\nSecond: שלום, 🎉, e\u0301, a\u2028b.\n")
    assert texts(path) == ["First line.\n\nSecond: שלום, 🎉, e\u0301, a\u2028b.\n"]


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".json"])
def test_json_lines(tmp_path: Path, kind: str, packing: str):
    lines = [{"text": "One\u2028line.", "url": "http://a"}, {"id": 3, "text": "Two.", "score": float("nan")}]
    path = write(tmp_path / f"a{kind}{packing}", "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    pages = list(text_files([str(path)]).pages())
    assert [(page.text, page.url) for page in pages] == [
        ("One\u2028line.", "http://a"),
        ("Two.", f"{path.name}:3"),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path: Path, kind: pa.DataType):
    column = pa.array(["One.", None, "Two."], pa.string()).cast(kind)
    pq.write_table(pa.table({"id": [1, 2, 3], "text": column}), tmp_path / "a.parquet")
    drops = Drops()
    assert texts(tmp_path / "a.parquet", drops) == ["One.", "Two."]
    assert drops.counts == {"null": 1}
    assert drops.first["null"].startswith("row 2 of ")


def test_patterns_names_and_order(tmp_path: Path):
    for name in ("b.txt", "a.txt", "sub dir/c.md", "sub dir/deep/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "odd[1].txt").write_text("a name that looks like a pattern")
    assert texts(tmp_path / "odd[1].txt") == ["a name that looks like a pattern"]
    (tmp_path / "odd[1].txt").unlink()
    assert texts(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert texts(tmp_path / "**" / "*.*") == ["a.txt", "b.txt", "sub dir/c.md", "sub dir/deep/d.txt"]
    twice = text_files([str(tmp_path / "a.txt"), str(tmp_path / "*.txt"), str(tmp_path / "." / "a.txt")])
    assert [page.text for page in twice.pages()] == ["a.txt", "b.txt"]


def test_the_value_is_of_contents_not_of_names_or_order(tmp_path: Path):
    first, second = write(tmp_path / "a.txt", "one"), write(tmp_path / "b.txt", "two")
    value = text_files([str(first), str(second)]).value
    first.rename(tmp_path / "z.txt")
    assert fingerprint(text_files([str(tmp_path / "*.txt")]).value) == fingerprint(value)
    write(tmp_path / "z.txt", "oNe")
    assert fingerprint(text_files([str(tmp_path / "*.txt")]).value) != fingerprint(value)


@pytest.mark.skipif(SHARED is None, reason="the shared texts are not on this machine")
def test_real_files():
    assert SHARED is not None
    drops = Drops()
    assert len(texts(SHARED / "text" / "c4_sample" / "*.gz", drops)) == 500
    assert len(texts(SHARED / "text" / "dolma_cc" / "*.jsonl", drops)) == 10
    assert len(texts(SHARED / "text" / "dolma_cc" / "*.json.gz", drops)) == 10
    (shakespeare,) = texts(SHARED / "text" / "tiny_shakespeare.txt.gz", drops)
    assert len(shakespeare) > 1_000_000
    assert drops.counts == {}
    assert "unpack it" in refusal(SHARED / "text" / "bbc_news" / "*.tar.gz")


# --- texts that are none: left out and counted ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"caf\xe9 latin-1", "not UTF-8"),
        (b"fine so far " * 200_000 + b"\xff", "not UTF-8"),
        (b"cut in the middle \xe2\x82", "not UTF-8"),
        ("sixteen".encode("utf-16"), "UTF-16"),
        ("sixteen".encode("utf-16-le"), "with NUL characters"),
        (b"a\0b", "with NUL characters"),
        (b"surrogate \xed\xa0\x80", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_left_out(tmp_path: Path, content: bytes, reason: str):
    write(tmp_path / "bad.txt", content)
    write(tmp_path / "good.txt", "Good.")
    drops = Drops()
    assert texts(tmp_path / "*.txt", drops) == ["Good."]
    assert drops.counts == {reason: 1}
    assert drops.first[reason].endswith("bad.txt")


def test_a_line_whose_text_is_none_is_left_out(tmp_path: Path):
    lines = [
        b'{"text": "Good."}',
        b'{"text": "caf\xe9"}',
        b'{"text": "a\\u0000b"}',
        b'{"text": "half \\ud800"}',
        b'{"text": "whole \\ud83c\\udf89"}',
        b'{"text": null}',
    ]
    path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    drops = Drops()
    assert texts(path, drops) == ["Good.", "whole 🎉"]
    assert drops.counts == {"not UTF-8": 1, "with NUL characters": 1, "with half a surrogate pair": 1, "null": 1}
    assert drops.first["null"] == f"line 6 of {path}"


def test_a_byte_order_mark_is_no_text(tmp_path: Path):
    assert texts(write(tmp_path / "a.txt", b"\xef\xbb\xbfText.")) == ["Text."]
    assert texts(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "Text."}')) == ["Text."]


def test_a_large_text_is_cut_at_the_end_of_a_paragraph(tmp_path: Path):
    paragraph = "Some words of a paragraph, a few of them only.\n\n"
    text = paragraph * 100_000
    cut = texts(write(tmp_path / "a.txt", text))
    assert "".join(cut) == text
    assert len(cut) > 3
    assert all(one.endswith("\n\n") and len(one) <= 2 << 20 for one in cut)


@pytest.mark.parametrize("unit", ["xä", "word ", "\n"])
def test_a_large_text_without_a_paragraph(tmp_path: Path, unit: str):
    text = unit * (10_000_000 // len(unit))
    cut = texts(write(tmp_path / "a.txt", text))
    assert "".join(cut) == text
    assert all(len(one) <= 2 << 20 for one in cut)


def test_a_million_empty_lines(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", "\n" * 1_000_000 + '{"text": "At last."}\n')
    assert [(page.text, page.url) for page in text_files([str(path)]).pages()] == [("At last.", "a.jsonl:1000001")]


# --- files of a broken form: one line that says where ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": 3}', "field text: found 3; write it as text, in quotes"),
        ('{"text": ["a"]}', "field text: found ['a']"),
        ('{"text": NaN}', "field text: found nan"),
        ('{"texts": "x", "url": "y"}', "field text: missing, found 'texts', 'url'; name the field"),
        ("{}", "field text: missing, found nothing"),
        ('["a"]', "found a list; give one JSON object a line"),
        ('"a"', "found a bare value"),
        ('{"text": "a", "text": "b"}', "found the same key twice"),
        ('{"text": "cut', "found invalid JSON (Unterminated string"),
        ('{"text": "a"} {"text": "b"}', "found invalid JSON (Extra data at column 15)"),
        ('{"text": "a", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}", "found nesting too deep"),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, line: str, says: str):
    path = write(tmp_path / "a.jsonl", '{"text": "Good."}\n\n' + line + "\n")
    message = refusal(path)
    assert message.startswith(f"{path}: line 3: ")
    assert says in message


@pytest.mark.parametrize("kind", [".gz", ".zst"])
def test_packings_that_are_refused(tmp_path: Path, kind: str):
    text = os.urandom(300_000).hex().encode()
    whole = write(tmp_path / f"a.txt{kind}", text).read_bytes()
    path = tmp_path / f"b.txt{kind}"
    for hurt in (whole[:-3], whole[: len(whole) // 2], whole + whole[:5000], whole + b"more", b"not packed", text):
        path.write_bytes(hurt)
        assert f"{path}: cannot be read (" in refusal(path)
    path.write_bytes(whole + whole)  # several members in a row are one text
    assert texts(path) == [(text * 2).decode()]
    path.write_bytes(b"")
    assert texts(path) == [""]
    packed = write(tmp_path / f"c.txt{kind}", whole)
    assert "found an archive inside the archive" in refusal(packed)


def test_a_flipped_bit_in_gzip_is_found(tmp_path: Path):
    whole = bytearray(write(tmp_path / "a.txt.gz", os.urandom(100_000).hex()).read_bytes())
    whole[5000] ^= 4
    (tmp_path / "a.txt.gz").write_bytes(whole)
    assert "cannot be read (" in refusal(tmp_path / "a.txt.gz")


BOMB = """
import resource, sys
from t5study.corpus.read import text_files
from t5study.ground.errors import UserError
try:
    for page in text_files([sys.argv[1]]).pages():
        pass
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", [".txt.zst", ".jsonl.zst", ".jsonl.gz"])
def test_a_bomb_is_refused_early(tmp_path: Path, kind: str):
    """32 KB (of gzip, 1 MB) that unpack to 1 GiB."""
    block = b" " * (1 << 20)
    path = tmp_path / f"bomb{kind}"
    if kind.endswith(".zst"):
        packer = zstandard.ZstdCompressor().compressobj()
        path.write_bytes(b"".join(packer.compress(block) for _ in range(1024)) + packer.flush())
    else:
        path.write_bytes(gzip.compress(block) * 1024)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    assert done.returncode == 0, done.stderr
    assert "bomb" in done.stdout
    assert "unpacks to more than 200 times" in done.stdout or "in one line" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_line_beyond_64_mebibytes_is_refused(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text": "Good."}\n{"text": "')
        for _ in range(66):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n')
    assert f"{path}: line 2: found more than 64 MiB in one line" in refusal(path)


def test_parquet_that_is_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "url": ["y"]}), path)
    assert "found columns body, url; name the one with texts 'text'" in refusal(path)
    pq.write_table(pa.table({"text": [1, 2]}), path)
    assert "column text: found int64; give strings" in refusal(path)
    path.write_bytes(b"not parquet")
    assert "found damaged parquet" in refusal(path)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert texts(path) == []


def test_flipped_bits_in_parquet_with_checksums_are_found(tmp_path: Path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [os.urandom(40).hex() for _ in range(2000)]})
    pq.write_table(table, path, write_page_checksum=True, compression="zstd")
    whole = path.read_bytes()
    for i in range(12):
        hurt = bytearray(whole)
        hurt[1000 + i * (len(whole) - 4000) // 12] ^= 1 << i % 8
        path.write_bytes(hurt)
        assert "found damaged parquet" in refusal(path) or "cannot be read" in refusal(path)


def test_strings_in_parquet_that_are_not_utf8(tmp_path: Path):
    broken = pa.array([b"Good.", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    drops = Drops()
    assert texts(tmp_path / "a.parquet", drops) == ["Good."]
    assert drops.counts == {"not UTF-8": 1}


# --- names ------------------------------------------------------------------------------------------------------


def test_names_that_stand_for_nothing(tmp_path: Path):
    write(tmp_path / "a.txt", "x")
    assert "none.txt: no such file" in refusal(tmp_path / "none.txt")
    assert "matches no file" in refusal(tmp_path / "*.jsonl")
    assert "found a folder; give a pattern such as" in refusal(tmp_path)
    (tmp_path / "a.csv").write_text("x")
    assert "a.csv: found a file of another kind; give .txt" in refusal(tmp_path / "a.csv")
    assert "found a file of another kind" in refusal(tmp_path / "*")
    (tmp_path / "a.zip").write_text("x")
    assert "unpack it and give" in refusal(tmp_path / "a.zip")


def test_a_name_with_a_newline_stays_on_one_line(tmp_path: Path):
    write(tmp_path / "a\nb.txt.gz", "x").write_bytes(b"broken")
    assert "a\\nb.txt.gz" in refusal(tmp_path / "*.gz")


def test_an_output_that_a_pattern_catches_is_refused(tmp_path: Path):
    (tmp_path / "in" / "out").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "in" / "out" / "documents.parquet")
    write_manifest(tmp_path / "in" / "out")
    assert "lies in a folder that t5study built" in refusal(tmp_path / "in" / "**" / "*.parquet")
    assert texts(tmp_path / "in" / "out" / "documents.parquet") == ["x"]


def _stopped_inside(path: Path, then) -> str:
    files: TextFiles = text_files([str(path)])
    pages = files.pages()
    next(pages)
    then()
    with pytest.raises(UserError) as error:
        list(pages)
    return str(error.value)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n' * 3)

    def grow() -> None:
        with open(path, "a") as file:
            file.write('{"text": "y"}\n')

    assert f"{path}: was changed while it was read" in _stopped_inside(path, grow)
    assert f"{path}: was deleted while it was read" in _stopped_inside(path, path.unlink)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_right(tmp_path: Path):
    path = write(tmp_path / "a.txt", "x")
    path.chmod(0)
    assert f"{path}: cannot be read" in refusal(path)
