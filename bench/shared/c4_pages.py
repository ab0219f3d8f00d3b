"""Pages for the benches of C4's rules, and the chain that they go through one by one.

The makers of pages and the official functions' oracle are the tests': importing this makes theirs importable.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "parity_c4"))

from web_pages import pages

from t5study.corpus.page import Drop, Page
from t5study.corpus.profiles import Profile
from t5study.corpus.rules import clean, finish, in_language, without_bad_words
from t5study.corpus.rules_spans import lost, spans, without


def made(count: int) -> list[Page]:
    """About 4 kB each, of our own making."""
    draw = random.Random(1)
    parts = [page.text for page in pages(4 * count, seed=1) if len(page.text) < 20_000]
    return [Page("\n".join(draw.sample(parts, 3)), f"http://example.com/{i}", "2019-04-20") for i in range(count)]


def seconds(work: Callable[[], object]) -> float:
    """Processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def through(page: Page, profile: Profile) -> Page | Drop:
    """A page by itself through all rules: page rules, keys of its spans, second count, language, bad words."""
    found = clean(page, profile)
    if isinstance(found, Page):
        keys, sizes = spans(found.text, profile)
        found = without(found, lost(keys, [True] * len(keys), profile), profile, sizes=sizes)
    if isinstance(found, Page):
        known = found if profile.language else replace(found, language="en")  # else bad words are not looked for
        found = finish(known, profile)
    return found


def all_through(pages: Sequence[Page], profile: Profile) -> list[Page | Drop]:
    """The same of a batch of pages, each step over all of them before the next, as a build takes them."""
    counts = Counter[str]()
    found: list[Page | Drop] = [clean(page, profile) for page in pages]
    told = [spans(one.text, profile) if isinstance(one, Page) else ([], []) for one in found]
    gone = [lost(keys, [True] * len(keys), profile) for keys, _ in told]
    found = [
        without(one, out, profile, counts, sizes) if isinstance(one, Page) else one
        for one, out, (_, sizes) in zip(found, gone, told, strict=True)
    ]
    if profile.language is None:  # else bad words are not looked for
        found = [replace(one, language="en") if isinstance(one, Page) else one for one in found]
    found = [in_language(one, profile, counts) if isinstance(one, Page) else one for one in found]
    return [without_bad_words(one, profile, counts) if isinstance(one, Page) else one for one in found]
