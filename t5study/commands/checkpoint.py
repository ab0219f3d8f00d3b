"""The commands about a run from outside: checkpoint verify and reshard, train watch."""

from __future__ import annotations

import argparse
from contextlib import closing

from t5study.ground.errors import UserError


def verify(args: argparse.Namespace) -> None:
    """Every checkpoint of a run, a line each; UserError if one is damaged."""
    from t5study.train import checkpoint
    from t5study.train.folder import not_readable, run_of, step_folder, steps

    folder = args.folder
    run = run_of(folder)
    good, damaged = [], []
    for step in steps(folder):
        path = step_folder(folder, step)
        try:
            found = checkpoint.verify(folder, step)
        except checkpoint.Damaged as error:
            if path.exists():  # a run that is under way may have removed it just now
                print(f"{path}: damaged: {error}")
                damaged.append(step)
            continue
        except PermissionError as error:
            raise not_readable(error) from None
        if found.run != run.get("fingerprint"):
            raise UserError(f"{path}: belongs to another run than run.json says; delete it or restore a copy")
        cut = f" in {found.parts} parts" if found.parts > 1 else ""
        print(f"{path}: good, {found.bytes / 1e6:,.2f} MB{cut}, {found.position:,} examples taken")
        good.append(step)
    if damaged:
        on = f"the run would go on from step {good[0]:,}" if good else "none is good; restore a copy or start over"
        raise UserError(f"{folder}: {len(damaged)} of {len(good) + len(damaged)} checkpoints damaged; {on}")
    if not good:
        raise UserError(f"{folder}: has no checkpoint yet; the first comes after --save-every steps")


def reshard(args: argparse.Namespace) -> None:
    """A run's folder again, its checkpoints cut for so many ranks."""
    from t5study.train.folder import step_folder
    from t5study.train.reshard import reshard

    cut = f"in {args.ranks} parts" if args.ranks > 1 else "whole"
    for step in reshard(args.folder, args.out, args.ranks):
        print(f"{step_folder(args.out, step)}: {cut}")


def watch(args: argparse.Namespace) -> None:
    if args.page:
        from t5study.train.page import write_page

        print(write_page(args.folder))
        return
    from t5study.train.watch import watch

    if args.tensorboard:
        from t5study.train.board import Board

        with closing(Board(args.folder)) as board:
            watch(args.folder, once=args.once, also=board.update)
    else:
        watch(args.folder, once=args.once)
