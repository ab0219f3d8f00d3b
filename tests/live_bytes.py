"""What torch allocates, counted tensor by tensor: the same on every machine, unlike a process's size.

with Allocated() as allocated: ...
allocated.total, allocated.peak                bytes in all, and the most that lived at once
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Follows every storage that an operator returns until nobody has it any more. Those that were there before are
    not counted; nor is what has no memory (the meta device)."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.peak = self.live = 0
        self._known: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._known.setdefault(tensor.untyped_storage())
        found = func(*args, **(kwargs or {}))
        for tensor in _tensors(found):
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known[storage] = None
                size = storage.nbytes()
                self.total += size
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._freed, size)
        return found

    def _freed(self, size: int) -> None:
        self.live -= size


def _tensors(tree: Any) -> list[torch.Tensor]:
    """Those with memory; a DTensor's is its local part's."""
    found = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta"]
    return [one._local_tensor if isinstance(one, DTensor) else one for one in found]
