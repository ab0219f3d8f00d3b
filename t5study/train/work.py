"""Work: what a step comes to in FLOPs, by its real tokens, and the peak that this is held against.

    Work(shape, architecture).of(batch)        three times the forward pass's matrix products of every packed pair
    peak(machine)                              FLOP/s: as stated, or of bare matrix products, measured here

Model FLOPs utilisation (Chowdhery et al. 2022) is the first over the second and the seconds. So padding, layers that
are run again, dropout, norms and the optimiser are no work: they cost utilisation. Attention counts whole, each pair by
its own lengths, as `shapes.costs` has it; tokens of other pairs in the same row do not.
"""

from __future__ import annotations

import functools
import time

import numpy as np

from t5study.ground.machine import Machine
from t5study.ground.pairs import Batch
from t5study.model.shapes import Shape, flops

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices that the peak is measured with
_FEWEST, _LONG_ENOUGH_S = 4, 0.12


class Work:
    """FLOPs of batches on one model. They are a sum over the pairs of a form of second degree in both lengths, so five
    sums over a batch are all that it takes."""

    def __init__(self, shape: Shape, architecture: str):
        def one(source: int, target: int) -> int:
            return flops(shape, architecture, source, target)

        s, t = one(1, 0), one(0, 1)
        ss, tt = (one(2, 0) - 2 * s) // 2, (one(0, 2) - 2 * t) // 2
        self._of = (s - ss, t - tt, ss, tt, one(1, 1) - s - t)

    def of(self, batch: Batch) -> int:
        """To train on it once, with every weight moving."""
        s_N, t_N = lengths(batch)
        sums = (s_N.sum(), t_N.sum(), (s_N * s_N).sum(), (t_N * t_N).sum(), (s_N * t_N).sum())
        return sum(factor * int(total) for factor, total in zip(self._of, sums, strict=True))


def lengths(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Source and target tokens of every pair of a batch, and zeros for places that no pair has; int64 (N,)."""
    most = 1 + max(int(batch.source_segment_BS.max(initial=0)), int(batch.target_segment_BT.max(initial=0)))
    row_B1 = most * np.arange(len(batch))[:, None]

    def side(segment_BL: np.ndarray) -> np.ndarray:
        found_N = np.bincount((row_B1 + segment_BL).ravel(), minlength=most * len(batch)).reshape(-1, most)
        return found_N[:, 1:].ravel()  # segment 0 is padding

    return side(batch.source_segment_BS), side(batch.target_segment_BT)


def peak(machine: Machine) -> float:
    """FLOP/s of the device of one rank: as the machine states it, or as it is measured, once in a process. 0.0 if there
    is no room to measure it."""
    if machine.peak_tflops:
        return machine.peak_tflops * 1e12
    return _measured(machine.device, machine.precision, machine.threads)


@functools.cache
def _measured(device: str, precision: str, threads: int) -> float:
    """The best of a few square matrix products, in the precision that products are made in. On a CPU with the threads
    that torch has been given."""
    import torch

    n = _SIDE[device]
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    try:
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b, c = (torch.full((n, n), 0.5, dtype=kind, device=device) for _ in range(3))
        took: list[float] = []
        while len(took) < _FEWEST or sum(took) < _LONG_ENOUGH_S:
            wait()
            began = time.perf_counter()
            torch.mm(a, b, out=c)
            wait()
            took.append(time.perf_counter() - began)
    except torch.OutOfMemoryError:
        return 0.0
    return 2 * n**3 / min(took)
