"""A build as a table of tasks: pure functions from files to files, each of which writes a folder whole or not at all.

    read     an input file -> pieces: its pages after the rules of single pages, a row a URL, a row a span
    urls     a range of URL hashes -> which page of each URL is taken
    spans    a piece -> its winners among the spans of the pages taken
    least    a range of span hashes -> which winners win over all pieces
    finish   a piece -> documents: without what others say, through the last rules, in the corpus's order
    write    a share of that order -> documents-*.parquet; the last one writes what is held out

Nothing passes between tasks but what lies on disk, so they run in one process, in many, on many machines that share a
folder, in any order within a stage; a killed task leaves nothing behind that is believed.

Memory of a task: `read`, `spans` and `finish` hold a piece (pieces.py: at most 2**27 characters of text and 2**22 spans
of 60 bytes); `urls` and `least` a range of hashes (Job.memory); `write` a share (SHARE characters).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from t5study.corpus import dedup
from t5study.corpus.job import Job, pieces, place, ranges, sent, whole
from t5study.corpus.page import Drop, Drops, Page, dropped
from t5study.corpus.pieces import PAGES, Piece, Table, as_bytes, batches
from t5study.corpus.read import read_file
from t5study.corpus.recipes import by_lists
from t5study.corpus.samples import Samples
from t5study.ground.store import digest_file, read_json, write_json

STAGES = ("read", "urls", "spans", "least", "finish", "write")
SHARE = 1 << 28  # characters of a documents-*.parquet
_DOCUMENTS = pa.schema([*PAGES, ("order", pa.uint64()), ("held", pa.bool_())])
SCHEMA = pa.schema([("text", pa.large_string()), ("url", pa.string()), ("timestamp", pa.string())])


@dataclass(frozen=True)
class Done:
    """What a task has done, for progress: pages or rows, and bytes of input."""

    stage: str
    task: int
    pages: int
    bytes: int


def run_task(job: Job, stage: str, task: int) -> Done:
    """Runs one task, unless its folder is there. UserError as the readers say."""
    folder = place(job, stage, task)
    if not folder.is_dir():
        with whole(folder) as work:
            _STAGES[stage](job, task, work)
    facts = read_json(folder / "done.json")
    return Done(stage, task, facts["pages"], facts["bytes"])


def tasks(job: Job, stage: str) -> int:
    """How many tasks a stage has. What stages before it wrote must be there."""
    recipe = job.recipe
    match stage:
        case "read":
            return len(job.inputs)
        case "urls":
            return len(ranges(job, "urls")) if recipe.one_url else 0
        case "spans":
            return len(pieces(job)) if recipe.dedup else 0
        case "least":
            return len(ranges(job, "spans")) if recipe.dedup else 0
        case "finish":
            return len(pieces(job))
        case _:
            return shares(job) + 1


# --- read ---------------------------------------------------------------------------------------------------------


def _read(job: Job, task: int, work: Path) -> None:
    source, drops, counts = job.inputs[task], Drops(), Counter[str]()
    known, samples = by_lists(job.recipe, job.folder), Samples(job.rejects)
    number, read, characters = 0, 0, 0
    piece = Piece(job.recipe, work / "0000")
    for pages in batches(read_file(source.path, drops, job.lengths)):
        read += len(pages)
        characters += sum(len(page.text) for page in pages)
        admitted = []
        for page in pages:
            if reason := job.recipe.admits(page, known):
                counts[reason] += 1
                samples.add(reason, page)
            else:
                admitted.append(page)
        piece.add(admitted, samples)
        if piece.full:
            piece.close()
            number += 1
            piece = Piece(job.recipe, work / f"{number:04d}")
    piece.close()
    samples.write(work)
    write_json(
        work / "done.json",
        {
            "pages": read,
            "bytes": source.size,
            "characters": characters,
            "pieces": number + 1,
            "digest": digest_file(source.path),
            "not read": drops.counts,
            "first not read": drops.first,
            "counts": dict(counts),
        },
    )


# --- urls, spans, least: who wins ---------------------------------------------------------------------------------


def _reduce(rows: str, job: Job, task: int, work: Path) -> None:
    first, end = ranges(job, rows)[task]
    wins, starts = dedup.reduce(sent(job, rows), first, end)
    dedup.save(work / "wins.npy", wins)
    dedup.save(work / "starts.npy", starts)
    write_json(work / "done.json", {"pages": len(wins), "bytes": 0})


def _taken(job: Job, number: int, piece: Path) -> np.ndarray:
    """Of each page of a piece, kept or not, whether its URL takes it: bool (P,)."""
    kept_P = np.load(piece / "kept.npy")
    if not job.recipe.one_url:
        return np.ones(len(kept_P), bool)
    place_P = np.load(piece / "url_place.npy")
    wins = dedup.answers(number, [place(job, "urls", task) for task in range(len(ranges(job, "urls")))])
    taken_P = np.zeros(len(kept_P), bool)
    taken_P[place_P >= 0] = wins[place_P[place_P >= 0]] == 1
    return taken_P


def _spans(job: Job, task: int, work: Path) -> None:
    """The spans of the pages taken: winners to be compared, and what is needed to judge the others by them."""
    piece = pieces(job)[task]
    kept_P, taken_P = np.load(piece / "kept.npy"), _taken(job, task, piece)
    stands_D = np.zeros(int(kept_P.max(initial=-1)) + 1, bool)
    stands_D[kept_P[(kept_P >= 0) & taken_P]] = True
    owned_U = np.load(piece / "owned.npy")
    row_N = np.flatnonzero(stands_D[owned_U] & np.load(piece / "compared.npy"))
    keys_N2, page_N = np.load(piece / "keys.npy")[row_N], owned_U[row_N]
    values_N2 = np.load(piece / "owners.npy")[page_N]
    winner_N = dedup.winners(keys_N2, values_N2)
    sent = dedup.send(work / "spans", keys_N2, values_N2, winner_N)
    local_N = dedup.stays(job.recipe.profile.repeats, page_N, winner_N, np.ones(len(winner_N), bool))
    dedup.save(work / "rows.npy", row_N)
    dedup.save(work / "place.npy", sent.place_N)
    dedup.save(work / "local.npy", local_N)  # whether it stays if its key is won
    write_json(work / "done.json", {"pages": len(row_N), "bytes": 0})


# --- finish -------------------------------------------------------------------------------------------------------


def _gone(job: Job, number: int, piece: Path) -> Callable[[int], set[int]]:
    """Which spans of page `at` (among those kept) go: their places among the page's spans."""
    if not job.recipe.dedup:
        return lambda at: set()
    spans = place(job, "spans", number)
    wins = dedup.answers(number, [place(job, "least", task) for task in range(len(ranges(job, "spans")))])
    stays_N = np.load(spans / "local.npy") & (wins[np.load(spans / "place.npy")] == 1)
    owned_U = np.load(piece / "owned.npy")
    gone_U = np.zeros(len(owned_U), bool)
    gone_U[np.load(spans / "rows.npy")[~stays_N]] = True
    starts = np.searchsorted(owned_U, np.arange(int(owned_U.max(initial=-1)) + 2))

    def gone(at: int) -> set[int]:
        if at + 1 >= len(starts):
            return set()
        return set(np.flatnonzero(gone_U[starts[at] : starts[at + 1]]).tolist())

    return gone


def _sizes(job: Job, piece: Path) -> Callable[[int], list[int]]:
    """How many sentences each line of page `at` (among those kept) has, as `spans` told when it was read."""
    if not job.recipe.dedup:
        return lambda at: []
    sizes_S, lines_D = np.load(piece / "sizes.npy"), np.load(piece / "lines.npy")
    starts = np.cumsum([0, *lines_D.tolist()])
    return lambda at: sizes_S[starts[at] : starts[at + 1]].tolist()


def _finish(job: Job, task: int, work: Path) -> None:
    from t5study.corpus.rules_spans import without
    from t5study.corpus.rules_url import is_validation, normalise_url

    recipe, piece = job.recipe, pieces(job)[task]
    kept_P, taken_P = np.load(piece / "kept.npy"), _taken(job, task, piece)
    counts, samples = _counts_of(piece, taken_P), Samples(job.rejects)
    if lost := int((~taken_P).sum()):
        counts["same URL"] = lost
    stands = set(kept_P[(kept_P >= 0) & taken_P].tolist())
    gone, sizes = _gone(job, task, piece), _sizes(job, piece)
    documents: list[tuple[int, str, str, str, str, bool]] = []
    at = 0
    for pages in batches(_pages(piece / "pages.parquet")):
        left: list[Page | Drop] = []
        for page in pages:
            if at not in stands:
                left.append(Drop("same URL"))
            elif recipe.dedup:
                left.append(without(page, gone(at), recipe.profile, counts, sizes(at)))
            else:
                left.append(page)
            at += 1
        for page, found in zip(pages, recipe.after(left, counts), strict=True):
            if isinstance(found, Page) and not found.text.strip():
                found = dropped("empty", counts)
            if isinstance(found, Drop):
                samples.add(found.reason, page)
                continue
            held = recipe.profile.validation and is_validation(normalise_url(found.url, recipe.profile))
            order = xxhash.xxh3_64_intdigest(as_bytes(found.text), seed=job.seed)
            documents.append((order, found.text, found.url, found.timestamp, found.language, held))
    documents.sort()
    table = Table(work / "documents.parquet", _DOCUMENTS)
    for order, text, url, timestamp, language, held in documents:
        table.add((text, url, timestamp, language, order, held), len(text))
    table.close()
    samples.write(work)
    characters = sum(len(text) for _, text, *_, held in documents if not held)
    facts = {"pages": len(documents), "bytes": 0, "characters": characters, "counts": dict(counts)}
    facts["held"] = sum(held for *_, held in documents)
    write_json(work / "done.json", facts)


def _counts_of(piece: Path, taken_P: np.ndarray) -> Counter[str]:
    """What the rules of single pages did, summed over the pages that their URLs take."""
    names, counted_T3 = read_json(piece / "names.json"), np.load(piece / "counted.npy")
    counted_T3 = counted_T3[taken_P[counted_T3[:, 0]]]
    sums = np.bincount(counted_T3[:, 1], weights=counted_T3[:, 2], minlength=len(names))
    return Counter({name: int(count) for name, count in zip(names, sums, strict=True) if count})


def _pages(path: Path) -> Iterator[Page]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield Page(**row)


# --- write --------------------------------------------------------------------------------------------------------


def shares(job: Job) -> int:
    """How many documents-*.parquet there are: by characters, so whatever the pieces are."""
    finished = (place(job, "finish", number) for number in range(len(pieces(job))))
    return max(1, -(-sum(read_json(folder / "done.json")["characters"] for folder in finished) // SHARE))


def _write(job: Job, task: int, work: Path) -> None:
    count = shares(job)
    held = task == count
    first, end = (0, 1 << 64) if held else (task * (1 << 64) // count, (task + 1) * (1 << 64) // count)
    chosen = pc.field("held") == held
    if count > 1 and not held:
        low, high = pa.scalar(first, pa.uint64()), pa.scalar(end - 1, pa.uint64())
        chosen = chosen & (pc.field("order") >= low) & (pc.field("order") <= high)
    rows: list[tuple[int, str, str, str, str]] = []
    for number in range(len(pieces(job))):
        path = place(job, "finish", number) / "documents.parquet"
        for row in pq.read_table(path, filters=chosen, page_checksum_verification=True).to_pylist():
            rows.append((row["order"], row["text"], row["url"], row["timestamp"], row["language"]))
    rows.sort()
    lengths, languages = Counter[int](), Counter[str]()
    if rows:
        table = Table(work / "documents.parquet", SCHEMA)
        for _, text, url, timestamp, language in rows:
            table.add((text, url, timestamp), len(text))
            lengths[len(text).bit_length()] += 1
            languages[language or "not looked at"] += 1
        table.close()
    facts = {"pages": len(rows), "bytes": 0, "characters": sum(len(row[1]) for row in rows)}
    facts |= {"lengths": {str(bits): lengths[bits] for bits in sorted(lengths)}, "languages": dict(languages)}
    write_json(work / "done.json", facts)


_STAGES: dict[str, Callable[[Job, int, Path], None]] = {
    "read": _read,
    "urls": partial(_reduce, "urls"),
    "spans": _spans,
    "least": partial(_reduce, "spans"),
    "finish": _finish,
    "write": _write,
}
