"""Ranks that meet in a store that outlives them, as torchrun's does, and in which others met before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch import distributed as dist

from t5study.ground.errors import Lost
from t5study.train.meeting import meet

PATIENCE = timedelta(seconds=60)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dist.Store:
    """A launcher's store, at the address that ranks are told."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(server.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    return server


def attempt(order: list[int], kept: dist.Store, before: set[bytes]) -> list[dist.Store]:
    """The ranks' stores, by rank. Each rank begins once the one ahead of it in `order` has asked, if it asks. before:
    what was asked in earlier attempts."""
    with ThreadPoolExecutor(len(order)) as pool:
        found = {}
        for rank in order:
            found[rank] = pool.submit(meet, rank, len(order), PATIENCE)
            while rank and kept.get(f"ask/{rank}") in before:
                pass
        before |= {kept.get(f"ask/{rank}") for rank in order if rank}
        return [found[rank].result() for rank in sorted(order)]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_nothing_is_left_of_those_who_met_before(kept: dist.Store, order: list[int]):
    """Whoever is there first. Before, each rank found what the first of an earlier attempt had left."""
    before: set[bytes] = set()
    for words in ("one", "two", "three"):
        first, *others = attempt(order, kept, before)
        assert all(not store.check(["address"]) for store in (first, *others))
        first.set("address", words)
        assert [store.get("address") for store in others] == [words.encode()] * 2


def test_a_rank_that_does_not_come_is_named(kept: dist.Store):
    brief = timedelta(seconds=0.5)
    with pytest.raises(Lost, match=r"^rank 1: not all of 2 ranks came together within 0:00:00.500000 \(.+go on$"):
        meet(1, 2, brief)
    with pytest.raises(Lost, match=r"^rank 0: not all of 2 ranks .+\(no word of rank 1\)"):
        meet(0, 2, brief)
