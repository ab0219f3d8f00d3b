"""The commands data get and data list: benchmarks into the folder that `--data` reads."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def get(args: argparse.Namespace) -> None:
    """data get: fetches benchmarks from the hub, or checks those that are there."""
    from t5study.ground.errors import UserError
    from t5study.tasks import hub

    if args.pins and len(args.name) > 1:
        raise UserError(f"--pins: found {len(args.name)} benchmarks; a pin file is of one")
    if args.pins and args.revision:
        raise UserError("--pins: found beside --revision; the pins say which revision it is")
    endpoint = (args.endpoint or os.environ.get("HF_ENDPOINT") or hub.ENDPOINT).rstrip("/")
    for benchmark in hub.named(args.name):
        lock = hub.get(
            benchmark,
            args.data,
            args.cache or hub.cache_folder(),
            revision=args.revision,
            pins=args.pins,
            offline=args.offline,
            endpoint=endpoint,
            tell=_tell,
        )
        size = sum(one.bytes for one in lock.files)
        print(f"{args.data / benchmark.folder}: {len(lock.files)} files, {size:,} bytes, commit {lock.commit[:12]}")
        print(f"  every digest is as {args.data / benchmark.folder / hub.LOCK} has it; it serves elsewhere as --pins")


def list_all(args: argparse.Namespace) -> None:
    """data list: what can be fetched, and what lies in a folder."""
    from t5study.tasks import hub

    for one in hub.BENCHMARKS.values():
        there = ""
        if args.data:
            there = _there(args.data / one.folder, hub.LOCK)
        print(f"{one.name:10} {one.repository:47} {one.folder:28} {one.tasks}{there}")


def _there(folder: Path, lock: str) -> str:
    if (folder / lock).exists():
        return "  (there)"
    return "  (there, not by `data get`)" if folder.is_dir() and any(folder.iterdir()) else ""


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
