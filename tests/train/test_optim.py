"""Optimisers: Adafactor against the formulas, against transformers' and torch's where their rules coincide, and where
they do not; AdamW; schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.optimization import Adafactor as TransformersAdafactor

from t5study.ground.errors import UserError
from t5study.train.adafactor import AdafactorOptimizer, Rule
from t5study.train.optim import Adafactor, AdamW, Constant, InverseSquareRoot

SHAPES = [(7,), (300,), (9000,), (5, 8), (32, 4), (130, 200), (257, 129), (40, 300)]


def parameters(shapes: list[tuple[int, ...]], seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator) * 10 ** (i % 4 - 3)) for i, shape in enumerate(shapes)]


def named(ps: list[nn.Parameter]) -> dict[str, nn.Parameter]:
    return {f"w{i}": p for i, p in enumerate(ps)}


def give_gradients(*models: list[nn.Parameter], step: int, zeros: bool = False) -> None:
    """The same gradients to each, of sizes from 1e-6 to 1e2, so that clipping sets in for some and not for others."""
    for model in models:
        generator = torch.Generator().manual_seed(1000 + step)
        for p in model:
            size = 10 ** float(torch.rand((), generator=generator) * 8 - 6)
            p.grad = torch.randn(p.shape, generator=generator) * size
            if zeros:
                p.grad[0] = 0


def apart(a: list[nn.Parameter], b: list[nn.Parameter]) -> float:
    """The largest difference, relative to the largest number of its weight."""
    return max(float((x - y).detach().abs().max() / y.detach().abs().max()) for x, y in zip(a, b, strict=True))


def by_formula(
    p: np.ndarray, g: np.ndarray, state: dict[str, np.ndarray], t: int, rate: float, factor_from: int
) -> None:
    """SEMANTICS section 6 in float64, as it stands there."""
    beta = 1 - t**-0.8
    square = g**2 + 1e-30
    if p.ndim == 2 and min(p.shape) >= factor_from:
        state["r"] = beta * state.get("r", 0) + (1 - beta) * square.mean(1)
        state["c"] = beta * state.get("c", 0) + (1 - beta) * square.mean(0)
        v = np.outer(state["r"], state["c"]) / state["r"].mean()
    else:
        state["v"] = v = beta * state.get("v", 0) + (1 - beta) * square
    u = g / np.sqrt(v)
    u /= max(1.0, math.sqrt((u**2).mean()))
    p -= rate * max(math.sqrt((p**2).mean()), 1e-3) * u


@pytest.mark.parametrize("native", [None, False], ids=["loops", "torch operators"])
def test_adafactor_is_the_formula(native: bool | None):
    ps = parameters(SHAPES)
    optimizer = AdafactorOptimizer(Rule(), named(ps), native=native)
    expected = [p.detach().double().numpy().copy() for p in ps]
    states: list[dict[str, np.ndarray]] = [{} for _ in ps]
    for step in range(30):
        give_gradients(ps, step=step, zeros=True)
        optimizer.step(0.01)
        for p, numbers, state in zip(ps, expected, states, strict=True):
            assert p.grad is not None
            by_formula(numbers, p.grad.double().numpy(), state, step + 1, 0.01, factor_from=128)
    for p, numbers in zip(ps, expected, strict=True):
        assert np.abs(p.detach().numpy() - numbers).max() < 3e-6 * np.abs(numbers).max()


def test_adafactor_equals_transformers_where_both_factor():
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    optimizer = AdafactorOptimizer(Rule(min_dim_to_factor=1), named(ours))
    other = TransformersAdafactor(theirs, lr=0.01, scale_parameter=True, relative_step=False, warmup_init=False)
    for step in range(50):
        give_gradients(ours, theirs, step=step, zeros=True)
        optimizer.step(0.01)
        other.step()
    assert apart(ours, theirs) < 3e-6


def test_adafactor_equals_torch_below_its_cap_with_epsilon_as_small():
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    optimizer = AdafactorOptimizer(Rule(min_dim_to_factor=1), named(ours))
    other = torch.optim.Adafactor(theirs, lr=0.01, eps=(1e-30, 1e-3))
    for step in range(50):
        give_gradients(ours, theirs, step=step)
        optimizer.step(0.01)
        other.step()
    assert apart(ours, theirs) < 3e-6


@pytest.mark.parametrize("shape", [(127, 300), (32, 8)])
def test_the_128_rule_is_ours_and_meshs_not_theirs(shape: tuple[int, int]):
    """A matrix with a side below 128 keeps all of v here: the numbers and the state differ from transformers'."""
    ours, theirs = parameters([shape]), parameters([shape])
    optimizer = AdafactorOptimizer(Rule(), named(ours))
    other = TransformersAdafactor(theirs, lr=0.01, scale_parameter=True, relative_step=False, warmup_init=False)
    for step in range(5):
        give_gradients(ours, theirs, step=step)
        optimizer.step(0.01)
        other.step()
    assert optimizer.state_tensors()["w0/square"].shape == shape
    assert apart(ours, theirs) > 1e-3


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((128, 128), (0, 1)), ((127, 999), None), ((999,), None), ((3, 200, 130), (1, 2)), ((200, 3, 130), (0, 2))],
)
def test_the_two_largest_sides_decide(shape: tuple[int, ...], sides: tuple[int, int] | None):
    assert Rule().sides(shape) == sides


def test_torch_caps_the_rate_at_one_over_the_root_of_t_and_we_do_not():
    """At rate 0.5 torch's steps shrink from the fifth on; ours are what the schedule says."""
    ours, theirs = parameters([(40,)]), parameters([(40,)])
    optimizer = AdafactorOptimizer(Rule(), named(ours))
    other = torch.optim.Adafactor(theirs, lr=0.5)
    for step in range(8):
        give_gradients(ours, theirs, step=step)
        before = [p.detach().clone() for p in (*ours, *theirs)]
        optimizer.step(0.5)
        other.step()
        moved = [(p.detach() - b).norm() / b.norm() for p, b in zip((*ours, *theirs), before, strict=True)]
        assert (abs(float(moved[0] / moved[1]) - 1) < 1e-5) == (step < 4)


def test_torchs_own_epsilon_takes_small_gradients_for_large_and_ours_does_not():
    """torch's default bounds mean(rows) from below at 1.2e-7. A factored matrix whose gradients have an RMS of 1e-5
    then has a v too small a thousandfold, every update is as large as the clip allows, and a gradient that is a
    hundredth of the others moves the weight as far as they did. Here it moves it a hundredth as far."""
    ours, theirs = parameters([(150, 140)]), parameters([(150, 140)])
    optimizer, other = AdafactorOptimizer(Rule(), named(ours)), torch.optim.Adafactor(theirs, lr=0.01)
    moved = []
    for step, size in enumerate([1e-5] * 20 + [1e-7]):
        gradient = torch.randn(150, 140, generator=torch.Generator().manual_seed(step)) * size
        before = [p.detach().clone() for p in (*ours, *theirs)]
        for p in (*ours, *theirs):
            p.grad = gradient.clone()
        optimizer.step(0.01)
        other.step()
        moved.append([float((p.detach() - b).norm()) for p, b in zip((*ours, *theirs), before, strict=True)])
    small, usual = np.array(moved[-1]), np.array(moved[-2])
    assert small[0] / usual[0] < 0.02
    assert small[1] / usual[1] > 0.2


@pytest.mark.parametrize("make", [Adafactor(), AdamW(weight_decay=0.1)], ids=["adafactor", "adamw"])
def test_saved_and_loaded_state_goes_on_in_the_same_bytes(make: Any):
    unbroken, resumed = parameters(SHAPES), parameters(SHAPES)
    first, second = make.build(nn.ParameterDict(named(unbroken))), make.build(nn.ParameterDict(named(resumed)))
    for step in range(3):
        give_gradients(unbroken, resumed, step=step)
        first.step(0.01)
        second.step(0.01)
    saved = {name: tensor.clone() for name, tensor in second.state_tensors().items()}
    third = make.build(nn.ParameterDict(named(resumed)))
    assert {name: t.shape for name, t in third.state_tensors().items()} == {n: t.shape for n, t in saved.items()}
    third.load(saved)
    for step in range(3, 6):
        give_gradients(unbroken, resumed, step=step)
        first.step(0.005)
        third.step(0.005)
    assert all(torch.equal(a, b) for a, b in zip(unbroken, resumed, strict=True))
    assert all(torch.equal(t, third.state_tensors()[name]) for name, t in first.state_tensors().items())


def test_a_weight_without_a_gradient_stays():
    ps = parameters([(5,), (200, 200)])
    optimizer = AdafactorOptimizer(Rule(), named(ps))
    give_gradients(ps, step=0)
    ps[0].grad = None
    before = ps[0].detach().clone()
    optimizer.step(0.01)
    assert torch.equal(ps[0], before)
    assert not optimizer.state_tensors()["w0/square"].any()


def test_schedules():
    schedule = InverseSquareRoot(scale=2.0, warmup=100)
    assert [schedule.rate(step) for step in (0, 99, 100, 400)] == [0.2, 0.2, 0.2, 0.1]
    assert InverseSquareRoot().rate(2**19) == pytest.approx(2**-9.5)
    assert Constant(0.001).rate(10**6) == 0.001


@pytest.mark.parametrize(
    "make",
    [
        lambda: Adafactor(clip=0),
        lambda: AdamW(beta2=1.0),
        lambda: AdamW(weight_decay=float("nan")),
        lambda: Constant(float("nan")),
        lambda: Constant(-1),
        lambda: InverseSquareRoot(scale=float("inf")),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any):
    with pytest.raises(UserError, match="give"):
        make()
