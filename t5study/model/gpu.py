"""Whether a device does the model's arithmetic by the kernels of this room's Triton files, or in torch's operators.

The kernels are for NVIDIA's GPUs of compute capability 8.0 (A100) and later, where Triton is installed, as torch's
wheel for CUDA brings it along. Everywhere else, and where the environment says T5STUDY_KERNELS=off, the same numbers
come out of torch's operators but for rounding.
"""

from __future__ import annotations

import functools
import importlib.util
import os

import torch

from t5study.ground.errors import UserError

SWITCH = "T5STUDY_KERNELS"  # an environment variable: on, which is the default, or off
LEAST = (8, 0)


def why_not(device: str | torch.device) -> str | None:
    """Why a device does not run the kernels; None if it does. UserError for a switch that is neither on nor off."""
    device = torch.device(device)
    if device.type != "cuda":
        return "no GPU"
    if switched_off():
        return f"{SWITCH} is off"
    if not has_triton():
        return "Triton is not installed"
    if torch.version.hip is not None:
        return "the GPU is not NVIDIA's"
    found = torch.cuda.get_device_capability(device)
    return None if found >= LEAST else "compute capability {}.{} is below {}.{}".format(*found, *LEAST)


def switched_off() -> bool:
    """Whether the environment says so. UserError for what is neither on nor off."""
    asked = os.environ.get(SWITCH, "on")
    if asked not in ("on", "off"):
        raise UserError(f"environment: {SWITCH}: found {asked!r}; give on or off")
    return asked == "off"


def told(device: str | torch.device) -> str | None:
    """For a run's log: what does the arithmetic between matrix products on a GPU. None for a CPU."""
    if torch.device(device).type != "cuda":
        return None
    reason = why_not(device)
    return "arithmetic: Triton kernels" if reason is None else f"arithmetic: torch's operators, since {reason}"


@functools.cache
def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
