"""Graphs: steps that are recorded once and then repeated, and the places in memory that they read and write.

A step of decoding on a GPU is some hundred small kernels, and to launch each from Python takes longer than to run it.
A CUDA graph launches all of them at once, but repeats them to the letter: the same kernels, shapes and addresses. So
what a step reads and writes lies in buffers that stay where they are, and steps of equal shapes share a recording.

A step is a function of no arguments that works on such buffers in place. Its first run in a shape is a plain one, on
the stream that will be recorded: libraries set up there what they may not set up while they are recorded. The second
is recorded, the third and all later ones repeat it. None is run in vain.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from t5study.model import gpu

Step = Callable[[], None]
MOST = 64  # recordings that are kept; each has some megabytes of its kernels' arguments on the GPU


class Recorder(Protocol):
    """warm() runs a step that is to be recorded later. record() runs nothing; what it returns repeats the step.
    held: bytes that recordings keep for what lives within a step."""

    def warm(self, step: Step) -> None: ...

    def record(self, step: Step) -> Step: ...

    def held(self) -> int: ...


class CudaGraphs:
    """By CUDA graphs. All share one pool for what lives within a step: they never run at the same time, and nothing in
    it outlives a step, so it is as large as the largest of them needs."""

    def __init__(self, device: torch.device):
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def warm(self, step: Step) -> None:
        here = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            step()
        here.wait_stream(self.stream)

    def record(self, step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as a reader of training batches, may go on with what this one may not do meanwhile.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            step()
        return graph.replay

    def held(self) -> int:
        segments = torch.cuda.memory_snapshot()
        return sum(one["total_size"] for one in segments if tuple(one["segment_pool_id"]) == tuple(self.pool))


@dataclass(frozen=True)
class Held:
    """Bytes: of buffers, and of what lives within a step. recordings: how many there are."""

    buffers: int
    within: int
    recordings: int


class Graphs:
    """The recordings of one model, or of one ensemble, and their buffers: one set of them, as large as was asked for at
    most, out of which each shape's are cut. Larger ones lie elsewhere, so that all is then recorded anew."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self._steps: dict[Hashable, Step | None] = {}  # None: has been run once
        self._buffers: dict[str, Tensor] = {}
        self._members: list[weakref.ref] = []  # they hold this in turn, and are large: they should go at once
        self._lock = threading.Lock()

    @contextmanager
    def taken_by(self, members: Sequence[object]) -> Iterator[None]:
        """For a batch of these models: none other may use the buffers meanwhile, and what was recorded of others is
        forgotten."""
        with self._lock:
            before = [ref() for ref in self._members]
            if len(before) != len(members) or any(a is not b for a, b in zip(before, members, strict=True)):
                self._steps.clear()
                self._buffers.clear()
                self._members = [weakref.ref(member) for member in members]
            yield

    def buffer(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor of this shape, at the same address whenever the same is asked for. What it holds is arbitrary."""
        count = math.prod(shape)
        flat = self._buffers.get(name)
        if flat is None or flat.numel() < count or (flat.dtype, flat.device) != (dtype, device):
            self._steps.clear()
            flat = self._buffers[name] = torch.zeros(count, dtype=dtype, device=device)
        return flat[:count].view(*shape)

    def run(self, shapes: Hashable, step: Step) -> None:
        """shapes: all that the step's kernels depend on but for the contents of buffers."""
        if known := self._steps.get(shapes):
            known()
        elif shapes in self._steps:
            while len(self._steps) > MOST:
                del self._steps[next(iter(self._steps))]
            known = self._steps[shapes] = self.recorder.record(step)
            known()
        else:
            self.recorder.warm(step)
            self._steps[shapes] = None

    def held(self) -> Held:
        buffers = sum(flat.numel() * flat.element_size() for flat in self._buffers.values())
        return Held(buffers, self.recorder.held(), sum(step is not None for step in self._steps.values()))


def graphs_on(device: torch.device) -> Graphs | None:
    """Where there are CUDA graphs and the environment does not say T5STUDY_KERNELS=off; None elsewhere."""
    if device.type != "cuda" or gpu.switched_off():
        return None
    return Graphs(CudaGraphs(device))
