"""A corpus: from WET.gz to clean English pages, one process, beside the official functions in the same run.

    T5STUDY_C4_WHEELS=.venv/c4-wheels python bench/corpus.py      (after `make parity-c4`)

Pages of our own making (tests/web_pages.py), a gzip member a record. MB are of unpacked WET bytes. The clock is the
process's time, since cores may be shared; contenders take turns, a speed is the best of the turns and a ratio the
median of the turns' ratios. The chain is reading, page rules, keys of lines, second count of sentences, language, bad
words, profile 3.1.0: all but the global minimum, which has a row of its own. Without the wheels ours stands alone,
which is said.
Exits with 1 if the chain is under 12 times the official functions, or dedup under 4 M rows/s.
"""

from __future__ import annotations

import gzip
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity_c4"))

from web_pages import pages
from wet_pages import record, write_wet

from t5study.corpus import dedup
from t5study.corpus.badwords import english
from t5study.corpus.page import Drops, Page
from t5study.corpus.profiles import PROFILES
from t5study.corpus.recipe_build import build_recipe
from t5study.corpus.recipes import make_recipe
from t5study.corpus.rules import clean, finish
from t5study.corpus.rules_spans import lost, windows, without
from t5study.corpus.web import read_web
from t5study.ground.machine import describe

TURNS, PAGES, ROWS = 3, 600, 10_000_000
PROFILE = PROFILES["3.1.0"]


def made() -> list[Page]:
    """About 4 kB each, as bench/rules.py has them."""
    draw = random.Random(1)
    parts = [page.text for page in pages(4 * PAGES, seed=1) if len(page.text) < 20_000]
    return [Page("\n".join(draw.sample(parts, 3)), f"http://example.com/{i}", "2019-04-20") for i in range(PAGES)]


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ours(path: Path) -> list[str]:
    """Texts of the pages that are kept."""
    kept = []
    for page in read_web(path, Drops()):
        found = clean(page, PROFILE)
        if isinstance(found, Page):
            keys = windows(found.text, PROFILE)
            found = without(found, lost(keys, [True] * len(keys), PROFILE), PROFILE)
        if isinstance(found, Page) and isinstance(found := finish(found, PROFILE), Page):
            kept.append(found.text)
    return kept


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
        some, path = made(), Path(folder) / "a.warc.wet.gz"
        write_wet(path, some)
        size = len(gzip.decompress(path.read_bytes())) / 1e6
        print(f"{PAGES} pages, {size:.1f} MB unpacked, {path.stat().st_size / 1e6:.1f} MB packed")
        (Path(folder) / "few.warc.wet.gz").write_bytes(b"".join(gzip.compress(record(page)) for page in some[:80]))
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
            assert chain(few) == ours(few), "the same texts are kept"
            ratios = [
                seconds(lambda: chain(few)) * 5 / seconds(lambda: [ours(few) for _ in range(5)]) for _ in range(TURNS)
            ]
            ratio = statistics.median(ratios)
            print(f"the chain is {ratio:.1f} times the official functions; 12 are asked for")
            failed |= ratio < 12
        else:
            print("the official functions: SKIPPED, T5STUDY_C4_WHEELS is not set")
    rate = _dedup_rate()
    failed |= rate < 4e6
    print(f"dedup: {rate / 1e6:.1f} M rows/s over {ROWS:,} rows, 45 % of them copies; 4 are asked for")
    return int(failed)


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
