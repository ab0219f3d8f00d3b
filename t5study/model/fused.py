"""The functions of passes.py on a GPU, by the kernels of fused_kernels.py; those that are few or one pass anyway are
passes.py's own.

    N  tokens    D  d_model    F  d_ff    B  rows of the batch    V  vocabulary    R  rows of logits    P  programs
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from t5study.model import gpu
from t5study.model.passes import add_rows_, join, softmax_, softmax_again_, softmax_backward_, split

__all__ = [
    "add", "add_rows_", "chunks", "cross_entropy_", "gated", "gated_backward", "join", "masked", "relu_",
    "relu_backward_", "rms", "rms_backward", "softmax_", "softmax_again_", "softmax_backward_", "split",
]  # fmt: skip

PROGRAMS = 1024  # of a norm's backward pass: each has a row of partial sums
COLUMNS = 1024  # of a program at a time, where columns do not meet
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fits(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether these do a model's arithmetic: where there are kernels, on such numbers."""
    return gpu.why_not(weight.device) is None and weight.dtype in DTYPES and dtype in DTYPES


def chunks(dtype: torch.dtype) -> int:
    """How many of the loss's chunks (loss.py) to take at a time: more than elsewhere, since logits have no copy in fp32
    here."""
    return 4


def rms(x_ND: Tensor, gain_D: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows, columns = x_ND.shape
    y_ND, r_N = torch.empty_like(x_ND, dtype=dtype), x_ND.new_empty(rows, dtype=torch.float32)
    if rows:
        _kernels().norm[(rows, 1)](x_ND.contiguous(), gain_D, y_ND, r_N, columns, C=_power(columns))
    return y_ND, r_N


def rms_backward(
    dy_ND: Tensor, x_ND: Tensor, r_N: Tensor, gain_D: Tensor, residual_ND: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows, columns = x_ND.shape
    each = -(-rows // PROGRAMS) or 1
    programs = -(-rows // each)
    dx_ND, sums_PD = torch.empty_like(x_ND), x_ND.new_empty(programs, columns, dtype=torch.float32)
    if rows:
        around_ND = x_ND if residual_ND is None else residual_ND.contiguous()
        _kernels().norm_backward[(programs,)](
            dy_ND.contiguous(), x_ND.contiguous(), r_N, gain_D, around_ND, dx_ND, sums_PD, rows, each, columns,
            has_around=residual_ND is not None, C=_power(columns),
        )  # fmt: skip
    return dx_ND, sums_PD.sum(0).to(x_ND.dtype)


def relu_(h_NF: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> None:
    if mask_BF is None:
        h_NF.relu_()
    elif len(h_NF):
        _kernels().relu[_grid(h_NF)](
            _whole(h_NF), mask_BF, row_N, h_NF.shape[1], mask_BF.stride(0), C=_wide(h_NF.shape[1])
        )


def relu_backward_(dh_NF: Tensor, h_NF: Tensor, scale: float) -> None:
    if len(h_NF):
        columns = h_NF.shape[1]
        _kernels().relu_backward[_grid(h_NF)](_whole(dh_NF), h_NF.contiguous(), columns, float(scale), C=_wide(columns))


def add(x_ND: Tensor, o_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    if mask_BD is None or not len(x_ND):
        return x_ND + o_ND
    out_ND, columns = torch.empty_like(x_ND), x_ND.shape[1]
    _kernels().add[_grid(x_ND)](
        x_ND.contiguous(), o_ND.contiguous(), mask_BD, row_N, out_ND, columns, mask_BD.stride(0), C=_wide(columns)
    )
    return out_ND


def masked(x_ND: Tensor, mask_BD: Tensor | None, row_N: Tensor) -> Tensor:
    if mask_BD is None or not len(x_ND):
        return x_ND
    out_ND, columns = torch.empty_like(x_ND), x_ND.shape[1]
    _kernels().masked[_grid(x_ND)](
        x_ND.contiguous(), mask_BD, row_N, out_ND, columns, mask_BD.stride(0), C=_wide(columns)
    )
    return out_ND


def gated(h_N2F: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> Tensor:
    rows, columns = len(h_N2F), h_N2F.shape[1] // 2
    a_NF = h_N2F.new_empty(rows, columns)
    if rows:
        mask, stride = (h_N2F, 0) if mask_BF is None else (mask_BF, mask_BF.stride(0))
        _kernels().gated[_grid(a_NF)](
            h_N2F.contiguous(), mask, row_N, a_NF, columns, stride, has_mask=mask_BF is not None, C=_wide(columns)
        )
    return a_NF


def gated_backward(da_NF: Tensor, h_N2F: Tensor, mask_BF: Tensor | None, row_N: Tensor) -> Tensor:
    dh_N2F, columns = torch.empty_like(h_N2F), da_NF.shape[1]
    if len(da_NF):
        mask, stride = (h_N2F, 0) if mask_BF is None else (mask_BF, mask_BF.stride(0))
        _kernels().gated_backward[_grid(da_NF)](
            da_NF.contiguous(), h_N2F.contiguous(), mask, row_N, dh_N2F, columns, stride,
            has_mask=mask_BF is not None, C=_wide(columns),
        )  # fmt: skip
    return dh_N2F


def cross_entropy_(logits_RV: Tensor, label_R: Tensor, z_loss: float, gradient: bool) -> tuple[Tensor, Tensor]:
    rows, columns = logits_RV.shape
    nats_R, lse_R = (logits_RV.new_empty(rows, dtype=torch.float32) for _ in range(2))
    if rows:
        _kernels().cross_entropy[(rows,)](
            _whole(logits_RV), label_R, nats_R, lse_R, columns, float(z_loss),
            gradient=gradient, C=min(4096, _power(columns)),
        )  # fmt: skip
    return nats_R, lse_R


def _kernels() -> Any:
    """Imported where they are called, since Triton is not everywhere."""
    from t5study.model import fused_kernels

    return fused_kernels


def _grid(x_ND: Tensor) -> tuple[int, int]:
    rows, columns = x_ND.shape
    return rows, -(-columns // _wide(columns))


def _wide(columns: int) -> int:
    return min(COLUMNS, _power(columns))


def _power(columns: int) -> int:
    return 1 << max(columns - 1, 0).bit_length()


def _whole(x: Tensor) -> Tensor:
    """What a kernel writes over: it goes from row to row by the number of columns."""
    assert x.is_contiguous()
    return x
