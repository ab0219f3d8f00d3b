"""The bucket table at every distance, and the diagonals that carry the bias."""

from __future__ import annotations

import pytest
import torch
from model.reference import bucket

from t5study.model.attention import Diagonals, buckets
from t5study.model.passes import along_diagonals, toeplitz

# First distance of each bucket past the exact half, as checked in TensorFlow, numpy, torch and exact arithmetic.
TWO_WAYS = {12: 9, 16: 10, 23: 11, 32: 12, 46: 13, 64: 14, 91: 15}
ONE_WAY = {
    19: 17, 21: 18, 24: 19, 27: 20, 31: 21, 35: 22, 40: 23, 46: 24, 52: 25, 59: 26, 67: 27, 77: 28, 87: 29, 99: 30,
    113: 31,
}  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
def test_every_distance_by_exact_arithmetic(causal: bool) -> None:
    found = buckets(1025, causal).tolist()
    assert found == [bucket(d, causal) for d in range(-1024, 1025)]


def test_every_boundary() -> None:
    two, one = buckets(1025, False), buckets(1025, True)
    past = two.flip(0)[1024:].tolist()  # distances 0, 1, 2, ... behind
    ahead = two[1024:].tolist()
    behind = one.flip(0)[1024:].tolist()
    assert past[:9] == list(range(9))
    assert behind[:17] == list(range(17))
    assert ahead[1] == 17
    for distance, number in TWO_WAYS.items():
        assert (past[distance - 1], past[distance]) == (number - 1, number)
        assert (ahead[distance - 1], ahead[distance]) == (number + 15, number + 16)
    for distance, number in ONE_WAY.items():
        assert (behind[distance - 1], behind[distance]) == (number - 1, number)
    assert (past[-1], ahead[-1], behind[-1]) == (15, 31, 31)
    assert not one[1024:].any(), "what lies ahead counts as distance 0"


@pytest.mark.parametrize("longest", [1, 2, 40])
@pytest.mark.parametrize("causal", [False, True])
def test_diagonals_of_a_table_and_their_gradient(longest: int, causal: bool) -> None:
    table = torch.randn(32, 3, dtype=torch.double, requires_grad=True)
    at = torch.tensor([[bucket(k - q, causal) for k in range(longest)] for q in range(longest)])
    expected_HQK = table[at].permute(2, 0, 1)
    diagonal_HC = Diagonals.apply(table, longest, causal)
    assert torch.equal(toeplitz(diagonal_HC.detach(), longest, longest), expected_HQK.detach())
    weight_HQK = torch.randn_like(expected_HQK)
    (expected,) = torch.autograd.grad((expected_HQK * weight_HQK).sum(), table)
    (found,) = torch.autograd.grad((diagonal_HC * along_diagonals(weight_HQK, longest)).sum(), table)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (3, 5), (5, 2), (6, 6)])
def test_shorter_tiles_use_the_middle_of_the_diagonals(queries: int, keys: int) -> None:
    diagonal_HC = torch.arange(2 * 6 - 1.0)[None]
    matrix_QK = toeplitz(diagonal_HC, queries, keys)[0]
    for i in range(queries):
        for j in range(keys):
            assert matrix_QK[i, j] == j - i + 5
    sums_C = along_diagonals(torch.ones(1, queries, keys), 6)[0]
    assert sums_C.sum() == queries * keys
    assert sums_C[5] == min(queries, keys)
