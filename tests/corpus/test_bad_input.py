"""Items 1 to 20 of the reliability list, each a real command on a real bad file: it ends with 0 and an account of what
was left out, or with 2 and one line, and then nothing that looks like a corpus is there."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from local_hub import serving
from wet_pages import pages, record, write_wet

from t5study.__main__ import main
from t5study.corpus import files, language_tables
from t5study.corpus.build import read_documents

ROOT = Path(__file__).resolve().parents[2]
WAYS = {"text": ["--text"], "recipe": ["--recipe", "wikipedia", "--input"]}  # files as they are, and a table of tasks
LINES = '{"text": "One good document."}\n{"text": "And another one."}\n'


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> list[str]:
    return WAYS[request.param]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run in a folder of their own, beside the folder `in` with the files."""
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name: str, content: bytes | str) -> Path:
    path = Path("in") / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


Capture = pytest.CaptureFixture[str]


def refused(capsys: Capture, *words: str) -> str:
    """The one line that a command which fails says; it must leave no corpus."""
    before = sorted(path.name for path in Path("in").rglob("*"))
    assert main(["corpus", "build", *words, "--out", "out"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert [line for line in err if "error" in line or "Traceback" in line] == err[-1:], err
    assert not Path("out").exists()
    assert sorted(path.name for path in Path("in").rglob("*")) == before
    shutil.rmtree(".out.partial", ignore_errors=True)
    return err[-1]


def built(capsys: Capture, *words: str) -> tuple[list[str], dict[str, int]]:
    """(texts, counts) of a command that succeeds."""
    assert main(["corpus", "build", *words, "--out", "out"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    return sorted(read_documents(Path("out"))), json.loads(Path("out/corpus.json").read_text())


# --- 1 to 7: addresses and downloads --------------------------------------------------------------------------------


def test_no_address_in_a_text_or_a_list_is_ever_fetched(capsys: Capture):
    """1, 2, 3: pages of this machine, of private networks, in every spelling; a list of URLs is compared, not read."""
    with serving(lambda request: request.send(200, b"Secret.")) as server:
        port = server.address.rpartition(":")[2]
        hosts = ["127.0.0.1", "[::1]", "localhost", "0x7f000001", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254"]
        urls = [f"http://{host}:{port}/{i}" for i, host in enumerate(hosts)]
        made = pages(40)
        rows = [{"text": f"{page.text}\n{url}", "url": url} for page, url in zip(made, urls * 6, strict=False)]
        put("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        put("urls.txt", "\n".join(urls))
        words = ["--recipe", "webtext", "--urls", "in/urls.txt", "--input", "in/a.jsonl"]
        assert main(["corpus", "build", *words, "--out", "out"]) in (0, 2)
        capsys.readouterr()
        shutil.rmtree("out", ignore_errors=True)
        built(capsys, "--text", "in/a.jsonl")
        assert server.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/hosts",
        "gopher://127.0.0.1/x.txt",
        "http://127.0.0.1:9/x.jsonl",
        "https://example.org/x.jsonl",
        "s3://bucket/x.jsonl",
    ],
)
def test_an_address_is_no_file(address: str, way: list[str], capsys: Capture):
    """4: nothing is fetched but what `hub:` names."""
    assert "no such file" in refused(capsys, *way, address)
    put("a.jsonl", LINES)
    assert "no such file" in refused(capsys, "--recipe", "webtext", "--input", "in/a.jsonl", "--urls", address)


# --- 8: bombs -------------------------------------------------------------------------------------------------------


def zst_bomb(mebibytes: int) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(mebibytes)) + packer.flush()


def parquet(table: dict[str, Any], **more: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(table), out, compression="zstd", **more)
    return out.getvalue()


def one_text_many_times() -> pa.DictionaryArray:
    """64 GiB of text in a kilobyte."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), pa.array(["x" * (16 << 20)]))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt.zst", lambda: zst_bomb(200), "unpacks to more than 200 times"),
        ("a.jsonl.zst", lambda: zst_bomb(100), "unpacks to more than 200 times"),
        ("a.txt.gz", lambda: gzip.compress(b" " * (1 << 20)) * 100, "unpacks to more than 200 times"),
        ("a.jsonl.gz", lambda: gzip.compress(gzip.compress(LINES.encode())), "found an archive inside the archive"),
        ("a.txt.gz", lambda: gzip.compress(os.urandom(9000)) * 2 + gzip.compress(os.urandom(9000))[:-900], "be read ("),
        ("a.parquet", lambda: parquet({"text": one_text_many_times()}), "unpacks to more than 200 times"),
        ("a.parquet", lambda: parquet({"text": ["x" * 70_000_000]}), "unpacks to more than 200 times"),
        ("a.parquet", lambda: parquet({"text": ["x"], "url": ["x" * 70_000_000]}), "unpacks to more than 200 times"),
    ],
    ids=["zst", "zst line", "gz", "gz in gz", "cut", "parquet, one text", "parquet, large text", "parquet, large URL"],
)
def test_bombs_and_cut_packings(name: str, content: Callable[[], bytes], says: str, way: list[str], capsys: Capture):
    pool = pa.default_memory_pool()
    path, before = put(name, content()), pool.max_memory()
    assert says in refused(capsys, *way, str(path))
    assert path.stat().st_size < 200_000
    assert pool.max_memory() < max(before + 1, 1 << 28)


def test_a_bomb_beside_good_pages_costs_itself(way: list[str], capsys: Capture):
    """Of a web archive, and inside one: a page packed by its server."""
    pytest.importorskip("resiliparse", reason="resiliparse is not installed")
    write_wet(Path("in/good.warc.wet.gz"), pages(5))
    put("bomb.warc.wet.gz", gzip.compress(b"a" * (1 << 24), 9) * 16)
    packed = gzip.compress(b"<p>a" * (1 << 21), 9)
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n" + packed
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a\r\nContent-Length: {len(body)}\r\n\r\n"
    put("inside.warc.gz", gzip.compress(head.encode() + body + b"\r\n\r\n"))
    texts, counts = built(capsys, *way, "in/*.gz")
    assert texts == sorted(page.text.strip() for page in pages(5))
    counts = {name.removeprefix("not read: "): count for name, count in counts.items()}
    assert counts["file that unpacks to 200 times its size"] == 1
    assert counts["response that is not whole"] == 1


# --- 9 and 10: archives ---------------------------------------------------------------------------------------------


def test_records_with_wrong_headers(way: list[str], capsys: Capture):
    good, lied = record(pages(3)[0]), record(pages(3)[1])
    size = lied.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
    wrong = [
        lied.replace(b"Content-Length: " + size, b"Content-Length: " + told) for told in (b"7", b"2147483648", b"-1")
    ]
    broken = [b"WARC/1.0\r\nno header at all\r\n\r\nText.\r\n\r\n", b"WARC/1.0\r\n" + b"X: y\r\n" * 30_000]
    put("a.warc", good + b"".join([*wrong, *broken]) + record(pages(3)[2]))
    texts, counts = built(capsys, *way, "in/a.warc")
    assert texts == sorted(page.text.strip() for page in (pages(3)[0], pages(3)[2]))
    counts = {name.removeprefix("not read: "): count for name, count in counts.items()}
    assert counts["record with a wrong length"] == counts["record above 16 MiB"] == 1
    assert counts["record with a bad length"] == 2
    assert counts["record with a bad header"] == 1


@pytest.mark.parametrize("name", ["../../escaped.txt", "/escaped.txt", "link", "hard", "device"])
def test_tars_and_zips_are_never_unpacked(name: str, way: list[str], here: Path, capsys: Capture):
    member = tarfile.TarInfo(name)
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
    member.type, member.linkname = kinds.get(name, tarfile.REGTYPE), "/etc/passwd" if name in kinds else ""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(member)
        tar.addfile(member)
    for ending in (".tar", ".tar.gz", ".tgz"):
        assert "unpack it and give" in refused(capsys, *way, str(put(f"a{ending}", out.getvalue())))
    with zipfile.ZipFile("in/a.zip", "w") as archive:
        archive.writestr(name, "text")
    assert "unpack it and give" in refused(capsys, *way, "in/a.zip")
    assert "line 1: found invalid JSON" in refused(capsys, *way, str(put("b.json.gz", out.getvalue())))
    assert [path.name for path in here.iterdir()] == ["in"]


# --- 11 to 13: what is no text, no JSON, no parquet -----------------------------------------------------------------


def test_bytes_that_are_no_text(way: list[str], capsys: Capture):
    put("good.txt", "\ufeffGood.")
    put("latin.txt", b"caf\xe9")
    put("wide.txt", "wide".encode("utf-16"))
    put("nul.txt", b"a\0b")
    put("half.txt", b"\xed\xa0\x80")
    put("blank.txt", " \n\t\u2028\u3000 \n")
    put("none.txt", "")
    put("empty.jsonl", "\n" * 1_000_000 + '{"text": "At last."}\n')
    put("half.jsonl", '{"text": "half \\ud800"}\n{"text": null}\n')
    texts, counts = built(capsys, *way, "in/*")
    assert texts == ["At last.", "Good."]
    counts = {name.removeprefix("not read: "): count for name, count in counts.items()}
    wanted = {"not UTF-8": 2, "UTF-16": 1, "with NUL characters": 1, "empty": 2, "null": 1}
    assert {name: counts[name] for name in wanted} == wanted
    assert counts["with half a surrogate pair"] == 1


def test_a_line_of_seventy_megabytes(capsys: Capture):
    put("a.jsonl", '{"text": "' + "x" * 70_000_000 + '"}')
    assert "line 1: found more than 64 MiB in one line" in refused(capsys, "--text", "in/a.jsonl")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": 3}', "field text: found 3"),
        ('{"url": "a"}', "field text: missing"),
        ('{"text": "a", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}", "found nesting too deep"),
        ('{"text": "a", "text": "b"}', "found the same key twice"),
        ('{"text": NaN}', "field text: found nan"),
        ('{"text": "cut', "found invalid JSON (Unterminated string"),
    ],
    ids=["number", "missing", "deep", "twice", "NaN", "cut"],
)
def test_lines_that_are_no_documents(line: str, says: str, way: list[str], capsys: Capture):
    told = refused(capsys, *way, str(put("a.jsonl", LINES + line)))
    assert "a.jsonl: line 3: " in told
    assert says in told


def test_tables_that_are_none(way: list[str], capsys: Capture):
    whole = parquet({"text": [os.urandom(40).hex() for _ in range(2000)]}, write_page_checksum=True)
    hurt = bytearray(whole)
    hurt[len(hurt) // 2] ^= 8
    for content in (bytes(hurt), whole[: len(whole) // 2], b"PAR1", b""):
        told = refused(capsys, *way, str(put("a.parquet", content)))
        assert "found damaged parquet (" in told or "cannot be read (could not verify page integrity" in told
    for table, says in (({"body": ["x"]}, "found columns body"), ({"text": [1]}, "column text: found int64")):
        assert says in refused(capsys, *way, str(put("a.parquet", parquet(table))))
    empty = put("a.parquet", parquet({"text": pa.array([], pa.string())}))
    assert "no document remains" in refused(capsys, *way, str(empty))


# --- 14 to 17: rules ------------------------------------------------------------------------------------------------


def test_no_document_survives(capsys: Capture):
    put("a.jsonl", LINES)
    own = ["--recipe", "own", "--skip", "language", "--input"]
    assert "no document remains (2 too few sentences" in refused(capsys, *own, "in/a.jsonl")
    assert "no document remains: 1 empty" in refused(capsys, "--text", str(put("b.txt", " ")))


def test_all_documents_are_copies(capsys: Capture):
    text = "\n".join(f"This is line {one} of a page." for one in ("one", "two", "three"))
    rows = [json.dumps({"text": text, "url": f"http://a.org/{i}"}) for i in range(9)]
    put("a.jsonl", "\n".join(rows))
    texts, counts = built(
        capsys, "--recipe", "own", "--skip", "language", "--profile", "2.2.0", "--input", "in/a.jsonl"
    )
    assert texts == [text]
    assert counts["line: said before"] == 24


def test_the_language_model_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: Capture):
    """Told before a file is read, not hours later."""
    put("a.jsonl", "not read at all")
    monkeypatch.setattr(language_tables, "find_spec", lambda _: None)
    language_tables.tables.cache_clear()
    try:
        told = refused(capsys, "--recipe", "c4", "--input", "in/a.jsonl")
        assert "langdetect is not installed, whose profiles are needed; pip install langdetect" in told
    finally:
        language_tables.tables.cache_clear()


def test_odd_characters_come_through(way: list[str], capsys: Capture):
    texts = ["שלום עולם", "مرحبا", "🎉👩‍👩‍👧", "e\u0301 a\u2028b\u2029c\x85d", "\u202eevil\u202c", "Å\ufeffb", "𝔄𐍈"]
    put("a.jsonl", "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
    assert built(capsys, *way, "in/a.jsonl")[0] == sorted(texts)


# --- 18 to 20: files and folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["grows", "is deleted"])
def test_a_file_changes_while_it_is_read(then: str, way: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture):
    path, asked = put("a.jsonl", LINES), files._text_of

    def text_of(*words: Any) -> str | None:
        if words[1] == 1 and path.exists():
            path.write_text(LINES * 2) if then == "grows" else path.unlink()
        return asked(*words)

    monkeypatch.setattr(files, "_text_of", text_of)
    assert main(["corpus", "build", *way, "in/a.jsonl", "--out", "out"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert f"a.jsonl: was {'changed' if then == 'grows' else 'deleted'} while it was read" in err
    assert not Path("out").exists()


def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "t5study", "corpus", "build", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, **more)


def test_a_full_disk(here: Path):
    """Of documents as they are; test_recipe_build.py does the same to a table of tasks."""
    put("a.jsonl", "".join(json.dumps({"text": os.urandom(40).hex()}) + "\n" for _ in range(2000)))
    done = run("--text", "in/a.jsonl", "--out", "out",
               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))  # fmt: skip
    assert done.returncode == 74, done.stderr
    assert "make room and run the same command again" in done.stderr.splitlines()[-1]
    assert [path.name for path in here.iterdir()] == ["in"]


def _as_others() -> None:
    """Root may write into any folder; without that right (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) a mode is a mode."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (1, 2):
            assert libc.prctl(24, capability, 0, 0, 0) == 0, "PR_CAPBSET_DROP"


def test_a_read_only_folder_is_read_from_and_not_written_to():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "may").mkdir()
        (folder / "in" / "a.jsonl").write_text(LINES)
        for path, mode in ((folder / "may", 0o777), (folder / "in", 0o555), (folder, 0o555)):
            path.chmod(mode)

        try:
            words = [*WAYS["recipe"], str(folder / "in" / "*"), "--out"]
            done = run(*words, str(folder / "out"), preexec_fn=_as_others, cwd=folder)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert "Permission denied; check the path and its permissions" in done.stderr
            done = run(*words, str(folder / "may" / "out"), preexec_fn=_as_others, cwd=folder)
            assert done.returncode == 0, done.stderr
            assert len(list(read_documents(folder / "may" / "out"))) == 2
            assert [path.name for path in (folder / "in").iterdir()] == ["a.jsonl"]
        finally:
            for path in (folder, folder / "in"):
                path.chmod(0o755)


def test_an_output_inside_its_input(way: list[str], capsys: Capture):
    """The first build does not see itself; the second is told that its pattern catches what the first one wrote."""
    put("a.jsonl", LINES)
    put("b.parquet", parquet({"text": ["A third one."]}))
    words = [*way, "in/**/*.jsonl", "in/**/*.parquet", "--rejects", "--out"]
    words = [word for word in words if word != "--rejects" or way[0] == "--recipe"]
    assert main(["corpus", "build", *words, "in/out"]) == 0
    assert len(list(read_documents(Path("in/out")))) == 3
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path("in").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["corpus", "build", *words, "in/more"]) == 2
    assert "lies in a folder that t5study built" in capsys.readouterr().err
    assert main(["corpus", "build", *words, "in/out"]) == 2
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before} == before
    assert main(["corpus", "build", *way, "in/a.jsonl", "--out", "in/a.jsonl/out"]) == 2
    assert main(["corpus", "build", *way, "in/a.jsonl", "--out", "in/a.jsonl"]) == 2
    assert Path("in/a.jsonl").read_text() == LINES
