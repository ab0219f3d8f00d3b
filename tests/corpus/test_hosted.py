"""Files of the hub, out of a cache laid out as the hub's client lays it out: no network is asked."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from wet_pages import pages

from t5study.__main__ import main
from t5study.corpus.build import read_documents
from t5study.corpus.read import find_files, text_files

COMMIT = "1588ec454efa1a09f29cd18ddd04fe05fc8653a2"
MADE = pages(60)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """allenai/c4 as the client keeps it: names of a commit, each a link to a file that its sha256 names."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    root = tmp_path / "hub" / "datasets--allenai--c4"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    for i in range(2):
        rows = [{"text": page.text, "timestamp": "2019-04-25T12:57:54Z", "url": page.url} for page in MADE[i::2]]
        body = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)
        digest = hashlib.sha256(body).hexdigest()
        (root / "blobs" / digest).write_bytes(body)
        name = root / "snapshots" / COMMIT / "en" / f"c4-train.{i:05d}-of-01024.json.gz"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(f"../../../blobs/{digest}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return root


def test_the_hosted_c4_is_built_from(cache: Path):
    address = "hub:allenai/c4/en/c4-train.0000*.json.gz"
    assert main(["corpus", "build", "--recipe", "own", "--skip", "language", "--input", address, "--out", "out"]) == 0
    account = json.loads(Path("out/account.json").read_text())
    assert [one["name"] for one in account["inputs"]] == [f"c4-train.0000{i}-of-01024.json.gz" for i in range(2)]
    assert json.loads(Path("out/corpus.json").read_text())["pages read"] == len(MADE)
    assert len(list(read_documents(Path("out")))) > 20
    (only,) = find_files([f"hub:allenai/c4@{COMMIT}/en/c4-train.00001*"])
    found = [page.text for page in text_files([str(only)]).pages()]
    assert found == [page.text for page in MADE[1::2]]


def test_a_file_of_the_cache_that_was_damaged(cache: Path, capsys: pytest.CaptureFixture[str]):
    """The same size, another byte: the digest in its name tells."""
    blob = max((cache / "blobs").iterdir())
    whole = bytearray(gzip.decompress(blob.read_bytes()))
    whole[10] ^= 1
    blob.write_bytes(gzip.compress(whole, mtime=0))
    for words in (["--recipe", "own", "--input"], ["--text"]):
        assert main(["corpus", "build", *words, "hub:allenai/c4/en/*", "--out", "out"]) == 2
        err = capsys.readouterr().err
        assert "is not the file that the hub has (its sha256 differs)" in err.splitlines()[-1]
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("hub:allenai/c4", "found no owner, name and file"),
        ("hub:allenai/c4/", "found no owner, name and file"),
        ("hub:allenai/c4/../../x.json", "found no owner, name and file"),
        ("hub:allenai/c4/de/*.json.gz", "matches no file of that data set"),
        ("hub:allenai/other/en/*", "cannot be fetched (Cannot find an appropriate cached snapshot"),
        ("hub:allenai/c4@nope/en/*", "cannot be fetched ("),
        ("hub:allen..ai/c4/en/*", "cannot be fetched ("),
    ],
)
def test_addresses_that_lead_nowhere(address: str, says: str, cache: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["corpus", "build", "--recipe", "c4", "--input", address, "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["hub"]
