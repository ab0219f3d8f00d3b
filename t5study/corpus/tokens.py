"""Documents -> tokens.npy + offsets.npy: what training reads, mapped into memory.

    tokens.npy     ids of all documents in a row, without EOS: uint16 where the vocabulary fits, else uint32
    offsets.npy    int64, documents + 1: document i is tokens[offsets[i] : offsets[i + 1]], never empty
    tokens.json    counts, and the digest and size of the vocabulary
    manifest.json  size and digest of the three (ground/store.py)

Both arrays are little-endian `.npy` files, so anything can read them; they are written as a stream and never held.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from t5study.corpus.page import batched
from t5study.ground.errors import UserError
from t5study.ground.machine import cores
from t5study.ground.store import read_json, read_manifest, verify, whole_folder, write_json, write_manifest
from t5study.vocab import BYTES, AnyVocab, ByteVocab, Vocab

FORMAT = 1
_BATCH_DOCUMENTS = 2048
_SECTION = 1 << 26
_FILES = ("tokens.npy", "offsets.npy", "tokens.json")


# --- writing ----------------------------------------------------------------------------------------------------


def write_tokens(
    documents: Iterable[str],
    vocab: AnyVocab,
    out: Path,
    max_tokens: int | None = None,
    threads: int | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Writes a token folder, whole or not at all; returns its counts. See `write_tokens_into`.
    threads: None for one a core.

    The manifest has a digest of every 64 MiB of tokens.npy as well ("sections"), so that a copy is mended in parts.
    """
    with whole_folder(Path(out)) as work:
        counts = write_tokens_into(documents, vocab, work, max_tokens, threads or cores(), workers)
        write_manifest(work, parents=[vocab.digest], sections=_sections(work / "tokens.npy"))
    return counts


def _sections(path: Path) -> list[str]:
    """xxh3-128 of every 64 MiB of a file."""
    with open(path, "rb") as file:
        return [xxhash.xxh3_128_hexdigest(block) for block in iter(lambda: file.read(_SECTION), b"")]


def write_tokens_into(
    documents: Iterable[str],
    vocab: AnyVocab,
    work: Path,
    max_tokens: int | None = None,
    threads: int = 1,
    workers: int = 1,
) -> dict[str, Any]:
    """Fills a folder with tokens.npy, offsets.npy and tokens.json, for a builder that writes the manifest itself.
    threads: of this process, where it encodes itself. workers: processes that encode side by side. No byte depends on
    either.

    Documents stay in their order. One that gives no token is left out and counted. `max_tokens` is kept to the
    token: the document that crosses it is cut, and no further one is asked for. UserError if nothing remains.
    """
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"max_tokens: found {max_tokens}; give 1 or more")
    dtype = _dtype(vocab)
    empty = cut = total = 0
    with _Column(work / "tokens.npy", dtype) as tokens, _Column(work / "offsets.npy", np.dtype("<i8")) as offsets:
        offsets.append(np.zeros(1, np.int64))
        if workers > 1:
            encoded = in_processes(documents, vocab, workers)
        elif threads > 1 and max_tokens is None:
            encoded = _in_threads(documents, vocab, threads)
        else:  # reads no batch ahead, so that none is asked for that a budget has no room for
            encoded = _in_turn(documents, vocab, threads)
        for ids_N, length_D in encoded:
            end_D = total + np.cumsum(length_D)
            if max_tokens is not None and end_D[-1] >= max_tokens:
                kept = int(np.searchsorted(end_D, max_tokens)) + 1  # the last of them reaches the budget, or crosses it
                ids_N, length_D, end_D = ids_N[: max_tokens - total], length_D[:kept], end_D[:kept]
                cut = int(end_D[-1] > max_tokens)
                end_D[-1] = max_tokens
            tokens.append(ids_N)
            offsets.append(end_D[length_D > 0])
            empty += int((length_D == 0).sum())
            total = int(end_D[-1])
            if total == max_tokens:
                break
    if not total:
        raise UserError(f"tokens: found none in {empty} documents; give a corpus with text that this vocabulary knows")
    counts = {"documents": offsets.rows - 1, "tokens": total, "empty": empty, "cut": cut}
    known = {"vocab": vocab.digest, "size": vocab.ids.size, "sentinels": vocab.ids.sentinels}
    write_json(work / "tokens.json", {"format": FORMAT, **counts, **known})
    return counts


def _dtype(vocab: AnyVocab) -> np.dtype:
    return np.dtype("<u2" if vocab.ids.size <= 1 << 16 else "<u4")


def _block(vocab: AnyVocab, batch: list[str], threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Ids (N,) of some documents in a row, in the type they are kept in, and how many each has (D,)."""
    ids = vocab.encode_batch(batch, threads)
    return np.concatenate(ids, dtype=_dtype(vocab), casting="unsafe"), np.array([len(one) for one in ids])


def _in_turn(documents: Iterable[str], vocab: AnyVocab, threads: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`_block` of about a megabyte at a time, so that threads have something to share."""
    for batch in _batches(documents):
        yield _block(vocab, batch, threads)


def _in_threads(documents: Iterable[str], vocab: AnyVocab, threads: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `_in_turn`, a batch a thread: the encoder holds no lock, so this one reads and writes meanwhile."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield from _in_order(_batches(documents), lambda batch: pool.submit(_block, vocab, batch), 2 * threads)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    given: Iterator[list[str]], submit: Callable[[list[str]], Future[tuple[np.ndarray, np.ndarray]]], most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks in the documents' order, at most `most` of them under way."""
    under_way: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
    while True:
        while len(under_way) < most and (batch := next(given, None)) is not None:
            under_way.append(submit(batch))
        if not under_way:
            return
        yield under_way.popleft().result()


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    return batched(documents, _BATCH_DOCUMENTS, len)


def in_processes(documents: Iterable[str], vocab: AnyVocab, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `_in_turn`, a batch a process, in the documents' order; at most two batches a process are under way."""
    where = BYTES if vocab.path is None else str(vocab.path)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_load, initargs=(where, vocab.ids.sentinels))
    try:
        yield from _in_order(_batches(documents), lambda batch: pool.submit(_encode, batch), 2 * workers)
    except BrokenProcessPool:
        raise UserError("tokens: a worker was killed, perhaps for want of memory; give fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


_loaded: list[AnyVocab] = []  # of a worker process, which is given its vocabulary once


def _load(where: str, sentinels: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _loaded[:] = [ByteVocab() if where == BYTES else Vocab.load(where, sentinels)]


def _encode(batch: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return _block(_loaded[0], batch)


class _Column:
    """A one-dimensional `.npy` file written piece by piece. numpy pads the header so that the shape can grow in it."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.dtype, self.rows = dtype, 0
        self._file = open(path, "wb")
        self._header()

    def _header(self) -> None:
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows,)}
        np.lib.format.write_array_header_1_0(self._file, described)

    def append(self, values_N: np.ndarray) -> None:
        self._file.write(values_N.astype(self.dtype, copy=False).data)
        self.rows += len(values_N)

    def __enter__(self) -> _Column:
        return self

    def __exit__(self, *exception: object) -> None:
        start = self._file.tell() - self.rows * self.dtype.itemsize
        self._file.seek(0)
        self._header()
        assert self._file.tell() == start, "a grown header has the size of an empty one"
        self._file.close()


# --- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TokenStore:
    """tokens: memory-mapped ids of all documents. offsets: where each begins, and the end. len: documents."""

    folder: Path
    tokens: np.ndarray
    offsets: np.ndarray
    vocab_digest: str
    vocab_size: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> np.ndarray:
        """Ids of document i, a view (N,)."""
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    @staticmethod
    def open(folder: Path | str, verify: bool = True) -> TokenStore:
        """Opens a token folder. Digests and every id are checked unless `verify` is False (a folder that was checked
        a moment ago); shapes, types and lengths always. UserError names the file and what is wrong with it."""
        folder = Path(folder)
        listed = (_verified if verify else read_manifest)(folder)["files"]
        for name in _FILES:
            if name not in listed:
                raise UserError(f"{folder / 'manifest.json'}: field files: {name} is missing; {_again(folder)}")
        for name in sorted(name for name in listed if name.endswith(".npy") and name not in _FILES):
            raise UserError(f"{folder / 'manifest.json'}: field files: {name} is no part of tokens; {_again(folder)}")
        facts = _facts(folder)
        size = facts["size"]
        tokens = _mapped(folder, "tokens.npy", np.dtype("<u2" if size <= 1 << 16 else "<u4"))
        offsets = np.asarray(_mapped(folder, "offsets.npy", np.dtype("<i8")))
        _check(folder, tokens, offsets, facts, every_id=verify)
        return TokenStore(folder, tokens, offsets, facts["vocab"], size)


_verified = verify  # the name is also that of open's argument


def _again(folder: Path) -> str:
    return f"delete {folder} and run again"


def _facts(folder: Path) -> dict[str, Any]:
    path, facts = folder / "tokens.json", read_json(folder / "tokens.json")
    found = facts.get("format") if isinstance(facts, dict) else facts
    if found != FORMAT:
        raise UserError(f"{path}: found format {found!r}, known is {FORMAT}; {_again(folder)}")
    for name, kind in {"documents": int, "tokens": int, "size": int, "vocab": str}.items():
        if type(facts.get(name)) is not kind:
            raise UserError(f"{path}: field {name}: found {facts.get(name)!r}; {_again(folder)}")
    return facts


def _mapped(folder: Path, name: str, dtype: np.dtype) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(folder / name, mode="r")  # reads .npy alone: no archive, nothing pickled
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        told = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{folder / name}: found no readable array ({told}); {_again(folder)}") from None
    if array.dtype != dtype or array.ndim != 1:
        found = f"{array.dtype.str} of shape {array.shape}"
        raise UserError(f"{folder / name}: found {found}, not one row of {dtype.str}; {_again(folder)}")
    return array


def _check(folder: Path, tokens: np.ndarray, offsets: np.ndarray, facts: dict[str, Any], every_id: bool) -> None:
    path = folder / "offsets.npy"
    if len(offsets) != facts["documents"] + 1:
        raise UserError(
            f"{path}: found {len(offsets)} entries for {facts['documents']} documents, not one more; {_again(folder)}"
        )
    if len(tokens) != facts["tokens"]:
        raise UserError(
            f"{folder / 'tokens.npy'}: found {len(tokens)} tokens where tokens.json says {facts['tokens']}; "
            f"{_again(folder)}"
        )
    if offsets[0] != 0 or offsets[-1] != len(tokens):
        raise UserError(
            f"{path}: found {offsets[0]} to {offsets[-1]} over {len(tokens)} tokens, not 0 to the end; {_again(folder)}"
        )
    if (wrong := np.flatnonzero(np.diff(offsets) <= 0)).size:
        raise UserError(f"{path}: document {wrong[0]}: ends at or before its beginning; {_again(folder)}")
    if every_id:
        for at in range(0, len(tokens), 1 << 24):
            if (most := int(tokens[at : at + (1 << 24)].max())) >= facts["size"]:
                raise UserError(
                    f"{folder / 'tokens.npy'}: found the id {most} in a vocabulary of {facts['size']}; {_again(folder)}"
                )
