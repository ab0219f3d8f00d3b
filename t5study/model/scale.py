"""Scale: what a training step takes of each of many GPUs, by arithmetic, before any of them is there.

    plan(shape, architecture, Layout(ranks=64, shard=8, rows=4), Hardware())

Memory: weights, gradients and optimiser's state by the row, as FSDP2 cuts them, or by heads and hidden columns
(train/slices.py); the layers that are put together at a time; activations, kept or made again. Traffic: bytes that a
rank hands to each kind of collective in a step. Time: the matrix products at an assumed utilisation, the traffic at an
assumed bandwidth. Memory's first parts and traffic are exact (counted on real ranks and on made-up ones,
tests/train/test_scale.py); activations are within an eighth on the CPU, a fifth if made again; time is no better than
what it assumes.

All as t5study trains: fp32 weights, gradients and traffic; matrix products in bf16 on a GPU. One GPU alone may keep
bf16 weights and move each inside the backward pass (`Layout.kept`, `Layout.streamed`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from t5study.ground.errors import UserError
from t5study.model.footprint import FACTORED_FROM, largest
from t5study.model.shapes import BUCKETS, LANGUAGE_MODELS, Shape, check, costs, sliced

CHUNK = 256  # rows of logits at a time (loss.py)
KEEP = 1 << 22  # probabilities of one layer that are kept for the backward pass rather than made again (attention.py)


@dataclass(frozen=True)
class Layout:
    """ranks: GPUs. shard: among how many each weight is cut, 0 for whole on each. rows: of a pass on one rank. passes:
    micro-batches a step. source, target: tokens of a row. compute: bytes of a number in matrix products. kept: of a
    number in a matrix as it is kept, 2 for bf16 weights. streamed: weights move inside the backward pass. tensor: among
    how many ranks heads and hidden columns are, 0 for none; `rows` are then of such a group."""

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
    tensor: int = 0

    def __post_init__(self) -> None:
        for found, what in ((self.kept < 4, "bf16 weights"), (self.streamed, "updates in the backward pass")):
            if found and self.ranks > 1:
                raise UserError(f"layout: ranks: found {self.ranks} with {what}, which are of one GPU; give 1")
        if self.streamed and (self.passes > 1 or self.optimizer == "adamw"):
            raise UserError(
                "layout: found updates in the backward pass with micro-batches or AdamW; leave one of them out"
            )
        for name, found in (("shard", self.shard), ("tensor", self.tensor)):
            if found and (found < 2 or self.ranks % found):
                raise UserError(
                    f"layout: {name}: found {found} for {self.ranks} ranks; give a number that divides them"
                )
        if self.shard and self.tensor:
            raise UserError(
                f"layout: tensor: found {self.tensor} with shards among {self.shard}; leave one of them out"
            )

    @property
    def groups(self) -> int:
        """Among how many rows are shared out."""
        return self.ranks // (self.tensor or 1)


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
    all-reduces take in. sums: those of the optimiser, the norm and the loss. layers: those of slices' products."""

    gather: int
    scatter: int
    reduce: int
    sums: int
    layers: int = 0


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
    products = costs(shape, architecture, layout.source, layout.target)
    head = products.pop("softmax")
    inside = sum(products.values()) * (4 if layout.recompute else 3) // 3 // (layout.tensor or 1)
    compute = layout.rows * layout.passes * (head + inside) / (hardware.peak * hardware.utilisation)
    group = layout.shard or layout.tensor or layout.ranks
    near = bool(layout.shard or layout.tensor) and group <= hardware.host
    line = hardware.near if near else hardware.far
    across = hardware.near if layout.ranks <= hardware.host else hardware.far
    copies = layout.ranks // (layout.shard or layout.tensor or 1)
    talk = (moved.gather + moved.scatter + 2 * moved.layers) * (group - 1) / group / line
    talk += 2 * (moved.reduce + moved.sums) * (copies - 1) / copies / across
    tokens = layout.groups * layout.rows * layout.passes * (layout.source + layout.target)
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


def _slices(shape: Shape, architecture: str, layout: Layout) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The size of every weight, and of a slice of it, or the same again."""
    sides = []
    for kept in (shape, sliced(shape, layout.tensor or 1)):
        root, layers = groups(kept, architecture)
        sides.append([*root, *(size for layer in layers for size in layer)])
    return list(zip(*sides, strict=True))


def _factored(size: tuple[int, ...]) -> bool:
    return len(size) == 2 and min(size) >= FACTORED_FROM


def _share(size: tuple[int, ...], shard: int) -> int:
    """Numbers of a weight on the first of `shard` ranks, which has as many as any: whole rows."""
    return -(-size[0] // max(shard, 1)) * math.prod(size[1:])


def _padded(sizes: list[tuple[int, ...]], shard: int) -> int:
    return sum(shard * _share(size, shard) for size in sizes)


def memory(shape: Shape, architecture: str, layout: Layout) -> Memory:
    """Bytes on the first rank at the worst moment of a step, which is in its backward pass."""
    own = sliced(shape, layout.tensor or 1)
    root, layers = groups(own, architecture)
    every = _slices(shape, architecture, layout)
    if layout.optimizer == "adamw":
        state = 2 * sum(_share(size, layout.shard) for _, size in every)
    else:
        state = sum(
            -(-size[0] // max(layout.shard, 1)) + size[1] if _factored(whole) else _share(size, layout.shard)
            for whole, size in every
        )
    together = 0
    if layout.shard:  # a layer, the next one that is fetched already, and a layer's gradients
        layer = max((sum(map(math.prod, layer)) for layer in layers), default=0)
        together = 4 * (sum(map(math.prod, root)) * 2 + 3 * layer)
    kept, once = activations(own, architecture, layout)
    weights = _bytes(own, architecture, [size for _, size in every], layout)
    return Memory(
        weights,
        layout.kept * largest(shape) if layout.streamed else weights,
        4 * state,
        together,
        _copies(own, architecture, layout),
        kept + once,
    )


def _bytes(shape: Shape, architecture: str, every: list[tuple[int, ...]], layout: Layout) -> int:
    """Of weights as they are kept, or of their gradients, on the first rank. Norms and bias tables stay fp32."""
    tables = (1 if architecture in LANGUAGE_MODELS else 2) * _share((BUCKETS, shape.heads), layout.shard)
    kept = sum((layout.kept if len(size) == 2 else 4) * _share(size, layout.shard) for size in every)
    return kept + (4 - layout.kept) * tables


def _copies(shape: Shape, architecture: str, layout: Layout) -> int:
    """Bytes of copies that layers keep for their backward pass, those of one if layers are made again: all matrices
    in the products' precision, or, where they are kept in that, what is joined: q, k, v, cross-attention's k and v, and
    a gated feed-forward's wi."""
    d, own, gated = shape.d_model, shape.inner, shape.activation == "gated_gelu"
    if layout.compute < layout.kept:
        attention = cross = 4 * own * d
        feed, adapter = (3 if gated else 2) * shape.d_ff * d, 2 * shape.adapter * d
    else:
        attention, cross = 3 * own * d, 2 * own * d
        feed, adapter = 2 * shape.d_ff * d * gated, 0
    encoder = attention + feed + adapter
    decoder = encoder + cross * (architecture not in LANGUAGE_MODELS)
    layers = [encoder] * shape.encoder_layers + [decoder] * shape.decoder_layers
    return layout.compute * (max(layers, default=0) if layout.recompute else sum(layers))


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
        return _traffic_of_slices(shape, architecture, layout)
    cut, between = _padded(root, layout.shard), sum(_padded(layer, layout.shard) for layer in layers)
    scatter = 4 * layout.passes * (cut + between)
    # The table stays together from a pass's beginning to its end; a layer is put together twice.
    gather = 4 * layout.passes * (cut + 2 * between)
    reduce = scatter // layout.shard if layout.ranks > layout.shard else 0
    sums = 0
    if layout.optimizer == "adafactor":  # doubles: of each weight, of a factored one's rows and of its columns, twice
        sums = 8 * (2 * len(every) + sum(1 + size[1] for size in filter(_factored, every)))
    return Traffic(gather, scatter, reduce, sums)


def _traffic_of_slices(shape: Shape, architecture: str, layout: Layout) -> Traffic:
    """Of ranks that have all of a weight, or its slice in the same place: their gradients; of slices' products, too."""
    every = _slices(shape, architecture, layout)
    reduce = 4 * sum(math.prod(size) for _, size in every) if layout.groups > 1 else 0
    if not layout.tensor:
        return Traffic(0, 0, reduce, 0)
    lm = architecture in LANGUAGE_MODELS
    source, target = (0, layout.source + layout.target) if lm else (layout.source, layout.target)
    each = 3 if shape.adapter else 2  # sub-layers of a layer, without cross-attention
    streams = shape.encoder_layers * each * source + shape.decoder_layers * (each + (not lm)) * target
    times = 3 if layout.recompute else 2  # forward, backward, and forward again
    numbers = layout.compute * times * streams + 4 * source  # what keys and values were made of, all layers' at once
    sums = 0
    if layout.optimizer == "adafactor":  # of each weight, of a factored one's rows and columns or of its rows, twice
        cut = [(whole, size) for whole, size in every if whole != size]
        factored = [(whole, size) for whole, size in cut if _factored(whole)]
        sums = 8 * (2 * len(cut) + sum(1 + size[1] if whole[0] != size[0] else size[0] for whole, size in factored))
    return Traffic(0, 0, reduce, sums, layout.passes * layout.rows * shape.d_model * numbers)
