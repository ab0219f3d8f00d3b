"""Fit: how many rows a pass, and whether layers are run again, for the memory at hand (`--micro-batch auto`).

First by arithmetic (model/scale.py): the largest micro-batch that has room with layers kept, and the largest with
layers run again. Then on the device: two passes of full rows with gradients there, as micro-batches have them, what
they took at most, and how long; one that takes more than there is, or ends in an out-of-memory error, gives way to the
next smaller. Of the two ways the faster one a row is taken. The step's rows stay what they are: gradients are summed
over as many passes as it takes. After a minute nothing new is tried, and arithmetic decides with a wider margin; so it
does with shards, whose passes are all ranks' together, and where layers unfreeze on the way.

A micro-batch changes the last digits of a run, so the choice is kept in the run's folder and a resumed run makes it
again: FOLDER/machine.json.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from t5study.ground.errors import UserError
from t5study.ground.machine import Machine, release
from t5study.ground.pairs import EOS, Batch
from t5study.ground.store import write_json
from t5study.model.architectures import Dropout
from t5study.model.attention import KEEP
from t5study.model.scale import Layout, memory
from t5study.model.shapes import LANGUAGE_MODELS, sliced
from t5study.train.optim import AdamW
from t5study.train.parallel import Ranks
from t5study.train.recompute import recomputed
from t5study.train.run import TrainRun
from t5study.train.site import Site
from t5study.train.streamed import Streamed

CHOICE = "machine.json"
BUDGET_S = 60.0
NEAR, SURE = 0.95, 0.8  # of the room: what arithmetic may ask for if it is tried afterwards, and if it is not


@dataclass(frozen=True)
class Choice:
    """rows: of a rank's part of a step. micro_batch: of a pass. needs: bytes by arithmetic, of all that the process (or
    the GPU) then holds; measured: the same as it was found, None if it was not tried; room: what there is. seconds: a
    row, None if it was not tried."""

    device: str
    rows: int
    micro_batch: int
    recompute: bool
    needs: int
    measured: int | None
    room: int
    seconds: float | None

    @property
    def told(self) -> str:
        way = "layers run again" if self.recompute else "layers kept"
        took = f"computed {gb(self.needs)}" + ("" if self.measured is None else f", measured {gb(self.measured)}")
        return f"micro-batch of {self.micro_batch} of {self.rows} rows, {way}: {took}, of {gb(self.room)}"


def fitted(site: Site, machine: Machine) -> Machine:
    """The machine with a micro-batch and a way for it: those that the run's folder has, or new ones, written there.
    All ranks call it. UserError if not even a row has room."""
    ranks, path = site.ranks, site.folder / CHOICE
    mine = ranks.rows(site.run.rows)
    rows = mine.stop - mine.start
    found = ranks.once(lambda: _read(path))
    choice = Choice(**found) if found else None
    known = choice is not None and (choice.device, choice.rows) == (machine.device, rows)
    if choice is None or not known or choice.micro_batch not in _sizes(rows, machine):
        made = choice = choose(site, machine, rows)
        ranks.once(lambda: write_json(path, asdict(made)))
        if ranks.first:
            print(f"t5study: {choice.told}", file=sys.stderr)
    return replace(machine, micro_batch=choice.micro_batch % rows, recompute=machine.recompute or choice.recompute)


def choose(site: Site, machine: Machine, rows: int) -> Choice:
    """Tries what arithmetic lets through. rows: of a rank's part of a step."""
    run, ranks = site.run, site.ranks
    room = -ranks.most(-(machine.memory or _room(machine.device)))  # the least of all ranks'
    own = sum(_bytes(tensor) for group in (site.weights, site.optimizer.state_tensors()) for tensor in group.values())
    base = ranks.most(max(0, _taken(machine.device) - own))
    moved = site.movement.trainable(run.steps) / sum(weight.numel() for weight in site.weights.values())
    until = time.monotonic() + BUDGET_S
    found: list[Choice] = []
    warm, grows = False, len(site.movement.groups) > 1  # to more gradients than a pass has now
    for again in (True,) if machine.recompute else (False, True):
        for size in _sizes(rows, machine):
            needs = base + computed(run, machine, ranks, size, rows // size, again, moved)
            choice = Choice(machine.device, rows, size, again, needs, None, room, None)
            if ranks.cut or grows or ranks.most(int(time.monotonic() > until)):
                if needs <= SURE * room:
                    found.append(choice)
                    break
            elif needs <= NEAR * room:
                if not warm:  # what is compiled and loaded once is no part of a pass
                    short = replace(run, source_length=8, target_length=8)
                    tried(site.model, site.optimizer, short, machine, 1, again)
                    warm = True
                took, seconds = tried(site.model, site.optimizer, run, machine, size, again)
                took, micros = ranks.most(took), ranks.most(round(1e6 * seconds))
                if took <= (NEAR if machine.device == "cuda" else 1) * room:  # an update takes some, too
                    found.append(replace(choice, measured=took, seconds=micros / 1e6 / size))
                    break
        if found and found[0].micro_batch == rows:
            break  # what has room whole gains nothing by being run again
    if not found:
        least = base + computed(run, machine, ranks, _sizes(rows, machine)[-1], 1, True, moved)
        raise UserError(
            f"machine: memory: found {gb(room)}, and {_sizes(rows, machine)[-1]} rows a pass take about {gb(least)} "
            "with layers run again; give shorter rows, a smaller model, --weights bf16 --update-in-backward, or --shard"
        )
    release()
    return min(found, key=lambda choice: (choice.seconds is None, choice.seconds or 0.0, choice.recompute))


def _sizes(rows: int, machine: Machine) -> list[int]:
    """Micro-batches that divide a step, the largest first. Updates inside the backward pass need the whole step."""
    return [rows] if machine.streamed else [size for size in range(rows, 0, -1) if rows % size == 0]


def computed(
    run: TrainRun, machine: Machine, ranks: Ranks, rows: int, passes: int, again: bool, moved: float = 1.0
) -> int:
    """Bytes of a rank by arithmetic. moved: the part of the weights that has gradients and a state."""
    layout = Layout(
        ranks.world,
        ranks.shard,
        rows,
        passes,
        run.source_length,
        run.target_length,
        again,
        "adamw" if isinstance(run.optimizer, AdamW) else "adafactor",
        compute=2 if machine.precision == "bf16" else 4,
        kept=2 if run.weights == "bf16" else 4,
        streamed=machine.streamed,
        tensor=ranks.tensor,
    )
    takes = memory(run.shape, run.architecture, layout)
    standing = round((1 - moved) * (takes.gradients + takes.state))
    return takes.total - standing + _probabilities(run, layout)


def _probabilities(run: TrainRun, layout: Layout) -> int:
    """Bytes that attention may keep of packed short pairs where it keeps none of a full one (attention.py)."""
    shape, source, target = sliced(run.shape, layout.tensor or 1), layout.source, layout.target
    if run.architecture in LANGUAGE_MODELS:
        kinds = [(shape.decoder_layers, source + target, source + target)]
    else:
        kinds = [(shape.encoder_layers, source, source), (shape.decoder_layers, target, target)]
        kinds.append((shape.decoder_layers, target, source))
    many = [layers for layers, q, k in kinds if layout.rows * shape.heads * q * k > KEEP]
    return KEEP * layout.compute * (bool(many) if layout.recompute else sum(many))


# --- on the device ------------------------------------------------------------------------------------------------


def tried(model: Any, optimizer: Any, run: TrainRun, machine: Machine, rows: int, again: bool) -> tuple[int, float]:
    """Two passes of full rows: bytes that there were at most, and seconds of the second. No weight moves. More bytes
    than any room has if memory did not suffice."""
    batch, cuda = full(run, rows), machine.device == "cuda"
    dry: AbstractContextManager[None] = optimizer.dry() if isinstance(optimizer, Streamed) else nullcontext()
    seconds = 0.0
    try:
        with _Peak(machine.device) as peak, recomputed(model, again, late=machine.streamed), dry:
            for _ in range(2):
                began = time.perf_counter()
                masks = Dropout(run.dropout, run.seed, 1) if run.dropout else None
                with torch.autocast(machine.device, torch.bfloat16, enabled=machine.precision == "bf16"):
                    losses = model.loss_sum(model.arrange(batch, machine.device), dropout=masks, z_loss=run.z_loss)
                (losses.total / model.labels(batch)).backward()
                if cuda:
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - began
        return peak.bytes, seconds
    except (torch.OutOfMemoryError, MemoryError):
        return sys.maxsize, 0.0
    except RuntimeError as error:  # how torch says it of a CPU
        if "allocate memory" not in str(error):
            raise
        return sys.maxsize, 0.0
    finally:
        for weight in model.parameters():
            weight.grad = None


def full(run: TrainRun, rows: int) -> Batch:
    """Rows of one pair each that leave no place empty."""
    random = np.random.default_rng(0)
    sides = []
    for length in (run.source_length, run.target_length):
        ids_BL = random.integers(3, run.shape.table_rows, (rows, length)).astype(np.int32)
        ids_BL[:, -1] = EOS
        sides += [ids_BL, np.ones_like(ids_BL), np.tile(np.arange(length, dtype=np.int32), (rows, 1))]
    return Batch(*sides)


class _Peak:
    """The most bytes that the process, or its GPU, held while this holds."""

    bytes = 0

    def __init__(self, device: str):
        self.cuda, self.reset = device == "cuda", False

    def __enter__(self) -> _Peak:
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return self
        release()
        with suppress(OSError):  # only Linux lets the high-water mark begin anew
            Path("/proc/self/clear_refs").write_text("5")
            self.reset = True
        return self

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.bytes = torch.cuda.max_memory_reserved()
        elif self.reset:
            (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
            self.bytes = int(line.split()[1]) * 1024
        else:  # of the whole life of the process: no less
            unit = 1 if sys.platform == "darwin" else 1024
            self.bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _taken(device: str) -> int:
    return torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss


def _room(device: str) -> int:
    """Bytes that this process may come to: what it has and what is free, or its share of a container's limit."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(_taken(device) + psutil.virtual_memory().available // here, *(limit // here for limit in _limits()))


def _limits() -> Iterator[int]:
    yield sys.maxsize
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text()
    except OSError:
        return
    if text.strip().isdecimal():
        yield int(text)


def _bytes(tensor: torch.Tensor) -> int:
    local = getattr(tensor, "_local_tensor", tensor)  # a DTensor's part that is here
    return local.nbytes


def _read(path: Path) -> dict[str, Any] | None:
    """A choice that was made, or None: nothing depends on the file but that a run goes on as it began."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        made = Choice(**found)
        good = isinstance(made.recompute, bool) and isinstance(made.micro_batch, int) and made.micro_batch >= 1
        return found if good else None
    except (OSError, ValueError, TypeError):
        return None


def gb(n: int) -> str:
    """
    >>> gb(1_840_000_000)
    '1.84 GB'
    """
    return f"{n / 1e9:.2f} GB"
