"""What C4 does not say twice: "we discarded all but one of any three-sentence span occurring more than once in the data
set" (section 2.2). The profile `paper` does that, within a line; every later version compares whole lines.

    windows(text)              the spans of a page as keys that compare equal where the official code compares equal
    spans(text)                the same, and how many sentences each line has, so that they are split once only
    lost(keys, owned)          which of them go, given for each whether this page owns it
    without(page, lost)        the page without them, or why it goes

A span's owner is the page whose address has the smallest md5 (`url_key`), so that pages can be compared in any order
and any number of parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from t5study.corpus.page import Drop, Page, dropped
from t5study.corpus.profiles import Profile
from t5study.corpus.sentences import count_sentences, sentences

_WINDOW = 3
_ONLY_MARKS = frozenset('.?!"')


def windows(text: str, profile: Profile) -> list[str]:
    """Keys of a page's spans, in order. A span that is never compared (sentences of one mark each) is "".

    "line": lines between newlines, stripped and lower-cased. "window": for each line, three sentences at a time; a
    line of fewer is one span.
    """
    return spans(text, profile)[0]


def spans(text: str, profile: Profile) -> tuple[list[str], list[int]]:
    """`windows`, and the number of sentences of each line: negative where the line is not just these sentences, one
    space apart. None are told for "line", which need not be split."""
    if profile.span == "line":
        return [_folded(line, profile) for line in text.split("\n")], []
    keys: list[str] = []
    sizes = []
    for line in text.splitlines():
        said = sentences(line, profile.punkt)
        keys += _window_keys(said)
        sizes.append(len(said) if " ".join(said) == line else -len(said))
    return keys, sizes


def _folded(line: str, profile: Profile) -> str:
    """2.2.0 stripped and lower-cased bytes: ASCII white space and ASCII letters."""
    if profile.fold == "ASCII":
        return line.encode().strip().lower().decode()
    return line.strip().lower()


def _window_keys(line: Sequence[str]) -> list[str]:
    low = [one.lower() for one in line]
    starts = range(max(len(low) - _WINDOW, 0) + 1)
    spans = [low[i : i + _WINDOW] for i in starts]
    return ["" if _ONLY_MARKS.issuperset(span) else "\n".join(span) for span in spans]


def lost(keys: Sequence[str], owned: Sequence[bool], profile: Profile) -> set[int]:
    """Positions of the spans that go from a page. owned: for each, whether this page is its owner."""
    times = Counter(keys)
    gone, seen = set(), set()
    for at, (key, own) in enumerate(zip(keys, owned, strict=True)):
        again = key in seen
        seen.add(key)
        if profile.span == "window" and not key:
            continue
        if not own or (profile.repeats == "first stays" and again) or (profile.repeats == "all go" and times[key] > 1):
            gone.add(at)
    return gone


def without(
    page: Page, gone: Collection[int], profile: Profile, counts: Counter[str] | None = None, sizes: Sequence[int] = ()
) -> Page | Drop:
    """A page without the spans at these positions of `windows`, if three sentences are left. sizes: what `spans` says
    of its lines; then only those are split again that lose some.

    "line": Punkt reads the lines as one text, in which a newline is white space like any other; a page can fail this
    with nothing gone. "window": the sentences that are left are counted, and those of a line joined by one space.
    """
    counts = Counter() if counts is None else counts
    if profile.span == "window":
        return _without_windows(page, gone, profile, counts, sizes)
    lines = page.text.split("\n")
    kept = [line for at, line in enumerate(lines) if at not in gone]
    if gone:
        counts["line: said before"] += len(lines) - len(kept)
    text = "\n".join(kept) if gone else page.text
    if count_sentences(text, profile.sentences, profile.punkt) < profile.sentences:
        return dropped("too few new sentences", counts)
    return replace(page, text=text)


def _without_windows(
    page: Page, gone: Collection[int], profile: Profile, counts: Counter[str], sizes: Sequence[int]
) -> Page | Drop:
    texts = page.text.splitlines()
    at = left = 0
    lines = []
    for text, size in zip(texts, sizes or [-1] * len(texts), strict=True):
        if size > 0:
            starts = max(size - _WINDOW, 0) + 1
            if not gone or not any(i in gone for i in range(at, at + starts)):
                lines.append(text)
                left += size
                at += starts
                continue
        line = sentences(text, profile.punkt)
        starts = max(len(line) - _WINDOW, 0) + 1
        out = {j for i in range(starts) if at + i in gone for j in range(i, min(i + _WINDOW, len(line)))}
        at += starts
        if out:
            counts["sentence: said before"] += len(out)
        if kept := [one for i, one in enumerate(line) if i not in out]:
            lines.append(" ".join(kept))
            left += len(kept)
    if left < profile.sentences:
        return dropped("too few new sentences", counts)
    return replace(page, text="\n".join(lines))
