"""train memory: what a training step takes of each GPU, by arithmetic, before any of them is there."""

from __future__ import annotations

import argparse
import json
from typing import Any

from t5study.ground.errors import UserError


def memory(args: argparse.Namespace) -> None:
    found = [facts(args, gpus) for gpus in args.gpus]
    print(json.dumps(found, indent=1) if args.json else text(args, found))


def facts(args: argparse.Namespace, gpus: int) -> dict[str, Any]:
    """One line of the table. UserError for an unknown size or architecture, and for shards or slices that do not
    divide."""
    from t5study.model import scale, shapes

    shape = shapes.shape_of(args.architecture, shapes.size(args.size))
    if args.tensor and (args.shard or args.whole):
        raise UserError(
            f"command line: found --tensor with --{'shard' if args.shard else 'whole'}; leave one of them out"
        )
    shard = 0 if args.whole or args.tensor or gpus == 1 else min(args.shard or gpus, gpus)
    layout = scale.Layout(
        gpus,
        shard,
        args.micro_batch,
        args.passes,
        args.source_length,
        args.target_length,
        args.recompute,
        args.optimizer,
        kept=2 if args.weights == "bf16" else 4,
        streamed=args.update_in_backward,
        tensor=args.tensor or 0,
    )
    hardware = scale.Hardware(peak=args.peak_tflops * 1e12, utilisation=args.utilisation)
    found = scale.plan(shape, args.architecture, layout, hardware)
    return {
        "gpus": gpus,
        "shard": shard,
        "tensor": layout.tensor,
        "memory": {**vars(found.memory), "total": found.memory.total},
        "fits": found.memory.total <= args.device_memory * 1e9,
        "traffic": dict(vars(found.traffic)),
        "seconds": {"products": found.compute, "traffic": found.talk},
        "tokens_per_second": {"overlapped": found.overlapped, "in_turn": found.in_turn},
    }


def text(args: argparse.Namespace, found: list[dict[str, Any]]) -> str:
    """The same for people: GB of a GPU, and tokens a second of all together."""
    names = ("weights", "gradients", "state", "together", "copies", "activations", "total")
    who = f"group of {args.tensor}" if args.tensor else "GPU"
    cut = "tensor" if args.tensor else "shard"
    rows = [["GPUs", cut, *names, "fits", "moved", "tokens/s"]]
    for each in found:
        low, high = each["tokens_per_second"]["in_turn"], each["tokens_per_second"]["overlapped"]
        rows.append(
            [
                f"{each['gpus']:,}",
                f"{each[cut] or '-'}",
                *(f"{each['memory'][name] / 1e9:,.2f}" for name in names),
                "yes" if each["fits"] else "no",
                f"{sum(each['traffic'].values()) / 1e9:,.2f}",
                f"{low:,.0f} to {high:,.0f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(
        [
            f"{args.size}, {args.architecture}, {args.optimizer}, {args.micro_batch} rows of {args.source_length} and "
            f"{args.target_length} tokens a pass on each {who}; GB of one GPU",
            "",
            *table,
            "",
            f"fits: in {args.device_memory:g} GB. tokens/s: assumed, at {args.utilisation:g} of {args.peak_tflops:g} "
            "TFLOP/s, traffic after products to traffic behind them",
        ]
    )
