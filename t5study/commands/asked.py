"""What several commands are asked for: the machine, the tasks, the flags that must be there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t5study.ground.errors import UserError

if TYPE_CHECKING:
    from t5study.ground.machine import Machine
    from t5study.tasks.task import Task

ALL = "all"  # as a word of --task: the seven benchmarks


def machine_of(args: argparse.Namespace) -> Machine:
    """The machine asked for, set up. UserError if it is not this one."""
    from t5study.ground.machine import AUTO, here, rank_here, use

    rows, micro = getattr(args, "rows", None), getattr(args, "micro_batch", None)
    world = rank_here()[1] if hasattr(args, "save_every") else 1  # what else is started by torchrun is not shared out
    shard, tensor = getattr(args, "shard", None), getattr(args, "tensor", None)
    if tensor and shard is not None:
        raise UserError("command line: found --tensor with --shard; leave one of them out")
    for flag, among in (("tensor", tensor), ("shard", shard)):
        if among and world % among:
            raise UserError(
                f"command line: found --{flag} {among} with {world} rank{'s' * (world > 1)}; start as many by "
                "torchrun, or a multiple"
            )
    if shard == 0 and "WORLD_SIZE" not in os.environ:  # a single rank of torchrun's has all there is
        raise UserError("command line: found --shard with 1 rank; start several by torchrun, or leave it out")
    groups = world // (tensor or 1)  # that share out the rows
    who = f"{groups} groups of {tensor} ranks" if tensor else f"{world} ranks"
    if rows and rows % groups:
        raise UserError(
            f"command line: found --rows {rows} with {who}; give rows that {groups} divides, or other ranks"
        )
    if rows and micro and (rows // groups) % micro:
        ranks = f" and {who}" if groups > 1 else ""
        raise UserError(
            f"command line: found --rows {rows} with --micro-batch {micro}{ranks}; give a micro-batch that divides the "
            f"rows{' of a ' + ('group' if tensor else 'rank') if ranks else ''}"
        )
    if getattr(args, "memory", None) and micro != AUTO:
        raise UserError("command line: found --memory without --micro-batch auto, which it is for; give both")
    machine = here(
        device=args.device,
        threads=args.threads,
        precision=args.precision,
        micro_batch=micro,
        shard=0 if world == 1 else world if shard == 0 else shard,
        tensor=tensor,
        recompute=getattr(args, "recompute", None),
        streamed=getattr(args, "update_in_backward", None),
        peak_tflops=getattr(args, "peak_tflops", None),
        memory=getattr(args, "memory", None),
    )
    use(machine)
    return machine


def needs(args: argparse.Namespace, *names: str) -> None:
    """UserError for the first of these flags that was not given."""
    for name in names:
        if not getattr(args, name):
            put = ", or put it into --config" if hasattr(args, "config") else ""
            raise UserError(f"command line: --{name.replace('_', '-')} is missing; give it{put}")


def tasks_of(args: argparse.Namespace) -> Sequence[Task]:
    """The tasks named, each under a name of its own, from the folder of --data where the command has that."""
    from t5study.tasks.addresses import find

    data = getattr(args, "data", None)
    tasks = [
        find(address, metric=args.metric, data=data)
        for address in addresses_of(args.task, getattr(args, "split", None))
    ]
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"command line: --task: found two tasks named {name}; rename one of the files")
    return tasks


def words_of(task: Sequence[str]) -> list[str]:
    """--task's words, each once: commas may stand between several, but a file keeps those of its name."""
    found = [one for word in task for one in ([word] if Path(word).is_file() else map(str.strip, word.split(",")))]
    if not any(found):
        raise UserError("command line: --task: found no task; give addresses, files or benchmarks")
    return list(dict.fromkeys(filter(None, found)))


def addresses_of(task: Sequence[str], split: str | None = None) -> list[str]:
    """--task's words as addresses: a benchmark's name stands for the tasks that its average is over, of the "test"
    split for all that its site asks for; "all" for all benchmarks."""
    from t5study.tasks.benchmarks import BENCHMARKS

    benchmarks = {name: one.tasks for name, one in BENCHMARKS.items()}
    if split == "test":
        from t5study.evaluate.submission import SITES

        benchmarks |= {name: site.tasks for name, site in SITES.items()}
    words = [one for word in words_of(task) for one in (BENCHMARKS if word == ALL else (word,))]
    return list(dict.fromkeys(address for word in words for address in benchmarks.get(word, (word,))))
