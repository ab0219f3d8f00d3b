"""Architectures: a shape -> a module, and what it does with a batch.

    encoder_decoder         two stacks; the decoder sees the encoder's output by cross-attention
    shared_encoder_decoder  the same, with one set of self-attention and feed-forward weights for both stacks
    language_model          a decoder alone, which reads source and target as one sequence, each token what is before it
    prefix_lm               the same, but the tokens of the source see each other

Parameters, one a matrix as mesh, Adafactor and the published checkpoints know them:

    embedding                                (V, D)
    head                                     (V, D)     untied only
    {encoder,decoder}.bias                   (32, H)
    {encoder,decoder}.norm                   (D,)
    {encoder,decoder}.layers.I.attention.    norm (D,)    q, k, v (H K, D)    out (D, H K)
    decoder.layers.I.cross.                  the same
    {encoder,decoder}.layers.I.feed.         norm (D,)    wi (F, D), or wi_0 and wi_1 where gated    wo (D, F)
    {encoder,decoder}.layers.I.adapter.      norm (D,)    wi (A, D)    wo (D, A)    where the shape has adapters

A language model has no encoder.* and no cross.*; of a shared encoder-decoder's decoder, attention.* and feed.* are the
encoder's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from t5study.ground.pairs import Batch
from t5study.model.dropout import Dropout
from t5study.model.initial import start
from t5study.model.inputs import Inputs, Labels, Tokens, arrange, arrange_joined
from t5study.model.layers import Group, Pass
from t5study.model.loss import Loss, Losses
from t5study.model.passes import wide
from t5study.model.shapes import LANGUAGE_MODELS, Shape, check
from t5study.model.stacks import Decoder, Encoder, weight

__all__ = [
    "Dropout", "EncoderDecoder", "Inputs", "Labels", "LanguageModel", "Losses", "Model", "arrange", "build",
]  # fmt: skip


class _Embed(torch.autograd.Function):
    """Looks up each stack's tokens in one table and hands the table on to the softmax, so that the table's gradient is
    one tensor: the softmax's, to which the rows of the tokens are added in place."""

    @staticmethod
    def forward(ctx, table_VD, run: Pass, sides: tuple[tuple[str, Tokens], ...]):
        ctx.run, ctx.sides = run, sides
        ctx.size = table_VD.shape
        ctx.set_materialize_grads(False)
        found = []
        for stack, tokens in sides:
            x_ND = table_VD.detach().index_select(0, tokens.id_N).to(wide(table_VD.dtype))
            found.append(run.ops.masked(x_ND, run.mask(f"{stack}.embedding"), tokens.row_N))
        return *found, table_VD.view_as(table_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx, *found):
        run = ctx.run
        *each, dtable_VD = found
        for dx_ND, (stack, tokens) in zip(each, ctx.sides, strict=True):
            if dx_ND is not None:
                if dtable_VD is None:
                    dtable_VD = dx_ND.new_zeros(ctx.size)
                dtable_VD = dtable_VD.to(dx_ND.dtype)  # of a bfloat16 table: its rows are summed in fp32
                dx_ND = run.ops.masked(dx_ND.contiguous(), run.mask(f"{stack}.embedding"), tokens.row_N)
                run.ops.add_rows_(dtable_VD, tokens.id_N, dx_ND)
        return dtable_VD, None, None


class Model(nn.Module):
    """What all architectures have: an embedding table, a head or none, a decoder, and a loss over its labels.

    architecture: its name. two_ways: whether the decoder's bias buckets tell keys ahead from keys behind. late: whether
    training's decoder layers make the keys and values of the source themselves, each when it works; else all are made
    at the encoder's end, in one pass over its output, which keeps all of them and needs all layers' weights at once.
    Equal but for rounding. group: devices that keep the heads and hidden columns between them (layers.py); the weights
    are then parts of those that `shape` says. None for all of them here.
    """

    head: nn.Parameter | None
    decoder: Decoder
    group: Group | None

    def __init__(self, shape: Shape, architecture: str):
        super().__init__()
        check(shape, architecture)
        self.shape, self.architecture, self.late, self.group = shape, architecture, False, None
        self.embedding = weight(shape.table_rows, shape.d_model)
        self.register_parameter("head", None if shape.tied else nn.Parameter(torch.empty_like(self.embedding)))

    @property
    def two_ways(self) -> bool:
        return self.decoder.two_ways

    def arrange(self, batch: Batch, device: str | torch.device = "cpu") -> Inputs:
        """A batch as this architecture takes it, on a device. ValueError if a target segment has no source."""
        raise NotImplementedError

    def labels(self, batch: Batch) -> int:
        """How many labels the training loss of a batch is a sum over: as many as `learned` of what it arranges to."""
        return batch.target_tokens

    def _stream(self, run: Pass) -> tuple[Tensor, Tensor]:
        """What the decoder's final norm takes, (N, D), and the embedding table for the softmax."""
        raise NotImplementedError

    def _pass(self, inputs: Inputs, dropout: Dropout | None = None) -> Pass:
        return Pass.of(self.shape, inputs, self.embedding, dropout, self.architecture, self.group)

    def loss_sum(self, inputs: Inputs, dropout: Dropout | None = None, z_loss: float = 0.0) -> Losses:
        """The loss summed over all tokens it is over: divide by those of the whole step, not of a micro-batch."""
        total, nats_M = self._loss(inputs, inputs.learned, dropout, z_loss)
        return Losses(total, nats_M.sum(), len(nats_M))

    def nats(self, inputs: Inputs) -> Tensor:
        """-log p of each target token, (M,); its row is in `inputs.target_row_M`."""
        with torch.no_grad():
            return self._loss(inputs, inputs.answers, None, 0.0)[1]

    def _loss(self, inputs: Inputs, labels: Labels, dropout: Dropout | None, z_loss: float) -> tuple[Tensor, Tensor]:
        run = self._pass(inputs, dropout)
        x_ND, table_VD = self._stream(run)
        head = table_VD if self.head is None else self.head
        scale, gradient = self.shape.logit_scale, torch.is_grad_enabled()
        return Loss.apply(x_ND, self.decoder.norm, head, run, labels, scale, z_loss, gradient)

    def logits(self, inputs: Inputs, labels: Labels | None = None) -> Tensor:
        """Logits (M, V) at all places that have a label, by default those of `nats`: to look at, not to train with."""
        labels = inputs.answers if labels is None else labels
        with torch.no_grad():
            run = self._pass(inputs)
            x_ND, table_VD = self._stream(run)
            x_MD = x_ND if labels.place_M is None else x_ND[labels.place_M]
            y_MD, _ = run.ops.rms(x_MD, self.decoder.norm.detach() * self.shape.logit_scale, run.dtype)
            return y_MD @ (table_VD if self.head is None else self.head).to(run.dtype).t()


class EncoderDecoder(Model):
    """The T5 encoder-decoder, v1.0 (ReLU, tied) or v1.1 (gated GELU, untied) by its shape.

    shared: both stacks have the encoder's self-attention, feed-forward and the norms before them; cross-attention,
    adapters, bias tables and final norms are each stack's own.
    """

    def __init__(self, shape: Shape, shared: bool = False):
        super().__init__(shape, "shared_encoder_decoder" if shared else "encoder_decoder")
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape, like=self.encoder if shared else None)

    def arrange(self, batch: Batch, device: str | torch.device = "cpu") -> Inputs:
        return arrange(batch, device)

    def _stream(self, run: Pass) -> tuple[Tensor, Tensor]:
        sides = ("encoder", run.inputs.source), ("decoder", run.inputs.target)
        source_ND, target_MD, table_VD = _Embed.apply(self.embedding, run, sides)
        memory = self.encoder(source_ND, run, self.decoder, self.late)
        return self.decoder(target_MD, memory, run, self.late), table_VD

    def memory(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """What the decoder sees of the source tokens: for each of its layers keys beside values, (N, 2 H K)."""
        with torch.no_grad():
            run = self._pass(inputs)
            return self.encoder(self.embedding.detach()[inputs.source.id_N], run, self.decoder)


class LanguageModel(Model):
    """One stack over source and target as one sequence. prefix: whether the source's tokens see each other; the loss
    is then over targets only, and bias buckets are an encoder's throughout, as mesh has them."""

    def __init__(self, shape: Shape, prefix: bool = False):
        super().__init__(shape, "prefix_lm" if prefix else "language_model")
        self.decoder = Decoder(shape, cross=False, two_ways=prefix)

    def arrange(self, batch: Batch, device: str | torch.device = "cpu") -> Inputs:
        return arrange_joined(batch, device, prefix=self.two_ways)

    def labels(self, batch: Batch) -> int:
        return batch.target_tokens if self.two_ways else batch.tokens

    def _stream(self, run: Pass) -> tuple[Tensor, Tensor]:
        x_ND, table_VD = _Embed.apply(self.embedding, run, (("decoder", run.inputs.target),))
        return self.decoder(x_ND, (), run), table_VD

    def prefix(self, inputs: Inputs) -> tuple[tuple[Tensor, ...], Tensor]:
        """What decoding starts from, of rows of one source each and no target, n tokens long: for each layer keys
        beside values of the places 0 to n of every row in order, (N, 2 H K); and the stream (B, D) at place n of each,
        which says the first answer token, before the final norm.

        ValueError if there are targets, or rows of none or several sources.
        """
        rows_B = torch.bincount(inputs.target.row_N, minlength=inputs.rows)
        sources = sum(len(tile.queries) for tile in inputs.decoder)
        if len(inputs.answers) or sources != inputs.rows or not bool((rows_B > 0).all()):
            raise ValueError("a prefix is of rows of one source each, without targets")
        with torch.no_grad():
            run = replace(self._pass(inputs), cache=(cache := []))
            x_ND, _ = self._stream(run)
            return tuple(cache), x_ND[rows_B.cumsum(0) - 1]


def build(shape: Shape, seed: int, architecture: str = "encoder_decoder") -> EncoderDecoder | LanguageModel:
    """A fresh model with mesh's initialisation; its weights are a function of (seed, name).

    Under `torch.device("meta")` nothing is allocated: for counting, or for weights that come from elsewhere.
    UserError for an architecture that there is none of, or that cannot have the shape.
    """
    check(shape, architecture)
    if architecture in LANGUAGE_MODELS:
        model = LanguageModel(shape, prefix=architecture == "prefix_lm")
    else:
        model = EncoderDecoder(shape, shared=architecture == "shared_encoder_decoder")
    start(model, shape, seed)
    return model
