"""Reshard: the folder of a run again, its checkpoints in a file for each of another number of ranks.

What was in one file, or in one for each of two ranks, comes to lie in one for each of four, or in one: the same run,
that goes on from there on any number of ranks as it would have where it lay. The folder it lay in is only read.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from t5study.ground.errors import UserError
from t5study.ground.store import MANIFEST, read_json, whole_folder, write_manifest
from t5study.train import checkpoint
from t5study.train.folder import CHECKPOINTS, LOCK, alone, run_of, step_folder, steps
from t5study.train.room import require_room, told_if_full


def reshard(folder: Path, out: Path, ranks: int) -> list[int]:
    """Writes OUT, whole or not at all. Returns the steps of its checkpoints, the newest first.

    A damaged checkpoint is told on stderr and stays behind. UserError if none is good, one is another run's or too new,
    a process is training there, or OUT is there already; NoRoom for a full disk.
    """
    run, needed = run_of(folder), sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out}: lies in the run's own folder; choose one beside it")
    done = []
    with alone(folder), told_if_full(out, needed, "then run the same command again"), whole_folder(out) as work:
        require_room(work, needed)
        ignored = shutil.ignore_patterns(LOCK, CHECKPOINTS)
        shutil.copytree(folder, work, ignore=ignored, dirs_exist_ok=True)
        for step in steps(folder):
            try:
                found = checkpoint.read(folder, step)
            except checkpoint.Damaged as error:
                print(f"t5study: warning: {error}; left behind", file=sys.stderr)
                continue
            if found.run != run.get("fingerprint"):
                raise UserError(f"{step_folder(folder, step)}: belongs to another run than run.json says; delete it")
            path = step_folder(work, step)
            path.mkdir(parents=True)
            checkpoint.write(path, found, ranks)
            write_manifest(path, step=step)
            checkpoint.seal(path / MANIFEST, value=read_json(step_folder(folder, step) / MANIFEST)["value"])
            done.append(step)
        if not done:
            raise UserError(f"{folder}: has no good checkpoint; see `t5study checkpoint verify`")
    return done
