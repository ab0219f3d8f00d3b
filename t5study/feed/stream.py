"""Stream: a source as packed batches. Its position is one integer, the number of examples taken so far.

    stream = Stream(source, rows=64, source_length=512, target_length=114)
    batch, position = stream.batch(0)
    batch, position = stream.batch(position)      the second batch, in this process or in any other

`batch` is a pure function of the position. Prefetching computes the same batches ahead in a thread and changes
nothing but the waiting; compiled loops let go of the interpreter, so training goes on meanwhile.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np

from t5study.feed.mixing import Mixture
from t5study.feed.packing import pack
from t5study.feed.sources import Source
from t5study.ground.errors import Lost, UserError
from t5study.ground.pairs import Batch, Pairs

PATIENCE_S = 60.0  # that a batch may take: a core makes one in milliseconds, its first, which compiles loops, in 5 s
_TURNS = 20


class Stream:
    """rows, source_length, target_length: the shape of every batch, in packed rows and tokens."""

    def __init__(self, source: Source, rows: int, source_length: int, target_length: int):
        for name, value in [("rows", rows), ("source length", source_length), ("target length", target_length)]:
            if value < 1:
                raise UserError(f"stream: {name}: found {value}; give at least 1")
        self._source, self._rows = source, rows
        self._source_length, self._target_length = source_length, target_length
        self._likely = rows  # how many pairs to draw first: the last batch's count. No result depends on it.

    def batch(self, position: int) -> tuple[Batch, int]:
        """The batch that begins at example `position`, and where the next one begins.

        Draws pairs until one finds no room, or every row is full: what comes out does not depend on how many are
        drawn at a time. UserError for a pair that is longer than a row.
        """
        drawn: list[Pairs] = []
        wanted = self._likely
        while True:
            begin = position + sum(map(len, drawn))
            drawn.append(self._source.pairs(np.arange(begin, begin + wanted)))
            pairs = _joined(drawn)
            batch, used = pack(pairs, self._rows, self._source_length, self._target_length)
            if used < len(pairs) or _full(batch):
                # One more than was used, and a few for batches that hold more: usually one draw is enough.
                self._likely = used + (0 if _full(batch) else 1 + used // 16)
                return batch, position + used
            wanted = max(self._rows, len(pairs))

    def taken(self, position: int) -> dict[str, int]:
        """How many of the first `position` examples came from each member of a mixture that has names; else {}."""
        return self._source.taken(position) if isinstance(self._source, Mixture) else {}

    @property
    def shares(self) -> dict[str, float]:
        """What part of all examples each of these members was to have."""
        return self._source.shares if isinstance(self._source, Mixture) else {}

    def prefetch(self, position: int, depth: int = 8) -> Iterator[tuple[Batch, int]]:
        """batch(position), and so on for ever, computed up to `depth` ahead in a thread, which is woken when half of
        them are taken: on a busy machine each waking costs whoever wakes it.

        An error in the thread comes out here, at the batch it belongs to. Lost, if the thread has ended without one, or
        no batch comes in PATIENCE_S. The thread starts at the first `next` and ends when this iterator is closed,
        dropped or interrupted; it never keeps a process alive.
        """
        if depth < 1:
            raise ValueError(f"a depth of {depth}")
        ready: queue.SimpleQueue[tuple[Batch, int] | BaseException] = queue.SimpleQueue()
        room, stop = threading.Semaphore(depth), threading.Event()
        worker = threading.Thread(
            target=_work_ahead, args=(self, position, ready, room, stop), name="prefetch", daemon=True
        )
        worker.start()
        stuck, taken = False, 0
        try:
            while True:
                found = _next(ready, worker, position)
                taken += 1
                if 2 * taken >= depth:
                    room.release(taken)
                    taken = 0
                if isinstance(found, BaseException):
                    found.add_note(f"in the batch that begins at example {position:,}")
                    raise found
                position = found[1]
                yield found
        except Lost:
            stuck = True
            raise
        finally:
            stop.set()
            room.release()  # in case it waits for room
            if not stuck:
                worker.join()


def _next(
    ready: queue.SimpleQueue[tuple[Batch, int] | BaseException], worker: threading.Thread, position: int
) -> tuple[Batch, int] | BaseException:
    """What the thread puts out next. Waits in short turns: a process that was suspended has lost one, not all."""
    for _ in range(_TURNS):
        try:
            return ready.get(timeout=PATIENCE_S / _TURNS)
        except queue.Empty:
            if not worker.is_alive() and ready.empty():
                raise Lost(
                    f"stream: the thread that makes batches ended before the one from example {position:,}; run the "
                    "same command again to go on"
                ) from None
    raise Lost(
        f"stream: no batch from example {position:,} on in {PATIENCE_S:,.0f} s; see whether the data's disk answers, "
        "then run the same command again to go on"
    )


def _work_ahead(
    stream: Stream,
    position: int,
    ready: queue.SimpleQueue[tuple[Batch, int] | BaseException],
    room: threading.Semaphore,
    stop: threading.Event,
) -> None:
    """The thread of `prefetch`. It holds no reference to the iterator, so that a dropped iterator is collected."""
    try:
        while True:
            room.acquire()
            if stop.is_set():
                return
            batch, position = stream.batch(position)
            ready.put((batch, position))
    except BaseException as error:  # whatever it is belongs to the consumer
        ready.put(error)


def _full(batch: Batch) -> bool:
    """Whether no row can take another pair, however short."""
    return bool(((batch.source_segment_BS[:, -1] > 0) | (batch.target_segment_BT[:, -1] > 0)).all())


def _joined(drawn: list[Pairs]) -> Pairs:
    """Blocks of pairs as one block."""
    if len(drawn) == 1:
        return drawn[0]
    widest_s = max(pairs.source_BS.shape[1] for pairs in drawn)
    widest_t = max(pairs.target_BT.shape[1] for pairs in drawn)

    def padded(block: np.ndarray, width: int) -> np.ndarray:
        return np.pad(block, ((0, 0), (0, width - block.shape[1])))

    return Pairs(
        np.concatenate([padded(pairs.source_BS, widest_s) for pairs in drawn]),
        np.concatenate([pairs.source_length_B for pairs in drawn]),
        np.concatenate([padded(pairs.target_BT, widest_t) for pairs in drawn]),
        np.concatenate([pairs.target_length_B for pairs in drawn]),
    )
