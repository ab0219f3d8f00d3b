"""Architectures: a shape -> a module, and what it does with a batch.

Parameters, one a matrix as mesh, Adafactor and the published checkpoints know them:

    embedding                                (V, D)
    head                                     (V, D)     untied only
    {encoder,decoder}.bias                   (32, H)
    {encoder,decoder}.norm                   (D,)
    {encoder,decoder}.layers.I.attention.    norm (D,)    q, k, v (H K, D)    out (D, H K)
    decoder.layers.I.cross.                  the same
    {encoder,decoder}.layers.I.feed.         norm (D,)    wi (F, D), or wi_0 and wi_1 where gated    wo (D, F)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from t5study.ground.errors import UserError
from t5study.model.dropout import Dropout
from t5study.model.initial import start
from t5study.model.inputs import Inputs, arrange
from t5study.model.layers import Decoder, Encoder, Pass
from t5study.model.loss import Loss, Losses
from t5study.model.shapes import Shape

__all__ = ["Dropout", "EncoderDecoder", "Inputs", "Losses", "arrange", "build"]


class _Embed(torch.autograd.Function):
    """Looks up source and decoder tokens in one table and hands the table on to the softmax, so that the table's
    gradient is one tensor: the softmax's, to which the rows of the tokens are added in place."""

    @staticmethod
    def forward(ctx, table_VD, run: Pass):
        source, target = run.inputs.source, run.inputs.target
        ctx.run = run
        ctx.size = table_VD.shape
        ctx.set_materialize_grads(False)
        found = []
        for tokens, site in ((source, "encoder.embedding"), (target, "decoder.embedding")):
            x_ND = table_VD.detach().index_select(0, tokens.id_N)
            found.append(run.ops.masked(x_ND, run.mask(site), tokens.row_N))
        return found[0], found[1], table_VD.view_as(table_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx, dsource_ND, dtarget_MD, dtable_VD):
        run = ctx.run
        sides = (
            (dsource_ND, run.inputs.source, "encoder.embedding"),
            (dtarget_MD, run.inputs.target, "decoder.embedding"),
        )
        for dx_ND, tokens, site in sides:
            if dx_ND is not None:
                if dtable_VD is None:
                    dtable_VD = dx_ND.new_zeros(ctx.size)
                dx_ND = run.ops.masked(dx_ND.contiguous(), run.mask(site), tokens.row_N)
                run.ops.add_rows_(dtable_VD, tokens.id_N, dx_ND)
        return dtable_VD, None


class EncoderDecoder(nn.Module):
    """The T5 encoder-decoder, v1.0 (ReLU, tied) or v1.1 (gated GELU, untied) by its shape."""

    head: nn.Parameter | None

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.table_rows, shape.d_model))
        self.register_parameter("head", None if shape.tied else nn.Parameter(torch.empty_like(self.embedding)))
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)

    def loss_sum(self, inputs: Inputs, dropout: Dropout | None = None, z_loss: float = 0.0) -> Losses:
        """The loss summed over all target tokens: divide by the tokens of the whole step, not of a micro-batch."""
        total, nats_M = self._loss(inputs, dropout, z_loss)
        return Losses(total, nats_M.sum(), len(nats_M))

    def nats(self, inputs: Inputs) -> Tensor:
        """-log p of each target token, (M,) in the order of `inputs.label_M`."""
        with torch.no_grad():
            return self._loss(inputs, None, 0.0)[1]

    def _loss(self, inputs: Inputs, dropout: Dropout | None, z_loss: float) -> tuple[Tensor, Tensor]:
        run = Pass.of(self.shape, inputs, self.embedding, dropout)
        source_ND, target_MD, table_VD = _Embed.apply(self.embedding, run)
        memory = self.encoder(source_ND, run, self.decoder)
        target_MD = self.decoder(target_MD, memory, run)
        head = table_VD if self.head is None else self.head
        scale, gradient = self.shape.logit_scale, torch.is_grad_enabled()
        return Loss.apply(target_MD, self.decoder.norm, head, run, scale, z_loss, gradient)

    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (M, V) of all target tokens at once: to look at, not to train with."""
        with torch.no_grad():
            run = Pass.of(self.shape, inputs, self.embedding)
            source_ND, target_MD, table_VD = _Embed.apply(self.embedding, run)
            target_MD = self.decoder(target_MD, self.encoder(source_ND, run, self.decoder), run)
            y_MD, _ = run.ops.rms(target_MD, self.decoder.norm.detach() * self.shape.logit_scale, run.dtype)
            return y_MD @ (table_VD if self.head is None else self.head).to(run.dtype).t()

    def memory(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """What the decoder sees of the source tokens: for each of its layers keys beside values, (N, 2 H K)."""
        with torch.no_grad():
            run = Pass.of(self.shape, inputs, self.embedding)
            return self.encoder(self.embedding.detach()[inputs.source.id_N], run, self.decoder)


def build(shape: Shape, seed: int, architecture: str = "encoder_decoder") -> EncoderDecoder:
    """A fresh model with mesh's initialisation; its weights are a function of (seed, name).

    Under `torch.device("meta")` nothing is allocated: for counting, or for weights that come from elsewhere.
    UserError for an architecture that there is none of.
    """
    if architecture != "encoder_decoder":
        raise UserError(f"architecture: found {architecture!r}; give encoder_decoder")
    model = EncoderDecoder(shape)
    start(model, shape, seed)
    return model
