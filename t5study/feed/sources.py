"""Sources: the i-th example, for any i, in any order, at any time.

    source.pairs(np.array([0, 1, 2]))      the first three examples of the first epoch
    source.pairs(np.array([len(source)]))  the first example of the second

What an example is depends on (seed, index) alone: the index says which epoch it is in (index // len), a shuffle by
arithmetic says which piece of text or which row of a task that is, and the key of the index says what is hidden in
it. Nothing is remembered, so a stream goes on from one integer, and any number of workers make the same examples.

    N  examples asked for    L  raw positions    S  source positions    T  target positions
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numba import njit

from t5study.ground.errors import UserError
from t5study.ground.pairs import Ids, Pair, Pairs
from t5study.ground.seeds import check_seed, keys, shuffled
from t5study.objectives import Lengths, Objective


class Source(Protocol):
    """Anything that has an i-th example."""

    def __len__(self) -> int:
        """Examples in an epoch."""
        ...

    def pairs(self, index_N: np.ndarray) -> Pairs:
        """The examples at these places (int64, from 0; those of epoch e lie in [e * len, (e + 1) * len))."""
        ...


# --- text ---------------------------------------------------------------------------------------------------------


class DocumentSource:
    """Documents and an objective -> examples.

    For an objective that concatenates, the documents, in their stored order (a shuffle already), are one ring of
    tokens, cut into pieces of `lengths.raw` from a starting point that is 0 in the first epoch and drawn for every
    later one, so that no two epochs cut alike. For the others each document is cut alone. A last piece of a single
    token is left out, since nothing can be hidden in it; every other token is seen once an epoch.

    tokens: integers, 1-D, memory-mapped or not. offsets: int64 (documents + 1), where each document begins and the
    last one ends. UserError: no text to cut, less of it than one piece, an id that is not in the vocabulary.

    >>> from t5study.objectives import Lengths, CausalLM
    >>> tokens, offsets = np.arange(3, 13), np.array([0, 6, 10])
    >>> source = DocumentSource(tokens, offsets, CausalLM(), Lengths(4, 1, 5), Ids(size=200), seed=0)
    >>> len(source), sorted(pair.target.tolist() for pair in source.pairs(np.arange(3)))
    (3, [[3, 4, 5, 6, 1], [7, 8, 9, 10, 1], [11, 12, 1]])
    """

    def __init__(
        self, tokens: np.ndarray, offsets: np.ndarray, objective: Objective, lengths: Lengths, ids: Ids, seed: int
    ):
        self._tokens, self._offsets = np.asarray(tokens), np.asarray(offsets, dtype=np.int64)
        self._objective, self._lengths, self._ids, self._seed = objective, lengths, ids, check_seed(seed)
        if self._tokens.ndim != 1 or self._tokens.dtype.kind not in "iu":
            raise UserError(f"tokens: found {self._tokens.dtype} of shape {self._tokens.shape}; give one row of ids")
        n, raw = len(self._tokens), lengths.raw
        if len(self._offsets) < 1 or self._offsets[0] != 0 or self._offsets[-1] != n or (np.diff(offsets) < 0).any():
            raise UserError(f"tokens: found offsets that do not divide {n} tokens into documents; make them again")
        if raw < 2:
            raise UserError(f"objective: found pieces of {raw} raw tokens; give at least 2")
        if objective.concatenates:
            if n < raw:
                raise UserError(f"tokens: found {n}, fewer than the {raw} of one example; give more text")
            self._pieces = n // raw + (n % raw >= 2)
            return
        # Where each document's pieces end, counted over all documents.
        length_N = np.diff(self._offsets)
        self._ends_N = np.cumsum(length_N // raw + (length_N % raw >= 2))
        self._pieces = int(self._ends_N[-1]) if len(self._ends_N) else 0
        if not self._pieces:
            raise UserError(f"tokens: found no document of two tokens or more among {len(length_N)}; give more text")

    def __len__(self) -> int:
        return self._pieces

    def pairs(self, index_N: np.ndarray) -> Pairs:
        index_N, epoch_N, place_N = _places(index_N, self._pieces, self._seed)
        start_N, length_N = self._ring(epoch_N, place_N) if self._objective.concatenates else self._documents(place_N)
        raw_NL = np.zeros((len(index_N), self._lengths.raw), dtype=np.int32)
        bad = _gather(self._tokens, start_N, length_N, self._ids.size, raw_NL)
        if bad >= 0:
            raise UserError(
                f"tokens: found id {self._tokens[bad]} at token {bad}, but the vocabulary has {self._ids.size} ids; "
                "use the vocabulary that the tokens were made with, or make them again"
            )
        noise_key_N = keys(self._seed, "noise", index_N)
        return self._objective.pairs(raw_NL, length_N, noise_key_N, self._ids, self._lengths)

    def _ring(self, epoch_N: np.ndarray, place_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start and length of each piece of the ring that begins, in its epoch, at a drawn token."""
        n, raw = len(self._tokens), self._lengths.raw
        first_N = (keys(self._seed, "cut", epoch_N) % np.uint64(n)).astype(np.int64) * (epoch_N > 0)
        return (first_N + place_N * raw) % n, np.minimum(raw, n - place_N * raw).astype(np.int32)

    def _documents(self, place_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start and length of each piece of a document."""
        raw = self._lengths.raw
        document_N = np.searchsorted(self._ends_N, place_N, side="right")
        begins_N, ends_N = self._offsets[document_N], self._offsets[document_N + 1]
        before_N = np.where(document_N > 0, self._ends_N[document_N - 1], 0)
        start_N = begins_N + (place_N - before_N) * raw
        return start_N, np.minimum(raw, ends_N - start_N).astype(np.int32)


def _places(index_N: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices -> themselves as int64, their epochs, and what each epoch's shuffle of range(n) has there."""
    index_N = np.asarray(index_N, dtype=np.int64)
    if len(index_N) and index_N.min() < 0:
        raise ValueError(f"example {index_N.min()}: examples are counted from 0")
    epoch_N, rest_N = np.divmod(index_N, n)
    return index_N, epoch_N, shuffled(rest_N, n, keys(seed, "order", epoch_N))


@njit(cache=True, nogil=True)
def _gather(tokens, start_N, length_N, size, out_NL):
    """Copies runs of a ring of tokens. Returns the place of the first id outside [0, size), or -1."""
    n = len(tokens)
    for k in range(len(start_N)):
        place = start_N[k]
        for i in range(length_N[k]):
            token = np.int64(tokens[place])
            if token < 0 or token >= size:
                return place
            out_NL[k, i] = token
            place += 1
            if place == n:
                place = 0
    return -1


# --- tasks --------------------------------------------------------------------------------------------------------


class PairSource:
    """A list of pairs -> examples, every one once an epoch, each epoch in another order.

    source_length, target_length: tokens, EOS counted, that a pair may have. UserError: no pairs, or one that is longer.
    """

    def __init__(self, pairs: Sequence[Pair], seed: int, source_length: int, target_length: int):
        if not len(pairs):
            raise UserError("examples: found none; give the task training rows")
        self._seed = check_seed(seed)
        self._source = _Ragged([pair.source for pair in pairs], source_length, "source")
        self._target = _Ragged([pair.target for pair in pairs], target_length, "target")

    def __len__(self) -> int:
        return len(self._source)

    def pairs(self, index_N: np.ndarray) -> Pairs:
        _, _, place_N = _places(index_N, len(self), self._seed)
        return Pairs(*self._source.rows(place_N), *self._target.rows(place_N))


class _Ragged:
    """Rows of different lengths end to end, so that any of them are gathered by one compiled loop."""

    def __init__(self, rows: Sequence[np.ndarray], longest: int, what: str):
        self._length_N = np.array([len(row) for row in rows], dtype=np.int32)
        if (found := int(self._length_N.max())) > longest:
            raise UserError(
                f"example {int(self._length_N.argmax())}: found a {what} of {found} tokens, "
                f"but rows hold {longest}; cut it, or give longer rows"
            )
        self._start_N = np.cumsum(self._length_N, dtype=np.int64) - self._length_N
        self._flat = np.concatenate(rows).astype(np.int32)
        self._longest = longest

    def __len__(self) -> int:
        return len(self._length_N)

    def rows(self, place_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows as a right-padded block (N, longest), and their lengths."""
        length_N = self._length_N[place_N]
        block = np.zeros((len(place_N), self._longest), dtype=np.int32)
        bad = _gather(self._flat, self._start_N[place_N], length_N, 2**31 - 1, block)
        if bad >= 0:
            raise ValueError(f"id {self._flat[bad]} is no id")
        return block, length_N
