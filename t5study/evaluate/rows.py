"""Rows of a task -> pairs of ids, and the order in which they go through a model.

N  rows    R  rows of a batch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from t5study.decode.rows import by_length
from t5study.feed.sources import PairSource
from t5study.ground.pairs import EOS, Pair
from t5study.tasks.task import Row, Task
from t5study.vocab import AnyVocab


def encoded(vocab: AnyVocab, rows: Sequence[Row], source_length: int, target_length: int) -> list[Pair]:
    """Rows as ids that end in EOS. What is too long is cut, EOS kept, as T5 does.

    Sentinels in a row's text stay text: a task cannot speak the vocabulary's private tokens by accident.
    """
    sources = encoded_texts(vocab, [row.input for row in rows], source_length)
    targets = encoded_texts(vocab, [row.target for row in rows], target_length)
    return [Pair(source, target) for source, target in zip(sources, targets, strict=True)]


def encoded_texts(vocab: AnyVocab, texts: Sequence[str], length: int) -> list[np.ndarray]:
    """Texts as ids of at most `length` tokens, the last of them EOS."""
    return [np.append(one[: length - 1], EOS).astype(np.int32) for one in vocab.encode_batch(list(texts))]


def task_source(task: Task, vocab: AnyVocab, seed: int, source_length: int, target_length: int) -> PairSource:
    """A task's training rows as a source to fine-tune on."""
    pairs = encoded(vocab, task.rows("train"), source_length, target_length)
    return PairSource(pairs, seed, source_length, target_length)


# --- batches of like length ---------------------------------------------------------------------------------------


def bucket(length_N: np.ndarray) -> np.ndarray:
    """The length that a row may be padded to: the next multiple of 8, of 16 above 64, of 32 above 128, and so on, which
    is at most a quarter more than what the row has once it has more than 32 tokens.

    >>> bucket(np.array([1, 8, 9, 64, 65, 100, 129, 512]))
    array([  8,   8,  16,  64,  80, 112, 160, 512])
    """
    octave_N = np.ceil(np.log2(np.maximum(length_N, 1))).astype(np.int64)
    width_N = 2 ** np.maximum(octave_N - 3, 3)
    return -(-np.asarray(length_N, np.int64) // width_N) * width_N


def batches(length_N: np.ndarray, batch_rows: int) -> Iterator[np.ndarray]:
    """Numbers of the rows of each batch, longest first: at most `batch_rows`, all of one bucket. No row of a batch is
    padded beyond its own bucket, whatever stands beside it."""
    for row_R in by_length(length_N, batch_rows):
        bucket_R = bucket(length_N[row_R])
        yield from np.split(row_R, np.flatnonzero(np.diff(bucket_R)) + 1)
