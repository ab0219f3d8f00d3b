"""Packing: pairs of different lengths -> rows of one length, with hardly any padding.

    batch, used = pack(pairs, rows=64, source_length=512, target_length=114)

A row holds as many pairs as fit, source and target both; the segment and position arrays keep them apart (see
ground.pairs.Batch). Pairs are taken in order, each into the first row with room, until one finds none: so what is
taken is always a beginning of the list, and the next batch goes on at `used`.

    B  rows    N  pairs    S  source positions    T  target positions
"""

from __future__ import annotations

import numpy as np
from numba import njit

from t5study.ground.errors import UserError
from t5study.ground.pairs import Batch, Pairs


def pack(pairs: Pairs, rows: int, source_length: int, target_length: int) -> tuple[Batch, int]:
    """Fills exactly `rows` rows; returns them and how many of the pairs they hold. If all were used, there may have
    been room for more. UserError for a pair that is longer than a row.

    >>> from t5study.ground.pairs import Pair
    >>> pair = Pair(np.array([5, 6, 1]), np.array([7, 1]))
    >>> batch, used = pack(Pairs.of([pair, pair, pair]), rows=1, source_length=7, target_length=5)
    >>> used, batch.source_BS.tolist(), batch.source_segment_BS.tolist(), batch.source_position_BS.tolist()
    (2, [[5, 6, 1, 5, 6, 1, 0]], [[1, 1, 1, 2, 2, 2, 0]], [[0, 1, 2, 0, 1, 2, 0]])
    """
    if rows < 1:
        raise ValueError(f"{rows} rows")
    row_N = np.empty(len(pairs), dtype=np.int32)
    width_2 = np.array([source_length, target_length])
    used = int(_first_fit(pairs.source_length_B, pairs.target_length_B, width_2, rows, row_N))
    if used < len(pairs):
        s, t = int(pairs.source_length_B[used]), int(pairs.target_length_B[used])
        if s > source_length or t > target_length:
            raise UserError(
                f"packing: found a pair of {s} source and {t} target tokens, "
                f"but rows hold {source_length} and {target_length}; cut it, or give longer rows"
            )
    sides = []
    for ids_N, length_N, width in [
        (pairs.source_BS, pairs.source_length_B, source_length),
        (pairs.target_BT, pairs.target_length_B, target_length),
    ]:
        ids, segment, position = (np.zeros((rows, width), np.int32) for _ in range(3))
        _fill(ids_N, length_N, row_N[:used], ids, segment, position)
        sides += [ids, segment, position]
    return Batch(*sides), used


@njit(cache=True, nogil=True)
def _first_fit(source_length_N, target_length_N, width_2, rows, row_N):
    """The row of each pair. Returns how many pairs found one."""
    filled_B2 = np.zeros((rows, 2), np.int64)
    for k in range(len(row_N)):
        s, t = source_length_N[k], target_length_N[k]
        b = 0
        while b < rows and (filled_B2[b, 0] + s > width_2[0] or filled_B2[b, 1] + t > width_2[1]):
            b += 1
        if b == rows:
            return k
        filled_B2[b, 0] += s
        filled_B2[b, 1] += t
        row_N[k] = b
    return len(row_N)


@njit(cache=True, nogil=True)
def _fill(ids_NS, length_N, row_N, out_BS, segment_BS, position_BS):
    """Lays pairs into their rows, side by side."""
    filled_B, pairs_B = np.zeros(len(out_BS), np.int64), np.zeros(len(out_BS), np.int32)
    for k in range(len(row_N)):
        b, start = row_N[k], filled_B[row_N[k]]
        pairs_B[b] += 1
        for i in range(length_N[k]):
            out_BS[b, start + i] = ids_NS[k, i]
            segment_BS[b, start + i] = pairs_B[b]
            position_BS[b, start + i] = i
        filled_B[b] += length_N[k]
