"""Which of torch's libraries makes fp32 products, and that they stay fp32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from t5study.ground import machine
from t5study.ground.machine import choose_library


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    asked = torch.backends.mkldnn.matmul.fp32_precision
    yield
    torch.backends.mkldnn.matmul.fp32_precision = asked


@pytest.mark.parametrize(
    ("told", "d_model", "asked"),
    [
        ({"avx512bw", "avx512_bf16", "AuthenticAMD"}, 256, {"bf16", "none"}),
        ({"avx512bw", "avx512_bf16", "AuthenticAMD"}, 128, {"none"}),
        ({"avx512bw", "avx512_bf16", "GenuineIntel"}, 256, {"none"}),
        ({"avx512bw", "amx_bf16", "AuthenticAMD"}, 256, {"none"}),
        ({"avx2", "AuthenticAMD"}, 256, {"none"}),
        (None, 256, {"none"}),
    ],
)
def test_products_are_in_fp32_whichever_library_makes_them(
    told: set[str] | None, d_model: int, asked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_told", lambda *fields: told)
    choose_library(d_model)
    assert torch.backends.mkldnn.matmul.fp32_precision in asked
    random = torch.Generator().manual_seed(0)
    for n, k, m in ((64, 64, 64), (300, 512, 700), (1024, 1024, 1024)):
        a, b = torch.randn(n, k, generator=random), torch.randn(k, m, generator=random)
        exact = a.double() @ b.double()
        error = ((a @ b).double() - exact).abs().max() / exact.abs().max()
        assert error < 3e-6  # bf16 would make it a thousandth
