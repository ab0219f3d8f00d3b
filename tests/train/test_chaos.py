"""A tenth of every set of tests/chaos.py; `make chaos` tries them in full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chaos
import pytest
from tiny_run import Runs

SHARE = 0.1


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[Runs, Path]]:
    with chaos.ground(SHARE) as ground:
        yield ground


@pytest.mark.parametrize("name", chaos.SETS)
def test_a_tenth_of_the_set_is_good(ground: tuple[Runs, Path], name: str):
    good, of, _ = chaos.run(name, SHARE, 7, *ground)
    assert good == of
