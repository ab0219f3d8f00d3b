"""A tenth of every set of tests/chaos.py; `make chaos` tries them in full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chaos
import pytest
from rank_runs import RankRuns
from tiny_run import Runs

SHARE = 0.1


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[Runs, RankRuns, Path]]:
    with chaos.ground(SHARE) as ground:
        yield ground


@pytest.mark.parametrize("name", [name for name in chaos.SETS if name not in chaos.IN_FULL_ONLY])
def test_a_tenth_of_the_set_is_good(ground: tuple[Runs, RankRuns, Path], name: str):
    found = chaos.run(name, SHARE, 7, *ground)
    assert found.good == found.of
