"""Footprint: what a model of a shape takes, by arithmetic: no weight is made, so 11 billion cost no more than a few.

    weights(shape, architecture)       every weight's size, and how many there are of it
    inference(shape, architecture)     bytes of the weights, by precision
    training(shape, architecture)      bytes while fine-tuning, by way of doing it

All of it is of weights and what belongs to each of them. Activations come on top; they grow with the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from t5study.model.shapes import BUCKETS, LANGUAGE_MODELS, Shape, check, parameters

FACTORED_FROM = 128  # Adafactor keeps two vectors of a matrix whose sides are both at least this long


@dataclass(frozen=True)
class Weights:
    """`count` weights of one size. tuned: whether fine-tuning with adapters moves them (norms and adapters). bias:
    whether they are tables of the position bias."""

    size: tuple[int, ...]
    count: int
    tuned: bool
    bias: bool = False

    @property
    def numbers(self) -> int:
        return math.prod(self.size) * self.count


def weights(shape: Shape, architecture: str = "encoder_decoder") -> list[Weights]:
    """All weights. Their numbers add up to `parameters(shape, architecture)`."""
    check(shape, architecture)
    d, own = shape.d_model, shape.inner
    lm, shared = architecture in LANGUAGE_MODELS, architecture == "shared_encoder_decoder"
    stacks = 1 if lm else 2
    layers = shape.encoder_layers + shape.decoder_layers
    distinct = shape.encoder_layers if shared else layers  # with an attention and a feed-forward of their own
    cross = 0 if lm else shape.decoder_layers
    attentions = distinct + cross
    gated = shape.activation == "gated_gelu"
    adapters = layers if shape.adapter else 0
    found = [
        Weights((shape.table_rows, d), 1 if shape.tied else 2, False),
        Weights((BUCKETS, shape.heads), stacks, False, bias=True),
        Weights((own, d), 3 * attentions, False),  # q, k, v
        Weights((d, own), attentions, False),  # out
        Weights((shape.d_ff, d), (2 if gated else 1) * distinct, False),  # wi, or wi_0 and wi_1
        Weights((d, shape.d_ff), distinct, False),  # wo
        Weights((d,), 2 * distinct + cross + stacks + adapters, True),  # norms
        Weights((shape.adapter, d), adapters, True),
        Weights((d, shape.adapter), adapters, True),
    ]
    return [each for each in found if each.count]


def cache(shape: Shape, architecture: str, source: int, target: int) -> int:
    """Numbers kept of one answer of `target` tokens in the making: keys and values of every decoder layer, of what it
    has said and of the source."""
    check(shape, architecture)
    return 2 * shape.inner * shape.decoder_layers * (source + target)


# --- inference ----------------------------------------------------------------------------------------------------


def inference(shape: Shape, architecture: str = "encoder_decoder") -> dict[str, int]:
    """Bytes of the weights. int8: a byte a number of every matrix and a float32 scale for each of its rows; norms and
    bias tables stay float32, and a tied table is kept once."""
    numbers = parameters(shape, architecture)

    def eight(each: Weights) -> int:
        matrix = len(each.size) == 2 and not each.bias
        return each.numbers + 4 * each.size[0] * each.count if matrix else 4 * each.numbers

    return {
        "float32": 4 * numbers,
        "bfloat16": 2 * numbers,
        "int8": sum(map(eight, weights(shape, architecture))),
    }


# --- training -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A way to fine-tune. weight, gradient, state: bytes a number; state None for Adafactor's, which is not by the
    number. streamed: the update is made inside the backward pass, so that the gradients of one sub-layer exist at a
    time. here: whether t5study's training does it; the others are what the hardware would allow."""

    name: str
    weight: int
    gradient: int
    state: int | None
    streamed: bool = False
    here: bool = False


WAYS = (
    Way("AdamW, float32", 4, 4, 8, here=True),
    Way("AdamW, bfloat16 model and gradients, float32 master copy", 2, 2, 4 + 8),
    Way("Adafactor, float32", 4, 4, None, here=True),
    Way("Adafactor, bfloat16 with stochastic rounding", 2, 2, None, here=True),
    Way("Adafactor, float32, update inside the backward pass", 4, 4, None, streamed=True, here=True),
    Way("Adafactor, bfloat16 with stochastic rounding, update inside the backward pass", 2, 2, None, True, here=True),
)


def training(shape: Shape, architecture: str = "encoder_decoder") -> list[tuple[Way, int]]:
    """Each way, and its bytes: weights, gradients, the optimiser's state.

    With adapters only they and the norms have a gradient and a state. A streamed way holds the gradients of one
    sub-layer, or of the table where that is larger; bfloat16 is of matrices, while norms and bias tables stay float32,
    which is not counted; a state of AdamW is two numbers, and the master copy a third.

    >>> from t5study.model.shapes import size
    >>> [(way.name, round(n / 1e9)) for way, n in training(size("11b"))][:3:2]
    [('AdamW, float32', 181), ('Adafactor, float32', 91)]
    """
    every = weights(shape, architecture)
    moved = [each for each in every if each.tuned or not shape.adapter]

    def bytes_of(way: Way) -> int:
        gradients = largest(shape) if way.streamed else _numbers(moved)
        state = 4 * adafactor_state(moved) if way.state is None else way.state * _numbers(moved)
        return way.weight * _numbers(every) + way.gradient * gradients + state

    return [(way, bytes_of(way)) for way in WAYS]


def trainable(shape: Shape, architecture: str = "encoder_decoder") -> int:
    """Numbers that fine-tuning moves: adapters and norms if there are adapters, else all."""
    return _numbers([each for each in weights(shape, architecture) if each.tuned or not shape.adapter])


def adafactor_state(some: list[Weights]) -> int:
    """Numbers of Adafactor's state: two vectors of a large matrix, all of a smaller one or of a vector."""

    def state(each: Weights) -> int:
        large = len(each.size) == 2 and min(each.size) >= FACTORED_FROM
        return (sum(each.size) if large else math.prod(each.size)) * each.count

    return sum(map(state, some))


def _numbers(some: list[Weights]) -> int:
    return sum(each.numbers for each in some)


def largest(shape: Shape) -> int:
    """Numbers that move together at most: those of one sub-layer, or a table."""
    d = shape.d_model
    if shape.adapter:
        return 2 * d * shape.adapter + d
    feed = (3 if shape.activation == "gated_gelu" else 2) * d * shape.d_ff
    return max(4 * d * shape.inner + d, feed + d, shape.table_rows * d)
