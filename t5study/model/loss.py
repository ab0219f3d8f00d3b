"""Cross-entropy over the vocabulary, a chunk of rows at a time: the (tokens, vocabulary) logits never exist at once.

While a chunk's logits lie there its gradients are taken too, so that the backward pass has only to scale them: logits
are made once, not twice, and kept never. z-loss (mesh, 1e-4 in training) keeps the normaliser near 1: it adds
z log(Z)^2 a token.

    N  tokens of the decoder    M  those with a label    D  d_model    V  rows of the embedding table
    R  rows of a chunk
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from t5study.model.inputs import Labels
from t5study.model.layers import Pass, add_product_
from t5study.model.passes import wide

CHUNK = 256  # rows: enough for fast products, few enough for the last chunk's logits to be near
NARROW = 256  # columns of a table below which the product that gives its gradient transposed is the faster one


@dataclass(frozen=True)
class Losses:
    """Sums over the tokens that the loss is over. total: nats + z-loss, differentiable. nats: detached. tokens: how
    many."""

    total: Tensor
    nats: Tensor
    tokens: int


class Loss(torch.autograd.Function):
    """The decoder's stream -> (sum of nats and z-loss, nats of each label).

    Final norm, dropout, the scale d_model^-0.5 of tied tables, softmax matrix and loss, all of the labelled places
    alone. gradient: whether any will be asked for.
    """

    @staticmethod
    def forward(ctx, x_ND, gain_D, table_VD, run: Pass, labels: Labels, scale: float, z_loss: float, gradient: bool):
        ops = run.ops
        gain_D = gain_D.detach() * scale
        x_MD = x_ND.detach() if labels.place_M is None else x_ND.detach()[labels.place_M]
        y_MD, r_M = ops.rms(x_MD, gain_D, run.dtype)
        y_MD = ops.masked(y_MD, run.mask("decoder.norm"), labels.row_M)
        table = table_VD.detach().to(run.dtype)
        dy_MD = torch.empty_like(y_MD) if gradient else None
        dtable, turned = None, table_VD.shape[1] < NARROW  # (D, V) if turned
        if gradient and ctx.needs_input_grad[2]:
            size = table_VD.shape[:: -1 if turned else 1]
            dtable = (table_VD.new_empty if len(y_MD) else table_VD.new_zeros)(size, dtype=wide(table_VD.dtype))
        nats, normalisers = [], []
        rows = CHUNK * ops.chunks(run.dtype)
        for first in range(0, len(y_MD), rows):
            some = slice(first, first + rows)
            logits_RV = y_MD[some] @ table.t()
            nats_R, lse_R = ops.cross_entropy_(logits_RV, labels.id_M[some], z_loss, gradient)
            nats.append(nats_R)
            normalisers.append(lse_R)
            if dy_MD is not None:
                torch.mm(logits_RV, table, out=dy_MD[some])
            if dtable is not None:
                factors = (y_MD[some].t(), logits_RV) if turned else (logits_RV.t(), y_MD[some])
                add_product_(dtable, *factors, first=not first)
        nats_M = torch.cat(nats) if nats else x_MD.new_zeros(0)
        total = nats_M.sum()
        if z_loss:
            total = total + z_loss * torch.cat(normalisers).square().sum()
        ctx.save_for_backward(x_MD, gain_D, r_M, dy_MD, dtable)
        ctx.run, ctx.labels, ctx.scale, ctx.size, ctx.turned = run, labels, scale, x_ND.shape, turned
        ctx.mark_non_differentiable(nats_M)
        return total, nats_M

    @staticmethod
    @once_differentiable
    def backward(ctx, dtotal, _):
        x_MD, gain_D, r_M, dy_MD, dtable = ctx.saved_tensors
        run, labels = ctx.run, ctx.labels
        dy_MD = run.ops.masked(dy_MD * dtotal, run.mask("decoder.norm"), labels.row_M)
        dx_ND, dgain_D = run.ops.rms_backward(dy_MD, x_MD, r_M, gain_D, None)
        if labels.place_M is not None:
            dx_ND = dx_ND.new_zeros(ctx.size).index_copy_(0, labels.place_M, dx_ND)
        dtable_VD = None
        if dtable is not None:
            dtable.mul_(dtotal)  # in place, so that there is one of it; torch then refuses a second backward pass
            dtable_VD = dtable.t().contiguous() if ctx.turned else dtable
        return dx_ND, dgain_D * ctx.scale, dtable_VD, None, None, None, None, None
