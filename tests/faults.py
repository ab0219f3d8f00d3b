"""What goes wrong inside a run, on purpose: given by name to the processes of tiny_run.py and rank_runs.py.

    {"bad": {"steps": [7], "value": "nan", "where": "loss", "rank": 1}}    "loss", "gradient", or "batch"
    {"limit": 4096}                   no file grows beyond so many bytes; with "limit_at" from that step on
    {"fill": 4096, "limit_at": 7}     from that step on the disk of the run's folder has so many bytes left
    {"closed": "checkpoints", "limit_at": 7}    from that step on nothing is written into that folder of the run's; not
                                      by root either. Step 0: from the start. "": the run's own
    {"disk": 1000}                    so many bytes are free, as far as anybody asks
    {"errno": 122, "at": 2}           the second sync of a file ends so (122: a quota)
    {"slow": 0.05}                    every sync takes so many seconds more
    {"stream": "raise", "batch": 7}   that batch is not made: "raise", "hang", or "die" (its thread ends without a word)
                                      With "rank": on that rank alone
    {"kill": 7, "rank": 1}            the rank dies by SIGKILL when it has made so many steps; once
    {"ledger": FILE}                  a line a step: its number, and the digest of its batch
    {"strikes": [["save", 10, 1, "SIGKILL"], ...]}    signals to a rank at a moment of the run (strikes.py)

Batches are known by their numbers from the beginning of the stream, so that a step which is made again after a kill
goes wrong again.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xxhash
from strikes import Strike, arm

from t5study.feed import stream as feed
from t5study.ground import store
from t5study.ground.pairs import Batch
from t5study.train import loop


@contextmanager
def injected(folder: Path, wrong: dict[str, Any], rank: int = 0) -> Iterator[None]:
    """For as long as the process makes its run; it ends with it."""
    if "limit" in wrong and "limit_at" not in wrong:
        _limit(wrong["limit"])
    if "closed" in wrong:
        _as_others_are()
    if wrong.get("limit_at") == 0:
        _spoil_disk(folder, wrong)
    if "disk" in wrong:
        usage = shutil.disk_usage(folder.parent)
        shutil.disk_usage = lambda _: usage._replace(free=wrong["disk"])  # type: ignore[assignment]
    if "errno" in wrong or "slow" in wrong:
        _syncs(wrong)
    if "stream" in wrong and rank == wrong.get("rank", rank):
        _batches(wrong["stream"], wrong["batch"])
    if {"bad", "kill", "ledger", "limit_at"} & set(wrong):
        _steps(folder, wrong, rank)
    if "strikes" in wrong:
        arm([Strike(*strike) for strike in wrong["strikes"]])
    yield


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _spoil_disk(folder: Path, wrong: dict[str, Any]) -> None:
    if "limit" in wrong:
        _limit(wrong["limit"])
    if "closed" in wrong:
        (folder / wrong["closed"]).chmod(0o555)
    if "fill" in wrong:
        disk = os.statvfs(folder)
        with open(folder.parent / "ballast", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - wrong["fill"])


def _as_others_are() -> None:
    """Root may write where nobody may: takes that from this thread and those it starts. (Linux: capabilities 1 and 2 of
    the effective ones, by capset(2).)"""
    if os.geteuid() == 0:
        header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        system = ctypes.CDLL(None, use_errno=True)
        if system.capget(header, sets) == 0:
            sets[0] &= ~0b110
        if system.capset(header, sets) != 0:
            raise OSError(ctypes.get_errno(), "capset")


def _syncs(wrong: dict[str, Any]) -> None:
    original, calls = store._sync_tree, [0]

    def sync(folder: Path) -> None:
        calls[0] += 1
        time.sleep(wrong.get("slow", 0))
        if calls[0] == wrong.get("at"):
            raise OSError(wrong["errno"], os.strerror(wrong["errno"]), str(folder))
        original(folder)

    store._sync_tree = sync


def _batches(how: str, number: int) -> None:
    original, calls = feed.Stream.batch, [0]

    def batch(self: Any, position: int) -> tuple[Batch, int]:
        calls[0] += 1
        if calls[0] == number and how == "raise":
            raise OSError(errno.EIO, os.strerror(errno.EIO), "shard-00003.tokens.npy")
        if calls[0] == number and how == "hang":
            threading.Event().wait()
        if calls[0] == number:
            raise SystemExit  # from _work_ahead, below: its thread ends
        return original(self, position)

    feed.Stream.batch = batch
    if how == "hang":
        feed.PATIENCE_S = 1.0
    if how == "die":
        work = feed._work_ahead

        def silent(stream: Any, position: int, ready: Any, *rest: Any) -> None:
            class Mute:
                def put(self, found: Any) -> None:
                    if not isinstance(found, BaseException):
                        ready.put(found)

            work(stream, position, Mute(), *rest)  # type: ignore[arg-type]

        feed._work_ahead = silent


def _steps(folder: Path, wrong: dict[str, Any], rank: int) -> None:
    bad, once = wrong.get("bad"), folder.with_name(f"{folder.name}.killed")
    original: Callable[..., Any] = loop.gradients
    marked = _marked(bad["steps"]) if bad else set()

    def gradients(model: Any, weights: Any, batch: Batch, step: int, **how: Any) -> Any:
        if step == wrong.get("limit_at") and rank == 0:
            _spoil_disk(folder, wrong)
        if step > wrong.get("kill", math.inf) and rank == wrong.get("rank", 0) and not once.exists():
            once.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        if "ledger" in wrong and rank == 0:
            with open(wrong["ledger"], "a") as file:
                file.write(json.dumps([step, digest(batch)]) + "\n")
        if batch.source_BS.tobytes() not in marked or rank != bad.get("rank", rank):  # type: ignore[union-attr]
            return original(model, weights, batch, step, **how)
        return _spoiled(original, bad, model, weights, batch, step, how)  # type: ignore[arg-type]

    loop.gradients = gradients


def digest(batch: Batch) -> str:
    """Of what a batch asks and of what it wants to hear."""
    return xxhash.xxh3_64_hexdigest(batch.source_BS.tobytes() + batch.target_BT.tobytes())


def _marked(numbers: list[int]) -> set[bytes]:
    from tiny_run import make

    stream, position, found = make()[1], 0, set()
    for number in range(1, max(numbers) + 1):
        batch, position = stream.batch(position)
        if number in numbers:
            found.add(batch.source_BS.tobytes())
    return found


def _spoiled(
    original: Any, bad: dict[str, Any], model: Any, weights: Any, batch: Any, step: int, how: dict[str, Any]
) -> Any:
    """The step's gradients, with a number in them that was not there."""
    value = float(bad["value"])
    if bad["where"] == "gradient":
        weight = dict(model.named_parameters())[bad["weight"]] if "weight" in bad else weights[len(weights) // 2]
        hook = weight.register_hook(lambda grad: grad.index_fill(0, torch.tensor([0]), value))
        try:
            return original(model, weights, batch, step, **how)
        finally:
            hook.remove()
    loss_sum = model.loss_sum
    if bad["where"] == "loss":

        def spoiled(*args: Any, **kwargs: Any) -> Any:
            found = loss_sum(*args, **kwargs)
            return replace(found, nats=found.nats * 0 + value)  # what is reported; gradients stay as they are

        model.loss_sum = spoiled
    else:  # the batch: what comes out of a token's embedding

        def spoiled(*args: Any, **kwargs: Any) -> Any:
            found = loss_sum(*args, **kwargs)
            return replace(found, nats=found.nats * value, total=found.total * value)

        model.loss_sum = spoiled
    try:
        return original(model, weights, batch, step, **how)
    finally:
        del model.loss_sum
