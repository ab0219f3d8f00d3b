"""A corpus: from WET.gz to clean English pages, one process, beside the official functions and datatrove in one run.

    T5STUDY_C4_WHEELS=.venv/c4-wheels T5STUDY_DATATROVE=PYTHON python bench/corpus.py      (after `make parity-c4`)

Pages of our own making (tests/web_pages.py), a gzip member a record. MB are of unpacked WET bytes. The clock is the
process's time, since cores may be shared; contenders take turns, a speed is the best of the turns and a ratio the
median of the turns' ratios. The chain is reading, page rules, keys of lines, second count of sentences, language, bad
words, profile 3.1.0: all but the global minimum, which has a row of its own. Then each step alone, on what the steps
before it left, for two profiles: where the time goes.

PYTHON is one that has datatrove[io,processing], spacy and langdetect; without it, this one if it has datatrove. What
is run of datatrove: bench/peers/datatrove_c4.py, a process that measures its own time. Who is not there is named.
Exits with 1 if the chain is under 12 times the official functions or 20 times datatrove, or dedup under 4 M rows/s.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from shared.c4_pages import all_through, made, seconds
from wet_pages import record, write_wet

from t5study.corpus import badwords, dedup
from t5study.corpus.badwords import bad_words, english
from t5study.corpus.language import identify
from t5study.corpus.page import Drops, Page
from t5study.corpus.pieces import batches
from t5study.corpus.profiles import PROFILES, Profile
from t5study.corpus.recipe_build import build_recipe
from t5study.corpus.recipes import make_recipe
from t5study.corpus.rules import clean
from t5study.corpus.rules_spans import lost, spans, without
from t5study.corpus.web import read_web
from t5study.ground.machine import describe

TURNS, PAGES, ROWS = 3, 600, 10_000_000
FEW = 80  # pages for the official functions and for datatrove, which are slow
PROFILE = PROFILES["3.1.0"]


def ours(path: Path, profile: Profile = PROFILE) -> list[Page]:
    """The pages that are kept, in batches as a build takes them."""
    found = (one for pages in batches(read_web(path, Drops())) for one in all_through(pages, profile))
    return [page for page in found if isinstance(page, Page)]


def steps(path: Path, profile: Profile) -> dict[str, float]:
    """Seconds of each step of the chain, each over all pages before the next begins."""
    took: dict[str, float] = {}

    def done(name: str, work: Callable[[], list[Any]]) -> list[Any]:
        start = time.process_time()
        out = work()
        took[name] = time.process_time() - start
        return out

    def left(found: list[Any]) -> list[Page]:
        return [page for page in found if isinstance(page, Page)]

    read = done("reading", lambda: list(read_web(path, Drops())))
    cleaned = left(done("page rules", lambda: [clean(page, profile) for page in read]))
    keys = done("keys of lines or windows", lambda: [spans(page.text, profile) for page in cleaned])
    gone = done("which are lost", lambda: [lost(one, [True] * len(one), profile) for one, _ in keys])
    three = [(page, out, sizes) for page, out, (_, sizes) in zip(cleaned, gone, keys, strict=True)]
    again = left(done("second count", lambda: [without(*one[:2], profile, sizes=one[2]) for one in three]))
    found = done("language", lambda: [identify(page.text) for page in again])
    english_ones = [page for page, (name, sure) in zip(again, found, strict=True) if name == "en" and sure >= 0.99]
    if profile.bad_words == "text":
        done("bad words", lambda: [bad_words(page.text, profile) for page in english_ones])
    return took


class Datatrove:
    """bench/peers/datatrove_c4.py, running."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process, self.errors = process, errors
        self.versions = self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise SystemExit("\n".join(["datatrove could not run:", *self.errors.read_text().splitlines()[-5:]]))
        return line.rstrip()

    def run(self, what: str) -> tuple[float, list[str]]:
        """Its seconds, the addresses it keeps."""
        assert self.process.stdin is not None
        print(what, file=self.process.stdin, flush=True)
        told = json.loads(self._line())
        return told["seconds"], told["kept"]


@contextmanager
def datatrove(folder: Path) -> Iterator[Datatrove | None]:
    python = os.environ.get("T5STUDY_DATATROVE") or (importlib.util.find_spec("datatrove") and sys.executable)
    if not python:
        yield None
        return
    peer, words = Path(__file__).parent / "peers" / "datatrove_c4.py", Path(badwords.__file__).parent
    errors = folder / "datatrove.txt"
    command = [python, str(peer), str(words / "bad_words_en.txt")]
    with (
        errors.open("w") as told,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, text=True) as process,
    ):
        yield Datatrove(process, errors)


def beside_datatrove(peer: Datatrove, folder: Path, some: list[Page]) -> float:
    """How many times as fast as datatrove the whole chain is."""
    first, path = folder / "first.warc.wet.gz", folder / "some.warc.wet.gz"
    write_wet(first, some[:4])
    write_wet(path, some[:FEW])
    size, whole = len(gzip.decompress(path.read_bytes())) / 1e6, 0.0
    print(f"{peer.versions}; the first {FEW} pages, {size:.2f} MB")
    for name, told, profile in (
        ("the chain", "", PROFILE),
        ("the chain without language", " without language", replace(PROFILE, language=None)),
    ):
        peer.run(f"{first}{told}")  # reads its tables
        ratios, speeds, kept = [], [], []
        for _ in range(TURNS):
            theirs, kept = peer.run(f"{path}{told}")
            ratios.append(theirs * 5 / seconds(lambda: [ours(path, profile) for _ in range(5)]))  # noqa: B023
            speeds.append(size / theirs)
        mine = {page.url for page in ours(path, profile)}
        both = len(mine.intersection(kept))
        ratio = statistics.median(ratios)
        whole = whole or ratio
        print(
            f"{name} is {ratio:.0f} times datatrove's ({statistics.median(speeds):.2f} MB/s); "
            f"it keeps {len(kept)} pages, ours {len(mine)}, both {both}"
        )
    return whole


def official(wheels: Path) -> tuple[Callable[[Path], list[str]], Callable[[Path], int]]:
    """The same by the functions of the wheel, and its reading alone."""
    from oracle import NLTK, Official

    sys.path.insert(0, str(wheels / f"nltk-{NLTK['3.1.0']}"))
    wheel = Official(wheels, "3.1.0", list(english().entries))
    utils, told = wheel.utils, {"counter_inc_fn": lambda *_, **__: None}

    class Gfile:
        GFile = staticmethod(open)

    class Io:
        gfile = Gfile

    vars(utils.tf)["io"] = Io

    def chain(path: Path) -> list[str]:
        utils.tfds.core.lazy_imports.langdetect.detect_langs.cache_clear()
        kept = []
        for page in utils.split_wet_file(str(path), **told):
            for cleaned in wheel._clean(page) if utils.is_valid_length(page) else ():
                hashes = [key for key, _ in utils._emit_url_to_lines(cleaned)]
                joined = (page.url, {"pages": [cleaned], "lines": hashes})
                for left in utils._remove_lines_from_text(joined, min_num_sentences=3, **told):
                    kept += [one.text for one in utils.detect_english(left) if wheel._filter(one)]
        return kept

    return chain, lambda path: sum(1 for _ in utils.split_wet_file(str(path), **told))


def main() -> int:
    print(f"{describe()}; one process; {TURNS} turns")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        some, path = made(PAGES), Path(folder) / "a.warc.wet.gz"
        write_wet(path, some)
        size = len(gzip.decompress(path.read_bytes())) / 1e6
        print(f"{PAGES} pages, {size:.1f} MB unpacked, {path.stat().st_size / 1e6:.1f} MB packed")
        (Path(folder) / "few.warc.wet.gz").write_bytes(b"".join(gzip.compress(record(page)) for page in some[:FEW]))
        kept = ours(path)  # compiles, reads the tables

        def row(name: str, work: Callable[[], Any]) -> float:
            took = min(seconds(work) for _ in range(TURNS))
            print(f"{name:44} {size / took:9.1f} MB/s {PAGES / took:11,.0f} pages/s", flush=True)
            return took

        row("reading, as lines", lambda: sum(1 for _ in read_web(path, Drops())))
        row("reading, by length", lambda: sum(1 for _ in read_web(path, Drops(), lengths=True)))
        row("chain", lambda: ours(path))
        built = iter(range(99))
        recipe = make_recipe("c4", "3.1.0")
        row("a whole build, with dedup and files", lambda: _quietly(recipe, path, Path(folder) / str(next(built))))
        print(f"{len(kept)} pages are kept")
        if wheels := os.environ.get("T5STUDY_C4_WHEELS"):
            chain, reading = official(Path(wheels))
            row("reading, the official functions", lambda: reading(path))
            few = Path(folder) / "few.warc.wet.gz"
            assert chain(few) == [page.text for page in ours(few)], "the same texts are kept"
            ratios = [
                seconds(lambda: chain(few)) * 5 / seconds(lambda: [ours(few) for _ in range(5)]) for _ in range(TURNS)
            ]
            ratio = statistics.median(ratios)
            print(f"the chain is {ratio:.1f} times the official functions; 12 are asked for")
            failed |= ratio < 12
        else:
            print("the official functions: SKIPPED, T5STUDY_C4_WHEELS is not set")
        with datatrove(Path(folder)) as peer:
            if peer:
                ratio = beside_datatrove(peer, Path(folder), some)
                print("20 times datatrove are asked for")
                failed |= ratio < 20
            else:
                print("datatrove: SKIPPED, not installed, and T5STUDY_DATATROVE names no Python that has it")
        for name in ("3.1.0", "paper"):
            print_steps(path, PROFILES[name])
    rate = _dedup_rate()
    failed |= rate < 4e6
    print(f"dedup: {rate / 1e6:.1f} M rows/s over {ROWS:,} rows, 45 % of them copies; 4 are asked for")
    return int(failed)


def print_steps(path: Path, profile: Profile) -> None:
    ours(path, profile)  # remembers contexts
    turns = [steps(path, profile) for _ in range(TURNS)]
    best = {name: min(turn[name] for turn in turns) for name in turns[0]}
    total = sum(best.values())
    print(f"where the time goes, {profile.name}: {1e6 * total / PAGES:.0f} microseconds a page")
    for name, took in best.items():
        print(f"    {name:40} {1e6 * took / PAGES:9.1f} {100 * took / total:6.0f} %", flush=True)


def _quietly(recipe: Any, path: Path, out: Path) -> None:
    from t5study.corpus.pace import Pace

    with open(os.devnull, "w") as nowhere:
        build_recipe(recipe, [str(path)], out, pace=Pace(out=nowhere))


def _dedup_rate() -> float:
    draw = np.random.default_rng(0)
    pool = draw.integers(0, 2**64, (ROWS * 3 // 4, 2), dtype=np.uint64)
    keys_N2 = np.ascontiguousarray(pool[draw.integers(0, len(pool), ROWS)])
    values_N2 = draw.integers(0, 2**64, (ROWS, 2), dtype=np.uint64)
    dedup.winners(keys_N2[:2], values_N2[:2])
    return ROWS / min(seconds(lambda: dedup.winners(keys_N2, values_N2)) for _ in range(TURNS))


if __name__ == "__main__":
    sys.exit(main())
