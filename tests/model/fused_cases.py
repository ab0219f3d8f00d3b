"""Cases of the kernels in fused_kernels.py against passes.py in double precision. flash_cases.py runs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

ALLOWED = {torch.float32: 3e-6, torch.bfloat16: 1e-2}
ROWS = 3  # of the batch, which have a mask each


def errors(
    device: str, rows: int, widths: tuple[int, ...], dtypes: Sequence[torch.dtype] = tuple(ALLOWED)
) -> Iterator[dict[str, Any]]:
    """Every function: what it gives and what it leaves in its arguments."""
    from t5study.model import fused, passes

    random = torch.Generator().manual_seed(3)
    row_N = torch.randint(0, ROWS, (rows,), generator=random).sort().values.to(device)

    def drawn(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*size, generator=random).to(dtype).to(device)

    def masks(width: int) -> Tensor:
        """As a pass has them: columns of a larger tensor."""
        every = (torch.rand(ROWS, width + 5, generator=random) > 0.3).float() * 1.25
        return every.to(device)[:, 5:]

    def both(case: str, name: str, dtype: torch.dtype, *given: Any) -> Iterator[dict[str, Any]]:
        def run(ops: Any, wide: bool) -> list[Tensor]:
            own = [(a.double() if wide and a.is_floating_point() else a.clone()) if isinstance(a, Tensor) else a
                   for a in given]  # fmt: skip
            own = [torch.float64 if wide and isinstance(a, torch.dtype) else a for a in own]
            if not wide and isinstance(given[1], Tensor) and not given[1].is_contiguous():
                own[1] = given[1]
            found = getattr(ops, name)(*own)
            every = [*(found if isinstance(found, tuple) else (found,)), *own]
            return [x.double() for x in every if isinstance(x, Tensor)]

        expected, found = run(passes, True), run(fused, False)
        again = run(fused, False) if device == "cuda" else found  # where many programs run at once
        assert len(expected) == len(found) >= len([a for a in given if isinstance(a, Tensor)])
        for i, (one, other) in enumerate(zip(expected, found, strict=True)):
            assert one.shape == other.shape, (case, i)
            size = float(one.abs().max())
            yield {
                "case": case, "what": i, "error": float((one - other).abs().max()) / (size or 1), "size": size or 1.0,
                "allowed": ALLOWED[dtype], "repeats": bool(torch.equal(other, again[i])),
            }  # fmt: skip

    for dtype in dtypes:
        told = str(dtype).split(".")[1]
        for width in widths:
            x, o, gain, mask = drawn(rows, width), drawn(rows, width, dtype=dtype), drawn(width), masks(width)
            yield from both(f"rms {width} {told}", "rms", dtype, x, gain, dtype)
            r = fused.rms(x, gain, dtype)[1]
            for around in (None, drawn(rows, width)):
                case = f"rms_backward {width} {told} {'' if around is None else 'around'}"
                yield from both(case, "rms_backward", dtype, o, x, r, gain, around)
            h = o.clamp(min=0)
            yield from both(f"relu_backward_ {width} {told}", "relu_backward_", dtype, o, h, 1.25)
            h_2 = drawn(rows, 2 * width, dtype=dtype)
            for some in (None, mask):
                case = f"{width} {told} {'' if some is None else 'dropped'}"
                yield from both(f"relu_ {case}", "relu_", dtype, o, some, row_N)
                yield from both(f"masked {case}", "masked", dtype, o, some, row_N)
                yield from both(f"add {case}", "add", dtype, x, o, some, row_N)
                yield from both(f"gated {case}", "gated", dtype, h_2, some, row_N)
                yield from both(f"gated_backward {case}", "gated_backward", dtype, o, h_2, some, row_N)
            logits, label = drawn(rows, width, dtype=dtype) * 4, torch.arange(rows, device=device) % width
            for z_loss, gradient in ((0.0, False), (0.3, True)):
                case = f"cross_entropy_ {width} {told} {z_loss} {gradient}"
                yield from both(case, "cross_entropy_", dtype, logits, label, z_loss, gradient)


def spoiled(device: str) -> Iterator[dict[str, Any]]:
    """A NaN in a row reaches what the row gives, and no other row."""
    from t5study.model import fused

    x, row = torch.ones(3, 5, device=device), torch.arange(3, device=device)
    x[1, 2] = float("nan")
    ones, gain, label = torch.ones(3, 5, device=device), torch.ones(5, device=device), torch.zeros_like(row)
    relu, logits = x.clone(), x.clone()
    fused.relu_(relu, ones, row)
    found = {
        "rms": fused.rms(x, gain, torch.float32)[0],
        "rms_backward": fused.rms_backward(x, ones, gain[:3], gain, None)[0],
        "relu_": relu,
        "masked": fused.masked(x, ones, row),
        "add": fused.add(ones, x, ones, row),
        "gated": fused.gated(torch.cat((x, ones), 1), ones, row),
        "gated_backward": fused.gated_backward(x, torch.cat((ones, ones), 1), None, row),
        "cross_entropy_": fused.cross_entropy_(logits, label, 0.0, True)[0][:, None],
        "cross_entropy_, gradient": logits,
    }
    for name, value in found.items():
        rows = value.isnan().any(1).tolist()
        error = float(rows != [False, True, False])
        yield {"case": f"NaN, {name}", "what": 0, "error": error, "allowed": 0.5, "size": 1.0, "repeats": True}
