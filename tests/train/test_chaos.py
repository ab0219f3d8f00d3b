"""A tenth of every set of tests/chaos.py; `make chaos` tries them in full."""

from __future__ import annotations

import chaos
import pytest


@pytest.mark.parametrize("name", chaos.SETS)
def test_a_tenth_of_the_set_is_good(name: str):
    good, of, _ = chaos.run(share=0.1, seed=7, names=[name])[name]
    assert good == of
