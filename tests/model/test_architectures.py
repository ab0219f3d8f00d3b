"""What is particular to each architecture: what it sees, what it shares, where decoding starts, what adapters add."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from little_models import FAMILY, of_family, random_pairs, rows_of
from model.reference import reference

from t5study.ground.errors import UserError
from t5study.ground.pairs import Batch
from t5study.model.architectures import Dropout, EncoderDecoder, LanguageModel, Model, build
from t5study.model.dropout import sites
from t5study.model.shapes import ARCHITECTURES, LANGUAGE_MODELS, Shape, parameters, shape_of, size

SHAPE = Shape(64, 96, 16, 3, 2, 2, 384)
LMS = [name for name in FAMILY if FAMILY[name][0] in LANGUAGE_MODELS]
SHARED = [name for name in FAMILY if name.startswith("shared")]


def gradients(model: Model, total: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def one_row(source: list[int], target: list[int]) -> Batch:
    pair = np.array(source, np.int32), np.array(target, np.int32)
    return rows_of([[pair]], len(source), len(target))


# --- what is seen -----------------------------------------------------------------------------------------------------

SOURCE, TARGET = [7, 9, 40, 3, 88, 5, 1], [12, 31, 9, 77, 1]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", FAMILY)
def test_no_answer_is_told_by_what_comes_after_it(name: str) -> None:
    """The i-th target's logits change with the targets before it and with the source, and with nothing else."""
    model = of_family(name, seed=1)
    logits_MV = model.logits(model.arrange(one_row(SOURCE, TARGET)))
    for i in range(len(TARGET)):
        changed = [*TARGET[:i], 99, *TARGET[i + 1 :]]
        same_M = (model.logits(model.arrange(one_row(SOURCE, changed))) == logits_MV).all(1)
        assert same_M.tolist() == [j <= i for j in range(len(TARGET))]
    for i in range(len(SOURCE)):
        changed = [*SOURCE[:i], 99, *SOURCE[i + 1 :]]
        assert not (model.logits(model.arrange(one_row(changed, TARGET))) == logits_MV).all(1).any()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", [name for name in LMS if name.startswith("language_model")])
def test_a_language_model_learns_all_its_tokens_each_from_those_before_it(name: str) -> None:
    model, text = of_family(name, seed=1), SOURCE + TARGET
    inputs = model.arrange(one_row(SOURCE, TARGET))
    assert inputs.learned.id_M.tolist() == text
    logits_MV = model.logits(inputs, inputs.learned)
    for i in range(len(text)):
        changed = [*text[:i], 99, *text[i + 1 :]]
        other = model.arrange(one_row(changed[: len(SOURCE)], changed[len(SOURCE) :]))
        same_M = (model.logits(other, other.learned) == logits_MV).all(1)
        assert same_M.tolist() == [j <= i for j in range(len(text))]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", [name for name in LMS if name.startswith("prefix_lm")])
def test_places_of_a_prefix_see_each_other_and_no_target(name: str) -> None:
    """So their own labels, which they have read, are not learned."""
    model = of_family(name, seed=1)
    inputs = model.arrange(one_row(SOURCE, TARGET))
    assert inputs.learned.id_M.tolist() == inputs.label_M.tolist() == TARGET
    streams = []
    for source, target in ((SOURCE, TARGET), (SOURCE, [50, 60, 70, 80, 1]), ([*SOURCE[:5], 99, 1], TARGET)):
        some = model.arrange(one_row(source, target))
        everywhere = replace(some.answers, place_M=torch.arange(len(some.target)))
        streams.append(model.logits(some, everywhere)[: len(SOURCE) + 1])
    assert torch.equal(streams[0], streams[1]), "a target is seen by its source"
    assert not (streams[0] == streams[2]).all(1).any(), "a place of the prefix does not see what is ahead"


@pytest.mark.parametrize("name", FAMILY)
def test_segments_of_a_row_do_not_see_each_other(name: str) -> None:
    model = of_family(name, seed=1)
    pairs = random_pairs(3, 20, 9, 384, seed=1)
    row = model.arrange(rows_of([pairs], 60, 27))
    other = model.arrange(rows_of([[pairs[0], random_pairs(1, 20, 9, 384, seed=8)[0], pairs[2]]], 60, 27))
    first, last = len(pairs[0][1]), len(pairs[2][1])
    ours, theirs = model.nats(row), model.nats(other)
    torch.testing.assert_close(ours[:first], theirs[:first], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[-last:], theirs[-last:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_nats_are_of_targets_row_by_row(name: str) -> None:
    model = of_family(name, seed=1)
    pairs = random_pairs(6, 20, 9, 384, seed=1)
    batch = rows_of([pairs[:2], pairs[2:5], [pairs[5]]], 60, 27)
    inputs = model.arrange(batch)
    found = reference(model, batch)
    nats_M = -found.logits_MV[found.answers_M].log_softmax(1)[torch.arange(len(inputs.answers)), inputs.answers.id_M]
    torch.testing.assert_close(model.nats(inputs), nats_M.detach(), rtol=1e-4, atol=1e-5)
    rows = [r for r, group in enumerate((pairs[:2], pairs[2:5], pairs[5:])) for pair in group for _ in pair[1]]
    assert inputs.target_row_M.tolist() == rows
    assert inputs.answers.id_M.tolist() == np.concatenate([pair[1] for pair in pairs]).tolist()


# --- what is shared ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", SHARED)
def test_shared_stacks_are_two_stacks_of_equal_weights_and_gradients_add_up(name: str) -> None:
    shared = of_family(name, seed=3)
    twins = EncoderDecoder(shared.shape)
    ours = dict(shared.named_parameters())

    def owner(other: str) -> str:
        return other if other in ours else other.replace("decoder.", "encoder.", 1)

    with torch.no_grad():
        for other, weight in twins.named_parameters():
            weight.copy_(ours[owner(other)])
    batch = rows_of([[p] for p in random_pairs(5, 30, 14, 384, seed=6)], 30, 14)
    inputs = shared.arrange(batch)
    torch.testing.assert_close(shared.logits(inputs), twins.logits(inputs), rtol=0, atol=0)
    found = gradients(shared, shared.loss_sum(inputs, z_loss=1e-4).total)
    expected = {other: torch.zeros_like(gradient) for other, gradient in found.items()}
    for other, gradient in gradients(twins, twins.loss_sum(inputs, z_loss=1e-4).total).items():
        expected[owner(other)] += gradient
    for other, gradient in found.items():
        torch.testing.assert_close(gradient, expected[other], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_has_one_name_and_stays_shared(name: str) -> None:
    model = of_family(name, seed=3)
    names = [other for other, _ in model.named_parameters(remove_duplicate=False)]
    assert len(set(names)) == len(names) == len(model.state_dict())
    assert not any(".attention." in other or ".feed." in other for other in names if other.startswith("decoder"))
    again = build(model.shape, 0, model.architecture)
    again.load_state_dict(model.state_dict())
    batch = rows_of([[p] for p in random_pairs(2, 30, 14, 384, seed=6)], 30, 14)
    for other in (again, copy.deepcopy(model), copy.deepcopy(model).double().float()):
        assert torch.equal(other.logits(other.arrange(batch)), model.logits(model.arrange(batch)))
        with torch.no_grad():
            other.encoder.layers[1].feed.wo.zero_()
        assert not other.decoder.layers[1].feed.wo.any()


def test_two_stacks_of_the_same_weights_drop_independently() -> None:
    found = sites(SHAPE, 20, 10, "shared_encoder_decoder")
    assert found == sites(SHAPE, 20, 10, "encoder_decoder")
    masks = Dropout(0.5, 0, 0).masks(4, found)
    assert not torch.equal(masks["encoder.layers.0.feed.hidden"], masks["decoder.layers.0.feed.hidden"])
    alone = sites(shape_of("prefix_lm", SHAPE), 20, 30, "prefix_lm")
    assert alone == sites(shape_of("language_model", SHAPE), 20, 30, "language_model")
    assert not any("encoder." in site or ".cross" in site for site in alone)
    assert alone["decoder.layers.0.attention.weights"] == 30 * SHAPE.heads
    assert sites(replace(SHAPE, adapter=24), 20, 10)["decoder.layers.1.adapter.hidden"] == 24


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", LMS)
def test_a_prefix_is_where_decoding_starts(name: str) -> None:
    """The stream at its last place says the first target as the whole model says it, and its keys and values are those
    of the same tokens with the target behind them."""
    model, pairs = of_family(name, seed=2), random_pairs(5, 20, 9, 384, seed=1)
    assert isinstance(model, LanguageModel)
    sources = rows_of([[(source, source[:0])] for source, _ in pairs], 20, 0)
    inputs = model.arrange(sources)
    assert len(inputs.target) == sum(len(source) + 1 for source, _ in pairs)
    cache, x_BD = model.prefix(inputs)
    y_BD = x_BD * (x_BD.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * model.decoder.norm * model.shape.logit_scale
    logits_BV = y_BD @ (model.embedding if model.head is None else model.head).t()
    whole = model.arrange(rows_of([[pair] for pair in pairs], 20, 9))
    first_B = torch.searchsorted(whole.target_row_M, torch.arange(5))
    torch.testing.assert_close(logits_BV.detach(), model.logits(whole)[first_B], rtol=1e-4, atol=1e-5)
    layer = model.decoder.layers[0].attention
    x_ND = model.embedding[inputs.target.id_N]
    y_ND = x_ND * (x_ND.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * layer.norm
    torch.testing.assert_close(cache[0], (y_ND @ torch.cat((layer.k, layer.v)).t()).detach(), rtol=1e-4, atol=1e-5)
    assert [tuple(kv.shape) for kv in cache] == [(len(inputs.target), 2 * model.shape.inner)] * 2
    for refused in (whole, model.arrange(rows_of([[(pairs[0][0], pairs[0][1][:0])] * 2], 40, 0))):
        with pytest.raises(ValueError, match="rows of one source each, without targets"):
            model.prefix(refused)


def test_memory_is_of_the_source_and_buckets_are_told() -> None:
    shared, prefix, causal = (
        build(shape_of(name, SHAPE), 0, name) for name in ("shared_encoder_decoder", "prefix_lm", "language_model")
    )
    assert isinstance(shared, EncoderDecoder)
    inputs = shared.arrange(one_row(SOURCE, []))
    assert [tuple(kv.shape) for kv in shared.memory(inputs)] == [(len(SOURCE), 2 * SHAPE.inner)] * 2
    assert (shared.two_ways, prefix.two_ways, causal.two_ways) == (False, True, False)
    assert all(layer.cross is None and layer.adapter is None for layer in (*prefix.decoder, *causal.decoder))


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("activation", ["relu", "gated_gelu"])
def test_adapters_are_added_to_what_there_was(architecture: str, activation: str) -> None:
    """The same weights beside them, and the same function where they say nothing."""
    shape = shape_of(architecture, replace(SHAPE, activation=activation))
    plain, adapted = (build(replace(shape, adapter=a), 5, architecture) for a in (0, 24))
    batch = rows_of([[p] for p in random_pairs(3, 30, 14, 384, seed=6)], 30, 14)
    before, after = dict(plain.named_parameters()), dict(adapted.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    stacks = ["decoder"] if architecture in LANGUAGE_MODELS else ["encoder", "decoder"]
    added = {f"{stack}.layers.{i}.adapter.{w}" for stack in stacks for i in (0, 1) for w in ("norm", "wi", "wo")}
    assert after.keys() - before.keys() == added
    nats_M = plain.nats(plain.arrange(batch))
    assert not torch.equal(adapted.nats(adapted.arrange(batch)), nats_M)
    with torch.no_grad():
        for name in added:
            if name.endswith("wo"):
                after[name].zero_()
    assert torch.equal(adapted.nats(adapted.arrange(batch)), nats_M)


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_11b_on_the_meta_device(architecture: str) -> None:
    shape = shape_of(architecture, replace(size("11b"), adapter=2048))
    with torch.device("meta"):
        model = build(shape, 0, architecture)
    assert sum(weight.numel() for weight in model.parameters()) == parameters(shape, architecture) > 4e9
    assert all(weight.is_meta for weight in model.parameters())


def test_stacks_that_cannot_be() -> None:
    for architecture, shape in (("prefix_lm", SHAPE), ("shared_encoder_decoder", replace(SHAPE, encoder_layers=3))):
        with pytest.raises(UserError, match="shape: "):
            build(shape, 0, architecture)
