"""Objectives: examples a second of one thread, every one of them, beside nanoT5's collator in the same run.

    NANOT5=path/to/its/checkout python bench/objectives.py

Inputs of 512 tokens, batches of 256 examples, drawn text; the clock is the thread's processor time, since cores may
be shared. Contenders take turns, and each row is the median of its turns. Without NANOT5 the peer is left out, which
is said. Exits with 1 if span corruption is under 40 times the peer, or an objective under a third of span corruption.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from t5study.ground.machine import describe
from t5study.ground.pairs import Ids
from t5study.ground.seeds import keys
from t5study.objectives import (
    BertStyle,
    CausalLM,
    Deshuffle,
    DropTokens,
    MassStyle,
    Objective,
    PrefixLM,
    ReplaceSpans,
    SpanCorruption,
)

INPUT_LENGTH, EXAMPLES, TURNS = 512, 256, 15
IDS = Ids(size=32_100)
PEER, OURS = "nanoT5's collator", "span corruption"


def ours(objective: Objective) -> Callable[[], int]:
    """Makes one batch, its noise keys included; another one at every call."""
    lengths = objective.lengths(INPUT_LENGTH)
    shape = EXAMPLES, lengths.raw
    raw_BL = np.random.default_rng(0).integers(3, IDS.pieces, shape, dtype=np.int32)
    length_B, index_B = np.full(EXAMPLES, lengths.raw, np.int32), np.arange(EXAMPLES)

    def batch() -> int:
        index_B[:] += EXAMPLES
        return len(objective.pairs(raw_BL, length_B, keys(0, "noise", index_B), IDS, lengths))

    return batch


def peer(checkout: Path) -> Callable[[], int]:
    """nanoT5's collator on the same raw tokens at the same lengths."""
    path = checkout / "nanoT5" / "utils" / "copied_utils.py"
    spec = importlib.util.spec_from_file_location("nanot5_copied_utils", path)
    if not path.is_file() or spec is None or spec.loader is None:
        sys.exit(f"NANOT5: found no {path}; give the path of a checkout")
    module = importlib.util.module_from_spec(spec)
    # It counts on names that older releases of transformers passed on by `import *`.
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase
    from transformers.utils import PaddingStrategy

    names = {"PreTrainedTokenizerBase": PreTrainedTokenizerBase, "PaddingStrategy": PaddingStrategy}
    vars(module).update({name: getattr(typing, name) for name in ("Any", "Optional", "Union")}, **names)
    sys.modules[spec.name] = module  # where `dataclass` looks
    spec.loader.exec_module(module)
    raw, targets = module.compute_input_and_target_lengths(INPUT_LENGTH, 0.15, 3.0)

    class Tokenizer(SimpleNamespace):
        def __len__(self) -> int:
            return IDS.size

    collator = module.DataCollatorForT5MLM(Tokenizer(eos_token_id=1), 0.15, 3.0, INPUT_LENGTH, targets, 0)
    raw_BL = np.random.default_rng(0).integers(3, IDS.pieces, (EXAMPLES, raw))
    examples = [{"input_ids": row} for row in raw_BL]
    return lambda: len(collator(examples)["input_ids"])


def measured(contenders: dict[str, Callable[[], int]], seconds: float = 0.05) -> dict[str, list[float]]:
    """Examples a second in every turn; a turn repeats a contender for about `seconds`."""
    calls = {}
    for name, batch in contenders.items():
        batch()  # compiles, or loads what was compiled
        start = time.thread_time()
        batch()
        calls[name] = max(1, round(seconds / (time.thread_time() - start)))
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, batch in contenders.items():
            start = time.thread_time()
            examples = sum(batch() for _ in range(calls[name]))
            speeds[name].append(examples / (time.thread_time() - start))
    return speeds


def main() -> int:
    print(f"{describe()}; one thread; inputs of {INPUT_LENGTH}, batches of {EXAMPLES}; median of {TURNS} turns")
    contenders: dict[str, Callable[[], int]] = {}
    if checkout := os.environ.get("NANOT5"):
        contenders[PEER] = peer(Path(checkout))
    else:
        print(f"{PEER}: SKIPPED, NANOT5 is not set to a checkout of it")
    contenders[OURS] = ours(SpanCorruption())
    for objective in (ReplaceSpans(), BertStyle(), MassStyle(), DropTokens(), PrefixLM(), CausalLM(), Deshuffle()):
        contenders[objective.label] = ours(objective)
    for rate in (0.10, 0.25, 0.50):
        contenders[ReplaceSpans(rate).label] = ours(ReplaceSpans(rate))
    for mean_span in (2, 5, 10):
        contenders[SpanCorruption(mean_span=mean_span).label] = ours(SpanCorruption(mean_span=mean_span))
    contenders[SpanCorruption(rate=0.5).label] = ours(SpanCorruption(rate=0.5))

    speeds = measured(contenders)
    median = {name: statistics.median(turns) for name, turns in speeds.items()}
    failed = False
    for name, speed in median.items():
        spread = f"{min(speeds[name]):,.0f} to {max(speeds[name]):,.0f}"
        of_peer = f"{speed / median[PEER]:7.1f} x peer" if PEER in median else ""
        of_ours = speed / median[OURS]
        slow = name != PEER and of_ours < 1 / 3
        failed |= slow
        print(
            f"{name:38} {speed:11,.0f} examples/s {of_peer} {of_ours:6.2f} x {OURS}{'  TOO SLOW' * slow}   ({spread})"
        )
    if PEER in median:
        failed |= (ratio := median[OURS] / median[PEER]) < 40
        print(f"{OURS} is {ratio:.1f} times {PEER}; 40 are asked for")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
