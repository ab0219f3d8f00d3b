"""Sources and targets as padded blocks of ids -> batches of rows of like length, as a model takes them.

N  all rows    R  rows of a batch    S  source tokens    T  target tokens    L  either
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from t5study.ground.errors import UserError
from t5study.ground.pairs import PAD, Batch
from t5study.model.architectures import Inputs, Model

LONGEST_SOURCE = 8192  # tokens; attention over one source takes a matrix of its square for every head


def lengths(ids_NL: np.ndarray, what: str, table_rows: int, least: int = 1, most: int | None = None) -> np.ndarray:
    """Up to the last id that is not padding. UserError for a row that is too short or too long, or for an id that the
    embedding has no row for."""
    ids_NL = np.asarray(ids_NL)
    if ids_NL.ndim != 2 or ids_NL.dtype.kind not in "iu":
        raise UserError(f"{what}: found {ids_NL.ndim} dimensions of {ids_NL.dtype}; give rows of ids, padded with 0")
    length_N = real_lengths(ids_NL)
    if (length_N < least).any():
        raise UserError(f"{what}: row {int((length_N < least).argmax())} is empty; give it at least EOS")
    if most is not None and (length_N > most).any():
        row = int((length_N > most).argmax())
        raise UserError(f"{what}: row {row}: found {length_N[row]:,} tokens; give at most {most:,}")
    if ids_NL.size and not 0 <= ids_NL.min() <= ids_NL.max() < table_rows:
        row = int(((ids_NL < 0) | (ids_NL >= table_rows)).any(1).argmax())
        raise UserError(f"{what}: row {row}: found an id that is not below the vocabulary's {table_rows:,} or not >= 0")
    return length_N


def real_lengths(ids_NL: np.ndarray) -> np.ndarray:
    return ((ids_NL != PAD) * np.arange(1, ids_NL.shape[1] + 1)).max(1, initial=0)


def by_length(length_N: np.ndarray, batch_rows: int) -> Iterator[np.ndarray]:
    """Batches of row numbers, longest rows first: rows of a batch have about the same length."""
    order_N = np.argsort(-length_N, kind="stable")
    yield from (order_N[first : first + batch_rows] for first in range(0, len(order_N), batch_rows))


def inputs_of(model: Model, source_RS: np.ndarray, target_RT: np.ndarray | None = None) -> Inputs:
    """Rows of one pair each; without targets, of a source and nothing behind it."""
    if target_RT is None:
        target_RT = np.zeros((len(source_RS), 0), np.int32)
    batch = Batch(*_side(source_RS), *_side(target_RT))
    return model.arrange(batch, model.embedding.device)


def _side(ids_RL: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, segments (1 up to the last id that is not padding, then 0) and positions."""
    length_R = real_lengths(ids_RL)
    longest = int(length_R.max(initial=0))
    position_RL = np.broadcast_to(np.arange(longest, dtype=np.int32), (len(ids_RL), longest))
    return ids_RL[:, :longest], (position_RL < length_R[:, None]).astype(np.int32), position_RL
