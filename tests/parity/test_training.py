"""The encoder-decoder against transformers' eager T5 on the same weights, with either activation, tied and not: logits
within 1e-5, every gradient within 1e-4."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from little_models import SHAPES, random_pairs, rows_of
from parity.transformers_t5 import peer_loss, peer_name, peer_of

from t5study.model.architectures import arrange, build
from t5study.model.shapes import Shape

FOUR = [
    *SHAPES.values(),  # ReLU and tied, gated and untied; and the other way about
    *(replace(shape, tied=not shape.tied) for shape in SHAPES.values()),
]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("shape", FOUR, ids=lambda shape: f"{shape.activation} {'tied' if shape.tied else 'untied'}")
@pytest.mark.parametrize(("source", "target"), [(150, 33), (7, 140)])
def test_logits_and_gradients(shape: Shape, source: int, target: int) -> None:
    model = build(shape, seed=3)
    peer = peer_of(model)
    batch = rows_of([[p] for p in random_pairs(6, source, target, shape.table_rows, seed=1)], source, target)
    theirs, their_logits_MV = peer_loss(peer, batch)
    theirs.backward()
    inputs = arrange(batch)
    ours = model.loss_sum(inputs)
    ours.total.backward()
    assert ours.tokens == batch.target_tokens
    torch.testing.assert_close(ours.total, theirs, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.nats, ours.total.detach())
    torch.testing.assert_close(model.logits(inputs), their_logits_MV.detach(), rtol=0, atol=1e-5)
    gradients = {name: weight.grad for name, weight in peer.named_parameters()}
    for name, weight in model.named_parameters():
        expected = gradients.pop(peer_name(name))
        assert weight.grad is not None
        assert expected is not None
        error = (weight.grad - expected).norm() / expected.norm()
        assert error < 1e-4, f"{name}: {error:.1e}"
        assert expected.norm() > 1e-6, f"{name} has no gradient, so the comparison says nothing"
    assert not gradients


@pytest.mark.usefixtures("arithmetic")
def test_bias_tables_learn() -> None:
    """A bias that is added without its gradient trains silently without it."""
    model = build(SHAPES["v1.0"], seed=0)
    pairs = random_pairs(4, 140, 140, 384, seed=0)
    model.loss_sum(arrange(rows_of([[p] for p in pairs], 140, 140))).total.backward()
    for stack, unused in ((model.encoder, [16]), (model.decoder, [])):  # bucket 16 is "ahead by nothing"
        assert stack.bias.grad is not None
        assert torch.nonzero(stack.bias.grad.abs().amax(1) < 1e-6).flatten().tolist() == unused
