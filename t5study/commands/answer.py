"""The command answer: prompts from the command line, a file or standard input -> answers on standard output."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from t5study.ground.errors import UserError

EVERY = 5.0  # seconds between lines of progress; shorter work gets none


def answer(args: argparse.Namespace) -> None:
    from t5study import answer as room
    from t5study.ground.machine import here, use

    machine = here(device=args.device, threads=args.threads)
    use(machine)
    names = ("beams", "alpha", "temperature", "top_k", "top_p", "seed")
    method = room.method_of(**{name: getattr(args, name) for name in names})
    settings = room.Settings(args.max_length, method, args.average, args.batch_rows)
    with ExitStack() as stack:
        prompts, at_once = _prompts(args, stack)
        model = room.load(
            [args.checkpoint, *args.ensemble],
            vocab=args.vocab,
            device=machine.device,
            precision=args.precision,
            backend=args.backend,
            threads=machine.threads,
        )
        told, done = time.monotonic(), 0
        began = told
        for done, one in enumerate(model.stream(prompts, settings, at_once), start=1):
            if args.json:
                print(json.dumps({"input": one.input, "answer": one.answer, "score": one.score}, ensure_ascii=False))
            else:
                print(" ".join(one.answer.splitlines()))
            if at_once == 1:
                sys.stdout.flush()
            if (now := time.monotonic()) - told > EVERY:
                sys.stdout.flush()
                print(f"answered {done:,} prompts, {done / (now - began):,.1f} a second", file=sys.stderr, flush=True)
                told = now


def _prompts(args: argparse.Namespace, stack: ExitStack) -> tuple[Iterator[str], int]:
    """The prompts, and how many are held at a time: one, where somebody types them and waits."""
    from t5study.answer import AT_ONCE, open_prompts, prompts_in

    parts: list[Iterator[str]] = [iter(args.prompt)]
    at_once = AT_ONCE
    files: list[Path] = args.file or ([] if args.prompt else [Path("-")])
    for place in files:
        if str(place) != "-":
            parts.append(prompts_in(stack.enter_context(open_prompts(place)), str(place), place.suffix == ".jsonl"))
            continue
        if sys.stdin is None or sys.stdin.closed:
            raise UserError("command line: found no prompt, and standard input is closed; give a prompt")
        at_once = 1 if sys.stdin.isatty() else at_once
        parts.append(prompts_in(sys.stdin, "standard input", False))
    return chain.from_iterable(parts), at_once
