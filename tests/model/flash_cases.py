"""Cases of the kernels in flash_kernels.py against attention.py in torch's operators, on any device.

    python tests/model/flash_cases.py interpreted     on the CPU, by Triton's interpreter; a line of JSON an error found
    python tests/model/flash_cases.py cuda            the same on a GPU, and larger

Each case prints {"case", "what", "error", "allowed"}: the largest difference over the largest number there is.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
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
CASES = (
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
        flash._block = lambda *_: block
    expected = run(attention, torch.float64)
    found = run(flash, dtype)
    again = run(flash, dtype)
    assert expected.keys() == found.keys()
    for what, value in expected.items():
        error = float((found[what] - value).abs().max() / value.abs().max())
        told = {"case": case.name, "what": what, "error": error, "allowed": ALLOWED[case.dtype]}
        yield told | {"size": float(value.abs().max()), "repeats": bool((found[what] == again[what]).all())}


def model_errors(name: str, device: str) -> Iterator[dict[str, Any]]:
    """A whole model, its loss and every gradient, with dropout and packed rows: by the kernels, and without on a CPU."""
    import torch
    from little_models import of_family, random_pairs, rows_of

    from t5study.model import flash, inputs
    from t5study.model.architectures import Dropout

    pairs = random_pairs(6, 30, 14, 384, 7)
    model, batch = of_family(name, seed=1), rows_of([pairs[:3], pairs[3:]], 94, 44)

    def run(where: str) -> dict[str, torch.Tensor]:
        model.to(where).zero_grad()
        arranged = model.arrange(batch, where)
        losses = model.loss_sum(arranged, Dropout(0.3, 11, 5), z_loss=1e-2)
        losses.total.backward()
        weights = {n: w.grad.cpu().double() for n, w in model.named_parameters() if w.grad is not None}
        return weights | {"loss": losses.total.detach().cpu().double()}

    expected = run("cpu")
    if device == "cpu":
        flash.fits = lambda *_: True
        inputs.takes_large_tiles = lambda _: True
    found = run(device)
    assert expected.keys() == found.keys()
    for what, value in expected.items():
        error = float((found[what] - value).norm() / value.norm())
        told = {"case": name, "what": what, "error": error, "allowed": 1e-4}
        yield told | {"size": float(value.norm()), "repeats": True}


MODELS = ("encoder_decoder relu tied", "prefix_lm relu tied")


def main(where: str) -> None:
    if where == "interpreted":
        os.environ["TRITON_INTERPRET"] = "1"
        found = (row for case in CASES for row in errors(case, "cpu", block=16))
        whole = (row for name in MODELS for row in model_errors(name, "cpu"))
    else:
        found = (row for case in ON_GPU for row in errors(case, "cuda"))
        whole = (row for name in MODELS for row in model_errors(name, "cuda"))
    for row in itertools.chain(found, whole):
        print(json.dumps(row), flush=True)
    for row in found:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
