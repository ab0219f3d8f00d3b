"""Cases of the kernels in flash_kernels.py against attention.py in torch's operators, and those of fused_cases.py.

    python tests/model/flash_cases.py few          some on the CPU, by Triton's interpreter
    python tests/model/flash_cases.py interpreted  all that are small enough for it
    python tests/model/flash_cases.py cuda         all on a GPU
    python tests/model/flash_cases.py compiled 90 227  the kernels compiled for a GPU of capability 9.0, 227 KiB a block

Prints lines of JSON. Of a case {"case", "what", "error", "allowed"}: the largest difference over the largest number
there is. Of a kernel its shared memory in bytes, and whether it adds to memory that others add to.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """lengths: of each segment's queries and keys. front: the largest prefix; None without."""

    name: str
    lengths: tuple[tuple[int, int], ...]
    heads: int = 2
    d_kv: int = 16
    causal: bool = False
    front: int | None = None
    cross: bool = False
    dropout: bool = False
    dtype: str = "float32"


def same(*lengths: int) -> tuple[tuple[int, int], ...]:
    return tuple((n, n) for n in lengths)


RAGGED = same(33, 1, 17)
FEW = (
    Case("few: causal, dropped", same(18, 1), d_kv=8, causal=True, dropout=True),
    Case("few: prefix, bf16", same(35), heads=1, causal=True, front=20, dtype="bfloat16"),
    Case("few: cross, dropped", ((3, 17),), d_kv=24, cross=True, dropout=True),
)
CASES = (
    *FEW,
    Case("two ways", RAGGED),
    Case("causal", RAGGED, causal=True),
    Case("prefix", RAGGED, causal=True, front=20),
    Case("cross", ((7, 33), (20, 5), (1, 1), (16, 16)), cross=True),
    Case("dropped", RAGGED, dropout=True),
    Case("cross, dropped", ((7, 33), (20, 5)), cross=True, dropout=True),
    Case("one block", same(8, 3), heads=3, d_kv=32),
    Case("wide heads", same(19, 8), heads=1, d_kv=128, causal=True),
    Case("heads of no power of two", same(21, 9), heads=2, d_kv=24),
    Case("two ways, bf16", RAGGED, d_kv=64, dtype="bfloat16"),
    Case("causal, bf16", same(40, 12), d_kv=32, causal=True, dropout=True, dtype="bfloat16"),
    Case("prefix, bf16", RAGGED, causal=True, front=20, dtype="bfloat16"),
    Case("cross, bf16", ((7, 33), (20, 5), (1, 1)), cross=True, dtype="bfloat16"),
)
LONG = (
    Case("long", same(512, 300, 129, 64), heads=4, d_kv=64),
    Case("long, causal", same(512, 300, 129, 64), heads=4, d_kv=64, causal=True, dropout=True),
    Case("long, prefix", same(626, 300), heads=4, d_kv=64, causal=True, front=512),
    Case("long, cross", ((114, 512), (100, 300)), heads=4, d_kv=128, cross=True),
)
ON_GPU = (*CASES, *LONG, *(replace(case, name=f"{case.name}, bf16", dtype="bfloat16") for case in LONG))
ALLOWED = {"float32": 2e-5, "bfloat16": 2e-2}  # of bf16 both round probabilities and gradients, at other places


def errors(case: Case, device: str, block: int | None = None) -> Iterator[dict[str, Any]]:
    """The kernels against the definition: bf16 numbers are those of the case, the definition's arithmetic is fp64."""
    import torch

    from t5study.model import attention, flash, passes
    from t5study.model.inputs import Span, Tile

    random = torch.Generator().manual_seed(5)
    dtype = getattr(torch, case.dtype)

    def spans(which: int) -> Span:
        length_G = torch.tensor([pair[which] for pair in case.lengths])
        first_G = length_G.cumsum(0) - length_G
        return Span(first_G.to(device), length_G.to(device), int(length_G.max()))

    def drawn(*size: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*size, generator=random) * scale).to(dtype).to(device)

    queries, keys = spans(0), spans(1)
    n, m, inner = int(queries.length_G.sum()), int(keys.length_G.sum()), case.heads * case.d_kv
    prefix_G = None if case.front is None else (torch.arange(len(queries), device=device) * 5).clamp(max=case.front)
    tile = Tile(queries, keys, True, prefix_G)
    own = drawn(n, inner if case.cross else 3 * inner, scale=case.d_kv**-0.25)
    other = drawn(m, 2 * inner, scale=case.d_kv**-0.25) if case.cross else None
    factor = (torch.rand(m, case.heads, generator=random) > 0.3).float().to(device) / 0.7 if case.dropout else None
    longest = queries.width
    diagonal = None if case.cross else torch.randn(case.heads, 2 * longest - 1, generator=random).to(device)
    dout = drawn(n, inner)

    def run(how: Any, number: torch.dtype) -> dict[str, torch.Tensor]:
        def to(x: torch.Tensor | None) -> torch.Tensor | None:
            return None if x is None else x.to(number)

        wide = torch.promote_types(number, torch.float32)
        table, mask = (None if x is None else x.to(wide) for x in (diagonal, factor))
        rest = ([tile], case.heads, case.causal)
        out, kept = how.attend(passes, to(own), to(other), mask, table, *rest)
        down = torch.full_like(own, float("nan"), dtype=number)
        dother = None if other is None else torch.full_like(other, float("nan"), dtype=number)
        dtable = how.attend_backward(passes, to(dout), mask, table, kept, *rest, down, dother)
        found = {"out": out, "down": down, "dother": dother, "dbias": dtable}
        return {name: x.double() for name, x in found.items() if x is not None}

    if block is not None:
        flash.block_of = lambda *_: block
    expected = run(attention, torch.float64)
    found = run(flash, dtype)
    again = run(flash, dtype) if device == "cuda" else found  # where many programs run at once
    assert expected.keys() == found.keys()
    for what, value in expected.items():
        error = float((found[what] - value).abs().max() / value.abs().max())
        told = {"case": case.name, "what": what, "error": error, "allowed": ALLOWED[case.dtype]}
        yield told | {"size": float(value.abs().max()), "repeats": bool((found[what] == again[what]).all())}


def model_errors(name: str, device: str, small: bool = False) -> Iterator[dict[str, Any]]:
    """A model's loss and every gradient, with dropout and packed rows: by the kernels, and on a CPU without them."""
    import torch
    from little_models import of_family, random_pairs, rows_of

    from t5study.model import flash, fused, gpu
    from t5study.model.architectures import Dropout, build
    from t5study.model.layers import Pass
    from t5study.model.shapes import Shape

    if small:
        model, pairs = build(Shape(32, 48, 16, 2, 1, 1, 384), 1, name), random_pairs(1, 17, 3, 384, 7)
        batch = rows_of([pairs], 40, 20)
    else:
        model, pairs = of_family(name, seed=1), random_pairs(6, 30, 14, 384, 7)
        batch = rows_of([pairs[:3], pairs[3:]], 94, 44)

    def run(where: str) -> dict[str, torch.Tensor]:
        model.to(where).zero_grad()
        arranged = model.arrange(batch, where)
        how = Pass.of(model.shape, arranged, model.embedding)
        assert (how.attention is flash) == (how.ops is fused) == (where == "cuda" or gpu.why_not(where) is None)
        losses = model.loss_sum(arranged, Dropout(0.3, 11, 5), z_loss=1e-2)
        losses.total.backward()
        weights = {n: w.grad.cpu().double() for n, w in model.named_parameters() if w.grad is not None}
        return weights | {"loss": losses.total.detach().cpu().double()}

    expected = run("cpu")
    if device == "cpu":
        gpu.why_not = lambda _: None
    found = run(device)
    assert expected.keys() == found.keys()
    for what, value in expected.items():
        error = float((found[what] - value).norm() / value.norm())
        told = {"case": name, "what": what, "error": error, "allowed": 1e-4}
        yield told | {"size": float(value.norm()), "repeats": True}


MODELS = ("encoder_decoder relu tied", "encoder_decoder gated_gelu untied", "prefix_lm relu tied")


def compiled(capability: int, shared: int) -> Iterator[dict[str, Any]]:
    """Every kernel as kinds of attention have it, for widths of heads and precisions that models have; and those of
    fused_kernels.py. shared: KiB that a block may have."""
    import torch

    from t5study.model import flash, fused_kernels
    from t5study.model import flash_kernels as kernels

    floats = dict.fromkeys(("factor", "diagonal", "lse", "delta", "sums"), "*fp32")
    places = dict.fromkeys(("q_first", "q_length", "k_first", "k_length", "prefix"), "*i64")
    kinds = ((0, 1, 0, 0), (1, 1, 0, 1), (1, 1, 1, 0), (0, 0, 0, 0))  # causal, biased, prefix, dropout
    cases = [(kind, 64, torch.bfloat16) for kind in kinds] if capability == 90 else []
    cases += [((1, 1, 1, 1), w, dtype) for dtype in (torch.bfloat16, torch.float32) for w in (16, 64, 128, 256)]
    for kind, width, dtype in cases:
        columns = flash.padded(width)
        if flash.SHARES * 16 * columns * dtype.itemsize > shared << 10:
            continue
        constants = dict(
            width=width, padded=columns, B=flash.block_of(dtype, columns, 512, shared << 10),
            exact="ieee" if dtype == torch.float32 else "tf32",
            **{name: bool(x) for name, x in zip(("causal", "biased", "has_prefix", "has_factor"), kind, strict=True)},
        )  # fmt: skip
        numbers = dict.fromkeys(
            ("q", "k", "v", "out", "dout", "dq", "dk", "dv"), "*fp32" if dtype == torch.float32 else "*bf16"
        )
        for kernel in (kernels.forward, kernels.backward_queries, kernels.backward_keys):
            kept = (constants, {**numbers, **floats, **places}, kernels.AS_THEY_COME)
            yield made(kernel, *kept, capability, shared, flash.options(columns))
    if capability == 90:
        types = {
            **dict.fromkeys(("x", "gain", "r", "around", "dx", "sums", "mask", "nats", "lse"), "*fp32"),
            **dict.fromkeys(("y", "dy", "o", "out", "h", "dh", "a", "da", "logits"), "*bf16"),
            **dict.fromkeys(("row", "label"), "*i64"), "scale": "fp32", "z_loss": "fp32",
        }  # fmt: skip
        for name in ("norm", "norm_backward", "masked", "add", "relu", "relu_backward", "gated", "gated_backward",
                     "cross_entropy"):  # fmt: skip
            kernel = getattr(fused_kernels, name)
            flags = {p.name: True for p in kernel.params if p.name in ("has_around", "has_mask", "gradient")}
            yield made(kernel, {**flags, "C": 1024}, types, fused_kernels.AS_THEY_COME, capability, shared, {})


def made(
    kernel: Any,
    constants: dict[str, Any],
    types: dict[str, str],
    as_they_come: list[str],
    capability: int,
    shared: int,
    options: dict[str, int],
) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {**types, **dict.fromkeys(constants, "constexpr")}
    signature = {p.name: types.get(p.name, "i32") for p in kernel.params}
    even = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, what) in enumerate(signature.items())
        if name not in as_they_come and (what[0] == "*" or "stride" in name or name == "columns")
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=even)
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {
        "kernel": kernel.__name__, **constants, "shared": found.metadata.shared, "allowed": shared << 10,
        "code": len(found.asm["cubin"]), "atomic": re.search(r"\b(atom|red)\.", found.asm["ptx"]) is not None,
    }  # fmt: skip


def main(where: str, *rest: str) -> None:
    import fused_cases

    found: Iterable[dict[str, Any]]
    if where == "compiled":
        found = compiled(*map(int, rest))
    elif where == "cuda":
        cases = (row for case in ON_GPU for row in errors(case, "cuda"))
        fused = (fused_cases.errors("cuda", 1500, (40, 768, 3000)), fused_cases.spoiled("cuda"))
        found = itertools.chain(cases, *fused, *(model_errors(name, "cuda") for name in MODELS))
    else:
        import torch

        os.environ["TRITON_INTERPRET"] = "1"
        cases = (row for case in (FEW if where == "few" else CASES) for row in errors(case, "cpu", block=16))
        models = [("encoder_decoder", True)] if where == "few" else [(name, False) for name in MODELS]
        whole = [model_errors(name, "cpu", small) for name, small in models]
        few = fused_cases.errors("cpu", 2, (5,), [torch.bfloat16])
        rows = few if where == "few" else fused_cases.errors("cpu", 4, (24, 1100))
        found = itertools.chain(cases, rows, fused_cases.spoiled("cpu"), *whole)
    for row in found:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
