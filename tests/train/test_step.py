"""A step's gradients do not depend on how its batch is cut, and weigh every target token alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import SHAPE, make

from t5study.ground.machine import Machine
from t5study.ground.pairs import Batch
from t5study.model.architectures import build
from t5study.model.shapes import ARCHITECTURES, shape_of
from t5study.train.step import gradients

SETTINGS: dict[str, Any] = {"seed": 5, "z_loss": 1e-4}


def taken(model: Any, batch: Batch, dropout: float = 0.0, **machine: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    found = gradients(
        model, list(model.parameters()), batch, 7, dropout=dropout, machine=Machine(**machine), **SETTINGS
    )
    return found, {name: p.grad.clone() for name, p in model.named_parameters()}


def uneven(batch: Batch) -> Batch:
    """Rows with many targets, with few, and with none."""
    keep_BT = np.arange(batch.target_BT.shape[1]) < np.array([99, 3, 0, 99])[:, None]
    return Batch(
        batch.source_BS,
        batch.source_segment_BS,
        batch.source_position_BS,
        batch.target_BT * keep_BT,
        batch.target_segment_BT * keep_BT,
        batch.target_position_BT * keep_BT,
    )


@pytest.mark.parametrize(
    ("architecture", "micro_batch", "dropout"),
    [
        *(("encoder_decoder", micro_batch, dropout) for micro_batch in (1, 2, 3) for dropout in (0.0, 0.3)),
        *((name, 1, 0.3) for name in ARCHITECTURES[1:]),
    ],
)
def test_micro_batches_come_to_one_big_batch(architecture: str, micro_batch: int, dropout: float):
    """Whatever the loss is over: targets, or what a language model reads too, of a row without a target as well."""
    stream = make()[1]
    model = build(shape_of(architecture, SHAPE), 3, architecture)
    batch = uneven(stream.batch(0)[0])
    whole, expected = taken(model, batch, dropout)
    cut, found = taken(model, batch, dropout, micro_batch=micro_batch)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
    assert cut.z == pytest.approx(whole.z, rel=1e-2)
    assert cut.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)
    assert (cut.tokens, cut.target_tokens) == (whole.tokens, whole.target_tokens)
    for name, grad in expected.items():
        assert (grad - found[name]).abs().max() <= 1e-4 * grad.abs().max(), name


def test_the_loss_is_a_sum_over_the_targets_of_the_step():
    """Not a mean of rows' means: each row alone, weighed by its targets, comes to the same."""
    model, stream = make()
    batch = uneven(stream.batch(0)[0])
    whole, _ = taken(model, batch)
    rows = [batch.rows(slice(i, i + 1)) for i in (0, 1, 3)]
    alone = [taken(model, row)[0].loss * row.target_tokens for row in rows]
    assert sum(alone) / batch.target_tokens == pytest.approx(whole.loss, rel=1e-5)
    assert math.fsum(loss / row.target_tokens for loss, row in zip(alone, rows, strict=True)) / 3 != pytest.approx(
        whole.loss, rel=1e-3
    )


def test_a_language_models_loss_is_a_mean_over_all_it_reads():
    model, stream = build(shape_of("language_model", SHAPE), 3, "language_model"), make()[1]
    batch = uneven(stream.batch(0)[0])
    found, _ = taken(model, batch)
    whole = model.loss_sum(model.arrange(batch))
    assert whole.tokens == batch.tokens > batch.target_tokens == found.target_tokens
    assert found.loss == pytest.approx(float(whole.nats) / batch.tokens, rel=1e-5)


def test_dropout_is_a_function_of_the_step():
    model, stream = make()
    batch, _ = stream.batch(0)
    first, again = taken(model, batch, 0.3)[0], taken(model, batch, 0.3)[0]
    other = gradients(model, list(model.parameters()), batch, 8, dropout=0.3, machine=Machine(), **SETTINGS)
    assert first == again
    assert first.loss != other.loss


def test_the_norm_is_that_of_the_whole_gradient():
    model, stream = make()
    found, grads = taken(model, stream.batch(0)[0])
    assert found.grad_norm == pytest.approx(
        math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads.values())), rel=1e-5
    )
    assert found.z > 0
    assert found.finite
