"""Independent random streams by name and index, so that a resumed run draws the same noise.

Nothing here has state. A draw is a function of (seed, names, index), never of how many draws came before it,
of how many workers share the work, or of where a run was interrupted.
"""

from __future__ import annotations

import numpy as np
import xxhash
from numba import njit

from t5study.ground.errors import UserError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def check_seed(seed: int) -> int:
    """A seed is a whole number in [0, 2**63): refuses what would silently wrap."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**63:
        raise UserError(f"seed: found {seed!r}; give a whole number from 0 to 2^63 - 1")
    return int(seed)


def key(seed: int, *names: str | int) -> int:
    """A 63-bit number that names the stream (seed, *names). Distinct names give unrelated keys.

    >>> key(0, "noise") == key(0, "noise"), key(0, "noise") == key(1, "noise"), key(0, 1) == key(0, "1")
    (True, False, False)
    """
    text = "\x1f".join([repr(check_seed(seed)), *(repr(name) for name in names)])
    return xxhash.xxh3_64_intdigest(text.encode()) >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the stream (seed, *names): for set-up work where a Python loop is no cost."""
    return np.random.Generator(np.random.Philox(key=key(seed, *names)))


def splitmix(x: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014), elementwise on uint64: a scrambling bijection."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, dtype=np.uint64) + _GOLDEN
        x = (x ^ (x >> _30)) * _MIX_1
        x = (x ^ (x >> _27)) * _MIX_2
        return x ^ (x >> _31)


def keys(seed: int, name: str, index_N: np.ndarray) -> np.ndarray:
    """One uint64 key per index, for batched code: the key of (seed, name, i) for every i in `index_N`.

    >>> a = keys(0, "noise", np.arange(4)); b = keys(0, "noise", np.array([2]))
    >>> a.dtype, bool(a[2] == b[0]), len(set(a.tolist()))
    (dtype('uint64'), True, 4)
    """
    with np.errstate(over="ignore"):
        return splitmix(splitmix(np.asarray(index_N).astype(np.uint64)) ^ np.uint64(key(seed, name)))


def shuffled(index_N: np.ndarray, n: int, stream_key: int | np.ndarray) -> np.ndarray:
    """Where a shuffle of range(n) puts each index: a permutation by arithmetic, without holding it.

    A four-round Feistel network on the smallest even-bit domain that holds n, cycle-walked back into range
    (Black and Rogaway 2002), so that epoch order needs no memory and any position can be asked for alone.
    stream_key: one for all indices, or one (uint64) an index: each is then looked up in its own shuffle.

    >>> sorted(shuffled(np.arange(10), 10, stream_key=7).tolist()) == list(range(10))
    True
    """
    index_N = np.asarray(index_N, dtype=np.uint64)
    if n < 1 or (len(index_N) and int(index_N.max()) >= n):
        raise ValueError(f"indices up to {index_N.max(initial=0)} of a shuffle of {n}")
    half = max(1, (int(n - 1).bit_length() + 1) // 2)
    first_key = np.broadcast_to(np.asarray(stream_key, dtype=np.uint64), index_N.shape)
    round_key_4N = splitmix(first_key + np.arange(4, dtype=np.uint64)[:, None])
    out_N = np.empty(len(index_N), dtype=np.int64)
    _permuted(index_N, np.uint64(n), np.uint64(half), np.uint64((1 << half) - 1), round_key_4N, out_N)
    return out_N


@njit(cache=True, nogil=True)
def _permuted(index_N, n, half, mask, round_key_4N, out_N):
    """The walk of `shuffled`, for each index: through the network, again and again, until it comes out below n."""
    for k in range(len(index_N)):
        x = index_N[k]
        while True:
            left, right = x >> half, x & mask
            for r in range(4):
                z = (right ^ round_key_4N[r, k]) + _GOLDEN  # splitmix
                z = (z ^ (z >> _30)) * _MIX_1
                z = (z ^ (z >> _27)) * _MIX_2
                left, right = right, left ^ ((z ^ (z >> _31)) & mask)
            x = (left << half) | right
            if x < n:
                break
        out_N[k] = x
