"""Streams: the same batches read from the start or from anywhere, ahead in a thread or not, killed or not."""

from __future__ import annotations

import gc
import itertools
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from t5study.feed.mixing import ExamplesProportional, Mixture
from t5study.feed.packing import pack
from t5study.feed.sources import DocumentSource, PairSource, Source
from t5study.feed.stream import Stream
from t5study.ground.errors import Lost, UserError
from t5study.ground.pairs import EOS, Batch, Ids, Pair, Pairs
from t5study.objectives import PrefixLM, ReplaceSpans, SpanCorruption

ROWS, SOURCE, TARGET = 6, 48, 48


def text(objective: PrefixLM | SpanCorruption | ReplaceSpans) -> Source:
    chance = np.random.default_rng(0)
    tokens = chance.integers(3, 900, 3000).astype(np.uint16)
    offsets = np.concatenate([[0], np.sort(chance.choice(3000, 60, replace=False)), [3000]])
    lengths = objective.lengths(SOURCE)
    return DocumentSource(tokens, offsets, objective, lengths, Ids(size=1000), seed=7)


def task(rows: int) -> Source:
    chance = np.random.default_rng(rows)
    return PairSource(
        [
            Pair(*(np.append(chance.integers(3, 900, chance.integers(1, n)), EOS) for n in (40, 12)))
            for _ in range(rows)
        ],
        seed=7,
        source_length=SOURCE,
        target_length=TARGET,
    )


def mixed() -> Source:
    members = [task(5), task(200), task(999)]
    return Mixture(members, ExamplesProportional(300).rates([len(m) for m in members]), seed=7)


SOURCES: dict[str, Callable[[], Source]] = {
    "span corruption": lambda: text(SpanCorruption()),
    "replace spans": lambda: text(ReplaceSpans()),
    "prefix LM": lambda: text(PrefixLM()),
    "task": lambda: task(150),
    "mixture": mixed,
    "mixture with text": lambda: Mixture([task(20), text(SpanCorruption())], [1, 1], seed=7),
}
each_source = pytest.mark.parametrize("name", SOURCES)


def stream(name: str = "mixture") -> Stream:
    return Stream(SOURCES[name](), ROWS, SOURCE, TARGET)


def digest(batch: Batch) -> str:
    found = xxhash.xxh3_64()
    for array in vars(batch).values():
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def read(stream: Stream, position: int, batches: int) -> list[tuple[str, int]]:
    """(digest, next position) of so many batches, one after another."""
    found = []
    for _ in range(batches):
        batch, position = stream.batch(position)
        found.append((digest(batch), position))
    return found


def prefetches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


# --- a batch is a function of its position ------------------------------------------------------------------------


@each_source
def test_the_same_batches_from_the_start_and_from_any_position(name: str):
    whole = read(stream(name), 0, 60)
    positions = [0] + [position for _, position in whole]
    assert positions == sorted(set(positions))
    for begin in random.Random(0).sample(range(60), 12):
        resumed = stream(name)  # another object, as in another process
        assert read(resumed, positions[begin], min(5, 60 - begin)) == whole[begin : begin + 5]
    used = stream(name)  # one that has read elsewhere, in any order
    for begin in random.Random(1).sample(range(60), 12):
        assert read(used, positions[begin], 1) == whole[begin : begin + 1]


@each_source
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_reading_ahead_changes_nothing(name: str, depth: int):
    whole = read(stream(name), 0, 30)
    positions = [0] + [position for _, position in whole]
    for begin in (0, 1, 13):
        with closing(stream(name).prefetch(positions[begin], depth)) as batches:
            found = [(digest(batch), position) for batch, position in itertools.islice(batches, 12)]
        assert found == whole[begin : begin + 12]
    assert not prefetches()


class Unhurried(queue.Queue):
    """Where nothing ever comes, and waiting takes no time."""

    waited = 0.0

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        assert timeout is not None
        Unhurried.waited += timeout
        raise queue.Empty


def test_a_thread_that_hangs_is_told_after_a_minute(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queue, "SimpleQueue", Unhurried)
    go_on, hung = threading.Event(), stream("task")
    hung.batch = lambda position: (go_on.wait(), Stream.batch(hung, position))[1]  # type: ignore[method-assign]
    try:
        with pytest.raises(Lost, match="no batch from example 17 on in 60 s; see whether the data's disk answers"):
            next(hung.prefetch(17))
    finally:
        go_on.set()
    assert Unhurried.waited == pytest.approx(60)
    for thread in prefetches():
        thread.join()


@each_source
def test_a_batch_holds_all_that_fits_however_few_are_drawn_at_a_time(name: str):
    source = SOURCES[name]()
    position = 17
    batch, after = stream(name).batch(position)
    many, used = pack(source.pairs(np.arange(position, position + 400)), ROWS, SOURCE, TARGET)
    assert (digest(batch), after) == (digest(many), position + used)
    for drawn in (1, 2, 5, 300):
        hurried = stream(name)
        hurried._likely = drawn
        assert hurried.batch(position)[1] == after
        hurried._likely = drawn
        assert digest(hurried.batch(position)[0]) == digest(batch)


def test_pairs_that_fill_a_row_are_drawn_once_each():
    class Counting:
        def __init__(self, source: Source):
            self.source, self.drawn = source, 0

        def __len__(self) -> int:
            return len(self.source)

        def pairs(self, index_N: np.ndarray) -> Pairs:
            self.drawn += len(index_N)
            return self.source.pairs(index_N)

    full = [Pair(np.full(SOURCE, 9), np.full(TARGET, 9))] * 10
    counting = Counting(PairSource(full, 0, SOURCE, TARGET))
    assert read(Stream(counting, ROWS, SOURCE, TARGET), 0, 10)[-1][1] == counting.drawn == 10 * ROWS


def test_a_shape_of_nothing_is_refused():
    for shape in [(0, 8, 8), (8, 0, 8), (8, 8, -1)]:
        with pytest.raises(UserError, match="stream: .*: found .*; give at least 1"):
            Stream(task(3), *shape)
    with pytest.raises(ValueError, match="depth of 0"):
        next(stream().prefetch(0, depth=0))


# --- errors -------------------------------------------------------------------------------------------------------


class Bad:
    """Breaks when asked for example 200 or later."""

    def __init__(self, error: BaseException):
        self.source, self.error = task(150), error

    def __len__(self) -> int:
        return len(self.source)

    def pairs(self, index_N: np.ndarray) -> Pairs:
        if index_N.max() >= 200:
            raise self.error
        return self.source.pairs(index_N)


@pytest.mark.parametrize("error", [UserError("tokens: found id 9"), OSError(5, "read"), SystemExit(3), MemoryError()])
def test_an_error_in_the_thread_comes_out_at_its_batch(error: BaseException):
    plain = Stream(Bad(error), ROWS, SOURCE, TARGET)

    def one_by_one() -> Iterator[tuple[Batch, int]]:
        position = 0
        while True:
            batch, position = plain.batch(position)
            yield batch, position

    def collect(batches: Iterator[tuple[Batch, int]], found: list[str]) -> None:
        for batch, _ in batches:
            found.append(digest(batch))

    expected: list[str] = []
    with pytest.raises(type(error)) as alone:
        collect(one_by_one(), expected)
    found: list[str] = []
    with pytest.raises(type(error)) as ahead:
        collect(Stream(Bad(error), ROWS, SOURCE, TARGET).prefetch(0), found)
    assert found == expected
    assert len(found) > 5
    assert ahead.value is alone.value is error
    assert not prefetches()


def test_a_pair_longer_than_the_rows_is_named():
    long = PairSource([Pair(np.ones(20), np.ones(2))], 0, 20, 20)
    with pytest.raises(UserError, match="found a pair of 20 source and 2 target tokens, but rows hold 16 and 8"):
        next(Stream(long, 4, 16, 8).prefetch(0))


# --- the thread ends ----------------------------------------------------------------------------------------------


def test_the_thread_ends_when_the_reader_stops():
    batches = stream().prefetch(0)
    assert not prefetches()  # nothing is begun before the first batch is asked for
    next(batches)
    assert len(prefetches()) == 1
    batches.close()  # type: ignore[attr-defined]
    assert not prefetches()

    batches = stream().prefetch(0)
    next(batches)
    del batches
    gc.collect()
    assert not prefetches()

    def broken() -> None:
        for _ in stream().prefetch(0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    gc.collect()
    assert not prefetches()

    stream().prefetch(0)  # never read
    assert not prefetches()


READER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from feed.test_stream import digest, stream

ledger = Path(sys.argv[1])
rows = ledger.read_text().split("\\n")[:-1] if ledger.exists() else []
position = int(rows[-1].split()[1]) if rows else 0
with open(ledger, "w", buffering=1) as file:
    file.write("".join(row + "\\n" for row in rows))
    for batch, position in stream().prefetch(position):
        file.write(f"{{digest(batch)}} {{position}}\\n")
"""


def reader(ledger: Path) -> subprocess.Popen[bytes]:
    tests = Path(__file__).parents[1]
    code = READER.format(tests=str(tests), root=str(tests.parent))
    return subprocess.Popen([sys.executable, "-c", code, str(ledger)], stderr=subprocess.PIPE)


def until(ledger: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    """Waits for so many whole lines."""
    deadline = time.monotonic() + 120
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_reader_killed_or_interrupted_goes_on_from_its_last_position(tmp_path: Path):
    ledger, chance = tmp_path / "ledger", random.Random(0)
    for signum in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        before = ledger.read_bytes().count(b"\n") if ledger.exists() else 0
        process = reader(ledger)
        try:
            until(ledger, before + chance.randint(3, 40), process)
            process.send_signal(signum)
            assert process.wait(timeout=60) != 0
        finally:
            process.kill()  # a reader that took no notice would read for ever
        said = process.stderr.read().decode() if process.stderr else ""
        assert ("KeyboardInterrupt" in said) == (signum == signal.SIGINT), said
        whole = ledger.read_bytes()
        ledger.write_bytes(whole[: whole.rfind(b"\n") + 1])  # a line cut by the kill is no line
    rows = [(row.split()[0], int(row.split()[1])) for row in ledger.read_text().splitlines()]
    assert rows == read(stream(), 0, len(rows))
