"""C4's rules: megabytes and pages a second of one thread, beside the official functions and langdetect in the same run.

    T5STUDY_C4_WHEELS=.venv/c4-wheels python bench/rules.py      (after `make parity-c4`)

Pages of our own making (tests/web_pages.py), about 4 kB each. The clock is the process's time, since cores may be
shared. A speed is the best of the turns; contenders take turns on the same pages, and a ratio is the median of the
turns' ratios. Without the wheels only langdetect is beside, which is said. Exits with 1 if the page rules are under
50 MB/s, language identification under 40 times langdetect, or the chain under 12 times the official functions.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from shared.c4_pages import made, seconds, through

from t5study.corpus.badwords import bad_words, english
from t5study.corpus.language import identify
from t5study.corpus.page import Page
from t5study.corpus.profiles import PROFILES, Profile
from t5study.corpus.rules import clean
from t5study.corpus.sentences import count_sentences, sentences
from t5study.ground.machine import describe

TURNS = 5
PROFILE = PROFILES["3.1.0"]


def each_cleaned(some: list[Page], profile: Profile) -> None:
    for page in some:
        clean(page, profile)


def ours(page: Page) -> bool:
    """Whether the chain keeps a page."""
    return isinstance(through(page, PROFILE), Page)


def theirs(wheels: str) -> Callable[[Page], bool]:
    """The same by the functions of the wheel, langdetect's answers not remembered."""
    from oracle import NLTK, Official

    sys.path.insert(0, str(Path(wheels) / f"nltk-{NLTK['3.1.0']}"))
    official = Official(Path(wheels), "3.1.0", list(english().entries))
    utils, told = official.utils, {"counter_inc_fn": lambda *_, **__: None, "min_num_sentences": 3}

    def chain(page: Page) -> bool:
        utils.tfds.core.lazy_imports.langdetect.detect_langs.cache_clear()
        text = official.clean(official.page(page.url, page.text, page.timestamp))
        if text is None:
            return False
        cleaned = official.page(page.url, text)
        hashes = [key for key, _ in utils._emit_url_to_lines(cleaned)]
        left = list(utils._remove_lines_from_text((page.url, {"pages": [cleaned], "lines": hashes}), **told))
        return any(official._filter(one) for kept in left for one in utils.detect_english(kept))

    return chain


def main() -> int:
    print(f"{describe()}; one thread; speeds are the best of {TURNS} turns, ratios their median")
    some = made(400)
    size = sum(len(page.text.encode()) for page in some) / 1e6
    cleaned = [page for one in some if isinstance(page := clean(one, PROFILE), Page)]
    texts = [page.text for page in cleaned]
    clean_size = sum(len(text.encode()) for text in texts) / 1e6
    each, each_clean = 1000 * size / len(some), 1000 * clean_size / len(texts)
    print(f"{len(some)} pages of {each:.1f} kB; {len(texts)} cleaned, {each_clean:.1f} kB")
    for text in texts:  # compiles, reads the tables, remembers contexts
        identify(text)
    failed = False

    def row(name: str, work: Callable[[], object], megabytes: float, documents: int) -> float:
        took = min(seconds(work) for _ in range(TURNS))
        print(f"{name:44} {megabytes / took:9.1f} MB/s {documents / took:11,.0f} pages/s")
        return megabytes / took

    rules = row("page rules, 3.1.0", lambda: [clean(page, PROFILE) for page in some], size, len(some))
    failed |= rules < 50
    for name in ("paper", "2.2.0"):
        row(f"page rules with bad words, {name}", partial(each_cleaned, some, PROFILES[name]), size, len(some))
    row("three sentences or not", lambda: [count_sentences(text, 3) for text in texts], clean_size, len(texts))
    row("all sentences", lambda: [sentences(text) for text in texts], clean_size, len(texts))
    row("bad words, 3.1.0", lambda: [bad_words(text, PROFILE) for text in texts], clean_size, len(texts))
    row("language identification", lambda: [identify(text) for text in texts], clean_size, len(texts))

    print("in turns, on the same pages:")
    from oracle import guess

    few = texts[:60]
    asked = [[f"{text} {turn}" for text in few] for turn in range(TURNS)]  # it remembers what it was asked before
    ratio = statistics.median(
        seconds(partial(list, map(guess, one))) / seconds(lambda: [identify(text) for text in few * 10]) * 10
        for one in asked
    )
    failed |= ratio < 40
    print(f"language identification is {ratio:.0f} times langdetect")
    if wheels := os.environ.get("T5STUDY_C4_WHEELS"):
        chain, first = theirs(wheels), some[:80]
        assert [chain(page) for page in first] == [ours(page) for page in first], "the same pages are kept"
        ratio = statistics.median(
            seconds(lambda: [chain(page) for page in first]) / seconds(lambda: [ours(page) for page in first * 5]) * 5
            for _ in range(TURNS)
        )
        failed |= ratio < 12
        took = min(seconds(lambda: [ours(page) for page in some]) for _ in range(TURNS))
        print(f"the chain is {ratio:.1f} times the official functions ({size / took:.1f} MB/s); 12 are asked for")
    else:
        print("the official functions: SKIPPED, T5STUDY_C4_WHEELS is not set")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
