"""T5's sub-layers as functions: attention, cross-attention, feed-forward.

    N  tokens (source or target, without padding)    M  source tokens as cross-attention sees them    D  d_model
    F  d_ff    H  heads    K  d_kv    I  H K, the columns of all heads    B  rows of the batch    C  distances

Each sub-layer is pre-norm with a residual around it: x + f(norm(x)). There are no biases anywhere. Weights lie as
torch's Linear has them: (columns out, columns in).

A sub-layer is one node of the autograd graph with its backward pass written out: fewer calls, fewer passes over
memory, and only what is needed again is kept. Weights are fp32; matrix products run in the dtype that autocast asks
for, the residual stream, norms and softmax in fp32.

Several devices may keep a model's heads and hidden columns between them (Shoeybi et al. 2019): each then has some rows
of q, k, v and wi and the same columns of out and wo, and a sub-layer asks its group twice: what it adds to the stream
is a sum over the devices, and so is the gradient of what its norm gives. H, I, F and A are then those of this device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from t5study.model import attention, flash, fused, loops, passes
from t5study.model.dropout import Dropout, sites
from t5study.model.inputs import Inputs, Tile, Tokens
from t5study.model.shapes import Shape

LOOPS = (torch.float32, torch.bfloat16)  # what loops.py takes of matrix products


class Group(Protocol):
    """Devices that keep a model's heads and hidden columns between them, as many each and in order. size: how many
    there are. place: which of them this is."""

    @property
    def size(self) -> int: ...

    @property
    def place(self) -> int: ...

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of all devices' tensors, in place."""
        ...


@dataclass(frozen=True)
class Pass:
    """What one forward pass has beside weights. ops: loops.py, passes.py or fused.py; attention: attention.py or
    flash.py. dtype: of matrix products. masks: dropout by site, {} without; scale: what a mask's kept places hold.
    cache: where self-attention leaves each layer's keys beside values (N, 2 I), for decoding to go on from. group: None
    if this device has all heads and columns."""

    inputs: Inputs
    ops: ModuleType
    dtype: torch.dtype
    masks: dict[str, Tensor]
    scale: float = 1.0
    cache: list[Tensor] | None = None
    attention: ModuleType = attention
    group: Group | None = None

    @staticmethod
    def of(
        shape: Shape,
        inputs: Inputs,
        weight: Tensor,
        dropout: Dropout | None = None,
        architecture: str = "encoder_decoder",
        group: Group | None = None,
    ) -> Pass:
        """shape: of the whole model. weight: any of its, for its device and dtype."""
        dtype = compute_dtype(weight)
        loop = weight.device.type == "cpu" and dtype in LOOPS and torch.get_num_threads() == 1
        masks, scale = {}, 1.0
        if dropout is not None and dropout.rate > 0:
            widths = sites(shape, inputs.source.row_length, inputs.target.row_length, architecture)
            masks, scale = dropout.masks(inputs.rows, widths, weight.device), dropout.scale
            if group is not None:
                masks = {site: _mine(site, mask_BW, shape.heads, group) for site, mask_BW in masks.items()}
        ops = fused if fused.fits(weight, dtype) else loops if loop else passes
        how = flash if flash.fits(weight, dtype, shape.d_kv) else attention
        return Pass(inputs, ops, dtype, masks, scale, attention=how, group=group)

    def mask(self, site: str) -> Tensor | None:
        return self.masks.get(site)

    def weights_mask(self, site: str, tokens: Tokens, heads: int) -> Tensor | None:
        """The mask of attention's weights as a factor (N, H) of each key's value."""
        mask_BW = self.masks.get(site)
        return None if mask_BW is None else mask_BW.unflatten(1, (-1, heads))[tokens.row_N, tokens.position_N]

    def summed(self, part_ND: Tensor) -> Tensor:
        """What this device's heads or columns give, with what all others' do. May write into it."""
        return part_ND if self.group is None else self.group.add(part_ND)


def _mine(site: str, mask_BW: Tensor, heads: int, group: Group) -> Tensor:
    """What a device's heads and hidden columns have of the mask that one device alone would draw."""
    match site.rpartition(".")[2]:
        case "weights":
            return mask_BW.unflatten(1, (-1, heads)).chunk(group.size, 2)[group.place].flatten(1)
        case "hidden":
            return mask_BW.chunk(group.size, 1)[group.place]
    return mask_BW


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What matrix products run in: what autocast asks for on the weight's device, else the weight's own."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND, gain_D, q, k, v, out, diagonal_HC, run: Pass, site: str, decoder: bool):
        ops, tokens, tiles = _side(run, decoder)
        heads = len(diagonal_HC)
        w, out = torch.cat((q, k, v)).to(run.dtype), out.to(run.dtype)
        y_ND, r_N = ops.rms(x_ND.detach(), gain_D.detach(), run.dtype)
        qkv_N3I = y_ND @ w.t()
        if run.cache is not None:
            run.cache.append(qkv_N3I[:, len(q) :].contiguous())
        factor_NH = run.weights_mask(f"{site}.weights", tokens, heads)
        diagonal_HC = diagonal_HC.detach()
        c_NI, kept = run.attention.attend(ops, qkv_N3I, None, factor_NH, diagonal_HC, tiles, heads, causal=decoder)
        ctx.save_for_backward(x_ND, gain_D, w, out, diagonal_HC, y_ND, r_N, c_NI, *kept)
        ctx.run, ctx.site, ctx.decoder, ctx.factor_NH = run, site, decoder, factor_NH
        return ops.add(x_ND.detach(), run.summed(c_NI @ out.t()), run.mask(site), tokens.row_N)

    @staticmethod
    @once_differentiable
    def backward(ctx, dz_ND):
        x_ND, gain_D, w, out, diagonal_HC, y_ND, r_N, c_NI, *kept = ctx.saved_tensors
        ops, tokens, tiles = _side(ctx.run, ctx.decoder)
        heads, inner = len(diagonal_HC), c_NI.shape[1]
        dz_ND = dz_ND.contiguous()
        do_ND = ops.masked(dz_ND, ctx.run.mask(ctx.site), tokens.row_N).to(out.dtype)
        dqkv_N3I = dz_ND.new_empty(len(dz_ND), 3 * inner, dtype=w.dtype)
        ddiagonal_HC = ctx.run.attention.attend_backward(
            ops, do_ND @ out, ctx.factor_NH, diagonal_HC, kept, tiles, heads, ctx.decoder, dqkv_N3I, None
        )
        dx_ND, dgain_D = ops.rms_backward(ctx.run.summed(dqkv_N3I @ w), x_ND.detach(), r_N, gain_D.detach(), dz_ND)
        wants = ctx.needs_input_grad
        dqkv = _product(any(wants[2:5]), dqkv_N3I, y_ND, gain_D, 3)
        dout = _product(wants[5], do_ND, c_NI, gain_D)
        return dx_ND, dgain_D, *dqkv, *dout, ddiagonal_HC, None, None, None


class CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND, gain_D, q, out, kv_M2I, run: Pass, site: str, heads: int):
        ops, tokens = run.ops, run.inputs.target
        q, out = q.to(run.dtype), out.to(run.dtype)
        y_ND, r_N = ops.rms(x_ND.detach(), gain_D.detach(), run.dtype)
        q_NI = y_ND @ q.t()
        factor_MH = run.weights_mask(f"{site}.weights", run.inputs.source, heads)
        tiles = run.inputs.cross
        c_NI, kept = run.attention.attend(ops, q_NI, kv_M2I.detach(), factor_MH, None, tiles, heads, causal=False)
        ctx.save_for_backward(x_ND, gain_D, q, out, y_ND, r_N, c_NI, *kept)
        ctx.run, ctx.site, ctx.heads, ctx.factor_MH = run, site, heads, factor_MH
        return ops.add(x_ND.detach(), run.summed(c_NI @ out.t()), run.mask(site), tokens.row_N)

    @staticmethod
    @once_differentiable
    def backward(ctx, dz_ND):
        x_ND, gain_D, q, out, y_ND, r_N, c_NI, *kept = ctx.saved_tensors
        run, inner = ctx.run, c_NI.shape[1]
        ops, inputs = run.ops, run.inputs
        dz_ND = dz_ND.contiguous()
        do_ND = ops.masked(dz_ND, run.mask(ctx.site), inputs.target.row_N).to(out.dtype)
        dq_NI = torch.empty_like(c_NI)
        dkv_M2I = c_NI.new_empty(len(inputs.source), 2 * inner)
        if not inputs.every_key:
            dkv_M2I.zero_()
        run.attention.attend_backward(
            ops, do_ND @ out, ctx.factor_MH, None, kept, inputs.cross, ctx.heads, False, dq_NI, dkv_M2I
        )
        dx_ND, dgain_D = ops.rms_backward(run.summed(dq_NI @ q), x_ND.detach(), r_N, gain_D.detach(), dz_ND)
        wants = ctx.needs_input_grad
        dq, dout = _product(wants[2], dq_NI, y_ND, gain_D), _product(wants[3], do_ND, c_NI, gain_D)
        return dx_ND, dgain_D, *dq, *dout, dkv_M2I, None, None, None


class MakeMemory(torch.autograd.Function):
    """The encoder's output, normalised, and what every decoder layer makes of it: k beside v, (M, 2 I) each."""

    @staticmethod
    def forward(ctx, x_ND, gain_D, run: Pass, *k_and_v):
        row_N, mask = run.inputs.source.row_N, run.mask("encoder.norm")
        y_ND, r_N = run.ops.rms(x_ND.detach(), gain_D.detach(), run.dtype)
        y_ND = run.ops.masked(y_ND, mask, row_N)
        weights = [torch.cat(pair).to(run.dtype) for pair in zip(k_and_v[::2], k_and_v[1::2], strict=True)]
        ctx.save_for_backward(x_ND, gain_D, y_ND, r_N, *weights)
        ctx.run = run
        return tuple(y_ND @ w.t() for w in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx, *dkv):
        x_ND, gain_D, y_ND, r_N, *weights = ctx.saved_tensors
        run, found = ctx.run, []
        dy_ND = torch.empty_like(x_ND)
        for i, (dkv_N2I, w) in enumerate(zip(dkv, weights, strict=True)):
            add_product_(dy_ND, dkv_N2I, w, first=i == 0)
            wanted = any(ctx.needs_input_grad[3 + 2 * i : 5 + 2 * i])
            found += _product(wanted, dkv_N2I, y_ND, gain_D, 2)
        dy_ND = run.ops.masked(run.summed(dy_ND), run.mask("encoder.norm"), run.inputs.source.row_N)
        dx_ND, dgain_D = run.ops.rms_backward(dy_ND, x_ND.detach(), r_N, gain_D.detach(), None)
        return dx_ND, dgain_D, None, *found


class EncoderEnd(torch.autograd.Function):
    """The encoder's output, normalised, (M, D): what decoder layers that make their own keys and values read. In the
    residual stream's dtype, so that the layers' gradients are summed in it."""

    @staticmethod
    def forward(ctx, x_ND, gain_D, run: Pass):
        y_ND, r_N = run.ops.rms(x_ND.detach(), gain_D.detach(), x_ND.dtype)
        ctx.save_for_backward(x_ND, gain_D, r_N)
        ctx.run = run
        return run.ops.masked(y_ND, run.mask("encoder.norm"), run.inputs.source.row_N)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_ND):
        x_ND, gain_D, r_N = ctx.saved_tensors
        run = ctx.run
        dy_ND = run.summed(dy_ND.contiguous())  # once for all layers, whose gradients autograd has added up
        dy_ND = run.ops.masked(dy_ND, run.mask("encoder.norm"), run.inputs.source.row_N)
        dx_ND, dgain_D = run.ops.rms_backward(dy_ND, x_ND.detach(), r_N, gain_D.detach(), None)
        return dx_ND, dgain_D, None


class KeysValues(torch.autograd.Function):
    """What one decoder layer makes of `EncoderEnd`'s output: k beside v, (M, 2 I)."""

    @staticmethod
    def forward(ctx, y_ND, run: Pass, k, v):
        w, y_ND = torch.cat((k, v)).to(run.dtype), y_ND.detach()
        ctx.save_for_backward(y_ND, w)
        ctx.like = k.dtype
        ctx.run = run
        return y_ND.to(run.dtype) @ w.t()

    @staticmethod
    @once_differentiable
    def backward(ctx, dkv_N2I):
        y_ND, w = ctx.saved_tensors
        wanted = any(ctx.needs_input_grad[2:4])
        dk, dv = (dkv_N2I.t() @ y_ND.to(w.dtype)).to(ctx.like).chunk(2) if wanted else (None, None)
        return (dkv_N2I @ w).to(y_ND.dtype), None, dk, dv


class ReluFeed(torch.autograd.Function):
    """wo relu(wi x). An adapter is one too."""

    @staticmethod
    def forward(ctx, x_ND, gain_D, wi, wo, run: Pass, site: str, tokens: Tokens):
        wi, wo = wi.to(run.dtype), wo.to(run.dtype)
        y_ND, r_N = run.ops.rms(x_ND.detach(), gain_D.detach(), run.dtype)
        h_NF = y_ND @ wi.t()
        run.ops.relu_(h_NF, run.mask(f"{site}.hidden"), tokens.row_N)
        ctx.save_for_backward(x_ND, gain_D, wi, wo, y_ND, r_N, h_NF)
        ctx.run, ctx.site, ctx.tokens = run, site, tokens
        return run.ops.add(x_ND.detach(), run.summed(h_NF @ wo.t()), run.mask(site), tokens.row_N)

    @staticmethod
    @once_differentiable
    def backward(ctx, dz_ND):
        x_ND, gain_D, wi, wo, y_ND, r_N, h_NF = ctx.saved_tensors
        run, ops = ctx.run, ctx.run.ops
        dz_ND = dz_ND.contiguous()
        do_ND = ops.masked(dz_ND, run.mask(ctx.site), ctx.tokens.row_N).to(wo.dtype)
        dh_NF = do_ND @ wo
        ops.relu_backward_(dh_NF, h_NF, run.scale)
        dx_ND, dgain_D = ops.rms_backward(run.summed(dh_NF @ wi), x_ND.detach(), r_N, gain_D.detach(), dz_ND)
        wants = ctx.needs_input_grad
        dwi, dwo = _product(wants[2], dh_NF, y_ND, gain_D), _product(wants[3], do_ND, h_NF, gain_D)
        return dx_ND, dgain_D, *dwi, *dwo, None, None, None


class GatedFeed(torch.autograd.Function):
    """wo (gelu(wi_0 x) * wi_1 x), gelu in its tanh form."""

    @staticmethod
    def forward(ctx, x_ND, gain_D, wi_0, wi_1, wo, run: Pass, site: str, tokens: Tokens):
        wi, wo = torch.cat((wi_0, wi_1)).to(run.dtype), wo.to(run.dtype)
        y_ND, r_N = run.ops.rms(x_ND.detach(), gain_D.detach(), run.dtype)
        h_N2F = y_ND @ wi.t()
        a_NF = run.ops.gated(h_N2F, run.mask(f"{site}.hidden"), tokens.row_N)
        ctx.save_for_backward(x_ND, gain_D, wi, wo, y_ND, r_N, h_N2F, a_NF)
        ctx.run, ctx.site, ctx.tokens = run, site, tokens
        return run.ops.add(x_ND.detach(), run.summed(a_NF @ wo.t()), run.mask(site), tokens.row_N)

    @staticmethod
    @once_differentiable
    def backward(ctx, dz_ND):
        x_ND, gain_D, wi, wo, y_ND, r_N, h_N2F, a_NF = ctx.saved_tensors
        run, ops, row_N = ctx.run, ctx.run.ops, ctx.tokens.row_N
        dz_ND = dz_ND.contiguous()
        do_ND = ops.masked(dz_ND, run.mask(ctx.site), row_N).to(wo.dtype)
        dh_N2F = ops.gated_backward(do_ND @ wo, h_N2F, run.mask(f"{ctx.site}.hidden"), row_N)
        dx_ND, dgain_D = ops.rms_backward(run.summed(dh_N2F @ wi), x_ND.detach(), r_N, gain_D.detach(), dz_ND)
        wants = ctx.needs_input_grad
        dwi = _product(any(wants[2:4]), dh_N2F, y_ND, gain_D, 2)
        dwo = _product(wants[4], do_ND, a_NF, gain_D)
        return dx_ND, dgain_D, *dwi, *dwo, None, None, None


def _side(run: Pass, decoder: bool) -> tuple[ModuleType, Tokens, tuple[Tile, ...]]:
    inputs = run.inputs
    return (run.ops, inputs.target, inputs.decoder) if decoder else (run.ops, inputs.source, inputs.encoder)


def _product(wanted: bool, dout_NO: Tensor, in_NI: Tensor, like: Tensor, parts: int = 1) -> Sequence[Tensor | None]:
    """The gradients of weights (O, I) that lie one below the other, in the weights' own dtype. A frozen weight's is
    not taken: it would be a third of the work."""
    return (dout_NO.t() @ in_NI).to(like.dtype).chunk(parts) if wanted else [None] * parts


def add_product_(total: Tensor, a: Tensor, b: Tensor, first: bool = False) -> None:
    """total += a b, or = a b if it is the first; a sum over layers or chunks is kept in fp32 whatever the products are
    in."""
    if total.dtype == a.dtype:
        torch.addmm(total, a, b, beta=0 if first else 1, out=total)
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b
