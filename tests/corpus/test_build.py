"""Building a corpus: order by hash, what is left out, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from t5study.corpus.build import build_corpus, read_documents
from t5study.corpus.page import Drops, Page
from t5study.corpus.read import text_files
from t5study.ground.errors import UserError
from t5study.ground.store import Store, verify, whole_folder


@dataclass
class Given:
    """A source of pages that are written out."""

    texts: list[str]
    value: str = "given"

    def pages(self, drops: Drops | None = None) -> Iterator[Page]:
        for i, text in enumerate(self.texts):
            yield Page(text, f"page {i}")


TEXTS = [f"Document {i}: {'word ' * (i % 7)}ends here." for i in range(500)]


def test_the_same_bytes_in_whatever_order_pages_come(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    counts = build_corpus(Given(TEXTS), tmp_path / "a")
    assert counts == {"documents": 500, "characters": sum(map(len, TEXTS))}
    assert sorted(read_documents(tmp_path / "a")) == sorted(TEXTS)
    assert list(read_documents(tmp_path / "a")) not in (TEXTS, sorted(TEXTS))
    build_corpus(Given([f"  {text}\n" for text in TEXTS]), tmp_path / "b")
    assert list(read_documents(tmp_path / "b")) == list(read_documents(tmp_path / "a"))
    reordered = Given(TEXTS)
    (tmp_path / "c").mkdir()
    build_corpus(reordered, tmp_path / "c")
    assert (tmp_path / "c" / "documents.parquet").read_bytes() == (tmp_path / "a" / "documents.parquet").read_bytes()
    (tmp_path / "d").mkdir()
    build_corpus(Given(TEXTS), tmp_path / "d", seed=1)
    assert list(read_documents(tmp_path / "d")) != list(read_documents(tmp_path / "a"))


def test_a_prefix_is_a_fair_sample(tmp_path: Path):
    texts = [f"{'first' if i < 1000 else 'second'} half, number {i}" for i in range(2000)]
    build_corpus(Given(texts), tmp_path)
    found = list(read_documents(tmp_path))[:400]
    assert 150 < sum(text.startswith("first") for text in found) < 250


def test_what_is_empty_is_left_out_and_counted(tmp_path: Path):
    counts = build_corpus(Given(["One.", "", " \n\t\u2028 ", "Two."]), tmp_path)
    assert counts == {"documents": 2, "characters": 8, "empty": 2}
    assert set(verify(tmp_path)["files"]) == {"documents.parquet", "corpus.json"}


def test_files_from_end_to_end(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("Plain.")
    (tmp_path / "in" / "b.txt").write_bytes(b"caf\xe9")
    (tmp_path / "in" / "c.jsonl").write_text('{"text": "Line."}\n{"text": ""}\n{"text": "half \\ud800"}\n')
    with whole_folder(tmp_path / "out") as folder:
        counts = build_corpus(text_files([str(tmp_path / "in" / "*")]), folder)
    assert counts == {
        **{"documents": 2, "characters": 11, "empty": 1, "not UTF-8": 1, "with half a surrogate pair": 1},
    }
    assert sorted(read_documents(tmp_path / "out")) == ["Line.", "Plain."]


def test_no_document_remains(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_text("  \n ")
    with pytest.raises(UserError) as error, whole_folder(tmp_path / "out") as folder:
        build_corpus(text_files([str(tmp_path / "*.txt")]), folder)
    told = str(error.value)
    assert told.startswith("corpus: no document remains: 1 not UTF-8 (the first in ")
    assert "1 empty (the first in b.txt)" in told
    assert "\n" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]
    with pytest.raises(UserError, match="no document remains: none was read"):
        build_corpus(Given([]), tmp_path)


def test_as_a_stage_of_a_store(tmp_path: Path):
    store = Store(tmp_path)
    source = Given(TEXTS)
    folder = store.make("corpus", source.value, lambda work: build_corpus(source, work) and None)
    assert sorted(read_documents(folder)) == sorted(TEXTS)


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "manifest"])
def test_a_damaged_corpus_is_refused_before_it_is_read(tmp_path: Path, damage: str):
    build_corpus(Given(TEXTS), tmp_path)
    path = tmp_path / "documents.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 8
    match damage:
        case "flip":
            path.write_bytes(content)
        case "cut":
            path.write_bytes(path.read_bytes()[:-10])
        case "delete":
            path.unlink()
        case "manifest":
            (tmp_path / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"documents\.parquet|manifest\.json"):
        read_documents(tmp_path)


def test_a_folder_of_something_else(tmp_path: Path):
    from t5study.ground.store import write_manifest

    write_manifest(tmp_path)
    with pytest.raises(UserError, match=r"holds no documents\.parquet"):
        read_documents(tmp_path)
