"""GPUs of this machine, and which of them each of a study's workers sees."""

from __future__ import annotations

import os
from collections.abc import Sequence

from t5study.ground.errors import UserError


def gpus_here() -> tuple[str, ...]:
    """The GPUs that this process sees, by the names that CUDA_VISIBLE_DEVICES has for them."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[: torch.cuda.device_count()] or map(str, range(torch.cuda.device_count())))


def turns(gpus: Sequence[str], workers: int, ranks: int = 1) -> tuple[str, ...]:
    """Which GPUs each worker sees: as many as it has ranks, taken by turns. () where there are none.

    >>> turns(["0", "1", "2"], workers=4)
    ('0', '1', '2', '0')
    >>> turns(["0", "1", "2", "3"], workers=2, ranks=2)
    ('0,1', '2,3')
    """
    if not gpus:
        return ()
    if ranks > len(gpus):
        raise UserError(f"--ranks: found {ranks} with {len(gpus)} GPUs here; give no more than that")
    return tuple(",".join(gpus[(k * ranks + r) % len(gpus)] for r in range(ranks)) for k in range(workers))
