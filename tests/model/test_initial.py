"""First values: each weight's distribution, and that it is a function of (seed, name) alone."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tracemalloc

import pytest
import torch
from little_models import random_pairs, rows_of

from t5study.ground.errors import UserError
from t5study.model import initial
from t5study.model.architectures import arrange, build
from t5study.model.shapes import Shape

SHAPE = Shape(d_model=192, d_ff=640, d_kv=24, heads=6, encoder_layers=2, decoder_layers=2, table_rows=512)
GATED = dataclasses.replace(SHAPE, activation="gated_gelu", tied=False)
ADAPTED = dataclasses.replace(SHAPE, adapter=160)
CUT = 0.8796  # the standard deviation that a unit normal has left when what lies beyond 2 is taken away

DEVIATIONS = {
    "embedding": 1.0,
    "head": CUT * 192**-0.5,
    "q": (192 * 24) ** -0.5,
    "k": 192**-0.5,
    "v": 192**-0.5,
    "out": (6 * 24) ** -0.5,
    "wi": CUT * 192**-0.5,
    "wi_0": CUT * 192**-0.5,
    "wi_1": CUT * 192**-0.5,
    "wo": CUT * 640**-0.5,
    "adapter.wo": CUT * 160**-0.5,
    "bias": math.sqrt(6 / (32 + 6) / 3),  # a uniform's deviation is its limit / sqrt(3)
}


@pytest.mark.parametrize("shape", [SHAPE, GATED, ADAPTED])
def test_distributions(shape: Shape) -> None:
    seen = set()
    for name, weight in build(shape, seed=1).named_parameters():
        kind = "adapter.wo" if name.endswith("adapter.wo") else name.rsplit(".", 1)[-1]
        seen.add(kind)
        values = weight.detach()
        if kind == "norm":
            assert (values == 1).all()
            continue
        expected = DEVIATIONS[kind]
        tolerance = 5 / math.sqrt(2 * values.numel())
        assert values.std().item() == pytest.approx(expected, rel=tolerance), name
        assert abs(values.mean().item()) < 5 * expected / math.sqrt(values.numel()), name
        if kind in ("wi", "wi_0", "wi_1", "wo", "adapter.wo", "head"):
            assert values.abs().max() <= 2 * expected / CUT + 1e-6
            assert values.abs().max() > 1.9 * expected / CUT
        if kind == "bias":
            limit = math.sqrt(6 / (32 + 6))
            assert 0.9 * limit < values.abs().max() <= limit
    absent = {"wi", "adapter.wo"} if shape is GATED else {"wi_0", "wi_1", "head"}
    assert seen >= set(DEVIATIONS) - absent - (set() if shape.adapter else {"adapter.wo"})


def test_a_function_of_seed_and_name_only() -> None:
    model = build(SHAPE, seed=7)
    deeper = dict(build(dataclasses.replace(SHAPE, encoder_layers=4, decoder_layers=3), seed=7).named_parameters())
    other = dict(build(SHAPE, seed=8).named_parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, deeper[name]), f"{name} depends on what else there is"
        if weight.dim() > 1:
            assert not torch.equal(weight, other[name]), f"{name} does not depend on the seed"
    drawn = [w.detach().flatten()[:100] for w in model.parameters() if w.dim() > 1 and w.shape == (144, 192)]
    assert len({tuple(values.tolist()) for values in drawn}) == len(drawn), "two weights share their values"


def test_the_first_loss_is_near_a_uniform_guess() -> None:
    """ln(V) and half a nat, because logits start with a variance of 1; some more with a tied table, which at first
    recognises the token just read."""
    batch = rows_of([[pair] for pair in random_pairs(8, 40, 40, 4096, seed=0)], 40, 40)
    for shape in (SHAPE, GATED):
        losses = build(dataclasses.replace(shape, table_rows=4096), seed=0).loss_sum(arrange(batch))
        assert math.log(4096) < losses.nats.item() / losses.tokens < math.log(4096) + 1.5


def test_an_architecture_that_there_is_none_of() -> None:
    with pytest.raises(UserError, match=r"architecture: found 'decoder'; did you mean encoder_decoder\?"):
        build(SHAPE, seed=0, architecture="decoder")


@pytest.mark.parametrize("name", ["embedding", "head", "encoder.bias", "encoder.norm", "decoder.layers.0.feed.wo"])
def test_some_rows_are_those_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the chunks are that they are drawn in, for any cut, an empty one too."""
    size = (SHAPE.d_model,) if name.endswith("norm") else (32, 6) if name.endswith("bias") else (50, 7)
    whole = initial.first_value(name, size, SHAPE, 4)
    monkeypatch.setattr(initial, "_CHUNK", 33)
    for cuts in ((0, size[0]), (0, 5, 5, 9, size[0])):
        rows = [slice(*pair) for pair in itertools.pairwise(cuts)]
        made = b"".join(initial.first_value(name, size, SHAPE, 4, some).tobytes() for some in rows)
        assert made == whole.tobytes()


def test_rows_of_a_large_weight_are_made_without_the_whole() -> None:
    """A sixteenth of 8 M numbers takes 2 MiB of the 32, beside a chunk and what was drawn beyond two deviations."""
    tracemalloc.start()
    made = initial.first_value("decoder.layers.0.feed.wo", (8192, 1024), SHAPE, 4, slice(512, 1024))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.shape == (512, 1024)
    assert most < 4 * 8192 * 1024 * 0.75
