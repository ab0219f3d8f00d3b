"""Builds of recipes: equal bytes however pages are dealt out, whoever runs the tasks, and whatever is killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from wet_pages import pages, record, write_shards, write_wet

from t5study.corpus import dedup, pieces, recipe_build, stages
from t5study.corpus.build import read_documents
from t5study.corpus.engines import Local, NotYet, OnRay, Share, parse_engine
from t5study.corpus.page import Drop, Page
from t5study.corpus.recipe_build import build_recipe, estimate
from t5study.corpus.recipes import Recipe, make_recipe
from t5study.corpus.rules import clean, finish
from t5study.corpus.rules_spans import lost, windows, without
from t5study.corpus.rules_url import is_validation, normalise_url, url_key
from t5study.ground.errors import UserError
from t5study.ground.store import verify

ROOT = Path(__file__).resolve().parents[2]
MADE = pages(240)


def recipe(profile: str) -> Recipe:
    """Without language, which needs loops compiled and says nothing here."""
    return make_recipe("own", profile, skip=["language"])


def bytes_of(out: Path) -> dict[str, str]:
    verify(out)
    names = [path.name for path in out.iterdir() if path.suffix == ".parquet"]
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in sorted(names)} | {
        "counts": json.dumps(
            {name: value for name, value in counts_of(out).items() if not name.startswith("not read")}
        ),
        "dropped": (out / "dropped.json").read_text(),
    }


def counts_of(out: Path) -> dict[str, int]:
    return json.loads((out / "corpus.json").read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One shard, one process, for two profiles."""
    folder = tmp_path_factory.mktemp("built")
    pattern = write_shards(folder / "in", MADE, 1)
    for profile in ("paper", "3.1.0"):
        build_recipe(recipe(profile), [pattern], folder / profile)
    return {profile: folder / profile for profile in ("paper", "3.1.0")}


# --- equal to the rules said plainly ------------------------------------------------------------------------------


def plainly(made: list[Page], profile_name: str) -> list[tuple[str, str]]:
    """The whole recipe with dicts and lists, as one would explain it."""
    profile = recipe(profile_name).profile
    by_url: dict[str, Page] = {}
    for page in made:
        held = by_url.get(url := normalise_url(page.url, profile))
        date = (lambda one: one.timestamp) if profile.same_url == "newest" else (lambda one: "")
        rank = lambda one: (date(one), hashlib.md5(one.text.encode()).hexdigest())  # noqa: B023, E731
        if held is None or rank(page) > rank(held):
            by_url[url] = page
    kept = {url: found for url, page in by_url.items() if isinstance(found := clean(page, profile), Page)}
    names = {url: page.url if profile.same_url == "newest" else url for url, page in kept.items()}
    owners: dict[str, bytes] = {}
    for url, page in kept.items():
        for key in windows(page.text, profile):
            owners[key] = min(owners.get(key, b"\xff" * 16), url_key(names[url]))
    documents = []
    for url, page in kept.items():
        keys = windows(page.text, profile)
        owned = [owners[key] == url_key(names[url]) for key in keys]
        found: Page | Drop = without(page, lost(keys, owned, profile), profile)
        found = finish(found, profile) if isinstance(found, Page) else found
        if isinstance(found, Page) and not (profile.validation and is_validation(url)):
            documents.append((found.url, found.text))
    return sorted(documents)


@pytest.mark.parametrize("profile", ["paper", "2.2.0", "3.0.1", "3.1.0"])
def test_a_build_is_what_the_rules_say_plainly(profile: str, tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE, 2)
    build_recipe(recipe(profile), [pattern], tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "documents.parquet")
    found = sorted(zip(table["url"].to_pylist(), table["text"].to_pylist(), strict=True))
    wanted = plainly(MADE, profile)
    assert len(wanted) > 100
    # Of two spellings of one URL with equal pages either may stand for it; which one it is, is fixed by their hashes.
    assert [(normalise_url(url), text) for url, text in found] == [(normalise_url(url), text) for url, text in wanted]
    counts = counts_of(tmp_path / "out")
    assert counts["documents"] == len(wanted)
    assert counts["same URL"] == len(MADE) - len({normalise_url(page.url) for page in MADE})
    assert counts["curly bracket"] > 0
    assert counts["sentence: said before" if profile == "paper" else "line: said before"] > 50


# --- equal however it is done -------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["paper", "3.1.0"])
@pytest.mark.parametrize("shards", [2, 7])
def test_shards_and_order_change_no_byte(built: dict[str, Path], profile: str, shards: int, tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE, shards, seed=shards)
    build_recipe(recipe(profile), [pattern], tmp_path / "out")
    assert bytes_of(tmp_path / "out") == bytes_of(built[profile])


def test_processes_change_no_byte(built: dict[str, Path], tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE, 3, seed=5)
    build_recipe(recipe("paper"), [pattern], tmp_path / "out", Local(2))
    assert bytes_of(tmp_path / "out") == bytes_of(built["paper"])


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "processes"), [(1, 2), (2, 2), (7, 2), (8, 8)])
@pytest.mark.parametrize("profile", ["paper", "3.1.0"])
def test_processes_and_shards_change_no_byte(
    built: dict[str, Path], profile: str, shards: int, processes: int, tmp_path: Path
):
    """Every shard's pages are drawn in another order, by the seed."""
    pattern = write_shards(tmp_path / "in", MADE, shards, seed=20 + shards)
    build_recipe(recipe(profile), [pattern], tmp_path / "out", Local(processes))
    assert bytes_of(tmp_path / "out") == bytes_of(built[profile])


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("profile", ["paper", "3.1.0"])
def test_ray_changes_no_byte(
    built: dict[str, Path], profile: str, shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # it would wait for everybody else on this machine
    pattern = write_shards(tmp_path / "in", MADE, shards, seed=30 + shards)
    build_recipe(recipe(profile), [pattern], tmp_path / "out", OnRay(2))
    assert bytes_of(tmp_path / "out") == bytes_of(built[profile])


def test_small_pieces_and_ranges_change_no_byte(
    built: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What bounds memory plays no part in the result: many pieces a file, many ranges, shares of the output."""
    monkeypatch.setattr(pieces, "PAGES_MOST", 30)
    monkeypatch.setattr(pieces, "BATCH", 10)
    pattern = write_shards(tmp_path / "in", MADE, 2, seed=7)
    build_recipe(recipe("3.1.0"), [pattern], tmp_path / "out", memory=300 * dedup.ROW_BYTES)
    assert bytes_of(tmp_path / "out") == bytes_of(built["3.1.0"])
    monkeypatch.setattr(stages, "SHARE", counts_of(built["3.1.0"])["characters"] // 3)
    build_recipe(recipe("3.1.0"), [pattern], tmp_path / "shares")
    assert len(list((tmp_path / "shares").glob("documents-*-of-00004.parquet"))) == 4
    assert list(read_documents(tmp_path / "shares")) == list(read_documents(built["3.1.0"]))


def test_array_jobs_do_their_parts_and_say_what_is_missing(built: dict[str, Path], tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE, 4, seed=8)
    out = tmp_path / "out"
    with pytest.raises(NotYet, match=r"part 1 of 2 of the stage read is done, 2 of its tasks"):
        build_recipe(recipe("paper"), [pattern], out, Share(0, 2))
    turns = 0
    while not out.exists():
        turns += 1
        assert turns < 20
        for part in (1, 0):
            if not out.exists():
                try:
                    build_recipe(recipe("paper"), [pattern], out, Share(part, 2))
                except NotYet:
                    continue
    assert bytes_of(out) == bytes_of(built["paper"])


def test_two_parts_that_end_a_build_at_once(built: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between the last file and the manifest of one, the other does all of it: nothing breaks, nothing is mixed."""
    pattern, out = write_shards(tmp_path / "in", MADE, 2, seed=10), tmp_path / "out"
    write, nested = recipe_build.write_manifest, []

    def slow(folder: Path, **extra: str) -> None:
        if not nested:
            nested.append(True)
            monkeypatch.setattr(recipe_build.os, "getpid", lambda: 1)
            build_recipe(recipe("paper"), [pattern], out, Share(0, 1))
            monkeypatch.undo()
        write(folder, **extra)

    monkeypatch.setattr(recipe_build, "write_manifest", slow)
    assert build_recipe(recipe("paper"), [pattern], out, Share(0, 1)) == counts_of(out)
    assert bytes_of(out) == bytes_of(built["paper"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_engines_by_name():
    assert parse_engine(["task", "2/3"], 1) == Share(1, 3)
    for words in (["task", "0/3"], ["task", "4/3"], ["task"], ["spark"], ["task", "a/b"], []):
        with pytest.raises(UserError, match="--engine: found"):
            parse_engine(words, 1)


# --- kills --------------------------------------------------------------------------------------------------------

_BUILD = """
import sys
from pathlib import Path
from t5study.corpus import pieces
from t5study.corpus.engines import Local
from t5study.corpus.recipe_build import build_recipe
from t5study.corpus.recipes import make_recipe
if __name__ == "__main__":
    pieces.PAGES_MOST, pieces.BATCH = 40, 20
    recipe = make_recipe("own", "paper", skip=["language"])
    build_recipe(recipe, [sys.argv[1]], Path(sys.argv[2]), Local(int(sys.argv[3])))
"""


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk of the folders in a folder, not below them."""
    for root, folders, files in os.walk(folder):
        if Path(root) != folder:
            yield root, list(folders), files
            folders.clear()


def _killed_and_resumed(pattern: str, out: Path, seed: int, workers: int) -> int:
    """Builds in real processes that are killed with signal 9 as soon as a drawn number of tasks is there, until one
    comes to its end. Returns how many were killed before that: on a busy machine the last kill may come too late."""
    draw, killed = random.Random(seed), 0
    script = out.parent / "build.py"
    script.write_text(_BUILD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    partial = out.with_name(f".{out.name}.partial")

    def done() -> int:
        """Tasks that are there. Folders come and go meanwhile, which os.walk, unlike glob, lets pass."""
        return sum(len(folders) + len(files) for _, folders, files in _walk(partial))

    while True:
        there = done()
        until = there + draw.randint(1, 6) if killed < 2 else 10**9
        process = subprocess.Popen(
            [sys.executable, str(script), pattern, str(out), str(workers)], env=environment, stderr=subprocess.PIPE
        )
        while process.poll() is None:
            if done() >= until:
                time.sleep(draw.random() * 0.02)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        _, err = process.communicate()
        if process.returncode == 0:
            return killed
        assert process.returncode == -signal.SIGKILL, err.decode()
        if out.exists():
            with pytest.raises(
                UserError, match="exists already"
            ):  # which also takes away what the killed one could not
                build_recipe(recipe("paper"), [pattern], out)
            return killed
        killed += 1


def _killing(tmp_path: Path, seed: int, workers: int, wanted: dict[str, str]) -> int:
    pattern = write_shards(tmp_path / "in", MADE, 3, seed=seed)
    killed = _killed_and_resumed(pattern, tmp_path / "out", seed, workers)
    assert bytes_of(tmp_path / "out") == wanted
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".partial", ".tmp"))] == []
    return killed


def _killed_so_often(tmp_path: Path, times: int, wanted: dict[str, str]) -> None:
    """By one process and by two in turns, each build with pages in another order."""
    killed, seed = 0, 100 * times
    while killed < times:
        seed += 1
        assert seed < 100 * times + 4 * times + 1
        (tmp_path / str(seed)).mkdir()
        killed += _killing(tmp_path / str(seed), seed, 2 - seed % 2, wanted)


def test_builds_killed_twice_end_with_the_same_bytes(built: dict[str, Path], tmp_path: Path):
    _killed_so_often(tmp_path, 2, bytes_of(built["paper"]))


@pytest.mark.slow
def test_builds_killed_at_twenty_points_end_with_the_same_bytes(built: dict[str, Path], tmp_path: Path):
    _killed_so_often(tmp_path, 20, bytes_of(built["paper"]))


def test_a_build_killed_when_all_was_done(tmp_path: Path):
    """Between the corpus's appearance and the end of its pieces: it says so, and takes the pieces away."""
    pattern = write_shards(tmp_path / "in", MADE[:40], 1)
    with pytest.raises(NotYet):
        build_recipe(recipe("paper"), [pattern], tmp_path / "out", Share(1, 2))
    pieces_left = tmp_path / ".out.partial"
    pieces_left.rename(tmp_path / "aside")
    build_recipe(recipe("paper"), [pattern], tmp_path / "out")
    (tmp_path / "aside").rename(pieces_left)
    with pytest.raises(UserError, match="exists already; delete it or choose another folder"):
        build_recipe(recipe("paper"), [pattern], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


# --- what a user can do wrong -------------------------------------------------------------------------------------


def test_another_builds_beginning_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pattern = write_shards(tmp_path / "in", MADE[:40], 2)
    with pytest.raises(NotYet):
        build_recipe(recipe("paper"), [pattern], tmp_path / "out", Share(0, 2))
    with pytest.raises(UserError, match="holds the beginning of a build of other files or another recipe"):
        build_recipe(recipe("3.1.0"), [pattern], tmp_path / "out")
    monkeypatch.setattr(recipe_build, "FORM", 0)
    with pytest.raises(UserError, match="or another version's; delete it"):
        build_recipe(recipe("paper"), [pattern], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_remains(tmp_path: Path):
    short = [replace(page, text="Too short.") for page in MADE[:5]]
    pattern = write_shards(tmp_path / "in", short, 1)
    with pytest.raises(UserError, match=r"no document remains \(5 too few sentences") as error:
        build_recipe(recipe("paper"), [pattern], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_all_pages_are_copies(tmp_path: Path):
    """One of them stays."""
    text = "\n".join(
        ["The first line is long enough. It has two.", "The second line is long enough.", "And a third line is here."]
    )
    copies = [Page(text, f"http://a.org/{i}", "2019") for i in range(30)]
    build_recipe(recipe("3.1.0"), [write_shards(tmp_path / "in", copies, 3)], tmp_path / "out")
    owner = min((page.url for page in copies), key=lambda url: hashlib.md5(url.encode()).digest())
    assert pq.read_table(tmp_path / "out" / "documents.parquet")["url"].to_pylist() == [owner]
    assert counts_of(tmp_path / "out")["line: said before"] == 29 * 3


def test_a_file_that_changes_between_kill_and_resume(tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE[:40], 2)
    with pytest.raises(NotYet):
        build_recipe(recipe("paper"), [pattern], tmp_path / "out", Share(0, 2))
    write_wet(tmp_path / "in" / "part-0.warc.wet.gz", MADE[:3])
    with pytest.raises(UserError, match="of other files"):
        build_recipe(recipe("paper"), [pattern], tmp_path / "out")


def test_damage_costs_a_record_or_a_file_and_is_counted(tmp_path: Path):
    write_shards(tmp_path / "in", MADE, 2)
    (tmp_path / "in" / "torn.warc.wet.gz").write_bytes(b"\x1f\x8b\x08\0 no gzip at all")
    (tmp_path / "in" / "plain.warc.wet.gz").write_bytes(b"no gzip")
    first = tmp_path / "in" / "part-0.warc.wet.gz"
    first.write_bytes(first.read_bytes()[:-50])
    counts = build_recipe(recipe("paper"), [str(tmp_path / "in" / "*")], tmp_path / "out")
    assert counts["pages read"] == len(MADE) - 1
    assert counts["not read: gzip member that was cut"] == 1
    assert counts["not read: damaged gzip member"] == 1
    assert counts["not read: file that is no gzip"] == 1
    account = json.loads((tmp_path / "out" / "account.json").read_text())
    assert account["first not read"]["file that is no gzip"].endswith("plain.warc.wet.gz")
    assert len(account["inputs"]) == 4
    assert all(len(one["xxh3"]) == 32 for one in account["inputs"])


def test_what_breaks_a_texts_file_is_told_by_workers_too(tmp_path: Path):
    """JSON lines are strict: a cut line stops the build, in one line that names it, and nothing is left half-made."""
    for i in range(3):
        (tmp_path / f"{i}.jsonl").write_text('{"text": "One."}\n{"text": "cut' if i else '{"text": "One."}\n')
    for workers in (1, 2):
        with pytest.raises(UserError, match=r"1\.jsonl: line 2: found invalid JSON|2\.jsonl: line 2") as error:
            build_recipe(recipe("3.1.0"), [str(tmp_path / "*.jsonl")], tmp_path / "out", Local(workers))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_and_the_build_goes_on_later(built: dict[str, Path], tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE, 2, seed=9)
    command = [sys.executable, "-m", "t5study", "corpus", "build", "--recipe", "own", "--skip", "language"]
    command += ["--input", pattern, "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=small)
    assert done.returncode == 74, done.stderr
    assert "make room and run the same command again" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "out") == bytes_of(built["paper"])


def test_every_reject_is_kept_on_request(tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE, 2)
    counts = build_recipe(recipe("paper"), [pattern], tmp_path / "out", rejects=True)
    rows = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    by_reason = Counter(row["reason"] for row in rows)
    assert by_reason["too few new sentences"] == counts["too few new sentences"] > 0
    assert by_reason["curly bracket"] >= counts["curly bracket"] > 0  # of pages that lose their URL too


def test_an_estimate_is_near_what_is_there(tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE, 3)
    cost = estimate(recipe("paper"), [pattern], seconds=0.5)
    whole = sum(len(record(page)) for page in MADE)
    assert cost.files == 3
    assert 0.7 < cost.unpacked / whole < 1.4
    assert 0 < cost.hours < 0.1
    assert cost.disk > 0


# --- recipes ------------------------------------------------------------------------------------------------------


def test_unfiltered_keeps_lines_and_copies(tmp_path: Path):
    pattern = write_shards(tmp_path / "in", MADE, 2)
    bare = replace(make_recipe("unfiltered", "3.1.0"), profile=recipe("3.1.0").profile)
    counts = build_recipe(replace(bare, profile=replace(bare.profile, bad_words=None)), [pattern], tmp_path / "out")
    texts = list(read_documents(tmp_path / "out"))
    assert any("Log in to read more" in text for text in texts)
    assert counts["documents"] + counts["held out"] == len({normalise_url(page.url) for page in MADE})


def test_own_text_without_urls_loses_no_page_to_a_namesake(tmp_path: Path):
    """Lines of files of one name in two folders have one "URL"; only what they say tells them apart."""
    texts = [page.text for page in MADE if page.text.count("\n") > 8][:20]
    for i, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        rows = [json.dumps({"text": text}) for text in texts[i::2]]
        (tmp_path / folder / "x.jsonl").write_text("\n".join(rows) + "\n")
    counts = build_recipe(
        make_recipe("own", "3.1.0", skip=["language", "dedup"]), [str(tmp_path / "*" / "x.jsonl")], tmp_path / "out"
    )
    assert counts["pages read"] == 20
    assert counts["documents"] + counts["held out"] + counts.get("curly bracket", 0) == 20
    assert "same URL" not in counts


def test_books_and_own_text_beside_each_other(tmp_path: Path):
    (tmp_path / "book.txt").write_text("A book as it is.\n\n    With its own lines")
    (tmp_path / "more.jsonl").write_text('{"text": "Another."}\n')
    build_recipe(make_recipe("wikipedia"), [str(tmp_path / "*.*")], tmp_path / "out")
    assert sorted(read_documents(tmp_path / "out")) == ["A book as it is.\n\n    With its own lines", "Another."]
