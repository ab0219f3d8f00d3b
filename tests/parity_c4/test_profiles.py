"""Every profile against the official functions of its wheel: the same pages, the same text, byte for byte.

Opt-in, since it installs wheels (without their dependencies): `make parity-c4`. T5STUDY_C4_WHEELS is the folder with
tfds-1.3.0, tfds-2.0.0, tfds-4.3.0, tfds-4.9.10, nltk-3.5 and nltk-3.9.1. What the official functions say is kept
there, by digest of the pages and of oracle.py, so that a second run takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from shared_data import SHARED
from web_pages import pages

from t5study.corpus.badwords import english
from t5study.corpus.language import identify
from t5study.corpus.page import Drop, Page
from t5study.corpus.profiles import PROFILES, Profile
from t5study.corpus.rules import clean, finish
from t5study.corpus.rules_spans import lost, spans, windows, without
from t5study.corpus.rules_url import normalise_url, url_key

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from shared_pages import crawled, hosted  # noqa: E402  beside this file

WHEELS = os.environ.get("T5STUDY_C4_WHEELS")
pytestmark = pytest.mark.skipif(WHEELS is None, reason="opt-in: make parity-c4")
MADE = int(os.environ.get("T5STUDY_C4_PAGES", "10000"))
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)

# Our counters -> theirs, in the two spellings that they had
COUNTERS = {
    "line: kept": ("lines-valid", "line-passed"),
    "line: no end mark": ("lines-no-endmark", "line-filtered:no_endmark"),
    "line: too few words": ("lines-too-short", "line-filtered:too_short"),
    "line: too long a word": ("lines-with-too-long-word", "line-filtered:too_long_word"),
    "line: javascript": ("lines-javascript", "line-filtered:javascript"),
    "line: policy": ("lines-policy", "line-filtered:policy"),
    "lorem ipsum": ("filtered-url-loremipsum", "filtered-page-loremipsum", "filtered:loremipsum"),
    "curly bracket": ("filtered-url-squigglybracket", "filtered-page-squigglybracket", "filtered:squigglybracket"),
    "bad word": ("filtered-url-badword", "filtered-page-badword"),
    "too few sentences": (
        "filtered-url-toofewsentences",
        "filtered-page-toofewsentences",
        "filtered:too_few_sentences",
    ),
}


@lru_cache(maxsize=1)
def tried() -> list[Page]:
    real = [*hosted(SHARED), *crawled(SHARED)] if SHARED is not None else []
    return [*real, *pages(MADE)]


def official(made: list[Page], profile: str) -> list[dict[str, Any]]:
    """What the functions of the profile's wheel made of each page; run in a process of its own, once."""
    assert WHEELS is not None
    lines = [
        {"bad_words": english().entries},
        *({"url": one.url, "text": one.text, "time": one.timestamp} for one in made),
    ]
    told = "".join(json.dumps(line) + "\n" for line in lines)
    digest = hashlib.sha256(told.encode() + (HERE / "oracle.py").read_bytes()).hexdigest()[:16]
    folder = Path(WHEELS) / f"said-{digest}"
    if not (folder / f"{profile}.jsonl").exists():
        folder.mkdir(exist_ok=True)
        (folder / "pages.jsonl").write_text(told, "utf-8")
        # the three that share an NLTK share a process, so that langdetect is asked once
        named = [profile] if profile == "3.1.0" else ["paper", "2.2.0", "3.0.1"]
        command = [sys.executable, str(HERE / "oracle.py"), WHEELS, *named, str(folder / "pages.jsonl"), str(folder)]
        subprocess.run(command, check=True)
    return [json.loads(line) for line in (folder / f"{profile}.jsonl").read_text("utf-8").split("\n") if line]


def compare(profile: Profile, stage: str, found: list[Any], expected: list[Any], made: list[Page]) -> None:
    """Fails with the number of pages that differ and the first of them."""
    different = [at for at, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    if different:
        at = different[0]
        pytest.fail(
            f"profile {profile.name}, {stage}: {len(different)} of {len(found)} pages differ, the first is page {at}, "
            f"{made[at].url}:\nofficial {str(expected[at])[:2000]!r}\nhere     {str(found[at])[:2000]!r}"
        )


def text_of(page: Page | Drop | None) -> str | None:
    return page.text if isinstance(page, Page) else None


@every_profile
def test_every_stage_leaves_what_the_official_functions_leave(profile: Profile):
    made = tried()
    expected = official(made, profile.name)
    placed = [replace(page, url=normalise_url(page.url, profile)) for page in made]
    compare(profile, "addresses", [page.url for page in placed], [row["url"] for row in expected], made)

    counts = [Counter() for _ in made]
    cleaned = [clean(page, profile, one) for page, one in zip(placed, counts, strict=True)]
    compare(profile, "page rules", [text_of(page) for page in cleaned], [row["clean"] for row in expected], made)
    ours = [{theirs for theirs in COUNTERS.items() if one[theirs[0]]} for one in counts]
    told = [{name: one[name] for name in COUNTERS if one[name]} for one in counts]
    official_counts = [
        {
            name: number
            for name, theirs in COUNTERS.items()
            if (number := sum(row["counts"].get(one, 0) for one in theirs))
        }
        for row in expected
    ]
    assert sum(map(len, ours)) > len(made)
    compare(profile, "counters", told, official_counts, made)

    taken = [page if row["taken"] else None for page, row in zip(cleaned, expected, strict=True)]
    owners: dict[str, bytes] = {}
    for page in taken:
        if isinstance(page, Page):
            for key in windows(page.text, profile):
                owners[key] = min(owners.get(key, b"\xff" * 17), url_key(page.url))

    def apart(page: Page | Drop | None) -> Page | Drop | None:
        if not isinstance(page, Page):
            return page
        keys, sizes = spans(page.text, profile)
        gone = lost(keys, [owners[key] == url_key(page.url) for key in keys], profile)
        return without(page, gone, profile, sizes=sizes)

    left = [apart(page) for page in taken]
    compare(profile, "deduplication", [text_of(page) for page in left], [row["left"] for row in expected], made)
    kept = [isinstance(page, Page) and isinstance(finish(page, profile), Page) for page in left]
    compare(profile, "language and bad words", kept, [row["kept"] for row in expected], made)
    passed, new = (sum(row[stage] is not None for row in expected) for stage in ("clean", "left"))
    print(
        f"\n{profile.name}: {len(made)} pages equal; {passed} pass the page rules, {new} deduplication, {sum(kept)} all"
    )
    assert 0 < sum(kept) < sum(page is not None for page in left)


@every_profile
def test_language_is_langdetect_s_on_every_text_that_gets_that_far(profile: Profile):
    rows = [row for row in official(tried(), profile.name) if row["left"] is not None]
    for row in rows:
        language, probability = identify(row["left"])
        assert (language, probability) == (row["language"][0], pytest.approx(row["language"][1], abs=1e-9)), row["url"]


def test_the_golden_decisions_are_the_official_ones():
    from corpus.test_rules import GOLDEN, one_of_each_url

    made = one_of_each_url(pages(250))

    def cell(row: dict[str, Any]) -> str:
        if row["clean"] is None:
            return "-"
        texts = [row["clean"], row["left"]]
        marks = ["-" if text is None else hashlib.md5(text.encode()).hexdigest()[:8] for text in texts]
        return "/".join(marks) + ("+" if row["kept"] else "")

    columns = [[cell(row) for row in official(made, name)] for name in PROFILES]
    found = ["\t".join(row) for row in zip(*columns, strict=True)]
    golden = [line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    assert found == golden, f"write these lines under the heading of {GOLDEN}: {found}"
