"""Token folders: what is written is what is read, to the token, and every damage is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from t5study.corpus.tokens import TokenStore, write_tokens, write_tokens_into
from t5study.ground.errors import UserError
from t5study.ground.store import Store, write_manifest
from t5study.vocab import Vocab, train_vocab

DOCUMENTS = [f"The fox number {i} jumps over {i % 5} dogs, and {'again ' * (i % 9)}rests." for i in range(300)]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    path = tmp_path_factory.mktemp("vocab") / "small.model"
    train_vocab(DOCUMENTS, 60, path)
    return Vocab.load(path)


@pytest.fixture
def folder(tmp_path: Path, vocab: Vocab) -> Path:
    write_tokens(DOCUMENTS, vocab, tmp_path / "tokens")
    return tmp_path / "tokens"


def test_what_is_written_is_what_is_read(folder: Path, vocab: Vocab):
    store = TokenStore.open(folder)
    assert len(store) == 300
    assert store.tokens.dtype == np.dtype("<u2")
    assert isinstance(store.tokens, np.memmap)
    assert store.offsets.dtype == np.int64
    assert store.vocab_digest == vocab.digest
    assert store.n_tokens == store.offsets[-1] == len(store.tokens)
    for i, text in enumerate(DOCUMENTS):
        assert store[i].tolist() == vocab.encode(text).tolist()
    with pytest.raises(IndexError):
        store[300]
    assert np.load(folder / "tokens.npy").tolist() == store.tokens.tolist()


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_change_no_byte(
    folder: Path, vocab: Vocab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None
):
    from t5study.corpus import tokens

    monkeypatch.setattr(tokens, "_BATCH_DOCUMENTS", 16)  # so that more batches than threads are under way
    write_tokens(iter(DOCUMENTS), vocab, tmp_path / "again", threads=threads)
    for name in ("tokens.npy", "offsets.npy", "tokens.json", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_documents_that_break_off_leave_no_folder_behind_threads(vocab: Vocab, tmp_path: Path):
    def documents():
        yield from DOCUMENTS * 10
        raise RuntimeError("unreadable")

    with pytest.raises(RuntimeError, match="unreadable"):
        write_tokens(documents(), vocab, tmp_path / "t", threads=3)
    assert list(tmp_path.iterdir()) == []


def test_a_large_vocabulary_takes_four_bytes(vocab: Vocab, tmp_path: Path):
    for sentinels, dtype in ((65_536 - 60, "<u2"), (65_537 - 60, "<u4")):
        large = Vocab.load(vocab.path, sentinels)
        write_tokens(DOCUMENTS, large, tmp_path / dtype[1:])
        store = TokenStore.open(tmp_path / dtype[1:])
        assert store.tokens.dtype == np.dtype(dtype)
        assert store[7].tolist() == vocab.encode(DOCUMENTS[7]).tolist()


@pytest.mark.parametrize("most", [1, 2, 17, 500])
def test_a_budget_is_kept_to_the_token(folder: Path, vocab: Vocab, tmp_path: Path, most: int):
    asked = 0

    def documents():
        nonlocal asked
        for text in DOCUMENTS * 100:
            asked += 1
            yield text

    counts = write_tokens(documents(), vocab, tmp_path / "few", max_tokens=most)
    store, whole = TokenStore.open(tmp_path / "few"), TokenStore.open(folder)
    assert counts["tokens"] == store.n_tokens == most
    assert store.tokens.tolist() == whole.tokens[:most].tolist()
    assert len(store) == int(np.searchsorted(whole.offsets, most))
    assert asked <= 2048


def test_a_budget_beyond_the_end_and_at_a_documents_end(folder: Path, vocab: Vocab, tmp_path: Path):
    whole = TokenStore.open(folder)
    counts = write_tokens(DOCUMENTS, vocab, tmp_path / "all", max_tokens=10**9)
    assert (counts["tokens"], counts["cut"]) == (whole.n_tokens, 0)
    counts = write_tokens(DOCUMENTS, vocab, tmp_path / "three", max_tokens=int(whole.offsets[3]))
    assert (counts["documents"], counts["cut"]) == (3, 0)


def test_documents_of_no_token_are_left_out(vocab: Vocab, tmp_path: Path):
    counts = write_tokens(["", "fox", " \n ", "dog", ""], vocab, tmp_path / "t")
    assert counts == {"documents": 2, "tokens": counts["tokens"], "empty": 3, "cut": 0}
    assert [vocab.decode(TokenStore.open(tmp_path / "t")[i]) for i in range(2)] == ["fox", "dog"]
    write_tokens(["x"], vocab, tmp_path / "one", max_tokens=1)
    assert TokenStore.open(tmp_path / "one").offsets.tolist() == [0, 1]


@pytest.mark.parametrize("documents", [[], [""], [" ", "\n"]])
def test_no_tokens_at_all(vocab: Vocab, tmp_path: Path, documents: list[str]):
    with pytest.raises(UserError, match="tokens: found none"):
        write_tokens(documents, vocab, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_writing_that_fails(vocab: Vocab, tmp_path: Path):
    def documents():
        yield from DOCUMENTS
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_tokens(documents(), vocab, tmp_path / "t")
    with pytest.raises(UserError, match="max_tokens: found 0"):
        write_tokens(DOCUMENTS, vocab, tmp_path / "t", max_tokens=0)
    assert list(tmp_path.iterdir()) == []


def test_as_a_stage_of_a_store(vocab: Vocab, tmp_path: Path, folder: Path):
    made = Store(tmp_path).make("tokens", "value", lambda work: write_tokens_into(DOCUMENTS, vocab, work) and None)
    assert TokenStore.open(made).tokens.tolist() == TokenStore.open(folder).tokens.tolist()


# --- damage -----------------------------------------------------------------------------------------------------


def refusal(folder: Path, verify: bool = True) -> str:
    with pytest.raises(UserError) as error:
        TokenStore.open(folder, verify=verify)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy", "tokens.json"])
def test_flips_cuts_and_losses_are_found_by_digest(folder: Path, name: str):
    whole = (folder / name).read_bytes()
    for at in np.linspace(0, len(whole) - 1, 167).astype(int):  # 501 in the three files
        hurt = bytearray(whole)
        hurt[at] ^= 1 << int(at) % 8
        (folder / name).write_bytes(hurt)
        assert f"{folder / name}: its digest differs" in refusal(folder)
        (folder / name).write_bytes(whole[:at])
        assert f"{folder / name}: found" in refusal(folder)
    (folder / name).unlink()
    assert f"{folder / name}: missing" in refusal(folder)


def test_a_swapped_file_is_found(folder: Path, vocab: Vocab, tmp_path: Path):
    write_tokens(DOCUMENTS[::-1], vocab, tmp_path / "other")
    (folder / "tokens.npy").write_bytes((tmp_path / "other" / "tokens.npy").read_bytes())
    assert "tokens.npy: its digest differs" in refusal(folder)


def _rewrite(folder: Path, **arrays: np.ndarray) -> None:
    """Other arrays under a manifest that vouches for them: what remains is to be found by what they say."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    write_manifest(folder)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("tokens", lambda a: a.astype("<i8"), "found <i8"),
        ("tokens", lambda a: a.astype(">u2"), "found >u2"),
        ("tokens", lambda a: a.astype("<i2"), "found <i2"),
        ("tokens", lambda a: a.reshape(1, -1), "found <u2 of shape (1, "),
        ("tokens", lambda a: a[:-1], "tokens where tokens.json says"),
        ("tokens", lambda a: np.append(a, a[:1]), "tokens where tokens.json says"),
        ("offsets", lambda a: a.astype("<i4"), "found <i4"),
        ("offsets", lambda a: a[:-1], "entries for 300 documents"),
        ("offsets", lambda a: np.append(a, a[-1]), "entries for 300 documents"),
        ("offsets", lambda a: a + 1, "not 0 to the end"),
        ("offsets", lambda a: np.append(a[:-1], a[-1] + 5), "not 0 to the end"),
        ("offsets", lambda a: np.concatenate([a[:5], a[[6, 5]], a[7:]]), "document 5: ends at or before its beginning"),
        ("offsets", lambda a: np.concatenate([a[:5], a[[4]], a[6:]]), "document 4: ends at or before its beginning"),
        ("offsets", lambda a: np.concatenate([a[:5], [-7], a[6:]]), "document 4: ends at or before its beginning"),
    ],
)
def test_arrays_that_make_no_sense(folder: Path, name: str, change, says: str, verify: bool):
    _rewrite(folder, **{name: change(np.load(folder / f"{name}.npy"))})
    message = refusal(folder, verify)
    assert says in message
    assert f"{name}.npy" in message


def test_an_id_beyond_the_vocabulary(folder: Path, vocab: Vocab):
    tokens = np.load(folder / "tokens.npy")
    tokens[77] = vocab.ids.size
    _rewrite(folder, tokens=tokens)
    assert f"found the id {vocab.ids.size} in a vocabulary of {vocab.ids.size}" in refusal(folder)


def test_files_that_are_no_arrays(folder: Path):
    for content in (b"", b"\x93NUMPY", b"text", b"PK\x03\x04 an archive"):
        (folder / "tokens.npy").write_bytes(content)
        write_manifest(folder)
        assert "tokens.npy: found no readable array" in refusal(folder)


def test_pickled_objects_are_never_read(folder: Path, tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.save(folder / "tokens.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    write_manifest(folder)
    assert "tokens.npy: found no readable array" in refusal(folder)
    assert not (tmp_path / "sprung").exists()


def test_manifests_and_facts_that_do_not_fit(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["offsets.npy"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "field files: offsets.npy is missing" in refusal(folder)
    (folder / "tokens-2.npy").write_bytes((folder / "tokens.npy").read_bytes())
    write_manifest(folder)
    assert "field files: tokens-2.npy is no part of tokens" in refusal(folder)
    (folder / "tokens-2.npy").unlink()
    assert "tokens-2.npy: missing though the manifest lists it" in refusal(folder)
    facts = json.loads((folder / "tokens.json").read_text())
    for wrong in ({**facts, "format": 2}, {}, [], "text", {"format": 1}, {**facts, "size": "many"}):
        (folder / "tokens.json").write_text(json.dumps(wrong))
        write_manifest(folder)
        assert "tokens.json" in refusal(folder)
    (folder / "manifest.json").unlink()
    assert "manifest.json" in refusal(folder)


def test_a_file_that_is_listed_twice_is_refused_and_one_that_is_not_listed_is_not_read(folder: Path):
    expected = TokenStore.open(folder).tokens.tolist()
    (folder / "tokens-2.npy").write_bytes(b"whatever")
    assert TokenStore.open(folder).tokens.tolist() == expected
    text = (folder / "manifest.json").read_text()
    entry = json.dumps(json.loads(text)["files"]["tokens.npy"])
    (folder / "manifest.json").write_text(text.replace('"files": {', f'"files": {{"tokens.npy": {entry},', 1))
    for verify in (True, False):
        assert "manifest.json: found damaged JSON (twice: tokens.npy)" in refusal(folder, verify)


def test_processes_change_no_byte(folder: Path, vocab: Vocab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from t5study.corpus import tokens
    from t5study.ground.store import read_manifest

    monkeypatch.setattr(tokens, "_BATCH_DOCUMENTS", 16)
    monkeypatch.setattr(tokens, "_SECTION", 1000)
    write_tokens(iter(DOCUMENTS), vocab, tmp_path / "again", workers=2)
    for name in ("tokens.npy", "offsets.npy", "tokens.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    content = (folder / "tokens.npy").read_bytes()
    assert len(read_manifest(tmp_path / "again")["sections"]) == -(-len(content) // 1000)
    few = write_tokens(iter(DOCUMENTS), vocab, tmp_path / "few", max_tokens=777, workers=2)
    assert few["tokens"] == TokenStore.open(tmp_path / "few").n_tokens == 777
