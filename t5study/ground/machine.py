"""Where a run happens: devices, threads, precision, micro-batch. Never part of a fingerprint.

A run's numbers do not depend on the machine except through floating-point rounding; a run's bytes are the same
whenever it is repeated on one machine with one number of threads.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import sys
from dataclasses import dataclass, replace
from typing import Any

import psutil

from t5study.ground.errors import UserError

_WIDE = 256  # columns of a model from which making code for a shape takes less than it saves
AUTO = -1  # a micro-batch that is yet to be found (train/fit.py)


@dataclass(frozen=True)
class Machine:
    """device: "cpu" or "cuda". threads: torch threads of this process. precision: "fp32" or "bf16" compute
    (weights stay fp32). micro_batch: rows a forward pass, 0 for the whole batch, AUTO for what has room in `memory`.
    compile: torch.compile the blocks. shard: among how many ranks the rows of every weight, gradient and optimiser
    state are cut, 0 for none; tensor: among how many the heads and hidden columns of every layer. recompute: layers are
    run again in the backward pass rather than kept for it. streamed: weights move inside the backward pass, so that
    gradients are not kept for its end. peak_tflops: of matrix products on this device, to hold a run's work against; 0
    to measure it. memory: bytes that a training process may come to (on a GPU: what it may hold there) for AUTO; 0 for
    what is free."""

    device: str = "cpu"
    threads: int = 1
    precision: str = "fp32"
    micro_batch: int = 0
    compile: bool = False
    shard: int = 0
    tensor: int = 0
    recompute: bool = False
    streamed: bool = False
    peak_tflops: float = 0.0
    memory: int = 0

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise UserError(f"machine: device: found {self.device!r}; give cpu or cuda")
        if self.precision not in ("fp32", "bf16"):
            raise UserError(f"machine: precision: found {self.precision!r}; give fp32 or bf16")
        if self.threads < 1 or self.micro_batch < AUTO:
            raise UserError(
                f"machine: found threads {self.threads}, micro_batch {self.micro_batch}; give at least 1 and 0"
            )


def cores() -> int:
    """Cores this process may use (respects taskset and container limits), not cores in the box."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rank_here() -> tuple[int, int]:
    """Which process of how many this is, as torchrun says in RANK and WORLD_SIZE: (0, 1) without it. UserError for
    what torchrun would not say."""
    found = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not all(text.isdecimal() for text in found) or not int(found[0]) < int(found[1]):
        raise UserError(f"environment: found RANK={found[0]}, WORLD_SIZE={found[1]}; unset them, or start by torchrun")
    return int(found[0]), int(found[1])


def here(**overrides: Any) -> Machine:
    """The machine at hand: one GPU in bf16 if torch sees one, else the CPU in fp32 with one thread.

    bf16 without hardware support is some hundred times slower than fp32 on a CPU, so it is never a default there.
    One thread, because small runs do not fill two: the study runs as many of them side by side as there are cores.
    """
    import torch

    asked = {name: value for name, value in overrides.items() if value is not None}
    on_gpu = asked.get("device", "cuda" if torch.cuda.is_available() else "cpu") == "cuda"
    machine = replace(Machine(device="cuda", precision="bf16") if on_gpu else Machine(), **asked)
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise UserError("machine: device: asked for cuda, but torch sees no GPU here; give --device cpu")
    if machine.device == "cpu" and machine.precision == "bf16" and not cpu_has_bf16():
        raise UserError("machine: precision: asked for bf16, which this CPU has no instructions for; give fp32")
    return machine


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself. Where it cannot be asked (no /proc/cpuinfo), it is trusted to."""
    told = _told("flags", "Features")
    return told is None or bool(told & {"avx512_bf16", "amx_bf16", "bf16"})


def _told(*fields: str) -> set[str] | None:
    """Words in such fields of /proc/cpuinfo; None where there is no such file."""
    try:
        return {word for value in _values(*fields) for word in value.split()}
    except OSError:
        return None


def _values(*fields: str) -> list[str]:
    """What /proc/cpuinfo says in such fields, of every core."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return [line.partition(":")[2].strip() for line in file if line.startswith(fields)]


def use(machine: Machine) -> None:
    """Sets torch threads and keeps the allocator from handing large blocks back to the kernel after every step.

    glibc returns blocks above its threshold at once, and the next step pays the page faults again: with the
    thresholds raised a training step is about 1.25 times as fast.
    """
    import torch

    torch.set_num_threads(machine.threads)
    if _glibc():
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def choose_library(d_model: int) -> None:
    """Which of torch's two libraries makes this process's fp32 products, for training a model so wide. MKL, which
    usually does, has AVX-512 for Intel's processors alone; oneDNN has it for all, and on AMD's is some 1.1 times as
    fast. But it makes its code anew for every shape, and batches differ in theirs: a narrow model's products are done
    before that is (LAPTOP's fine-tuning took 1.5 times as long), so it is for wide ones.

    torch hands it fp32 products only if they may be rounded to bf16 within. oneDNN does that where a processor has AMX
    and nowhere else, as of torch 2.13: so none with AMX is asked, and one product is looked at.
    """
    import torch

    told = _told("flags", "vendor_id") or set()
    asked = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    asked.fp32_precision = "none"
    if d_model < _WIDE or "avx512bw" not in told or told & {"GenuineIntel", "amx_bf16"}:
        return
    asked.fp32_precision = "bf16"
    next_to_one = torch.full((64, 64), 1 + 2.0**-12)  # in bf16 it is 1
    if not bool((next_to_one @ torch.eye(64) == next_to_one).all()):
        asked.fp32_precision = "none"


def threads_of_children(threads: int) -> None:
    """Says to processes that are started from here how many threads they may have, before torch and numba read it
    there: more would only get in each other's way. What the environment says already stands."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def release() -> None:
    """Gives memory that is free in this process back to the kernel."""
    gc.collect()
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def describe() -> str:
    """One line for reports: processor, cores, memory, Python and torch versions."""
    processor = platform.processor() or platform.machine()
    if sys.platform == "linux":
        names = _values("model name")
        processor = names[0] if names else processor
    from importlib import metadata

    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{processor}, {cores()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, torch {metadata.version('torch')}"
    )


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent dies, so that a killed study leaves no workers behind."""
    if sys.platform == "linux":
        parent = os.getppid()
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died between the two calls
            os.kill(os.getpid(), signal.SIGKILL)
