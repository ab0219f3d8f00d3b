"""model describe: what a size takes, before anything is made."""

from __future__ import annotations

import argparse
import json
from typing import Any


def describe(args: argparse.Namespace) -> None:
    found = facts(args.name, args.architecture, args.adapter, args.source_length, args.target_length)
    print(json.dumps(found, indent=1) if args.json else text(found))


def facts(name: str, architecture: str, adapter: int, source: int, target: int) -> dict[str, Any]:
    """All of it by arithmetic. UserError for an unknown size or architecture, and for one that cannot have it."""
    from dataclasses import asdict, replace

    from t5study.model import footprint, shapes

    shape = replace(shapes.shape_of(architecture, shapes.size(name)), adapter=adapter)
    parts, costs = shapes.parts(shape, architecture), shapes.costs(shape, architecture, source, target)
    return {
        "size": name,
        "architecture": architecture,
        "shape": asdict(shape),
        "parameters": {"total": sum(parts.values()), **parts, "tuned": footprint.trainable(shape, architecture)},
        "pair": {"source": source, "target": target},
        "flops": {"total": sum(costs.values()), **costs},
        "inference_bytes": footprint.inference(shape, architecture),
        "cache_numbers": footprint.cache(shape, architecture, source, target),
        "training_bytes": [
            {"way": way.name, "bytes": size, "here": way.here} for way, size in footprint.training(shape, architecture)
        ],
    }


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    shape, pair, parameters = found["shape"], found["pair"], dict(found["parameters"])
    layers = (
        f"{shape['encoder_layers']} + {shape['decoder_layers']}" if shape["encoder_layers"] else shape["decoder_layers"]
    )
    tuned, total = parameters.pop("tuned"), parameters.pop("total")
    flops = dict(found["flops"])
    lines = [
        f"{found['size']}, {found['architecture']}: {layers} layers, d_model {shape['d_model']:,}, d_ff "
        f"{shape['d_ff']:,}, {shape['heads']} heads of {shape['d_kv']}, {shape['activation']}, a table of "
        f"{shape['table_rows']:,} rows{' for both ends' if shape['tied'] else ' and a head'}"
        + (f", adapters of {shape['adapter']:,}" if shape["adapter"] else ""),
        "",
        *_rows("parameters", total, parameters, _count),
        *([f"  {'that fine-tuning moves':<76}{_count(tuned):>16}"] if shape["adapter"] else []),
        "",
        *_rows(
            f"FLOPs to train on a pair of {pair['source']:,} and {pair['target']:,} tokens",
            flops.pop("total"),
            flops,
            _flops,
        ),
        "",
        "bytes of the weights to answer with",
        *(f"  {name:<76}{_bytes(size):>16}" for name, size in found["inference_bytes"].items()),
        f"  {'and, of each answer in the making, keys and values in float32':<76}"
        f"{_bytes(4 * found['cache_numbers']):>16}",
        "",
        "bytes to fine-tune with: weights, gradients, the optimiser's state (* t5study trains so)",
        *(f"  {each['way'] + ' *' * each['here']:<76}{_bytes(each['bytes']):>16}" for each in found["training_bytes"]),
        "",
        "activations come on top: they grow with the batch",
    ]
    return "\n".join(lines)


def _rows(title: str, total: int, parts: dict[str, int], told: Any) -> list[str]:
    return [f"{title:<78}{told(total):>16}", *(f"  {name:<76}{told(n):>16}" for name, n in parts.items() if n)]


def _count(n: int) -> str:
    return f"{n:,}"


def _flops(n: int) -> str:
    return f"{n / 1e12:,.3f} TFLOP"


def _bytes(n: int) -> str:
    return f"{n / 1e9:,.2f} GB"
