"""The compiled loops against numpy: products of every number of rows, attention over both kinds of keys, the best of a
vocabulary. And a row's result does not depend on the rows beside it, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t5study.decode.attention import attend, source_panels
from t5study.decode.choose import top
from t5study.decode.panels import Panels, gated_gelu
from t5study.decode.tiles import panel_width


def normal(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 15), columns=st.integers(1, 50), width=st.integers(1, 70), seed=st.integers(0, 99),
    precision=st.sampled_from(["float32", "int8"]), relu=st.booleans(), normed=st.booleans(),
)  # fmt: skip
def test_products(rows: int, columns: int, width: int, seed: int, precision: str, relu: bool, normed: bool) -> None:
    x_AK, w_JK = normal(rows, width, seed=seed), normal(columns, width, seed=seed + 1)
    panels = Panels.of(w_JK, precision)
    if precision == "int8":
        scale_J1 = np.abs(w_JK).max(1, keepdims=True) / 127
        w_JK = np.rint(w_JK / scale_J1) * scale_J1
    factor_A1 = 1 / np.sqrt((x_AK**2).mean(1, keepdims=True) + 1e-6) if normed else 1
    expected_AJ = (x_AK * factor_A1) @ w_JK.T
    expected_AJ = np.maximum(expected_AJ, 0) if relu else expected_AJ
    found_AJ = panels.times(x_AK, normed=normed, relu=relu)
    loss = 2e-3 if precision == "int8" else 1e-4  # x itself is rounded to 16 bits
    np.testing.assert_allclose(found_AJ, expected_AJ, atol=loss * np.sqrt(width))
    for a in range(rows):
        assert np.array_equal(panels.times(x_AK[a : a + 1], normed=normed, relu=relu)[0], found_AJ[a])
    total_AJ = normal(rows, columns, seed=seed + 2)
    expected_AJ = total_AJ + panels.times(x_AK)
    panels.add_to(total_AJ, x_AK)
    np.testing.assert_allclose(total_AJ, expected_AJ, rtol=1e-5, atol=1e-5)


def test_int8_sums_do_not_overflow() -> None:
    """Rows and columns of the greatest numbers, as long as the largest model's."""
    for width in (512, 65_536):
        panels = Panels.of(np.full((3, width), -2.0, np.float32), "int8")
        np.testing.assert_allclose(panels.times(np.full((2, width), 3.0, np.float32)), -6.0 * width, rtol=1e-3)
    assert np.isnan(Panels.of(np.full((1, 4), np.nan, np.float32), "int8").times(np.ones((1, 4), np.float32))).all()
    assert np.isnan(Panels.of(np.ones((1, 4), np.float32), "int8").times(np.full((1, 4), np.nan, np.float32))).all()


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), beams=st.integers(1, 9), heads=st.integers(1, 3),
    e=st.sampled_from([4, 16, 24]), places=st.integers(0, 6), source=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_attention(lengths: list[int], beams: int, heads: int, e: int, places: int, source: bool, seed: int) -> None:
    source = source or places == 0
    answers, inner = len(lengths) * beams, heads * e
    length_R, row_A = np.array(lengths), np.repeat(np.arange(len(lengths)), beams)
    q_AI = normal(answers, 3 * inner, seed=seed)[:, :inner]  # as it lies beside k and v
    kv_NW = normal(sum(lengths), 2 * inner, seed=seed + 1)
    answer_LA2I = normal(7, answers, 2, inner, seed=seed + 2)
    answer_2AHLE = np.zeros((2, answers, heads, 7, panel_width(e)), np.float32)
    answer_2AHLE[..., :e] = answer_LA2I.reshape(7, answers, 2, heads, e).transpose(2, 1, 3, 0, 4)
    slot_AL = np.random.default_rng(seed).integers(0, answers, (answers, 7))
    bias_HL = normal(heads, 50, seed=seed + 3)
    panels = source_panels(kv_NW, length_R, heads) if source else (np.zeros(0, np.float32), np.zeros(0, np.int64))
    found_AI = np.empty((answers, inner), np.float32)
    attend(q_AI, heads, *panels, length_R, row_A, answer_2AHLE, slot_AL, places, bias_HL, found_AI)
    first_R = np.cumsum(lengths) - lengths
    for a, r in enumerate(row_A):
        for h in range(heads):
            some = slice(h * e, (h + 1) * e)
            own = kv_NW[first_R[r] : first_R[r] + lengths[r]].reshape(-1, 2, inner) if source else kv_NW[:0, None]
            said = answer_LA2I[np.arange(places), slot_AL[a, :places]]
            keys = np.concatenate((own[:, 0, some], said[:, 0, some])) if source else said[:, 0, some]
            values = np.concatenate((own[:, 1, some], said[:, 1, some])) if source else said[:, 1, some]
            score_L = keys @ q_AI[a, some]
            if places:
                score_L = score_L + bias_HL[h, : len(keys)][::-1]
            p_L = np.exp(score_L - score_L.max())
            np.testing.assert_allclose(found_AI[a, some], p_L @ values / p_L.sum(), atol=2e-4)


def test_gated_gelu() -> None:
    h_A2F = 3 * normal(5, 14)
    gate_AF, line_AF = torch.from_numpy(h_A2F).chunk(2, 1)
    expected_AF = torch.nn.functional.gelu(gate_AF, approximate="tanh") * line_AF
    np.testing.assert_allclose(gated_gelu(h_A2F), expected_AF.numpy(), atol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_the_best_of_a_vocabulary(count: int) -> None:
    logits_AV = np.round(5 * normal(6, 500), 1)  # many equal ones: the first counts
    token_AC, log_p_AC = top(logits_AV, count)
    expected_AV = torch.from_numpy(logits_AV).log_softmax(1).numpy()
    order_AC = np.argsort(-logits_AV, axis=1, kind="stable")[:, :count]
    assert token_AC.tolist() == order_AC.tolist()
    np.testing.assert_allclose(log_p_AC, np.take_along_axis(expected_AV, order_AC, 1), atol=1e-5)
    logits_AV[2, 77] = np.nan
    assert np.isnan(top(logits_AV, count)[1]).any(1).tolist() == [a == 2 for a in range(6)]
