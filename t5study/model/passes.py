"""The functions of loops.py in torch's operators: for a GPU, for several threads, for bf16 and for double precision.

    N  tokens    D  width of a row    I  H K, the columns of all heads    H  heads    R  rows of the softmax
    G  segments of a tile    Q  queries    K  keys    V  vocabulary rows    C  2 * longest - 1 distances

Matrix products may be in bf16; statistics, softmax and loss are in fp32 (or in double where the weights are).
"""

from __future__ import annotations

import torch
from torch import Tensor

HIDDEN = -1e9  # an attention score that stands for "not seen": its exponential is 0


def wide(dtype: torch.dtype) -> torch.dtype:
    """What statistics of such numbers are taken in."""
    return torch.promote_types(dtype, torch.float32)


def rms(x_ND: Tensor, gain_D: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r_N = (x_ND.square().mean(-1) + 1e-6).rsqrt()
    return (x_ND * r_N[:, None] * gain_D).to(dtype), r_N


def rms_backward(
    dy_ND: Tensor, x_ND: Tensor, r_N: Tensor, gain_D: Tensor, residual_ND: Tensor | None
) -> tuple[Tensor, Tensor]:
    dy_ND = dy_ND.to(x_ND.dtype)
    scaled_ND = x_ND * r_N[:, None]
    product_ND = dy_ND * scaled_ND
    dx_ND = dy_ND * gain_D
    dx_ND -= scaled_ND * ((product_ND @ gain_D) / x_ND.shape[1])[:, None]
    dx_ND *= r_N[:, None]
    return dx_ND if residual_ND is None else dx_ND.add_(residual_ND), product_ND.sum(0)


def _biased(scores_GQK: Tensor, diagonal_C: Tensor | None, length_G: Tensor | None, causal: bool) -> Tensor:
    """Scores with the position bias, in fp32; keys that are not seen get HIDDEN."""
    _, queries, keys = scores_GQK.shape
    scores_GQK = scores_GQK.to(wide(scores_GQK.dtype))
    if diagonal_C is not None:
        scores_GQK = scores_GQK + toeplitz(diagonal_C, queries, keys)
    device = scores_GQK.device
    if causal:
        ahead_QK = torch.ones(queries, keys, dtype=torch.bool, device=device).triu_(1)
        scores_GQK = scores_GQK.masked_fill(ahead_QK, HIDDEN)
    if length_G is not None:
        padding_GK = torch.arange(keys, device=device) >= length_G[:, None]
        scores_GQK = scores_GQK.masked_fill(padding_GK[:, None], HIDDEN)
    return scores_GQK


def toeplitz(diagonal_C: Tensor, queries: int, keys: int) -> Tensor:
    """The bias matrix of its diagonals: [i, j] is diagonal_C[j - i + longest - 1]."""
    middle = len(diagonal_C) // 2
    return diagonal_C[middle - queries + 1 : middle + keys].unfold(0, keys, 1).flip(0)


def along_diagonals(matrix_QK: Tensor, longest: int) -> Tensor:
    """Sums of a matrix along its diagonals: the way back from `toeplitz`."""
    queries, keys = matrix_QK.shape
    width = queries + keys - 1
    sheared = matrix_QK.new_zeros(queries, width)  # entry [i, j] goes to column j - i + queries - 1 of row i
    torch.as_strided(sheared, (queries, keys), (width - 1, 1), queries - 1).copy_(matrix_QK)
    out_C = matrix_QK.new_zeros(2 * longest - 1)
    out_C[longest - queries : longest - queries + width] = sheared.sum(0)
    return out_C


def softmax_(scores_GQK: Tensor, diagonal_C: Tensor | None, length_G: Tensor | None, causal: bool) -> Tensor:
    biased_GQK = _biased(scores_GQK, diagonal_C, length_G, causal)
    lse_GQ = biased_GQK.logsumexp(-1)
    scores_GQK.copy_((biased_GQK - lse_GQ[..., None]).exp_())
    return lse_GQ


def softmax_again_(
    scores_GQK: Tensor, diagonal_C: Tensor | None, length_G: Tensor | None, causal: bool, lse_GQ: Tensor
) -> None:
    biased_GQK = _biased(scores_GQK, diagonal_C, length_G, causal)
    scores_GQK.copy_((biased_GQK - lse_GQ[..., None]).exp_())


def softmax_backward_(p_GQK: Tensor, dp_GQK: Tensor, ddiagonal_C: Tensor | None) -> None:
    dtype = wide(p_GQK.dtype)
    ds_GQK = torch._softmax_backward_data(dp_GQK.to(dtype), p_GQK.to(dtype), -1, dtype)
    dp_GQK.copy_(ds_GQK)
    if ddiagonal_C is not None:
        ddiagonal_C += along_diagonals(ds_GQK.sum(0), len(ddiagonal_C) // 2 + 1)


def _inside(length_G: Tensor, width: int) -> Tensor:
    return torch.arange(width, device=length_G.device) < length_G[:, None]


def take(source_NI: Tensor, first_G: Tensor, length_G: Tensor, width: int) -> Tensor:
    at_GW = first_G[:, None] + torch.arange(width, device=first_G.device)
    block = source_NI[at_GW.clamp_(max=len(source_NI) - 1)]
    return block.masked_fill_(~_inside(length_G, width)[..., None], 0)


def put(target_NI: Tensor, first_G: Tensor, length_G: Tensor, block: Tensor) -> None:
    inside_GW = _inside(length_G, block.shape[1])
    at_GW = first_G[:, None] + torch.arange(block.shape[1], device=first_G.device)
    target_NI[at_GW[inside_GW]] = block[inside_GW]


def relu_(h_NF: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> None:
    h_NF.relu_()
    if mask_BF is not None:
        h_NF.mul_(mask_BF[row_N])


def relu_backward_(dh_NF: Tensor, h_NF: Tensor, scale: float) -> None:
    dh_NF.masked_fill_(h_NF == 0, 0)
    if scale != 1:
        dh_NF.mul_(scale)


def add(x_ND: Tensor, o_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    return x_ND + o_ND if mask_BD is None else torch.addcmul(x_ND, o_ND.to(x_ND.dtype), mask_BD[row_N])


def masked(x_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    return x_ND if mask_BD is None else (x_ND * mask_BD[row_N]).to(x_ND.dtype)


def add_rows_(table_VD: Tensor, id_N: Tensor, x_ND: Tensor) -> None:
    table_VD.index_add_(0, id_N, x_ND.to(table_VD.dtype))


def cross_entropy_(logits_RV: Tensor, label_R: Tensor, z_loss: float, gradient: bool) -> tuple[Tensor, Tensor]:
    full_RV = logits_RV.to(wide(logits_RV.dtype))
    lse_R = full_RV.logsumexp(-1)
    nats_R = lse_R - full_RV.gather(1, label_R[:, None]).squeeze(1)
    if gradient:
        p_RV = (full_RV - lse_R[:, None]).exp_()
        p_RV.mul_((1 + 2 * z_loss * lse_R)[:, None])
        p_RV.scatter_add_(1, label_R[:, None], torch.full_like(lse_R, -1)[:, None])
        logits_RV.copy_(p_RV)
    return nats_R, lse_R
