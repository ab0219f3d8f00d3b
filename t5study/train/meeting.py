"""The ranks' first meeting: a store in which nothing lies of those who met before.

torchrun keeps one store for all its restarts (torch 2.13, c10d rendezvous; its own code takes it for a new one each
time). In it the addresses are left that an attempt's ranks gave each other, so a rank of the next attempt that is there
before the first one finds an address at which nobody is left: gloo then fails, or waits. The count of restarts does not
tell attempts apart either, since each host has its own.

So the first rank draws a name, under which everything of this meeting lies. The others ask for it, each under a name
of its own drawing, which nobody before can have answered.
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import time
import uuid
from datetime import timedelta

from torch import distributed as dist

from t5study.ground.errors import Lost

PATIENCE = timedelta(minutes=15)  # for the last rank to have started and read its libraries
LOOK_S = 0.02  # between two looks of the first rank for those it waits for


def meet(rank: int, world: int, patience: timedelta = PATIENCE) -> dist.Store:
    """A store for this meeting of `world` ranks, at the address in the environment; all have to call it.

    Raises Lost if one of them does not come.
    """
    try:
        store, _, _ = next(dist.rendezvous("env://", rank, world, timeout=patience))
        if rank:
            name = _asked(store, rank, patience)
        else:
            name = uuid.uuid4().hex
            _answer(store, name, world, patience)
    except (dist.DistError, TimeoutError) as error:
        told = " ".join(str(error).split())[:200]
        raise Lost(
            f"rank {rank}: not all of {world} ranks came together within {patience} ({told}); see how the others ended "
            "and run the same command again to go on"
        ) from None
    return dist.PrefixStore(name, store)


def _asked(store: dist.Store, rank: int, patience: timedelta) -> str:
    mine = uuid.uuid4().hex
    store.set(f"ask/{rank}", mine)
    store.wait([f"answer/{mine}"], patience)
    name = store.get(f"answer/{mine}").decode()
    store.set(f"{name}/here/{rank}", "")
    return name


def _answer(store: dist.Store, name: str, world: int, patience: timedelta) -> None:
    """Until every rank has heard. A question may be one of an earlier attempt: then nobody hears, and the rank's own
    comes later."""
    missing, limit = set(range(1, world)), time.monotonic() + patience.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"{name}/here/{rank}"]):
                missing.discard(rank)
            elif store.check([f"ask/{rank}"]):
                store.set(f"answer/{store.get(f'ask/{rank}').decode()}", name)
        if missing and time.monotonic() > limit:
            raise TimeoutError(f"no word of rank {', '.join(map(str, sorted(missing)))}")
        time.sleep(LOOK_S)
