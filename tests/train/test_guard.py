"""Bad steps: what counts as one, what becomes of it, and that a run that was interrupted decides the same again."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import RUN, Watched, evaluate, make, outcome

from t5study.ground.errors import Stopped, UserError
from t5study.ground.journal import read_journal
from t5study.ground.machine import Machine
from t5study.train import loop
from t5study.train.guard import IN_A_ROW, Guard, Judge, Rewind
from t5study.train.step import Taken
from t5study.train.tuning import GradualUnfreezing

SHORT = replace(RUN, steps=12, save_every=5, evaluate_every=1)
SKIP, REWIND = Guard("skip"), Guard("rewind", back=5)


def taken(loss: float, grad_norm: float = 1.0) -> Taken:
    return Taken(loss, 0.0, 10, 5, grad_norm)


# --- what is a bad step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_bad_whatever_was_before(value: float):
    assert Guard().found(taken(value), []) == f"a loss of {value}"
    assert Guard().found(taken(4.0, value), []) == f"a gradient of norm {value}"
    assert Guard().found(taken(1e30), [4.0] * 50) is None


def losses(seed: int, steps: int = 5_000) -> list[float]:
    """A loss that falls as pre-training's does, with noise whose tails are heavier than a normal distribution's."""
    chance = np.random.default_rng(seed)
    return list(2.0 + 7.0 * np.exp(-np.arange(steps) / 600) + 0.15 * chance.standard_t(6, steps))


def test_spikes_are_found_and_clean_steps_are_not():
    guard, draw = Guard("skip", spike=10), np.random.default_rng(1)
    for seed in range(3):
        clean = losses(seed)
        judge, false = Judge(guard), 0
        for step, loss in enumerate(clean, 1):
            false += guard.found(taken(loss), judge.losses) is not None
            judge.saw({"step": step, "loss": loss})
        assert false <= 1
        for at in draw.integers(100, len(clean), 20):
            assert guard.found(taken(1e9), clean[:at]) is not None
            assert guard.found(taken(clean[at - 1] + 8.0), clean[:at]) is not None


def test_few_losses_or_equal_ones_make_no_spike():
    guard = Guard("skip", spike=10)
    assert guard.found(taken(1e9), [4.0] * 19) is None
    assert guard.found(taken(4.3), [4.0] * 20) is None
    assert guard.found(taken(4.5), [4.0] * 20) is not None
    assert Guard("skip").found(taken(1e9), [4.0] * 100) is None


@pytest.mark.parametrize(
    "wrong", [{"action": "hope"}, {"spike": 0.5}, {"spike": math.nan}, {"action": "rewind"}, {"back": 5}]
)
def test_guards_that_make_no_sense_are_refused(wrong: dict[str, Any]):
    with pytest.raises(UserError, match="give"):
        Guard(**wrong)


def test_skipping_and_unfreezing_do_not_go_together():
    with pytest.raises(UserError, match="guard: found skip with gradual unfreezing"):
        replace(RUN, guard=SKIP, tuning=GradualUnfreezing(2))


# --- the rule alone -----------------------------------------------------------------------------------------------


def bad(step: int) -> dict[str, Any]:
    return {"step": step, "skipped": {}}


def test_five_bad_steps_in_a_row_always_stop(capsys: pytest.CaptureFixture[str]):
    judge = Judge(SKIP, [{"step": 1, "loss": 4.0}])
    for step in range(2, 6):
        judge.decide(step, "a loss of nan", "a.b", (10, 20))
        judge.saw(bad(step))
    assert "step 2: found a loss of nan (first in a.b) in examples 10 to 19; left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="step 6: .*; 5 such steps in a row; no weight has moved"):
        judge.decide(6, "a loss of nan", None, (10, 20))
    rows = [{"step": 1, "loss": 4.0}, *map(bad, range(2, 6))]
    with pytest.raises(UserError, match="5 such steps"):  # a process that reads the journal knows the same
        Judge(SKIP, rows).decide(6, "a loss of nan", None, (10, 20))
    assert Judge(SKIP, [*rows, {"step": 6, "loss": 4.0}]).decide(7, "a loss of nan", None, (10, 20))["step"] == 7


def test_rewinds_to_one_checkpoint_are_counted_and_remembered():
    judge, rows = Judge(REWIND, [{"step": i, "loss": 4.0} for i in range(1, 7)]), []
    for i in range(IN_A_ROW - 1):
        with pytest.raises(Rewind) as back:
            judge.decide(7, "a loss of nan", None, (10 * i, 10 * i + 10))
        assert (back.value.step, back.value.position) == (5, 10 * i + 10)
        cut = Judge(REWIND, [{"step": i, "loss": 4.0} for i in range(1, 6)])
        judge = Judge.recalled(REWIND, json.loads(json.dumps(cut.memory))).after(judge, 5)
    with pytest.raises(UserError, match="5 such steps"):
        judge.decide(6, "a loss of nan", None, (90, 99))
    rows = [{"step": i, "loss": 4.0} for i in range(1, 6)] + [{"step": 6, "loss": 4.0, "rewound": judge.rewound[5]}]
    with pytest.raises(UserError, match="5 such steps"):
        Judge(REWIND, rows).decide(7, "a loss of nan", None, (90, 99))


def test_without_one_good_step_there_is_nothing_to_go_on_with():
    for guard in (SKIP, REWIND):
        with pytest.raises(UserError, match="no step before it was good"):
            Judge(guard).decide(1, "a loss of nan", None, (0, 9))


# --- in a run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Makes the loss of the batches of these numbers (from 1) not finite, in whichever step they come."""

    def do(*numbers: int) -> list[int]:
        stream, positions, marked = make(SHORT)[1], [0], set()
        for number in range(1, max(numbers) + 3):
            batch, position = stream.batch(positions[-1])
            positions.append(position)
            if number in numbers:
                marked.add(batch.source_BS.tobytes())

        def gradients(model: Any, weights: Any, batch: Any, *args: Any, **kwargs: Any) -> Taken:
            found = original(model, weights, batch, *args, **kwargs)
            return replace(found, loss=math.nan) if batch.source_BS.tobytes() in marked else found

        monkeypatch.setattr(loop, "gradients", gradients)
        return positions

    original = loop.gradients
    return do


def run_with(folder: Path, guard: Guard, at: dict[int, Any] | None = None) -> dict[str, Any]:
    model, stream = make(SHORT)
    run = replace(SHORT, guard=guard)
    return loop.train(run, model, stream, folder, Machine(), evaluate=evaluate, progress=Watched(at))


def die() -> None:
    raise RuntimeError("as if killed")


def test_a_bad_step_stops_and_names_its_examples(poison: Callable[..., list[int]], tmp_path: Path):
    p = poison(7)
    with pytest.raises(UserError, match=f"step 7: found a loss of nan in examples {p[6]} to {p[7] - 1}; no weight"):
        run_with(tmp_path, Guard())


def test_a_skipped_step_moves_nothing_and_an_interrupted_run_ends_the_same(
    poison: Callable[..., list[int]], tmp_path: Path
):
    p = poison(3, 7, 8)
    summary = run_with(tmp_path / "unbroken", SKIP)
    rows = read_journal(tmp_path / "unbroken" / "journal.jsonl")
    sums = [row["sum"] for row in read_journal(tmp_path / "unbroken" / "evaluations.jsonl")]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows if "loss" not in row] == [3, 7, 8]
    assert rows[6]["skipped"] == {"step": 7, "found": "a loss of nan", "weight": None, "examples": p[6:8]}
    assert [i + 1 for i in range(1, 12) if sums[i] == sums[i - 1]] == [3, 7, 8]
    assert summary["skipped"] == 3
    assert math.isfinite(summary["last_loss"])
    with pytest.raises(RuntimeError):
        run_with(tmp_path / "broken", SKIP, {7: die})
    with pytest.raises(Stopped):
        run_with(tmp_path / "broken", SKIP, {8: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    run_with(tmp_path / "broken", SKIP)
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")


class Without:
    """A stream that leaves some batches out, by number."""

    def __init__(self, stream: Any, left_out: range):
        self.stream, self.left_out, self.shares = stream, left_out, stream.shares

    def taken(self, position: int) -> dict[str, int]:
        return {}

    def prefetch(self, position: int) -> Any:
        number = 0
        while True:
            number, (batch, position) = number + 1, self.stream.batch(position)
            if number not in self.left_out:
                yield batch, position


@pytest.mark.parametrize(("number", "back_to"), [(7, 5), (4, 0)])
def test_a_rewound_run_is_one_that_never_saw_those_examples(
    poison: Callable[..., list[int]], tmp_path: Path, number: int, back_to: int
):
    p = poison(number)
    run_with(tmp_path / "unbroken", REWIND)
    rows = read_journal(tmp_path / "unbroken" / "journal.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 13))
    note = {"step": number, "found": "a loss of nan", "weight": None, "examples": p[number - 1 : number + 1]}
    assert [row["step"] for row in rows if "rewound" in row] == [back_to + 1]
    assert rows[back_to]["rewound"] == [note]
    model, stream = make(SHORT)
    without = Without(stream, range(back_to + 1, number + 1))
    loop.train(SHORT, model, without, tmp_path / "without", Machine(), evaluate=evaluate, progress=Watched())  # type: ignore[arg-type]
    for name in ("evaluations.jsonl", "checkpoints/step-000012/model.safetensors"):
        assert (tmp_path / "without" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    for at in (number - 1, back_to + 1, back_to + 2, 11):
        with pytest.raises(RuntimeError):
            run_with(tmp_path / "broken", REWIND, {at: die})
        with pytest.raises(Stopped):
            run_with(tmp_path / "broken", REWIND, {at: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    run_with(tmp_path / "broken", REWIND)
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")
