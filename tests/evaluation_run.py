"""Real evaluations for tests that kill them: processes forked from one that has imported torch and run nothing.

    python tests/evaluation_run.py MODEL TASK OUT [BATCHES [torn]]

Runs `t5study evaluate` in a child and prints a line of JSON: how the child ended and how many batches it made. With
BATCHES the child kills itself with SIGKILL when it has made so many; `torn`: in the middle of writing the last.
Further runs follow from standard input, a JSON list of such arguments a line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch  # noqa: F401  imported before forking, once for all

from t5study.__main__ import main
from t5study.evaluate import parts


def _child(arguments: list[str], made: int) -> int:
    """Runs in the child. made: a descriptor that gets a byte a batch."""
    model, task, out, *how = arguments
    left = int(how[0]) if how else -1
    real = parts.Parts.get

    def get(self: parts.Parts, key: str, make: Callable[[], Any], rows: int = 0) -> Any:
        nonlocal left
        kept, value = key in self.found, real(self, key, make, rows)
        if kept:
            return value
        os.write(made, b".")
        left -= 1
        if left == 0:
            if "torn" in how:
                assert self.path is not None
                os.truncate(self.path, self.path.stat().st_size - 5)
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    parts.Parts.get = get
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdin = open(os.devnull)
    asked = ["evaluate", "--checkpoint", model, "--task", task, "--out", out, "--batch-rows", "4", "--threads", "1"]
    return main(asked)


def run(arguments: list[str]) -> dict[str, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(_child(arguments, writing))
    os.close(writing)
    made = 0
    while read := os.read(reading, 4096):
        made += len(read)
    os.close(reading)
    return {"ended": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "batches": made}


def prepare(folder: Path) -> tuple[Path, Path]:
    """A tiny model of bytes and a task of 30 rows of all lengths."""
    from little_models import SHAPES, talkative

    from t5study.model.released import save_released

    save_released(talkative(SHAPES["v1.0"], 0), folder / "model", None)
    lines, row = ['{"metric": "squad"}'], {}
    for i in range(30):
        row = {"input": f"say: {'a cup ' * (i % 9 + 1)}{i}", "target": f"cup {i}", "split": "validation"}
        lines.append(json.dumps(row))
    lines.append(json.dumps({**row, "input": "say: nothing", "split": "train"}))
    (folder / "toy.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "model", folder / "toy.jsonl"


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1:])), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
