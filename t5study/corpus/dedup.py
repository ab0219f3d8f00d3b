"""Duplicates, found exactly whatever way the pages were dealt out: a minimum for every key.

Keys are 128-bit hashes: of a URL (one page a URL) and of a line or a window of three sentences (one page a text). For
each key the page with the least value stays. A minimum of minima is the minimum of all, so every piece of the input
sends its own winner of each key and nothing else: a line that a hundred million pages have is sent once a piece.

    piece   rows -> its winners, in buckets of the key's first 12 bits, and an index      _Rows.npy, one file a piece
    reduce  a range of buckets of all pieces -> who of these winners wins over all         one byte a row, 0 or 1
    piece   its rows again, with that answer beside their winner's -> what stays

Memory: a reducer holds its range, about 60 bytes a row; a piece 60 bytes a line of its own. Nothing is sorted.
Values are compared as the official code does, by the md5 of the URL; a hash of the text parts pages that share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numba import njit

PREFIX_BITS = 12
BUCKETS = 1 << PREFIX_BITS
ROW_BYTES = 60  # of a reducer's memory: key, value, slot, table, answer

# --- least values -------------------------------------------------------------------------------------------------


def winners(keys_N2: np.ndarray, values_NW: np.ndarray) -> np.ndarray:
    """For each row the row that wins its key: least value, compared column by column; the first of equals.

    keys_N2, values_NW: uint64, C order. Returns int64 (N,). About 10 M rows/s, in whatever order rows come.

    >>> keys = np.array([[1, 1], [2, 2], [1, 1]], np.uint64)
    >>> winners(keys, np.array([[5], [5], [4]], np.uint64)).tolist()
    [2, 1, 2]
    """
    assert len(keys_N2) < 1 << 31
    size = 1 << max(4, int(2 * len(keys_N2)).bit_length())
    return _winners(keys_N2, values_NW, np.full(size, -1, np.int32))


@njit(cache=True, nogil=True)
def _winners(keys_N2: np.ndarray, values_NW: np.ndarray, table_S: np.ndarray) -> np.ndarray:
    """A table with open addressing; a slot holds the row that wins so far."""
    rows, width, mask = len(keys_N2), values_NW.shape[1], len(table_S) - 1
    slot_N = np.empty(rows, np.int32)
    for i in range(rows):
        at = np.int64(keys_N2[i, 1] & np.uint64(mask))
        while True:
            held = table_S[at]
            if held < 0:
                table_S[at] = i
                break
            if keys_N2[held, 0] == keys_N2[i, 0] and keys_N2[held, 1] == keys_N2[i, 1]:
                for w in range(width):
                    if values_NW[i, w] != values_NW[held, w]:
                        if values_NW[i, w] < values_NW[held, w]:
                            table_S[at] = i
                        break
                break
            at = (at + 1) & mask
        slot_N[i] = at
    winner_N = np.empty(rows, np.int64)
    for i in range(rows):
        winner_N[i] = table_S[slot_N[i]]
    return winner_N


# --- a piece's rows, in buckets on disk ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """What a piece has sent. place_N: for each of its rows, where its key's winner stands in the file."""

    place_N: np.ndarray
    rows: int


def send(path: Path, keys_N2: np.ndarray, values_NW: np.ndarray, winner_N: np.ndarray) -> Sent:
    """Writes a piece's winners, ordered by bucket: `path`.npy, uint64 (K, 2 + W), and `path`.index.npy, int64
    (BUCKETS + 1,): bucket b is rows index[b] : index[b + 1]."""
    own_K = np.flatnonzero(winner_N == np.arange(len(winner_N)))
    bucket_K = (keys_N2[own_K, 0] >> np.uint64(64 - PREFIX_BITS)).astype(np.uint16)
    order_K = np.argsort(bucket_K, kind="stable")
    own_K = own_K[order_K]
    index = np.zeros(BUCKETS + 1, np.int64)
    np.cumsum(np.bincount(bucket_K, minlength=BUCKETS), out=index[1:])
    save(Path(f"{path}.npy"), np.concatenate([keys_N2[own_K], values_NW[own_K]], axis=1))
    save(Path(f"{path}.index.npy"), index)
    place = np.full(len(winner_N), -1, np.int32)
    place[own_K] = np.arange(len(own_K), dtype=np.int32)
    return Sent(place[winner_N], len(own_K))


def save(path: Path, array: np.ndarray) -> None:
    """A `.npy` file. numpy's own writer does not say why it failed, and a full disk is to be told from other ills."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")


def ranges(indexes: Iterable[np.ndarray], memory: int) -> list[tuple[int, int]]:
    """Runs of buckets that a reducer holds in about `memory` bytes: [(first, end), ...] over all BUCKETS."""
    rows_B = np.zeros(BUCKETS, np.int64)
    for index in indexes:
        rows_B += np.diff(index)
    found, first, held = [], 0, 0
    for bucket, rows in enumerate(rows_B.tolist()):
        if held and (held + rows) * ROW_BYTES > memory:
            found.append((first, bucket))
            first, held = bucket, 0
        held += rows
    return [*found, (first, BUCKETS)]


def reduce(pieces: Sequence[Path], first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Who wins among the winners of all pieces in buckets first : end. uint8 (rows,): the pieces' rows in their order,
    1 for the one row of each key that has its least value; and int64 (pieces + 1,): where each piece's rows begin."""
    parts = [_rows(path)[slice(*_span(path, first, end))] for path in pieces]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    rows_NX = np.concatenate(parts) if parts else np.zeros((0, 3), np.uint64)
    keys_N2, values_NW = np.ascontiguousarray(rows_NX[:, :2]), np.ascontiguousarray(rows_NX[:, 2:])
    del rows_NX, parts
    return (winners(keys_N2, values_NW) == np.arange(len(keys_N2))).astype(np.uint8), starts


def answers(number: int, reduced: Sequence[Path]) -> np.ndarray:
    """What the reducers say about the rows of piece `number`, uint8 (its rows,). reduced: the folders they wrote, in
    the order of their ranges."""
    found = []
    for folder in reduced:
        starts = np.load(folder / "starts.npy", mmap_mode="r")
        found.append(np.load(folder / "wins.npy", mmap_mode="r")[starts[number] : starts[number + 1]])
    return np.concatenate(found)


def _rows(path: Path) -> np.ndarray:
    return np.load(f"{path}.npy", mmap_mode="r")


def _span(path: Path, first: int, end: int) -> tuple[int, int]:
    index = np.load(f"{path}.index.npy", mmap_mode="r")
    return int(index[first]), int(index[end])


def stays(repeats: str, page_N: np.ndarray, winner_N: np.ndarray, wins_N: np.ndarray) -> np.ndarray:
    """Which rows stay, bool (N,). page_N: each row's page. wins_N: whether the row's key is won by this piece.

    repeats: what becomes of a span that stands twice in the page that wins it (profiles.Profile.repeats).
    """
    at_home_N = (page_N == page_N[winner_N]) & wins_N.astype(bool)
    if repeats == "stay":
        return at_home_N
    if repeats == "first stays":
        return at_home_N & (winner_N == np.arange(len(winner_N)))
    assert repeats == "all go"
    alone_N = np.bincount(winner_N[at_home_N], minlength=len(winner_N)) == 1
    return at_home_N & alone_N[winner_N]


# --- keys ---------------------------------------------------------------------------------------------------------


def text_key(text: bytes) -> bytes:
    """16 bytes that stand for a text."""
    return xxhash.xxh3_128_digest(text)


def as_keys(digests: Sequence[bytes], columns: int = 2) -> np.ndarray:
    """Digests of 8 bytes a column as uint64 (N, columns) that compare as the digests' hex does."""
    return np.frombuffer(b"".join(digests), ">u8").reshape(-1, columns).astype(np.uint64)
