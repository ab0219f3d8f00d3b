"""Pairs: what objectives and tasks make, and all that anything downstream knows.

Shape legend of the whole house. A tensor's name ends in its axes, in order:

    B  rows of a batch, or examples of a `Pairs`
    S  source (encoder) positions
    T  target (decoder) positions
    L  raw positions, before an objective has hidden anything
    D  d_model      F  d_ff      H  heads      K  d_kv      V  vocabulary rows
    N  examples in a list that has no other name

Ids are int32 in numpy and int64 in torch. 0 is padding, 1 ends a sequence, 2 is unknown (T5's own ids);
sentinels count down from the top: `<extra_id_0>` is `size - 1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from t5study.ground.errors import UserError

PAD, EOS, UNK = 0, 1, 2


@dataclass(frozen=True)
class Ids:
    """The numbers of a vocabulary that objectives need: how many ids there are and how many are sentinels.

    >>> ids = Ids(size=32_100)
    >>> ids.sentinel(0), ids.sentinel(99), ids.pieces, ids.table_rows
    (32099, 32000, 32000, 32128)
    """

    size: int
    sentinels: int = 100

    @property
    def pieces(self) -> int:
        """Ordinary ids: everything below the last sentinel."""
        return self.size - self.sentinels

    @property
    def table_rows(self) -> int:
        """Rows of the embedding table: `size` rounded up to a multiple of 128, as T5 pads it."""
        return -(-self.size // 128) * 128

    def sentinel(self, k: int) -> int:
        """The id of `<extra_id_k>`."""
        if not 0 <= k < self.sentinels:
            raise ValueError(f"sentinel {k} of a vocabulary with {self.sentinels} sentinels")
        return self.size - 1 - k


@dataclass(frozen=True)
class Pair:
    """One example: source ids and target ids, each ending in EOS, without padding. int32, 1-D."""

    source: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Many examples, right-padded with 0: what a batched objective returns.

    source_BS, target_BT: int32; source_length_B, target_length_B: int32, EOS counted.
    """

    source_BS: np.ndarray
    source_length_B: np.ndarray
    target_BT: np.ndarray
    target_length_B: np.ndarray

    def __len__(self) -> int:
        return len(self.source_length_B)

    def __getitem__(self, i: int) -> Pair:
        return Pair(self.source_BS[i, : self.source_length_B[i]], self.target_BT[i, : self.target_length_B[i]])

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))

    @staticmethod
    def of(pairs: Sequence[Pair]) -> Pairs:
        """Pads single pairs into one block."""
        sources, source_length_B = pad_rows([p.source for p in pairs])
        targets, target_length_B = pad_rows([p.target for p in pairs])
        return Pairs(sources, source_length_B, targets, target_length_B)


@dataclass(frozen=True)
class Lengths:
    """Tokens of one example: raw ones read; inputs and targets at most, EOS counted. The rest is cut, EOS kept."""

    raw: int
    inputs: int
    targets: int

    @staticmethod
    def whole(input_length: int) -> int:
        """Raw tokens of an example that keeps them all: an input's but for its EOS."""
        if input_length < 4:
            raise UserError(f"objective: found an input length of {input_length}; give at least 4")
        return input_length - 1


@dataclass(frozen=True)
class Batch:
    """Fixed rows, several pairs packed into each. All int32.

    ids: 0 is padding. segment: 1, 2, ... within a row, 0 is padding. position: restarts at 0 in every segment.
    The source and target of one pair carry the same segment number in the same row; attention stays inside it.
    A row of one segment is the unpacked case.
    """

    source_BS: np.ndarray
    source_segment_BS: np.ndarray
    source_position_BS: np.ndarray
    target_BT: np.ndarray
    target_segment_BT: np.ndarray
    target_position_BT: np.ndarray

    def __len__(self) -> int:
        return len(self.source_BS)

    def rows(self, rows: slice | np.ndarray) -> Batch:
        """Some rows of it: a micro-batch, or one rank's share."""
        return Batch(
            self.source_BS[rows],
            self.source_segment_BS[rows],
            self.source_position_BS[rows],
            self.target_BT[rows],
            self.target_segment_BT[rows],
            self.target_position_BT[rows],
        )

    @property
    def target_tokens(self) -> int:
        """Targets the loss is divided by: everything but padding."""
        return int((self.target_segment_BT > 0).sum())

    @property
    def tokens(self) -> int:
        """Source and target tokens that are not padding: what throughput counts."""
        return int((self.source_segment_BS > 0).sum()) + self.target_tokens


def pad_rows(rows: Sequence[np.ndarray], width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Right-pads 1-D id arrays with 0 into an int32 (N, width) block; returns it and the lengths (N,).

    >>> pad_rows([np.array([5, 1]), np.array([7, 8, 1])])[0].tolist()
    [[5, 1, 0], [7, 8, 1]]
    """
    length_N = np.array([len(row) for row in rows], dtype=np.int32)
    width = int(length_N.max(initial=0)) if width is None else width
    block = np.zeros((len(rows), width), dtype=np.int32)
    for i, row in enumerate(rows):
        block[i, : len(row)] = row
    return block, length_N
