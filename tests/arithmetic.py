"""Fixtures of all tests that run a model: one thread, so that bytes can be compared; and both kinds of arithmetic.

A folder takes them by naming them in its conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from t5study.model import layers, passes


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["loops", "passes"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled loops, or the same in torch's operators where the loops would have been taken."""
    if request.param == "passes":
        monkeypatch.setattr(layers, "loops", passes)
    return request.param
