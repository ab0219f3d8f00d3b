"""Saver: when a run's checkpoints are written, at once or while steps go on, and what becomes of a write that fails.

At once, the loop waits until a checkpoint is durable. Asynchronously it waits for a copy of weights and state, and a
thread writes that copy while the next steps are made. One write is under way at most: a checkpoint that comes due
before the last one is written waits for it. What is written are the same bytes, in the same order of write, sync and
rename, so a kill at any moment leaves what it leaves of a run that waits: the checkpoint before, whole.

A write that failed is told at the next step, to all ranks, and ends the run as it would have at once. So does a
journal that cannot grow: the first rank alone writes it, and the others have to hear why they end.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import torch

from t5study.ground.journal import Journal
from t5study.train.guard import Rewind
from t5study.train.site import Nowhere, Site

FAILED = 1 << 20  # above any signal's number: what a rank says instead of one
_LEAVING_S = 1.0  # that a second Ctrl-C waits for a write under way


class Saver:
    """journals: what is synced with a checkpoint that relies on them. To be entered for as long as steps are made."""

    def __init__(self, site: Site, *journals: Journal | Nowhere, asynchronous: bool = False):
        self.site, self.journals, self.asynchronous = site, journals, asynchronous
        self._copies: list[dict[str, torch.Tensor]] = [{}, {}]
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def failed(self) -> int:
        """FAILED if something could not be written, else 0."""
        return FAILED if self._error is not None else 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around a write of the first rank's between two checkpoints: what goes wrong is raised by `save`, to all."""
        try:
            yield
        except OSError as error:
            self._error = error

    def save(self, step: int, position: int) -> None:
        """A checkpoint of the run as it is now: durable when this returns, or begun. All ranks have to call it.
        Raises what has failed since it was last asked."""
        site = self.site
        site.ranks.once(self.wait)
        tensors = site.tensors()
        if not self.asynchronous:
            site.ranks.once(lambda: self._write(step, position, tensors))
        elif site.ranks.first:
            copies = self._copied(tensors)
            sizes = site.journal_sizes()
            self._thread = threading.Thread(
                target=self._work, args=(step, position, copies, sizes), name="checkpoint", daemon=True
            )
            self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written. Raises what has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None or issubclass(kind, Rewind):  # all ranks leave
            self.site.ranks.once(self.wait)
        elif self._thread is not None:
            # What is being written is of a good step. But who says Ctrl-C twice is in a hurry.
            self._thread.join(_LEAVING_S if issubclass(kind, KeyboardInterrupt) else None)
            if self._error is not None:
                print(f"t5study: warning: a checkpoint could not be written: {self._error}", file=sys.stderr)

    def _work(self, step: int, position: int, tensors: Tensors, sizes: Mapping[str, int]) -> None:
        """The thread."""
        try:
            self._write(step, position, tensors, sizes)
        except BaseException as error:  # whatever it is belongs to the run
            self._error = error

    def _write(self, step: int, position: int, tensors: Tensors, sizes: Mapping[str, int] | None = None) -> None:
        for journal in self.journals:
            journal.sync()
        self.site.save(step, position, tensors, sizes)

    def _copied(self, groups: Tensors) -> Tensors:
        """The tensors in memory of their own, the same at every save: fresh memory costs as much as the copy."""
        for kept, tensors in zip(self._copies, groups, strict=True):
            for name, tensor in tensors.items():
                if name not in kept:
                    kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                kept[name].copy_(tensor.detach())
        return self._copies[0], self._copies[1]


Tensors = tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]
