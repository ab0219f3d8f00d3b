"""The tiny run on several ranks, as torchrun would start them: processes of their own that talk by gloo.

    with RankRuns() as runs:
        codes = runs.go(2, folder)                     the tiny run on two ranks; their exit codes, by rank
        codes = runs.go(2, folder, stop_at=10)         the first rank is sent SIGTERM at step 10
        codes = runs.command(2, ["train", ...])        a command line on two ranks

Ranks are forked from one process that has imported torch, so that each does not take seconds to begin.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import faults
import numpy as np
import torch
import torch.distributed as dist
import xxhash
from live_bytes import Allocated
from safetensors.torch import save_file
from tiny_run import RUN, SHAPE, Watched, evaluate, make, read

from t5study.ground.errors import Lost, NoRoom, Stopped, UserError
from t5study.ground.machine import Machine, choose_library
from t5study.ground.pairs import Batch
from t5study.model.architectures import build
from t5study.model.shapes import Shape, shape_of
from t5study.train import lifeline, pieces, shards, slices
from t5study.train.checkpoint import FILES
from t5study.train.fit import full
from t5study.train.loop import train
from t5study.train.optim import Adafactor, AdamW, Constant
from t5study.train.parallel import Ranks, joined
from t5study.train.recompute import recomputed
from t5study.train.site import Site
from t5study.train.step import gradients
from t5study.train.tuning import Movement, parse

LEFT_S = 30.0
OPTIMIZERS = {
    "adafactor": (Adafactor(), Constant(0.02)),
    "factored": (Adafactor(min_dim_to_factor=16), Constant(0.02)),
    "adamw": (AdamW(), Constant(0.005)),
}


SLICED = replace(SHAPE, heads=4, d_kv=16, adapter=24)  # what four ranks may have a quarter of


class RankRuns:
    def __enter__(self) -> RankRuns:
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.communicate("")

    def go(self, world: int, folder: Path, **how: Any) -> list[int]:
        """how: stop_at, optimizer (a name), micro_batch, shard (true: among all ranks), tensor, recompute, fresh (the
        model is given on the meta device), tuning (as typed), async_save, wrong (faults.py), and changed fields of the
        run."""
        return self._ask(world, "run", str(folder), how)

    def gradients(self, world: int, file: Path, **how: Any) -> list[int]:
        """A step's numbers over an uneven batch, as JSON in a file of each rank. how: architecture, shard, tensor, late
        (decoder layers make keys and values themselves)."""
        return self._ask(world, "gradients", str(file), how)

    def sliced(self, world: int, file: Path, **how: Any) -> list[int]:
        """The gradients of a step over an uneven batch with heads and columns among ranks: each rank's as safetensors,
        those that are cut put together. how: tensor, gated, recompute, precision, architecture."""
        return self._ask(world, "sliced", str(file), how)

    def fresh(self, world: int, file: Path, **how: Any) -> list[int]:
        """Spreads a model that nobody has: each rank's first values as safetensors, and as JSON the numbers that it
        allocated for them. how: shard, tensor."""
        return self._ask(world, "fresh", str(file), how)

    def loaded(self, world: int, folder: Path, out: Path, **how: Any) -> list[int]:
        """Loads a run's newest checkpoint on ranks and gathers what they hold then, as two safetensors files in `out`.
        how: as of `go`, what the run has."""
        return self._ask(world, "loaded", str(out), {"folder": str(folder), **how})

    def traffic(self, world: int, file: Path, **how: Any) -> list[int]:
        """What a step takes of each rank, as JSON: bytes of weights, gradients, state, and of collectives by kind. how:
        shard, tensor, passes, optimizer, architecture; made_up: ranks of a world that is not there, of which this is
        one."""
        return self._ask(world, "traffic", str(file), how)

    def stuck(self, world: int, errors: Path, **how: Any) -> list[int]:
        """Two of three ranks wait for one another when the last is killed, or go on when it leaves at its end. how: end
        ("kill", "leave"); grace, seconds."""
        return self._ask(world, "stuck", str(errors), how)

    def command(self, world: int, words: list[str], errors: Path, wrong: dict[str, Any] | None = None) -> list[int]:
        """Standard error of each rank is in `errors` with the rank behind its name. wrong: faults.py."""
        return self._ask(world, "command", str(errors), {"words": words, "wrong": wrong or {}})

    def _ask(self, world: int, what: str, path: str, how: dict[str, Any]) -> list[int]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps([world, what, path, how]) + "\n")
        return json.loads(self.server.stdout.readline())


def uneven(batch: Batch) -> Batch:
    """Rows with many targets, with few, and with none."""
    keep_BT = np.arange(batch.target_BT.shape[1]) < np.array([99, 3, 0, 99])[:, None]
    source = batch.source_BS, batch.source_segment_BS, batch.source_position_BS
    target = batch.target_BT, batch.target_segment_BT, batch.target_position_BT
    return Batch(*source, *(side * keep_BT for side in target))


def step_of(ranks: Ranks, architecture: str = "encoder_decoder") -> dict[str, Any]:
    """A step over an uneven batch: its loss and norm, and the sum of each weight's gradient. With adapters, in
    micro-batches of one row."""
    choose_library(0)  # the same in all processes
    model = build(replace(shape_of(architecture, SHAPE), adapter=24), 3, architecture)
    if ranks.shard:
        model = shards.spread(model, ranks)
    weights, machine = list(model.parameters()), Machine(micro_batch=1)
    batch = uneven(make()[1].batch(0)[0])
    taken = gradients(model, weights, batch, 7, seed=5, dropout=0.3, z_loss=1e-4, machine=machine, ranks=ranks)
    grads = {
        name: float(pieces.whole(p.grad).double().abs().sum())
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    return {"loss": taken.loss, "z": taken.z, "norm": taken.grad_norm, "grads": grads}


def slice_of(
    ranks: Ranks,
    file: Path,
    architecture: str = "encoder_decoder",
    gated: bool = False,
    recompute: bool = False,
    precision: str = "fp32",
) -> dict[str, torch.Tensor]:
    """The step's gradients by name, beside its loss, z-loss and norm; written to a file of the rank. With dropout and
    adapters, in micro-batches of one row."""
    choose_library(0)
    shape = shape_of(architecture, replace(SLICED, activation="gated_gelu" if gated else "relu", tied=not gated))
    given = model = build(shape, 3, architecture)
    if ranks.tensor:
        model = slices.spread(given, ranks)
    batch, machine = uneven(make()[1].batch(0)[0]), Machine(micro_batch=1, precision=precision)
    how: dict[str, Any] = {"seed": 5, "dropout": 0.3, "z_loss": 1e-4, "machine": machine}
    with recomputed(model, recompute):
        taken = gradients(model, list(model.parameters()), batch, 7, ranks=ranks, **how)
    wholes = slices.wholes(model) if ranks.tensor else dict(model.named_parameters())
    found = {"told": torch.tensor([taken.loss, taken.z, taken.grad_norm], dtype=torch.float64)}
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            found[name] = pieces.whole(pieces.alike(weight.grad, wholes[name])).contiguous()
    save_file(found, f"{file}.{ranks.rank}")
    return found


def spread_shape(architecture: str) -> Shape:
    """One whose sides no power of two divides. Stacks that share their layers have as many of them."""
    return shape_of(architecture, Shape(136, 272, 68, 2, 2, 2 if architecture.startswith("shared") else 3, 1_000))


class Counted:
    """Bytes of every collective, by kind, while it holds: what all-gathers give out and the others take in. Those of
    doubles, which are the optimiser's and the step's own sums, apart."""

    # name: its kind, and the place and name of the tensor that is counted. Two are called otherwise since torch 2.13.
    KINDS: ClassVar = {
        "all_gather_into_tensor": ("gather", 0, "output_tensor"),
        "all_gather_single": ("gather", 0, "output_tensor"),
        "reduce_scatter_tensor": ("scatter", 1, "input"),
        "reduce_scatter_single": ("scatter", 1, "input"),
        "all_reduce": ("reduce", 0, "tensor"),
    }

    def __enter__(self) -> Counted:
        self.bytes = {"gather": 0, "scatter": 0, "reduce": 0, "sums": 0}
        self.before = {name: getattr(dist, name) for name in self.KINDS if hasattr(dist, name)}
        for name, function in self.before.items():
            setattr(dist, name, functools.partial(self._call, function, *self.KINDS[name]))
        return self

    def __exit__(self, *_: Any) -> None:
        for name, function in self.before.items():
            setattr(dist, name, function)

    def _call(self, function: Any, kind: str, place: int, word: str, *args: Any, **kwargs: Any) -> Any:
        tensor = args[place] if len(args) > place else kwargs[word]
        self.bytes["sums" if tensor.dtype == torch.float64 else kind] += tensor.nbytes
        return function(*args, **kwargs)


def count_traffic(ranks: Ranks, file: Path, optimizer: str, architecture: str, passes: int) -> None:
    shape = spread_shape(architecture)
    model = build(shape, 3, architecture)
    settings = {"adafactor": Adafactor(), "adamw": AdamW()}[optimizer]
    batch = full(replace(RUN, shape=shape, source_length=12, target_length=8), ranks.groups * passes)
    model, settings = cut(model, settings, ranks)
    with Counted() as counted:
        moves = settings.build(model)
        how: dict[str, Any] = {
            "seed": 5,
            "dropout": 0.0,
            "z_loss": 0.0,
            "ranks": ranks,
            "machine": Machine(micro_batch=1),
        }
        gradients(model, list(model.parameters()), batch, 1, **how)
        moves.step(0.01)
    state = [t for name, t in moves.state_tensors().items() if name.rpartition("/")[2] != "step"]
    found = {"weights": list(model.parameters()), "gradients": [p.grad for p in model.parameters()], "state": state}
    held = {name: sum(pieces.here(t).nbytes for t in tensors) for name, tensors in found.items()}
    file.with_name(f"{file.name}.{ranks.rank}").write_text(json.dumps(held | counted.bytes))


def spread_fresh(ranks: Ranks, file: Path) -> None:
    """Counts all that torch allocates for it, however briefly."""
    with torch.device("meta"):
        model = build(SHAPE, RUN.seed)
    with Allocated() as allocated:
        spread = (slices if ranks.tensor else shards).spread(model, ranks, "cpu", RUN.seed)
    save_file({name: pieces.here(p).clone() for name, p in spread.named_parameters()}, f"{file}.{ranks.rank}")
    file.with_name(f"{file.name}.{ranks.rank}.json").write_text(json.dumps(allocated.total))


def gather_loaded(ranks: Ranks, out: Path, folder: str, optimizer: str = "adafactor", **changes: Any) -> None:
    """Into weights and state of other numbers than those that are loaded."""
    settings, schedule = OPTIMIZERS[optimizer]
    run = replace(RUN, optimizer=settings, schedule=schedule, **read(changes))
    model, build_with = cut(build(run.shape, 99), settings, ranks)
    movement = Movement(run.tuning, model, run.steps)
    site = Site(run, model, movement, movement.optimizer(build_with, 0), Path(folder), ranks)
    site.resume()
    tensors = site.tensors()
    if ranks.first:
        out.mkdir()
        for name, found in zip(FILES, tensors, strict=False):
            save_file({name: tensor.detach().contiguous() for name, tensor in found.items()}, out / name)


def cut(model: Any, settings: Any, ranks: Ranks) -> tuple[Any, Any]:
    """A model and an optimiser's settings as a rank has them."""
    if not ranks.cut:
        return model, settings
    how = slices if ranks.tensor else shards
    return how.spread(model, ranks), how.Settings(settings)


def get_stuck(end: str, grace: float) -> None:
    lifeline.GRACE_S = grace
    with joined(Machine()) as ranks:
        dist.barrier()
        if ranks.rank == ranks.world - 1:
            if end == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return
        other, over = 1 - ranks.rank, torch.zeros(1)
        if end == "kill":
            dist.recv(over, other)  # which sends nothing either
        limit = time.monotonic() + 2 * grace
        while not over:  # without the last rank, as long as they would have if it were taken for lost
            over.fill_(time.monotonic() > limit)
            dist.send(over, other) if ranks.first else dist.recv(over, other)


# --- the process that forks them ----------------------------------------------------------------------------------


def serve() -> None:
    # What every rank would load for itself: what FSDP2's hooks ask for at their first call, and compiled loops.
    importlib.import_module("torch._dynamo")
    with tempfile.TemporaryDirectory() as folder:
        _run(Ranks(), Path(folder) / "one", steps=1)
    for line in sys.stdin:
        world, what, path, how = json.loads(line)
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        pids = []
        for rank in range(world):
            pid = os.fork()
            if pid == 0:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                os._exit(_rank(rank, what, Path(path), how))
            pids.append(pid)
        print(json.dumps(_ends(pids)), flush=True)


def _ends(pids: list[int]) -> list[int]:
    """Waits as torchrun does: who has not ended half a minute after another was killed is killed too."""
    ends, limit = dict[int, int](), math.inf
    while len(ends) < len(pids):
        pid, status = os.waitpid(-1, os.WNOHANG if limit < math.inf else 0)
        if pid:
            ends[pid] = os.waitstatus_to_exitcode(status)
            limit = time.monotonic() + LEFT_S if ends[pid] < 0 else limit
        elif time.monotonic() > limit:
            for left in set(pids) - set(ends):
                os.kill(left, signal.SIGKILL)
            limit = math.inf
        else:
            time.sleep(0.005)
    return [ends[pid] for pid in pids]


def _rank(rank: int, what: str, path: Path, how: dict[str, Any]) -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # standard output is the server's, and so is input
    sys.stdin = open(os.devnull)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    errors = path.with_name(f"{path.name}.{rank}.txt")
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    try:
        if what == "command":
            from t5study.__main__ import main

            with faults.injected(path, how["wrong"], rank):
                return main(how["words"])
        if made_up := how.pop("made_up", 0):  # collectives that do nothing
            from torch.testing._internal.distributed.fake_pg import FakeStore

            dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=made_up)
            count_traffic(_cut(Ranks(0, made_up), how), path, **how)
            return 0
        if what == "stuck":
            get_stuck(**how)
            return 0
        with joined(Machine()) as ranks:
            ranks = _cut(ranks, how)
            if what == "traffic":
                count_traffic(ranks, path, **how)
            elif what == "sliced":
                slice_of(ranks, path, **how)
            elif what == "fresh":
                spread_fresh(ranks, path)
            elif what == "loaded":
                gather_loaded(ranks, path, **how)
            elif what == "gradients":
                path.with_name(f"{path.name}.{rank}").write_text(json.dumps(step_of(ranks, **how)))
            else:
                _run(ranks, path, **how)
    except Stopped as stopped:
        return stopped.code
    except (UserError, Lost) as error:
        os.write(2, f"{error}\n".encode())
        return 74 if isinstance(error, NoRoom) else 75 if isinstance(error, Lost) else 2
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _run(
    ranks: Ranks,
    folder: Path,
    stop_at: int = 0,
    optimizer: str = "adafactor",
    micro_batch: int = 0,
    recompute: bool = False,
    fresh: bool = False,
    tuning: str = "all",
    async_save: bool = False,
    wrong: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """Each rank leaves the digest of its weights beside the folder."""
    settings, schedule = OPTIMIZERS[optimizer]
    run = replace(RUN, optimizer=settings, schedule=schedule, tuning=parse(tuning), **read(changes))
    model, stream = make(run)
    if fresh:
        with torch.device("meta"):
            model = build(run.shape, run.seed)
    elif not ranks.first:
        with torch.no_grad():  # what another rank has at first does not matter
            model.embedding.zero_()
    progress = Watched({stop_at: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    machine = Machine(micro_batch=micro_batch, recompute=recompute)
    with faults.injected(folder, wrong or {}, ranks.rank):
        train(
            run,
            model,
            stream,
            folder,
            machine,
            evaluate=evaluate,
            progress=progress,
            ranks=ranks,
            async_save=async_save,
        )
    digest = xxhash.xxh3_128()
    for weight in model.parameters():
        if not weight.is_meta:
            digest.update(weight.detach().numpy().tobytes())
    folder.with_name(f"{folder.name}.weights.{ranks.rank}").write_text(digest.hexdigest())


def _cut(ranks: Ranks, how: dict[str, Any]) -> Ranks:
    """The ranks with their shard and tensor, which are taken from `how`; one alone has nothing to share out."""
    shard, tensor = how.pop("shard", 0), how.pop("tensor", 0)
    return ranks if ranks.world == 1 else replace(ranks, shard=ranks.world if shard is True else shard, tensor=tensor)


if __name__ == "__main__":
    if len(sys.argv) > 1:  # by torchrun: FOLDER, and `how` of RankRuns.go as JSON
        sys.exit(_rank(int(os.environ["RANK"]), "run", Path(sys.argv[1]), json.loads(sys.argv[2])))
    serve()
