"""Every architecture against its own definition, written out dense (reference.py): packed rows, dropout, z-loss, every
gradient; and what must not change a result: packing, micro-batches, chunks, tiles, what is kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little_models import FAMILY, SHAPES, of_family, random_pairs, rows_of
from model.reference import reference
from torch.utils._python_dispatch import TorchDispatchMode

from t5study.ground.pairs import Batch
from t5study.model import attention, inputs, loss
from t5study.model.architectures import Dropout, Model, arrange, build
from t5study.model.shapes import ARCHITECTURES, LANGUAGE_MODELS, Shape


def gradients(model: Model, total: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-4) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        error = (ours[name] - expected).norm() / expected.norm().clamp(min=1e-12)
        assert error < tolerance, f"{name}: {error:.1e}"


def packed(seed: int, rows: int = 3, each: int = 3) -> Batch:
    """Rows of several pairs each, of every length from 1 up; rows are not full."""
    pairs = random_pairs(rows * each, 30, 14, 384, seed)
    return rows_of([pairs[r * each : (r + 1) * each] for r in range(rows)], 30 * each + 4, 14 * each + 2)


DROPOUTS = {"no dropout": None, "dropout": Dropout(0.3, seed=11, step=5, first_row=2)}


PLAIN = [f"{architecture} relu tied" for architecture in ARCHITECTURES]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("name", FAMILY)
def test_packed_rows_equal_the_definition(name: str, dropout: str) -> None:
    model, batch = of_family(name, seed=1), packed(seed=4)
    expected = reference(model, batch, DROPOUTS[dropout], z_loss=1e-2)
    inputs = model.arrange(batch)
    losses = model.loss_sum(inputs, DROPOUTS[dropout], z_loss=1e-2)
    torch.testing.assert_close(losses.total, expected.total, rtol=1e-5, atol=0)
    torch.testing.assert_close(losses.nats, expected.nats.detach(), rtol=1e-5, atol=0)
    assert losses.tokens == len(inputs.learned) == len(expected.logits_MV)
    close(gradients(model, losses.total), gradients(model, expected.total))
    if DROPOUTS[dropout] is None:
        logits_MV = model.logits(inputs, inputs.learned)
        torch.testing.assert_close(logits_MV, expected.logits_MV.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(model.logits(inputs), logits_MV[expected.answers_M], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_double_precision_gradients(name: str) -> None:
    """The same in double: what is left are mistakes, not rounding."""
    model, batch = of_family(name, seed=1).double(), packed(seed=5)
    dropout = Dropout(0.2, seed=1, step=1)
    total = model.loss_sum(model.arrange(batch), dropout, z_loss=1e-3).total
    expected = reference(model, batch, dropout, z_loss=1e-3).total
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    found = gradients(model, total)
    assert len(found) == len(list(model.parameters()))
    close(found, gradients(model, expected), tolerance=1e-10)


@pytest.mark.parametrize("name", PLAIN)
def test_packing_changes_nothing(name: str) -> None:
    """Any division of pairs into rows gives the loss and gradients of one pair a row."""
    model = of_family(name, seed=2)

    @settings(max_examples=10, deadline=None)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        pairs = random_pairs(data.draw(st.integers(1, 7)), 30, 14, 384, data.draw(st.integers(0, 99)))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(pairs)), max_size=3)) | {0, len(pairs)})
        groups = [pairs[a:b] for a, b in pairwise(cuts)]
        wide = 30 * len(pairs), 14 * len(pairs)
        alone, together = rows_of([[p] for p in pairs], 30, 14), rows_of(groups, *wide)
        one, other = (model.loss_sum(model.arrange(batch), z_loss=1e-4) for batch in (alone, together))
        tokens = alone.tokens if model.architecture == "language_model" else alone.target_tokens
        assert one.tokens == other.tokens == tokens
        torch.testing.assert_close(one.nats, other.nats, rtol=1e-5, atol=0)
        close(gradients(model, other.total), gradients(model, one.total))

    holds()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", PLAIN)
def test_micro_batches_add_up_to_the_batch_dropout_included(name: str) -> None:
    model, batch = of_family(name, seed=0), packed(seed=7, rows=5)
    whole = model.loss_sum(model.arrange(batch), Dropout(0.1, 3, 9), z_loss=1e-4)
    expected = gradients(model, whole.total)
    model.zero_grad()
    total = 0.0
    for first, end in ((0, 2), (2, 5)):
        inputs = model.arrange(batch.rows(slice(first, end)))
        part = model.loss_sum(inputs, Dropout(0.1, 3, 9, first_row=first), z_loss=1e-4)
        part.total.backward()
        total += part.total.item()
    assert total == pytest.approx(whole.total.item(), rel=1e-5)
    close({n: w.grad for n, w in model.named_parameters() if w.grad is not None}, expected)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", PLAIN)
def test_tiles_chunks_and_what_is_kept_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = of_family(name, seed=0), packed(seed=8)
    expected = gradients(model, model.loss_sum(model.arrange(batch), z_loss=1e-4).total)
    monkeypatch.setattr(attention, "KEEP", 0)
    close(gradients(model, model.loss_sum(model.arrange(batch), z_loss=1e-4).total), expected)
    monkeypatch.setattr(loss, "NARROW", 0)
    close(gradients(model, model.loss_sum(model.arrange(batch), z_loss=1e-4).total), expected)
    monkeypatch.setattr(loss, "CHUNK", 1)
    monkeypatch.setattr(inputs, "TILE", 600)
    monkeypatch.setattr(inputs, "CALL", 40)
    assert len((*model.arrange(batch).encoder, *model.arrange(batch).decoder)) > 3
    close(gradients(model, model.loss_sum(model.arrange(batch), z_loss=1e-4).total), expected)


class Largest(TorchDispatchMode):
    """The most numbers any operator's result holds."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.numel())
        return out


@pytest.mark.parametrize("name", PLAIN)
def test_logits_and_scores_of_a_whole_batch_never_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "KEEP", 0)
    monkeypatch.setattr(inputs, "TILE", 1 << 13)
    monkeypatch.setattr(loss, "CHUNK", 50)
    model = of_family(name, seed=0)
    rows, length, read = 24, 60, 120 if model.architecture in LANGUAGE_MODELS else 60
    random = np.random.default_rng(0)
    pairs = [(random.integers(3, 384, length, dtype=np.int32),) * 2 for _ in range(rows)]
    batch = rows_of([[p] for p in pairs], length, length)
    with Largest() as largest:
        model.loss_sum(model.arrange(batch)).total.backward()
    assert largest.most < rows * length * 384, "the logits"
    assert largest.most < rows * 3 * read * read, "the scores"
    assert largest.most >= rows * read * 96, "the feed-forward's hidden layer"


@pytest.mark.parametrize("width", [32, 512])
def test_a_second_backward_pass_is_refused(width: int) -> None:
    """The table's gradient was scaled in place: it would come out wrong."""
    shape = Shape(d_model=width, d_ff=32, d_kv=16, heads=2, encoder_layers=1, decoder_layers=1, table_rows=384)
    model, batch = build(shape, seed=0), packed(seed=3)
    total = model.loss_sum(model.arrange(batch)).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace operation"):
        total.backward()


# --- precision, freezing, odd batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILY)
def test_bf16_keeps_weights_gradients_and_loss_in_fp32(name: str) -> None:
    model, batch = of_family(name, seed=0), packed(seed=3)
    exact = model.loss_sum(model.arrange(batch), Dropout(0.1, 0, 0), z_loss=1e-4)
    expected = gradients(model, exact.total)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.loss_sum(model.arrange(batch), Dropout(0.1, 0, 0), z_loss=1e-4)
    assert rounded.total.dtype == rounded.nats.dtype == torch.float32
    assert rounded.total.item() != exact.total.item(), "nothing was rounded"
    assert rounded.total.item() == pytest.approx(exact.total.item(), rel=0.01)
    found = gradients(model, rounded.total)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    close(found, expected, tolerance=0.15)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", FAMILY)
def test_what_is_frozen_gets_no_gradient_and_what_moves_gets_the_same(name: str) -> None:
    model, batch = of_family(name, seed=0), packed(seed=3)
    everything = gradients(model, model.loss_sum(model.arrange(batch), Dropout(0.1, 0, 0)).total)
    for moves in ("adapter", "layers.1.", "embedding", "attention.k", "wo", "norm"):
        for other, weight in model.named_parameters():
            weight.requires_grad = moves in other
        if any(weight.requires_grad for weight in model.parameters()):
            some = gradients(model, model.loss_sum(model.arrange(batch), Dropout(0.1, 0, 0)).total)
            close(some, {n: g for n, g in everything.items() if moves in n}, tolerance=1e-6)


def test_scoring_takes_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    from t5study.model import loops

    asked = []
    plain = loops.cross_entropy_
    monkeypatch.setattr(loops, "cross_entropy_", lambda *given_: asked.append(given_[3]) or plain(*given_))
    model, some = build(SHAPES["v1.0"], seed=0), arrange(packed(seed=3))
    nats_M = model.nats(some)
    assert not nats_M.requires_grad
    torch.testing.assert_close(nats_M.sum(), model.loss_sum(some).nats)
    assert asked == [False, True]


@pytest.mark.parametrize("architecture", PLAIN)
def test_nan_weights_give_a_nan_loss(architecture: str, arithmetic: str) -> None:
    """Whatever weight is damaged: a maximum or a mask must not swallow it."""
    fresh, batch = of_family(architecture, seed=0), packed(seed=3, rows=1, each=2)
    inputs = fresh.arrange(batch)
    for i, (name, _) in enumerate(fresh.named_parameters()):
        model = copy.deepcopy(fresh)
        with torch.no_grad():
            flat = dict(model.named_parameters())[name].view(-1)
            damaged = (1 + batch.target_BT[0, 0]) * 64 - 1 if name == "embedding" else 0
            flat[damaged] = float("nan") if i % 2 else -float("nan")
            assert model.loss_sum(inputs).total.isnan(), f"{name}, {arithmetic}"


@pytest.mark.parametrize("name", [name for name in PLAIN if not name.startswith("language_model")])
def test_rows_without_targets_count_for_nothing(name: str) -> None:
    model = of_family(name, seed=0)
    pairs = random_pairs(3, 20, 9, 384, seed=1)
    without = (pairs[1][0], pairs[1][1][:0])
    both, one = rows_of([[pairs[0], pairs[2]], [without]], 40, 20), rows_of([[pairs[0], pairs[2]]], 40, 20)
    ours, theirs = (gradients(model, model.loss_sum(model.arrange(batch)).total) for batch in (both, one))
    close(ours, theirs)
    nothing = model.loss_sum(model.arrange(rows_of([[without]], 40, 20)))
    assert nothing.tokens == 0
    assert nothing.total.item() == 0
    assert all(not gradient.any() for gradient in gradients(model, nothing.total).values())


def test_runs_twice_to_the_same_bytes() -> None:
    batch = packed(seed=6)

    def bytes_of() -> list[bytes]:
        model = build(SHAPES["v1.0"], seed=0)
        found = gradients(model, model.loss_sum(arrange(batch), Dropout(0.1, 0, 1), z_loss=1e-4).total)
        return [gradient.numpy().tobytes() for gradient in found.values()]

    assert bytes_of() == bytes_of()


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    yield
    torch.set_num_threads(before)


def test_one_thread_takes_loops_and_several_take_torchs_operators() -> None:
    from t5study.model import loops, passes
    from t5study.model.layers import Pass

    model, some = build(SHAPES["v1.0"], seed=0), arrange(packed(seed=1))
    assert Pass.of(model.shape, some, model.embedding).ops is loops
    with threads(2):
        assert Pass.of(model.shape, some, model.embedding).ops is passes
    with torch.autocast("cpu", torch.bfloat16):
        assert Pass.of(model.shape, some, model.embedding).ops is loops
    assert Pass.of(model.shape, some, model.embedding.double()).ops is passes
