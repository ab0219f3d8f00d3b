"""Scale: what a training step takes of each of many GPUs, by arithmetic, before any of them is there.

    plan(shape, architecture, Layout(ranks=64, shard=8, rows=4), Hardware())

Memory: weights, gradients and optimiser's state by the row, as FSDP2 cuts them; the layers that are put together at a
time; activations, kept or made again. Traffic: bytes that a rank hands to each kind of collective in a step. Time: the
matrix products at an assumed utilisation, the traffic at an assumed bandwidth. Memory's first parts and traffic are
exact (counted on real ranks and on made-up ones, tests/train/test_scale.py); activations are within an
eighth on the CPU, a fifth if made again; time is no better than what it assumes.

All as t5study trains: fp32 weights, gradients and traffic; matrix products in bf16 on a GPU. One GPU alone may keep
bf16 weights and move each inside the backward pass (`Layout.kept`, `Layout.streamed`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from t5study.ground.errors import UserError
from t5study.model.footprint import FACTORED_FROM, largest
from t5study.model.shapes import BUCKETS, LANGUAGE_MODELS, Shape, check, costs

CHUNK = 256  # rows of logits at a time (loss.py)
KEEP = 1 << 22  # probabilities of one layer that are kept for the backward pass rather than made again (attention.py)


@dataclass(frozen=True)
class Layout:
    """ranks: GPUs. shard: among how many each weight is cut, 0 for whole on each. rows: of a pass on one rank. passes:
    micro-batches a step. source, target: tokens of a row. compute: bytes of a number in matrix products. kept: of a
    number in a matrix as it is kept, 2 for bf16 weights. streamed: weights move inside the backward pass."""

    ranks: int
    shard: int
    rows: int
    passes: int = 1
    source: int = 512
    target: int = 114
    recompute: bool = False
    optimizer: str = "adafactor"
    compute: int = 2
    kept: int = 4
    streamed: bool = False

    def __post_init__(self) -> None:
        for found, what in ((self.kept < 4, "bf16 weights"), (self.streamed, "updates in the backward pass")):
            if found and self.ranks > 1:
                raise UserError(f"layout: ranks: found {self.ranks} with {what}, which are of one GPU; give 1")
        if self.streamed and (self.passes > 1 or self.optimizer == "adamw"):
            raise UserError(
                "layout: found updates in the backward pass with micro-batches or AdamW; leave one of them out"
            )
        if self.shard and (self.shard < 2 or self.ranks % self.shard):
            raise UserError(
                f"layout: shard: found {self.shard} for {self.ranks} ranks; give a number that divides them"
            )


@dataclass(frozen=True)
class Hardware:
    """peak: FLOP/s of a GPU's bf16 products. utilisation: the share of them that a step makes. near, far: bytes/s that
    a GPU takes part in a collective with, on its host of `host` GPUs and beyond. By default about an H100 or H200 and
    eight of them a host with 400 Gbit/s each; assumptions, not measurements."""

    peak: float = 790e12
    utilisation: float = 0.4
    near: float = 300e9
    far: float = 40e9
    host: int = 8


@dataclass(frozen=True)
class Memory:
    """Bytes on a rank. together: layers and tables put together, and a layer's gradients before they are cut. copies:
    of weights, joined or in the products' precision, that a pass keeps. activations: with the loss's table."""

    weights: int
    gradients: int
    state: int
    together: int
    copies: int
    activations: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


@dataclass(frozen=True)
class Traffic:
    """Bytes that a rank's collectives of a step are over: what all-gathers give out, what reduce-scatters and
    all-reduces take in. sums: those of the optimiser, the norm and the loss."""

    gather: int
    scatter: int
    reduce: int
    sums: int


@dataclass(frozen=True)
class Plan:
    """compute, talk: seconds of products, and of traffic. overlapped, in_turn: tokens a second of all ranks together if
    traffic hides behind products, and if it does not."""

    layout: Layout
    memory: Memory
    traffic: Traffic
    compute: float
    talk: float
    overlapped: float
    in_turn: float


def plan(shape: Shape, architecture: str, layout: Layout, hardware: Hardware = Hardware()) -> Plan:
    """All of it for one layout."""
    moved, spent = traffic(shape, architecture, layout), memory(shape, architecture, layout)
    products = sum(costs(shape, architecture, layout.source, layout.target).values())
    if layout.recompute:
        head = costs(shape, architecture, layout.source, layout.target)["softmax"]
        products += (products - head) // 3
    compute = layout.rows * layout.passes * products / (hardware.peak * hardware.utilisation)
    line = hardware.near if max(layout.shard, 1) <= hardware.host and layout.shard else hardware.far
    across = hardware.near if layout.ranks <= hardware.host else hardware.far
    group = layout.shard or layout.ranks
    copies = layout.ranks // layout.shard if layout.shard else layout.ranks
    talk = (moved.gather + moved.scatter) * (group - 1) / group / line
    talk += 2 * (moved.reduce + moved.sums) * (copies - 1) / copies / across
    tokens = layout.ranks * layout.rows * layout.passes * (layout.source + layout.target)
    return Plan(layout, spent, moved, compute, talk, tokens / max(compute, talk), tokens / (compute + talk))


# --- weights, cut -------------------------------------------------------------------------------------------------


def groups(shape: Shape, architecture: str) -> tuple[list[tuple[int, ...]], list[list[tuple[int, ...]]]]:
    """Sizes of the weights that are together throughout a pass, and of each group that is while it works."""
    check(shape, architecture)
    d, own, lm = shape.d_model, shape.inner, architecture in LANGUAGE_MODELS
    attention = [(d,), (own, d), (own, d), (own, d), (d, own)]
    gated = shape.activation == "gated_gelu"
    feed = [(d,), *[(shape.d_ff, d)] * (2 if gated else 1), (d, shape.d_ff)]
    adapter = [(d,), (shape.adapter, d), (d, shape.adapter)] if shape.adapter else []
    root = [(shape.table_rows, d)] * (1 if shape.tied else 2) + [(BUCKETS, shape.heads), (d,)] * (1 if lm else 2)
    encoder = [[*attention, *feed, *adapter] for _ in range(shape.encoder_layers)]
    cross = [] if lm else attention
    if architecture == "shared_encoder_decoder":  # whose layers work in two stacks: all together
        rest = [size for _ in range(shape.decoder_layers) for size in (*cross, *adapter)]
        return [*root, *(size for layer in encoder for size in layer), *rest], []
    return root, [*encoder, *([*attention, *cross, *feed, *adapter] for _ in range(shape.decoder_layers))]


def _share(size: tuple[int, ...], shard: int) -> int:
    """Numbers of a weight on the first of `shard` ranks, which has as many as any: whole rows."""
    return -(-size[0] // max(shard, 1)) * math.prod(size[1:])


def _padded(sizes: list[tuple[int, ...]], shard: int) -> int:
    return sum(shard * _share(size, shard) for size in sizes)


def memory(shape: Shape, architecture: str, layout: Layout) -> Memory:
    """Bytes on the first rank at the worst moment of a step, which is in its backward pass."""
    root, layers = groups(shape, architecture)
    every = [*root, *(size for layer in layers for size in layer)]
    mine = sum(_share(size, layout.shard) for size in every)
    if layout.optimizer == "adamw":
        state = 2 * mine
    else:
        state = sum(
            -(-size[0] // max(layout.shard, 1)) + size[1]
            if len(size) == 2 and min(size) >= FACTORED_FROM
            else _share(size, layout.shard)
            for size in every
        )
    together = 0
    if layout.shard:  # a layer, the next one that is fetched already, and a layer's gradients
        layer = max((sum(map(math.prod, layer)) for layer in layers), default=0)
        together = 4 * (sum(map(math.prod, root)) * 2 + 3 * layer)
    kept, once = activations(shape, architecture, layout)
    copies = [_copies(shape, layer, layout.compute, layout.kept) for layer in layers]
    weights = _bytes(shape, every, layout)
    return Memory(
        weights,
        layout.kept * largest(shape) if layout.streamed else weights,
        4 * state,
        together,
        max(copies, default=0) if layout.recompute else sum(copies),
        kept + once,
    )


def _bytes(shape: Shape, every: list[tuple[int, ...]], layout: Layout) -> int:
    """Of weights as they are kept, or of their gradients, on the first rank. Norms and bias tables stay fp32."""

    def one(size: tuple[int, ...]) -> int:
        return layout.kept if len(size) == 2 and size != (BUCKETS, shape.heads) else 4

    return sum(one(size) * _share(size, layout.shard) for size in every)


def _copies(shape: Shape, layer: list[tuple[int, ...]], compute: int, kept: int) -> int:
    """Bytes of copies that a layer keeps for its backward pass: of weights kept in the products' own precision q, k, v
    joined (and gated wi), else all."""
    matrices = [size for size in layer if len(size) == 2]
    if compute < kept:
        return compute * sum(map(math.prod, matrices))
    own, d = shape.inner, shape.d_model
    joined = 3 * own * d + (2 * own * d if matrices.count((own, d)) > 4 else 0)
    return compute * (joined + (2 * shape.d_ff * d if shape.activation == "gated_gelu" else 0))


def activations(shape: Shape, architecture: str, layout: Layout) -> tuple[int, int]:
    """Bytes kept of all layers for the backward pass, and bytes of what is there once: one layer made again if layers
    are, and the loss. A stream is fp32; what products take and give is in their precision, a normaliser a head fp32."""
    d, own, e, heads = shape.d_model, shape.inner, layout.compute, shape.heads
    lm = architecture in LANGUAGE_MODELS
    feed = (4 + e) * d + e * shape.d_ff * (3 if shape.activation == "gated_gelu" else 1)
    adapter = ((4 + e) * d + e * shape.adapter) if shape.adapter else 0
    attention = (4 + e) * d + 4 * e * own + 4 * heads

    def layer(queries: int) -> int:
        return layout.rows * (queries * (attention + feed + adapter) + _kept(queries, queries))

    def _kept(queries: int, keys: int) -> int:
        return e * heads * queries * keys * (layout.rows * heads * queries * keys <= KEEP)

    source, target = (0, layout.source + layout.target) if lm else (layout.source, layout.target)
    encoder, decoder = layer(source), layer(target)
    if not lm:
        decoder += layout.rows * (target * ((4 + e) * d + 2 * e * own + 4 * heads) + source * 4 * e * own)
        decoder += layout.rows * _kept(target, source)
    labels = layout.rows * target
    loss = 4 * shape.table_rows * d + labels * (4 + e) * d + 2 * min(CHUNK, labels) * shape.table_rows * 4
    if layout.recompute:
        streams = 4 * d * layout.rows * (shape.encoder_layers * source + shape.decoder_layers * target)
        wide = 4 if shape.activation == "gated_gelu" else 1
        back = max(source, target) * (2 * 4 * d + wide * e * shape.d_ff)  # gradients of the one sub-layer at work
        return streams, loss + max(encoder, decoder) + layout.rows * back
    return shape.encoder_layers * encoder + shape.decoder_layers * decoder, loss


def traffic(shape: Shape, architecture: str, layout: Layout) -> Traffic:
    """Bytes of a step's collectives on one rank."""
    root, layers = groups(shape, architecture)
    every = [*root, *(size for layer in layers for size in layer)]
    if not layout.shard:
        return Traffic(0, 0, 4 * sum(map(math.prod, every)) if layout.ranks > 1 else 0, 0)
    cut, between = _padded(root, layout.shard), sum(_padded(layer, layout.shard) for layer in layers)
    scatter = 4 * layout.passes * (cut + between)
    # The table stays together from a pass's beginning to its end; a layer is put together twice.
    gather = 4 * layout.passes * (cut + 2 * between)
    reduce = scatter // layout.shard if layout.ranks > layout.shard else 0
    sums = 0
    if layout.optimizer == "adafactor":  # doubles: of each weight, of a factored one's rows and of its columns, twice
        factored = [size for size in every if len(size) == 2 and min(size) >= FACTORED_FROM]
        sums = 8 * (2 * len(every) + sum(1 + size[1] for size in factored))
    return Traffic(gather, scatter, reduce, sums)
