"""The compiled loops against torch's operators, function by function, on what each is given and on odd sizes."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from t5study.model import loops, passes
from t5study.model.inputs import Span

SIZES = st.integers(1, 37)
SEEDS = st.integers(0, 10_000)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-5)


def outcome(ops: ModuleType, name: str, *given_: object) -> list[object]:
    """What a function gives and what it leaves in its arguments."""
    own = [a.clone() if isinstance(a, Tensor) else a for a in given_]
    result = getattr(ops, name)(*own)
    return [*(result if isinstance(result, tuple) else (result,)), *own]


def agree(name: str, *given_: object, half: tuple[int, ...] = ()) -> None:
    """half: arguments that are bf16 where products are. Loops given those are to end within a last place of what
    passes make of the same numbers in fp32."""
    for one, other in zip(outcome(loops, name, *given_), outcome(passes, name, *given_), strict=True):
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            same(one, other)
    if half:
        rounded = [a.bfloat16() if i in half and isinstance(a, Tensor) else a for i, a in enumerate(given_)]
        wide = [a.float() if isinstance(a, Tensor) and a.dtype == torch.bfloat16 else a for a in rounded]
        for one, other in zip(outcome(loops, name, *rounded), outcome(passes, name, *wide), strict=True):
            if isinstance(one, Tensor) and isinstance(other, Tensor):
                last_place = one.dtype == torch.bfloat16
                torch.testing.assert_close(
                    one.to(other.dtype), other, rtol=2.0**-7 if last_place else 2e-5, atol=1e-6 if last_place else 1e-5
                )


def normal(*size: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale


def mask(rows: int, width: int, seed: int) -> Tensor:
    return (normal(rows, width, seed=seed) > -1).float() * 1.25


@settings(max_examples=20, deadline=None)
@given(n=SIZES, d=SIZES, seed=SEEDS, around=st.booleans())
def test_norm(n: int, d: int, seed: int, around: bool) -> None:
    x, gain = normal(n, d, seed=seed, scale=3), normal(d, seed=seed + 1)
    agree("rms", x, gain, torch.float32)
    y, r = passes.rms(x, gain, torch.float32)
    y_half, r_half = loops.rms(x, gain, torch.bfloat16)
    torch.testing.assert_close(y_half, y.bfloat16(), rtol=2.0**-7, atol=0)
    same(r_half, r)
    residual = normal(n, d, seed=seed + 2) if around else None
    agree("rms_backward", normal(n, d, seed=seed + 3), x, r, gain, residual, half=(0,))


@settings(max_examples=40, deadline=None)
@given(
    heads=st.integers(1, 4), segments=st.integers(1, 4), queries=SIZES, keys=SIZES, seed=SEEDS,
    biased=st.booleans(), padded=st.booleans(), sees=st.sampled_from(["all", "before", "prefix"]),
    scale=st.sampled_from([0.1, 3.0, 60.0]),
)  # fmt: skip
def test_softmax(
    heads: int,
    segments: int,
    queries: int,
    keys: int,
    seed: int,
    biased: bool,
    padded: bool,
    sees: str,
    scale: float,
) -> None:
    causal = sees != "all"
    keys = queries if causal else keys
    longest = max(queries, keys) + seed % 3
    scores = normal(heads, segments, queries, keys, seed=seed, scale=scale)
    diagonal = normal(heads, 2 * longest - 1, seed=seed + 1) if biased else None
    length = torch.from_numpy(np.random.default_rng(seed).integers(1, keys + 1, segments)) if padded else None
    prefix = torch.from_numpy(np.random.default_rng(seed + 1).integers(1, keys + 1, segments))
    prefix = prefix if sees == "prefix" else None
    agree("softmax_", scores, diagonal, length, causal, prefix, half=(0,))
    p = scores.clone()
    lse = passes.softmax_(p, diagonal, length, causal, prefix)
    assert (p.sum(-1) - 1).abs().max() < 1e-5
    most = torch.full((segments, 1), keys) if length is None else length[:, None]
    if causal:
        own = torch.arange(1, queries + 1) if prefix is None else torch.arange(1, queries + 1).max(prefix[:, None])
        most = most.min(own)
    hidden = torch.arange(keys) >= most[..., None]
    assert not p.masked_select(hidden).any(), "a key that is not seen"
    if scale < 1:
        assert (p.masked_select(~hidden) > 0).all(), "a key that should be seen"
    for ops in (loops, passes):
        again = scores.clone()
        ops.softmax_again_(again, diagonal, length, causal, lse, prefix)
        torch.testing.assert_close(again, p, rtol=1e-4, atol=1e-6)
    into = torch.zeros_like(diagonal) if diagonal is not None else None
    agree("softmax_again_", scores, diagonal, length, causal, lse, prefix, half=(0,) if scale < 60 else ())
    agree("softmax_backward_", p, normal(*p.shape, seed=seed + 2), into, half=(0, 1))


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), parts=st.integers(1, 3), heads=st.integers(1, 4),
    e=SIZES, seed=SEEDS,
)  # fmt: skip
def test_split_and_join(lengths: list[int], parts: int, heads: int, e: int, seed: int) -> None:
    length = torch.tensor(lengths)
    first = length.cumsum(0) - length
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(lengths)))
    span = Span(first[chosen], length[chosen], int(length.max()))
    tokens = int(length.sum())
    x, factor = normal(tokens, parts * heads * e, seed=seed), normal(tokens, heads, seed=seed + 1)
    for factors in (None, factor):
        agree("split", x, parts, heads, span, factors, half=(0,))
        block = passes.split(x, parts, heads, span, None)
        agree("join", block, torch.zeros_like(x), span, factors, half=(0, 1))
    block, back = loops.split(x, parts, heads, span, None), torch.zeros_like(x)
    loops.join(block, back, span, None)
    assert torch.equal(back, x)
    at = int(first[chosen[0]])
    assert torch.equal(block[-1, heads - 1, 0, 0], x[at, -e:])
    dropped = loops.split(x, parts, heads, span, factor)
    assert torch.equal(dropped[:-1], block[:-1])
    assert torch.equal(dropped[-1, 0, 0, 0], x[at, (parts - 1) * heads * e :][:e] * factor[at, 0])


@settings(max_examples=20, deadline=None)
@given(n=SIZES, w=SIZES, seed=SEEDS)
def test_elementwise(n: int, w: int, seed: int) -> None:
    x, o = normal(n, w, seed=seed), normal(n, w, seed=seed + 1)
    row = torch.from_numpy(np.sort(np.random.default_rng(seed).integers(0, 3, n)))
    for some in (None, mask(3, w, seed)):
        agree("relu_", x, some, row, half=(0,))
        h = x.clone()
        passes.relu_(h, some, row)
        agree("relu_backward_", o, h, 1.25 if some is not None else 1.0, half=(0, 1))
        agree("masked", x, some, row, half=(0,))
        agree("gated", normal(n, 2 * w, seed=seed + 2), some, row)
        agree("gated_backward", o, normal(n, 2 * w, seed=seed + 2), some, row)
        for ops in (loops, passes):
            same(ops.add(x, o.clone(), some, row), x + o * (1 if some is None else some[row]))
            half = o.bfloat16()
            same(ops.add(x, half, some, row), x + half * (1.0 if some is None else some[row]))
            same(ops.masked(x, some, row), x * (1 if some is None else some[row]))


@settings(max_examples=20, deadline=None)
@given(n=SIZES, v=st.integers(2, 70), seed=SEEDS, z=st.sampled_from([0.0, 1e-4, 0.3]), gradient=st.booleans())
def test_cross_entropy(n: int, v: int, seed: int, z: float, gradient: bool) -> None:
    label = torch.from_numpy(np.random.default_rng(seed).integers(0, v, n))
    agree("cross_entropy_", normal(n, v, seed=seed, scale=4), label, z, gradient, half=(0,))


@settings(max_examples=20, deadline=None)
@given(n=SIZES, v=SIZES, d=SIZES, seed=SEEDS)
def test_add_rows(n: int, v: int, d: int, seed: int) -> None:
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, v, n))
    agree("add_rows_", normal(v, d, seed=seed), ids, normal(n, d, seed=seed + 1))


def test_the_loops_exponential_is_exact_to_rounding() -> None:
    """Through a softmax of two keys, over all that an exponential may be given."""
    x = torch.cat((torch.linspace(-87, 0, 20_001), torch.tensor([-88.0, -1e4])))
    scores = torch.stack((torch.zeros_like(x), x), dim=-1)[None, None]
    expected = torch.softmax(scores.double(), -1)
    loops.softmax_(scores, None, None, False)
    error = ((scores.double() - expected).abs() / expected)[0, 0, :-2]
    assert error.max() < 4e-7
    assert (scores[0, 0, -2:, 1] < 2e-38).all()


def test_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    """All numbers with few bits behind a bfloat16's, those in the middle among them; the ends of what there is; NaN."""
    bits = torch.arange(0, 1 << 16, dtype=torch.int64)[:, None] << 16 | torch.tensor(
        [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    )
    x_N1 = bits.to(torch.int32).view(torch.float32).view(-1, 1)
    kept_N1, first = torch.empty(len(x_N1), 1, dtype=torch.bfloat16), torch.zeros(len(x_N1), dtype=torch.int64)
    loops.join(x_N1[None, None, :, None], kept_N1, Span(first + torch.arange(len(x_N1)), first + 1, 1), None)
    expected = x_N1.bfloat16()
    assert torch.equal(kept_N1.isnan(), expected.isnan())
    number = ~expected.isnan()
    assert torch.equal(kept_N1[number].view(torch.int16), expected[number].view(torch.int16))
    assert expected[number].isinf().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(bad: float, dtype: torch.dtype) -> None:
    scores = normal(1, 1, 3, 19, seed=0).to(dtype)
    scores[0, 0, 1, 7] = bad
    loops.softmax_(scores, None, None, False)
    assert scores[0, 0, 1].isnan().all()
    assert scores[0, 0, [0, 2]].isfinite().all()
    logits = normal(3, 19, seed=0).to(dtype)
    logits[1, 7] = bad
    nats, _ = loops.cross_entropy_(logits, torch.tensor([0, 0, 0]), 0.0, True)
    assert nats.isfinite().tolist() == [True, False, True]
