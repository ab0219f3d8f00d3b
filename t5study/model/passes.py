"""The functions of loops.py in torch's operators: for a GPU, for several threads, for bf16 and for double precision.

    N  tokens    D  d_model    F  d_ff    W  columns of a projection    H  heads    E  d_kv    B  rows of the batch
    G  segments of a tile    Q  queries    K  keys    C  2 * longest - 1 distances    V  vocabulary    R  its rows

Matrix products may be in bf16; statistics, softmax and loss are in fp32 (or in double where the weights are).
"""

from __future__ import annotations

import torch
from torch import Tensor

from t5study.model.inputs import Span

HIDDEN = -1e9  # an attention score that stands for "not seen": its exponential is 0


def wide(dtype: torch.dtype) -> torch.dtype:
    """What statistics of such numbers are taken in."""
    return torch.promote_types(dtype, torch.float32)


def chunks(dtype: torch.dtype) -> int:
    """How many of the loss's chunks (loss.py) to take at a time, logits being of this dtype."""
    return 1


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


def split(x_NW: Tensor, parts: int, heads: int, span: Span, factor_NH: Tensor | None) -> Tensor:
    at_GW, inside_GW = _places(span)
    at_GW = at_GW.clamp(max=len(x_NW) - 1)
    block = x_NW[at_GW].unflatten(-1, (parts, heads, -1)).masked_fill(~inside_GW[..., None, None, None], 0)
    if factor_NH is not None:
        block[:, :, -1].mul_(factor_NH[at_GW][..., None])
    return block.permute(2, 3, 0, 1, 4).contiguous()


def join(block: Tensor, x_NW: Tensor, span: Span, factor_NH: Tensor | None) -> None:
    at_GW, inside_GW = _places(span)
    rows = block.permute(2, 3, 0, 1, 4)[inside_GW]
    if factor_NH is not None:
        rows[:, -1].mul_(factor_NH[at_GW[inside_GW]][..., None])
    x_NW[at_GW[inside_GW]] = rows.flatten(1)


def _places(span: Span) -> tuple[Tensor, Tensor]:
    """Where the places of a block lie in the token list, and which are real."""
    along_W = torch.arange(span.width, device=span.first_G.device)
    return span.first_G[:, None] + along_W, along_W < span.length_G[:, None]


def _biased(
    scores_HGQK: Tensor,
    diagonal_HC: Tensor | None,
    length_G: Tensor | None,
    causal: bool,
    prefix_G: Tensor | None,
) -> Tensor:
    """Scores with the position bias, in fp32; keys that are not seen get HIDDEN."""
    queries, keys = scores_HGQK.shape[2:]
    scores_HGQK = scores_HGQK.to(wide(scores_HGQK.dtype))
    if diagonal_HC is not None:
        scores_HGQK = scores_HGQK + toeplitz(diagonal_HC, queries, keys)[:, None]
    seen_GQ = None if length_G is None else length_G[:, None]
    if causal:
        own_GQ = torch.arange(1, queries + 1, device=scores_HGQK.device)[None]
        if prefix_G is not None:
            own_GQ = torch.maximum(own_GQ, prefix_G[:, None])
        seen_GQ = own_GQ if seen_GQ is None else torch.minimum(own_GQ, seen_GQ)
    if seen_GQ is not None:
        hidden_GQK = torch.arange(keys, device=scores_HGQK.device) >= seen_GQ[..., None]
        scores_HGQK = scores_HGQK.masked_fill(hidden_GQK, HIDDEN)
    return scores_HGQK


def toeplitz(diagonal_HC: Tensor, queries: int, keys: int) -> Tensor:
    """The bias matrices of their diagonals: [h, i, j] is diagonal[h, j - i + longest - 1]."""
    middle = diagonal_HC.shape[1] // 2
    return diagonal_HC[:, middle - queries + 1 : middle + keys].unfold(1, keys, 1).flip(1)


def along_diagonals(matrix_HQK: Tensor, longest: int) -> Tensor:
    """Sums of matrices along their diagonals: the way back from `toeplitz`."""
    heads, queries, keys = matrix_HQK.shape
    width = queries + keys - 1
    sheared = matrix_HQK.new_zeros(heads, queries, width)  # entry [i, j] goes to column j - i + queries - 1 of row i
    strides = (queries * width, width - 1, 1)
    torch.as_strided(sheared, (heads, queries, keys), strides, queries - 1).copy_(matrix_HQK)
    out_HC = matrix_HQK.new_zeros(heads, 2 * longest - 1)
    out_HC[:, longest - queries : longest - queries + width] = sheared.sum(1)
    return out_HC


def softmax_(
    scores_HGQK: Tensor,
    diagonal_HC: Tensor | None,
    length_G: Tensor | None,
    causal: bool,
    prefix_G: Tensor | None = None,
) -> Tensor:
    biased_HGQK = _biased(scores_HGQK, diagonal_HC, length_G, causal, prefix_G)
    lse_HGQ = biased_HGQK.logsumexp(-1)
    scores_HGQK.copy_((biased_HGQK - lse_HGQ[..., None]).exp_())
    return lse_HGQ


def softmax_again_(
    scores_HGQK: Tensor,
    diagonal_HC: Tensor | None,
    length_G: Tensor | None,
    causal: bool,
    lse_HGQ: Tensor,
    prefix_G: Tensor | None = None,
) -> None:
    biased_HGQK = _biased(scores_HGQK, diagonal_HC, length_G, causal, prefix_G)
    scores_HGQK.copy_((biased_HGQK - lse_HGQ[..., None]).exp_())


def softmax_backward_(p_HGQK: Tensor, dp_HGQK: Tensor, ddiagonal_HC: Tensor | None) -> None:
    p, dp = (x.to(wide(x.dtype)) for x in (p_HGQK, dp_HGQK))
    ds_HGQK = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
    dp_HGQK.copy_(ds_HGQK)
    if ddiagonal_HC is not None:
        ddiagonal_HC += along_diagonals(ds_HGQK.sum(1), ddiagonal_HC.shape[1] // 2 + 1)


def relu_(h_NF: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> None:
    h_NF.relu_()
    if mask_BF is not None:
        h_NF.mul_(mask_BF[row_N])


def relu_backward_(dh_NF: Tensor, h_NF: Tensor, scale: float) -> None:
    dh_NF.masked_fill_(h_NF == 0, 0)
    if scale != 1:
        dh_NF.mul_(scale)


def gated(h_N2F: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> Tensor:
    gate_NF, line_NF = h_N2F.chunk(2, 1)
    return masked(torch.nn.functional.gelu(gate_NF, approximate="tanh").mul_(line_NF), mask_BF, row_N)


def gated_backward(da_NF: Tensor, h_N2F: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> Tensor:
    da_NF = masked(da_NF, mask_BF, row_N)
    gate_NF, line_NF = h_N2F.chunk(2, 1)
    dgate_NF = torch.ops.aten.gelu_backward(da_NF * line_NF, gate_NF, approximate="tanh")
    return torch.cat((dgate_NF, torch.nn.functional.gelu(gate_NF, approximate="tanh").mul_(da_NF)), dim=1)


def add(x_ND: Tensor, o_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    return x_ND + o_ND if mask_BD is None else torch.addcmul(x_ND, o_ND.to(x_ND.dtype), mask_BD[row_N])


def masked(x_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    return x_ND if mask_BD is None else (x_ND * mask_BD[row_N]).to(x_ND.dtype)


def add_rows_(table_VD: Tensor, id_N: Tensor, x_ND: Tensor) -> None:
    x_ND = x_ND.to(table_VD.dtype)
    if table_VD.is_cuda:  # sorted by id, so that the same sums come out again, which index_add_ does not promise there
        table_VD.index_put_((id_N,), x_ND, accumulate=True)
    else:
        table_VD.index_add_(0, id_N, x_ND)


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
