"""Shapes: how large a T5 is, a line a size. Parameters and FLOPs follow from a shape by arithmetic.

    size("large").parameters                                      of the published encoder-decoder: 737,668,096
    parameters(shape_of("prefix_lm", shape), "prefix_lm")         of another architecture of that baseline
    parts(shape, architecture), costs(shape, architecture, 512, 114)      the same, and FLOPs, part by part

Sources: the released gin configurations (SIZES), the paper's sections 3.1.1 (Base), 3.2 (architectures), 3.6 (2x, 4x).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace

from t5study.ground.errors import UserError

BUCKETS = 32  # of the relative position bias, for every released model
MAX_DISTANCE = 128  # keys further away share the last bucket
LANGUAGE_MODELS = ("language_model", "prefix_lm")
ARCHITECTURES = ("encoder_decoder", "shared_encoder_decoder", *LANGUAGE_MODELS)


@dataclass(frozen=True)
class Shape:
    """d_model: width of the residual stream. d_ff: of the feed-forward's hidden layer. d_kv: of one head.
    encoder_layers, decoder_layers: layers of each stack. table_rows: rows of the embedding table (`Ids.table_rows`).
    activation: "relu" (v1.0) or "gated_gelu" (v1.1). tied: whether softmax and embedding share one matrix (v1.0; the
    decoder's output is then scaled by d_model^-0.5). adapter: inner size of the adapter after each feed-forward of
    both stacks, 0 for none (paper, section 3.5.1).

    >>> size("base").parameters / 1e6
    222.903552
    """

    d_model: int
    d_ff: int
    d_kv: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    table_rows: int
    activation: str = "relu"
    tied: bool = True
    adapter: int = field(default=0, metadata={"fingerprint": "if set"})

    def __post_init__(self) -> None:
        for name in ("d_model", "d_ff", "d_kv", "heads", "table_rows"):
            if getattr(self, name) < 1:
                raise UserError(f"shape: {name}: found {getattr(self, name)}; give at least 1")
        for name in ("encoder_layers", "decoder_layers", "adapter"):
            if getattr(self, name) < 0:
                raise UserError(f"shape: {name}: found {getattr(self, name)}; give at least 0")
        if self.activation not in ("relu", "gated_gelu"):
            raise UserError(f"shape: activation: found {self.activation!r}; give relu or gated_gelu")

    @property
    def inner(self) -> int:
        """Columns of all heads together. Not d_model in every size."""
        return self.heads * self.d_kv

    @property
    def logit_scale(self) -> float:
        """What the decoder's output is multiplied by before the softmax matrix."""
        return self.d_model**-0.5 if self.tied else 1.0

    @property
    def parameters(self) -> int:
        """Of the encoder-decoder; see the function."""
        return parameters(self, "encoder_decoder")

    def flops(self, source: int, target: int) -> int:
        """Of the encoder-decoder; see the function.

        >>> round(128 * size("base").flops(512, 114) / 1e12, 1)  # one step of the paper's baseline, in TFLOP
        54.5
        """
        return flops(self, "encoder_decoder", source, target)

    def halved(self) -> Shape:
        """Half the layers in each stack (Table 2's "6 layers"), an odd number rounded up.

        >>> size("base").halved() == size("base-6")
        True
        """
        return replace(
            self, encoder_layers=(self.encoder_layers + 1) // 2, decoder_layers=(self.decoder_layers + 1) // 2
        )

    # Numbers in the matrices of one sub-layer, which are also the multiplications it makes of a token.

    @property
    def _attention(self) -> int:
        return 4 * self.d_model * self.inner  # q, k, v, out

    @property
    def _feed(self) -> int:
        return (3 if self.activation == "gated_gelu" else 2) * self.d_model * self.d_ff

    @property
    def _adapter(self) -> int:
        return 2 * self.d_model * self.adapter


# --- architectures by arithmetic ----------------------------------------------------------------------------------


def shape_of(architecture: str, baseline: Shape) -> Shape:
    """The shape that an architecture has beside an encoder-decoder of the shape `baseline` (paper, section 3.2.2).

    A language model is one stack as deep as the baseline's decoder: half the parameters, and as many FLOPs, because
    its L layers work on source and target together. UserError where the architecture cannot have such a shape.

    >>> shape = shape_of("prefix_lm", size("base"))
    >>> shape.encoder_layers, shape.decoder_layers
    (0, 12)
    """
    shape = replace(baseline, encoder_layers=0) if architecture in LANGUAGE_MODELS else baseline
    check(shape, architecture)
    return shape


def check(shape: Shape, architecture: str) -> None:
    """UserError if there is no such architecture, or none of this shape."""
    if architecture not in ARCHITECTURES:
        near = difflib.get_close_matches(architecture.lower(), ARCHITECTURES, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}? Give" if near else "give"
        raise UserError(f"architecture: found {architecture!r}; {hint} one of {', '.join(ARCHITECTURES)}")
    if architecture in LANGUAGE_MODELS and shape.encoder_layers:
        raise UserError(
            f"shape: encoder_layers: found {shape.encoder_layers}; a {architecture} has a decoder alone, give 0"
        )
    if architecture == "shared_encoder_decoder" and shape.encoder_layers != shape.decoder_layers:
        raise UserError(
            f"shape: decoder_layers: found {shape.decoder_layers} beside {shape.encoder_layers} of the encoder; stacks "
            "that share their layers have as many"
        )


def sliced(shape: Shape, ranks: int) -> Shape:
    """What one of so many ranks keeps where they have the heads and hidden columns of every layer between them.
    UserError if they cannot have as many each.

    >>> sliced(size("3b"), 8).heads, sliced(size("3b"), 8).d_ff
    (4, 2048)
    """
    for name in ("heads", "d_ff", "adapter"):
        if (found := getattr(shape, name)) % ranks:
            raise UserError(f"tensor: found {ranks} ranks for a model of {name} {found}; give a number that divides it")
    return replace(shape, heads=shape.heads // ranks, d_ff=shape.d_ff // ranks, adapter=shape.adapter // ranks)


def parts(shape: Shape, architecture: str = "encoder_decoder") -> dict[str, int]:
    """Trained numbers by where they are: embedding, head (0 if tied), encoder, decoder (norms and bias tables with
    them; what both stacks share is the encoder's), cross-attention, adapters.

    >>> parts(size("base"))["encoder"], parts(size("base"), "shared_encoder_decoder")["decoder"]
    (84954240, 1152)
    """
    check(shape, architecture)
    d, shared = shape.d_model, architecture == "shared_encoder_decoder"
    layer = shape._attention + shape._feed + 2 * d  # two norms
    end = d + BUCKETS * shape.heads  # final norm and bias table
    cross = 0 if architecture in LANGUAGE_MODELS else shape.decoder_layers * (shape._attention + d)
    adapters = shape.encoder_layers + shape.decoder_layers
    return {
        "embedding": shape.table_rows * d,
        "head": 0 if shape.tied else shape.table_rows * d,
        "encoder": 0 if architecture in LANGUAGE_MODELS else shape.encoder_layers * layer + end,
        "decoder": (0 if shared else shape.decoder_layers * layer) + end,
        "cross-attention": cross,
        "adapters": adapters * (shape._adapter + d) if shape.adapter else 0,
    }


def parameters(shape: Shape, architecture: str = "encoder_decoder") -> int:
    """Trained numbers, each once: a tied table, and the layers of stacks that share them."""
    return sum(parts(shape, architecture).values())


def costs(shape: Shape, architecture: str, source: int, target: int) -> dict[str, int]:
    """FLOPs to train on one pair of `source` and `target` tokens, by where: encoder, decoder (scores and adapters
    with them), cross-attention, softmax.

    Three times the forward pass's matrix products; a multiplication and an addition are two. The causal half of
    attention is counted, as is usual. A language model works on source + target positions; its softmax on those that
    have a label in training (all of them, for a prefix LM the target alone).
    """
    check(shape, architecture)
    layer = shape._attention + shape._feed + shape._adapter

    def stack(layers: int, n: int) -> int:
        return layers * (n * layer + 2 * n**2 * shape.inner)

    cross = shape.decoder_layers * (
        (source + target) * shape._attention // 2  # k and v of the source; q and out of the target
        + 2 * target * source * shape.inner
    )
    lm = architecture in LANGUAGE_MODELS
    labels = source + target if architecture == "language_model" else target
    products = {
        "encoder": 0 if lm else stack(shape.encoder_layers, source),
        "decoder": stack(shape.decoder_layers, source + target if lm else target),
        "cross-attention": 0 if lm else cross,
        "softmax": labels * shape.table_rows * shape.d_model,
    }
    return {name: 3 * 2 * product for name, product in products.items()}


def flops(shape: Shape, architecture: str, source: int, target: int) -> int:
    """FLOPs to train on one pair; see `costs`."""
    return sum(costs(shape, architecture, source, target).values())


# --- sizes --------------------------------------------------------------------------------------------------------


def _v1_1(d_model: int, d_ff: int, heads: int, encoder: int, decoder: int, table_rows: int = 32_128) -> Shape:
    return Shape(d_model, d_ff, 64, heads, encoder, decoder, table_rows, "gated_gelu", tied=False)


#                d_model  d_ff  d_kv heads enc dec  rows
SIZES: dict[str, Shape] = {
    "pico": Shape(64, 256, 16, 4, 2, 2, 32_128),  # ours: seconds on one core
    "tiny": Shape(128, 512, 32, 4, 2, 2, 32_128),  # ours: minutes on one core
    "mini": Shape(256, 1024, 64, 4, 4, 4, 32_128),  # ours: hours on one core
    "small": Shape(512, 2048, 64, 8, 6, 6, 32_128),
    "base": Shape(768, 3072, 64, 12, 12, 12, 32_128),
    "base-6": Shape(768, 3072, 64, 12, 6, 6, 32_128),  # Table 2, "6 layers"
    "large": Shape(1024, 4096, 64, 16, 24, 24, 32_128),
    # Not of the paper: an article on it says that Large has 12 layers. It has 24, or it could not have 770M parameters.
    "large-12": Shape(1024, 4096, 64, 16, 12, 12, 32_128),
    "3b": Shape(1024, 16384, 128, 32, 24, 24, 32_128),
    "11b": Shape(1024, 65536, 128, 128, 24, 24, 32_128),
    "2x": Shape(1024, 4096, 64, 16, 16, 16, 32_128),
    "4x": Shape(1024, 4096, 64, 16, 32, 32, 32_128),
    "v1.1-small": _v1_1(512, 1024, 6, 8, 8),
    "v1.1-base": _v1_1(768, 2048, 12, 12, 12),
    "v1.1-large": _v1_1(1024, 2816, 16, 24, 24),
    "v1.1-xl": _v1_1(2048, 5120, 32, 24, 24),
    "v1.1-xxl": _v1_1(4096, 10240, 64, 24, 24),
    # mT5: v1.1 with a vocabulary of 101 languages (google-research/t5x: t5x/examples/t5/mt5/*.gin)
    "mt5-small": _v1_1(512, 1024, 6, 8, 8, 250_112),
    "mt5-base": _v1_1(768, 2048, 12, 12, 12, 250_112),
    "mt5-large": _v1_1(1024, 2816, 16, 24, 24, 250_112),
    "mt5-xl": _v1_1(2048, 5120, 32, 24, 24, 250_112),
    "mt5-xxl": _v1_1(4096, 10240, 64, 24, 24, 250_112),
    # ByT5: bytes; three layers of the encoder to one of the decoder (google-research/t5x: t5x/examples/t5/byt5/*.gin)
    "byt5-small": _v1_1(1472, 3584, 6, 12, 4, 384),
    "byt5-base": _v1_1(1536, 3968, 12, 18, 6, 384),
    "byt5-large": _v1_1(1536, 3840, 16, 36, 12, 384),
    "byt5-xl": _v1_1(2560, 6720, 32, 36, 12, 384),
    "byt5-xxl": _v1_1(4672, 12352, 64, 36, 12, 384),
}


def size(name: str, table_rows: int | None = None) -> Shape:
    """A line of the table, with the embedding rows of a vocabulary or, by default, its own. UserError, with the
    nearest name, if there is none.

    >>> size("tiny", 4096).d_model, size("byt5-small").table_rows
    (128, 384)
    """
    if name not in SIZES:
        near = difflib.get_close_matches(name.lower(), SIZES, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}? Give" if near else "give"
        raise UserError(f"size: found {name!r}; {hint} one of {', '.join(SIZES)}")
    return SIZES[name] if table_rows is None else replace(SIZES[name], table_rows=table_rows)
