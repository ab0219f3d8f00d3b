"""The embedded corpus: the documentation inside Python as pages of plain text, a module a page.

What stays is prose: summaries, descriptions, entries of parameters, a line with each object's name and signature.
Examples, formulas, code and drawn lines go, and so does a paragraph that was said before.

Modules that tasks are validated on (`pydocs.split`) have no page, and since packages repeat themselves and each other,
a sentence goes from every other page too if its first 40 characters begin any sentence of theirs. So no long sentence
of a validation record, nor the beginning of one, is ever trained on; tests/corpus/test_pydocs.py proves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import xxhash

from t5study import pydocs
from t5study.corpus.page import Drops, Page
from t5study.docstrings import LONG, SENTENCE_END, Documented, plain, prose_of, sentences

RULES = 1  # raise it when the same records give other pages
_REPEATED = 80  # a paragraph of so many characters is kept once


@dataclass(frozen=True)
class PydocsValue:
    """What decides every byte of the pages: package versions, how they are read, what is kept."""

    versions: tuple[tuple[str, str], ...]
    reading: int = pydocs.READING
    rules: int = RULES


@dataclass(frozen=True)
class Pydocs:
    """The corpus of this machine's packages. value: what enters fingerprints."""

    value: PydocsValue

    def pages(self, drops: Drops | None = None) -> Iterator[Page]:
        """Reads the packages (about ten seconds on two cores, once a process), then yields a page a module. None is
        empty, so nothing is counted in `drops`."""
        return pages_of(pydocs.records(), pydocs.topics())


def here() -> Pydocs:
    """The embedded corpus of this machine. Costs nothing until its pages are asked for."""
    return Pydocs(PydocsValue(pydocs.versions()))


def pages_of(records: Sequence[Documented], topics: Sequence[Documented] = ()) -> Iterator[Page]:
    """Pages of the training modules among `records`, then of the topics, in their order, validation kept out."""
    held = _held_back(records)
    train = [record for record in records if pydocs.split(record.module) == "train"]
    said: set[int] = set()
    for module, group in groupby([*train, *topics], key=lambda record: record.module):
        objects = [lines for record in group if (lines := _lines(record, said))]
        if text := "\n\n".join("\n".join(lines) for lines in _kept(objects, held)):
            yield Page(text, f"pydocs:{module}")


# --- a record -> lines of prose ---------------------------------------------------------------------------------

_LITERAL = re.compile(
    r"\.\. (?:math|code|code-block|sourcecode|plot|doctest|ipython|testcode|highlight|image|figure)::"
)
_DIRECTIVE = re.compile(r"\.\.(?: [\w:-]+::)?\s*(.*)$")
_ALONE = re.compile(r"(?:Examples?|References|Notes?|See Also|Args|Arguments|Parameters|Returns|Raises):?")
_DRAWN = re.compile(r"([^\w\s])\1{3,}")
_NO_LETTER = re.compile(r"[^\w\s]|[\d_]")


def _lines(record: Documented, said: set[int]) -> list[str]:
    """The name with its signature, the summary, each paragraph of the body; none if nothing new is said."""
    told = []
    for one in [plain(record.summary.partition(">>>")[0]), *paragraphs(record.body)]:
        if len(one) >= _REPEATED:
            key = xxhash.xxh3_64_intdigest(one.encode())
            if key in said:
                continue
            said.add(key)
        if one:
            told.append(one)
    head = f"{record.name}{plain(record.signature)}" if record.kind in ("function", "class") else ""
    return [head, *told] if head and told else told


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of reStructuredText as plain lines, without examples, formulas, literal blocks, underlines, tables.

    >>> list(paragraphs("Say::\\n\\n    x = 1\\n\\nNotes\\n-----\\nIt is\\nwell.\\n\\nExample:\\n>>> f()\\n1"))
    ['Say:', 'Notes It is well.']
    """
    literal = None  # the indentation of what opened a literal block, while inside it
    for block in re.split(r"\n[ \t]*\n", text):
        kept: list[str] = []
        for line in block.split("\n"):
            bare = line.strip()
            indent = len(line) - len(line.lstrip())
            if literal is not None and indent > literal:
                continue
            literal = None
            if bare.startswith(">>>"):
                break
            if _LITERAL.match(bare):
                literal = indent
            elif bare.startswith(".."):
                rest = _DIRECTIVE.sub(r"\1", bare)
                kept += [rest] if len(rest.split()) > 3 else []
            elif len(bare) - bare.count(" ") > 2 * len(_NO_LETTER.findall(bare)):
                kept.append(bare)
        if kept and kept[-1].endswith("::"):
            literal = len(block) - len(block.lstrip(" "))
            kept[-1] = kept[-1][:-1]
        if (line := plain(_DRAWN.sub(" ", " ".join(kept)))) and not _ALONE.fullmatch(line):
            yield line


# --- keeping validation out -------------------------------------------------------------------------------------


def _held_back(records: Iterable[Documented]) -> _Held:
    """Hashes of the first 40 characters of every long sentence of every validation record, however it may be
    rendered: alone, after its summary, as an entry of a parameter."""
    begins: set[str] = set()
    for record in records:
        if pydocs.split(record.module) == "validation":
            summary, prose = plain(record.summary), prose_of(record.body)
            whole = f"{summary} {plain(record.body)}"
            told = [summary, prose, f"{summary} {prose}", whole, f"{record.name}{plain(record.signature)}"]
            told += [*paragraphs(record.body), *_from_each_line(record.body)]
            for one in record.parameters:
                told += [plain(one.type), plain(one.text), f"{one.name} : {plain(one.type)} {plain(one.text)}"]
            begins |= {one[:LONG] for text in told for one in sentences(text)}
    assert all(len(one) == LONG for one in begins)
    return _Held(_windows(" ".join(sorted(begins)))[:: LONG + 1])


def _from_each_line(body: str) -> Iterator[str]:
    """A body from each of its lines on, for a few lines: a sentence may begin under a heading or in an entry."""
    for block in re.split(r"\n[ \t]*\n", body):
        lines = block.split("\n")
        yield from (plain(" ".join(lines[i : i + 4])) for i in range(len(lines)))


def _kept(objects: list[list[str]], held: _Held) -> list[list[str]]:
    """Objects of a page without the sentences that touch 40 characters which validation holds. What is left is looked
    at again, since two sentences can come to stand side by side."""
    parts = [[SENTENCE_END.split(line) for line in lines] for lines in objects]
    while True:
        flat = [(i, j, k) for i, lines in enumerate(parts) for j, line in enumerate(lines) for k in range(len(line))]
        lowered = [parts[i][j][k].lower() for i, j, k in flat]
        text = " ".join(lowered)
        at = held.where(_windows(text))
        if not len(at):
            return [told for lines in parts if (told := [" ".join(line) for line in lines if line])]
        start = np.concatenate([[0], np.cumsum([len(one) + 1 for one in lowered])])
        first = np.searchsorted(start, at, side="right") - 1
        last = np.searchsorted(start, at + LONG - 1, side="right") - 1
        gone = {flat[n] for a, b in zip(first, last, strict=True) for n in range(a, b + 1)}
        parts = [
            [[one for k, one in enumerate(line) if (i, j, k) not in gone] for j, line in enumerate(lines)]
            for i, lines in enumerate(parts)
        ]


def _windows(text: str) -> np.ndarray:
    """A 64-bit hash of every 40 characters in a row: polynomial, by differences of running sums. Shape (len - 39,)."""
    if len(text) < LONG:
        return np.zeros(0, np.uint64)
    codes_N = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64) + np.uint64(1)
    powers, inverses = _powers((len(codes_N) - 1).bit_length())
    sums_N = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes_N * powers[: len(codes_N)])])
    windows_N = sums_N[LONG:] - sums_N[:-LONG]
    return windows_N * inverses[: len(windows_N)]


@lru_cache(maxsize=32)
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """2^bits powers of an odd number and of its inverse, modulo 2^64."""
    base = 0x9E3779B97F4A7C15
    powers = [np.full(1 << bits, one, np.uint64) for one in (base, pow(base, -1, 1 << 64))]
    for one in powers:
        one[0] = 1
        np.multiply.accumulate(one, out=one)
    return powers[0], powers[1]


class _Held:
    """A set of hashes that arrays are looked up in. A table of their first bits spares most of them the search."""

    def __init__(self, hashes_M: np.ndarray):
        self._sorted_M = np.sort(hashes_M)
        self._first = np.zeros(1 << 20, np.bool_)
        self._first[hashes_M >> np.uint64(44)] = True

    def __len__(self) -> int:
        return len(self._sorted_M)

    def where(self, values_N: np.ndarray) -> np.ndarray:
        """Positions of the values that are in the set."""
        at = np.flatnonzero(self._first[values_N >> np.uint64(44)])
        if not len(at):
            return at
        found = np.searchsorted(self._sorted_M, values_N[at])
        return at[self._sorted_M[np.minimum(found, len(self) - 1)] == values_N[at]]
