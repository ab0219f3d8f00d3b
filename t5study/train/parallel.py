"""Several ranks: one run by many processes, each on a device of its own, started by torchrun.

    torchrun --nproc-per-node 4 -m t5study train pretrain --rows 32 ...

The model does not know of it. Every rank has all weights, makes the step's whole batch (a function of the stream's
position, and cheap: a core makes some 280,000 examples a second) and takes its share of the rows. Gradients are sums,
so those of the ranks are added, and every rank moves its weights by the same numbers. So a run is the same run, to a
last digit, whatever the number of ranks; it may be stopped on four of them and go on on two, for a checkpoint holds
nothing of them. Files are the first rank's alone.

One process alone is `ALONE`: every method gives back what it got, and torch.distributed is not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from t5study.ground.errors import Lost, NoRoom, Stopped, UserError
from t5study.ground.machine import Machine, rank_here
from t5study.train.lifeline import lifelines
from t5study.train.meeting import meet

# Others wait this long for the first rank while it evaluates or writes. A rank that dies is noticed at once all the
# same: its connections close.
PATIENCE = timedelta(hours=12)
BUCKET = 1 << 23  # numbers that are added over the ranks in one call: 32 MiB in fp32


@dataclass(frozen=True)
class Ranks:
    """rank: which of `world` processes this is. All of them call the same methods in the same order. shard: among how
    many ranks the rows of every weight are cut (shards.py), 0 if each has all of them. tensor: among how many heads and
    hidden columns are (slices.py), 0 for none. Fewer than the world: those of neighbouring numbers keep the whole
    between them, and each such group is a copy of the others."""

    rank: int = 0
    world: int = 1
    shard: int = 0
    tensor: int = 0

    def __post_init__(self) -> None:
        for name in ("shard", "tensor"):
            if (found := getattr(self, name)) and (found < 2 or self.world % found):
                raise UserError(
                    f"machine: {name}: found {found} for {self.world} ranks; give a number from 2 that divides them"
                )
        if self.shard and self.tensor:
            raise UserError(
                f"machine: tensor: found {self.tensor} with shards among {self.shard}; leave one of them out"
            )

    @property
    def cut(self) -> bool:
        """Whether a rank has pieces of weights (pieces.py)."""
        return bool(self.shard or self.tensor)

    @property
    def groups(self) -> int:
        """Among how many the rows of a batch are shared out: the ranks, or groups of them that see the same rows."""
        return self.world // (self.tensor or 1)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def rows(self, rows: int) -> slice:
        """Which rows of a step's batch are this rank's. UserError if the ranks, or groups of them, cannot have equally
        many.

        >>> Ranks(1, 4).rows(32), Ranks(1, 4, tensor=2).rows(32)
        (slice(8, 16, None), slice(0, 16, None))
        """
        if rows % self.groups:
            who = f"{self.groups} groups of {self.tensor} ranks" if self.tensor else f"{self.world} ranks"
            raise UserError(f"run: rows: found {rows} for {who}; give rows that {self.groups} divides, or other ranks")
        share, place = rows // self.groups, self.rank // (self.tensor or 1)
        return slice(place * share, (place + 1) * share)

    def add(self, tensor: Tensor, over: Any = None) -> Tensor:
        """The sum of all ranks' tensors, in place. over: a process group, for the sum of its ranks' alone."""
        if self.world > 1:
            dist.all_reduce(tensor, group=over)
        return tensor

    def add_all(self, tensors: Iterable[Tensor], over: Any = None) -> None:
        """`add` for many, a few calls in all."""
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = self.add(torch.cat([tensor.reshape(-1) for tensor in bucket]), over)
            for tensor, total in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def most(self, value: int) -> int:
        """The largest of all ranks' numbers."""
        if self.world == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Fills every rank's tensors with the first one's."""
        if self.world > 1:
            for tensor in tensors:
                whole = tensor.detach().contiguous()
                dist.broadcast(whole, 0)
                if whole.data_ptr() != tensor.data_ptr():
                    tensor.detach().copy_(whole)

    def shared(self, found: Mapping[str, Tensor] | None, like: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The first rank's tensors by name, one after another; the others, who have none, know their forms."""
        for name, own in like.items():
            value = torch.empty(own.shape, dtype=own.dtype) if found is None else found[name].detach().cpu()
            if self.world > 1:
                value = value.contiguous()
                dist.broadcast(value, 0)
            yield name, value

    def once(self, do: Callable[[], Any]) -> Any:
        """Lets the first rank do something; all get what it returns, which has to be JSON.

        If it fails, all fail: its own error there, elsewhere one of the same words and exit code.
        """
        if self.world == 1:
            return do()
        if not self.first:
            return _answer(self._told(""))
        try:
            found = do()
        except Stopped as stopped:
            self._told(json.dumps({"stopped": stopped.signum}))
            raise
        except Exception as error:
            self._told(json.dumps(_cause(error)))
            raise
        return _answer(self._told(json.dumps({"value": found})))

    def _told(self, text: str) -> str:
        """The first rank's text."""
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        size = torch.tensor(len(content))
        dist.broadcast(size, 0)
        if not self.first:
            content = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, 0)
        return bytes(content.tolist()).decode()


ALONE = Ranks()


def _cause(error: Exception) -> dict[str, Any]:
    """An error as JSON, from which _answer makes one that ends a process in the same way."""
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else os.fspath(error.filename)
        return {"system": [error.errno, error.strerror, name]}
    return {"error": str(error) or type(error).__name__, "no room": isinstance(error, NoRoom)}


def _answer(text: str) -> Any:
    found = json.loads(text)
    if "stopped" in found:
        raise Stopped(found["stopped"])
    if "system" in found:
        raise OSError(*found["system"])
    if "error" in found:
        raise (NoRoom if found["no room"] else UserError)(found["error"])
    return found["value"]


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (sum(t.numel() for t in bucket) + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def joined(machine: Machine) -> Iterator[Ranks]:
    """The ranks that torchrun started this process as one of, by its environment; ALONE without it.

    gloo between processors, nccl between GPUs, of which each rank takes the one of its number on its host.
    """
    rank, world = rank_here()
    if world == 1:
        yield ALONE
        return
    if machine.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store = meet(rank, world)
    store.set_timeout(PATIENCE)
    backend = "cpu:gloo,cuda:nccl" if machine.device == "cuda" else "gloo"
    with lifelines(store, rank, world):
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
        try:
            yield Ranks(rank, world, machine.shard, machine.tensor)
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            # Its connections closed, or it does not answer: there is no going on without it.
            told = " ".join(str(error).split())[-200:]
            raise Lost(f"rank {rank}: another rank is gone ({told}); run the same command again to go on") from None
        finally:
            dist.destroy_process_group()
