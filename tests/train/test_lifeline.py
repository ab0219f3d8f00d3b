"""Ranks of which one dies without a word, or leaves with one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from rank_runs import RankRuns
from torch import distributed as dist

from t5study.ground.errors import Lost
from t5study.train.lifeline import lifelines


@pytest.fixture(scope="module")
def ranks() -> Iterator[RankRuns]:
    with RankRuns() as runs:
        yield runs


def test_ranks_that_wait_for_one_another_end_when_a_third_is_killed(ranks: RankRuns, tmp_path: Path):
    """In gloo's recv, of which nothing wakes them: not the death of a rank that neither waits for."""
    codes = ranks.stuck(3, tmp_path / "told", end="kill", grace=0.5)
    assert codes == [75, 75, -9]
    told = [(tmp_path / f"told.{rank}.txt").read_text().splitlines()[-1] for rank in range(2)]
    assert told[0] == "t5study: rank 0: rank 2 is gone; run the same command again to go on"
    assert told[1].startswith("t5study: rank 1: ")


def test_a_rank_that_leaves_at_its_end_leaves_the_others_in_peace(ranks: RankRuns, tmp_path: Path):
    assert ranks.stuck(3, tmp_path / "told", end="leave", grace=0.5) == [0, 0, 0]


def test_strangers_are_turned_away(monkeypatch: pytest.MonkeyPatch):
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")

    def life(rank: int) -> str:
        own = dist.TCPStore("127.0.0.1", store.port, is_master=False)
        with lifelines(own, rank, 2, timedelta(seconds=60)):
            return "lived"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(life, 0)
        port, word = store.get("lifeline").decode().split()
        for said in (b"", b"\xff\n", b"GET / HTTP/1.1\r\n", f"{word[:-1]} 1\n".encode(), f"{word} one\n".encode()):
            with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as stranger:
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(1) == b""
        second = pool.submit(life, 1)
        assert [first.result(), second.result()] == ["lived"] * 2


def test_a_rank_that_does_not_come(monkeypatch: pytest.MonkeyPatch):
    """To the first; and the first, to one that is late."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for rank in (0, 1):
        with (
            pytest.raises(Lost, match=f"rank {rank}: no connection between all 2 ranks"),
            lifelines(store, rank, 2, timedelta(seconds=0.3)),
        ):
            pass
