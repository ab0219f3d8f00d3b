"""The training loop: a run as a value, and `train()`, which ends in the same bytes however often it was interrupted.

A step is: a batch, its gradients, a look at whether they are finite, the optimiser's step, a row in the journal. At
checkpoints the journal is synced and the stream's position saved with the weights; a resumed run cuts the journal
back to the checkpoint and makes the same steps again. Nothing else carries over: order, noise and dropout are
functions of the seed and the step.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from t5study.feed.stream import Stream
from t5study.ground.errors import Stopped, UserError
from t5study.ground.journal import Journal, Progress, read_journal
from t5study.ground.machine import Machine, use
from t5study.ground.seeds import check_seed
from t5study.ground.store import fingerprint, read_json, write_json
from t5study.model.shapes import Shape
from t5study.train.checkpoint import (
    Checkpoint,
    Prefix,
    clean,
    keep,
    load_latest,
    require_room_for_run,
    save,
    size,
    told_if_full,
)
from t5study.train.folder import EVALUATIONS, JOURNAL, SPEEDS, SUMMARY, alone, claim, read_speeds, truncate
from t5study.train.optim import Adafactor, AdamW, Constant, InverseSquareRoot, Optimizer
from t5study.train.parallel import ALONE, Ranks
from t5study.train.step import gradients, refuse
from t5study.train.stop import Stop
from t5study.train.tuning import AllParameters, Movement, Tuning

# About ln(V): logits of variance 1 add a half, 0.07 to 0.82 were seen over sizes and seeds, few targets scatter more.
FIRST_LOSS_BAND = (-1.0, 2.0)
_EXAMPLES_EVERY = 100  # steps between rows of the journal that tell how often each member of a mixture came


@dataclass(frozen=True)
class TrainRun:
    """A training stage as a value: equal runs give equal bytes on one machine.

    rows, source_length, target_length: of the packed batch. data: what names the stream (objective and token digest,
    or tasks). init: "fresh", or the digest of the weights it starts from. z_loss: weight of (log Z)^2 a target token
    (T5: 1e-4). evaluate_every: steps between evaluations, 0 for one at the end. tuning: which weights move. save_every:
    steps between checkpoints; it changes nothing but what an interruption costs, so it is no part of the fingerprint.
    """

    shape: Shape
    architecture: str
    steps: int
    rows: int
    source_length: int
    target_length: int
    optimizer: Adafactor | AdamW
    schedule: InverseSquareRoot | Constant
    dropout: float
    seed: int
    save_every: int = field(metadata={"fingerprint": False})
    data: Any
    init: str
    z_loss: float = 1e-4
    evaluate_every: int = 0
    tuning: Tuning = field(default=AllParameters(), metadata={"fingerprint": "if set"})

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, least in (("steps", 1), ("rows", 1), ("save_every", 1), ("evaluate_every", 0), ("z_loss", 0)):
            if not getattr(self, name) >= least:
                raise UserError(f"run: {name}: found {getattr(self, name)}; give at least {least}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"run: dropout: found {self.dropout}; give a number from 0 to below 1")
        if self.tuning.shape(self.shape) != self.shape:
            raise UserError(f"run: shape: found no adapters for {self.tuning.label}; give the shape that has them")


def train(
    run: TrainRun,
    model: Any,
    stream: Stream,
    folder: Path,
    machine: Machine,
    label: str = "",
    evaluate: Callable[[int, Any], dict[str, Any]] | None = None,
    progress: Any = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Trains a model to the end of the run and returns its summary. The model holds the final weights then.

    model: as the run begins, on any device. folder: made if it is not there; a run that was interrupted in it goes
    on, one that is done only loads its weights. evaluate(step, model): called every `evaluate_every` steps and at the
    end; its numbers become a row of evaluations.jsonl. progress: update(step, tokens=, loss=) and close(). ranks: all
    of them call this with the same run, stream and folder; the first alone reads, writes, evaluates and speaks.

    Raises Stopped after SIGINT or SIGTERM, when everything is saved. UserError: another run's folder, another process
    at work in it, no good checkpoint among those there, a full disk, a loss or gradient that is not finite.
    """
    if machine.compile:
        raise UserError("machine: compile: found True; the layers are compiled loops and kernels already, give False")
    use(machine)
    folder = Path(folder)
    model.to(machine.device)
    movement = Movement(run.tuning, model, run.steps)
    ranks.rows(run.rows)
    site = _Site(run, model, movement, movement.optimizer(run.optimizer, 0), folder, ranks)
    with told_if_full(folder, site.size), ExitStack() as held:
        ranks.once(lambda: folder.mkdir(parents=True, exist_ok=True))
        ranks.once(lambda: held.enter_context(alone(folder)))
        stop = held.enter_context(Stop())
        ranks.once(lambda: claim(folder, run))
        step, position = site.resume()
        try:
            if not ranks.once((folder / SUMMARY).exists):
                _go_on(site, stream, machine, step, position, label, evaluate, progress, stop)
                ranks.once(lambda: write_json(folder / SUMMARY, _summary(run, model, read_journal(folder / JOURNAL))))
        finally:
            model.requires_grad_(True)  # nothing stays frozen in a model that is handed on
        ranks.once(lambda: keep(folder, 1, up_to=run.steps))
        if signum := ranks.most(stop.signum or 0):  # it came with nothing left to do here; whoever called has more
            raise Stopped(signum)
        return ranks.once(lambda: {**read_json(folder / SUMMARY), **_speed(read_speeds(folder))})


def _go_on(
    site: _Site,
    stream: Stream,
    machine: Machine,
    step: int,
    position: int,
    label: str,
    evaluate: Callable[[int, Any], dict[str, Any]] | None,
    progress: Any,
    stop: Stop,
) -> None:
    """From `step` steps done to the last one. Raises Stopped between two steps, after saving."""
    run, model, folder, ranks = site.run, site.model, site.folder, site.ranks
    clock, weights = _Clock(folder), list(model.parameters())
    tells = progress is None and ranks.first
    if tells and site.movement.trainable(step + 1) < sum(weight.numel() for weight in weights):
        print(f"t5study: {site.told(step + 1)}", file=sys.stderr)
    with (
        closing(Journal(folder / JOURNAL) if ranks.first else _Nowhere()) as journal,
        closing(Journal(folder / EVALUATIONS) if ranks.first else _Nowhere()) as evaluations,
        closing(
            (progress or Progress(run.steps, label or folder.name, start=step)) if ranks.first else _Nowhere()
        ) as shown,
        closing(stream.prefetch(position)) as batches,  # type: ignore[type-var]
    ):
        while True:
            # Of the weights as they are: a checkpoint of this step, if there is one, was saved before, so that a run
            # that is stopped need not wait for it and a resumed one begins with it.
            if evaluate and (step == run.steps or (step and run.evaluate_every and step % run.evaluate_every == 0)):
                with torch.no_grad():
                    ranks.once(lambda step=step: evaluations.append({"step": step, **evaluate(step, model)}))
            if step == run.steps:
                if tells and (told := proportions(stream.taken(position), stream.shares)):
                    print(f"t5study: {told}", file=sys.stderr)
                return

            clock.start()
            batch, position = next(batches)
            step += 1
            if site.movement.advance(step, site.optimizer) and tells:
                print(f"t5study: {site.told(step)}", file=sys.stderr)
            taken = gradients(
                model,
                weights,
                batch,
                step,
                seed=run.seed,
                dropout=run.dropout,
                z_loss=run.z_loss,
                machine=machine,
                ranks=ranks,
            )
            refuse(model, taken, step)
            rate = run.schedule.rate(step - 1)
            site.optimizer.step(rate)
            row = {"step": step, **asdict(taken), "rate": rate, "trainable": site.movement.trainable(step)}
            if (step % _EXAMPLES_EVERY == 0 or step == run.steps) and (examples := stream.taken(position)):
                row["examples"] = examples
            journal.append(row)
            clock.stop(taken.tokens)

            shown.update(step, tokens=taken.tokens, loss=taken.loss)
            if step == 1 and ranks.first and (warning := first_loss_warning(run, taken.loss)):
                print(f"t5study: warning: {warning}", file=sys.stderr)
            signum = ranks.most(stop.signum or 0)  # of any rank: all stop at this step, or none
            if step % run.save_every == 0 or step == run.steps or signum:
                journal.sync()
                evaluations.sync()
                ranks.once(lambda step=step, position=position: site.save(step, position))
                if ranks.first:
                    clock.write()
            if signum:
                raise Stopped(signum)


@dataclass
class _Site:
    """A run with what it moves and where it is kept."""

    run: TrainRun
    model: Any
    movement: Movement
    optimizer: Optimizer
    folder: Path
    ranks: Ranks = ALONE

    @property
    def weights(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.model.named_parameters())

    @property
    def size(self) -> int:
        """About the bytes of the run's last checkpoint: the first has less state if weights begin to move later."""
        state = size(self.optimizer.state_tensors())
        return size(self.weights) + state * self.movement.trainable(self.run.steps) // self.movement.trainable(1)

    def told(self, step: int) -> str:
        """How much of the model moves, for people."""
        parameters = sum(weight.numel() for weight in self.weights.values())
        return f"{self.movement.trainable(step):,} of {parameters:,} parameters move from step {step:,} on"

    def save(self, step: int, position: int) -> None:
        save(self.folder, self.checkpoint(step, position), self.run)

    def checkpoint(self, step: int, position: int) -> Checkpoint:
        """The run as it is now. Its tensors are the live ones: to save before the next step."""
        return Checkpoint(
            step,
            position,
            fingerprint(self.run),
            self.weights,
            self.optimizer.state_tensors(),
            {name: Prefix.of(self.folder / name) for name in (JOURNAL, EVALUATIONS)},
        )

    def resume(self) -> tuple[int, int]:
        """Brings weights, optimiser and journals to the newest good checkpoint. Returns its step and position.

        Of a run that is done (it has a summary) only the weights and the optimiser's state are touched. The first rank
        reads; the others get what it has, whatever number of ranks wrote it.
        """
        step, position = self.ranks.once(self._resume)
        if not self.ranks.first:
            self._state_at(step)
        self.ranks.share(self.weights.values())
        state = self.optimizer.state_tensors()
        self.ranks.share(state.values())
        if not self.ranks.first:
            self.optimizer.load(state)
        return step, position

    def _resume(self) -> tuple[int, int]:
        clean(self.folder)
        found = load_latest(self.folder, fingerprint(self.run), self.weights, self._state_at)
        if found:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(found.weights[name])
            self.optimizer.load(found.optimizer)
            if found.step == self.run.steps and (self.folder / SUMMARY).exists():
                return found.step, found.position
        (self.folder / SUMMARY).unlink(missing_ok=True)
        require_room_for_run(self.folder, self.size)
        for name in (JOURNAL, EVALUATIONS):
            truncate(self.folder / name, found.journals[name].bytes if found else 0)
        return (found.step, found.position) if found else (0, 0)

    def _state_at(self, step: int) -> Mapping[str, torch.Tensor]:
        """Gives the run the optimiser that it has at a step; returns its state, yet to be filled."""
        if len(self.movement.groups) > 1:
            self.optimizer = self.movement.optimizer(self.run.optimizer, step)
        return self.optimizer.state_tensors()


class _Nowhere:
    """Journal and progress of a rank that is not the first."""

    def append(self, row: dict[str, Any]) -> None:
        pass

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


# --- what a run says of itself ------------------------------------------------------------------------------------


def first_loss_warning(run: TrainRun, loss: float) -> str | None:
    """What is odd about a first loss, or None. Fresh weights know nothing: their loss is near ln(vocabulary)."""
    expected = math.log(run.shape.table_rows)
    low, high = FIRST_LOSS_BAND
    if run.init != "fresh" or expected + low <= loss <= expected + high:
        return None
    return (
        f"first loss {loss:.3f} of fresh weights; expected about ln({run.shape.table_rows:,}) = {expected:.3f}. Far "
        "below it targets leak into the inputs, far above it the softmax is off scale"
    )


def proportions(examples: Mapping[str, int], shares: Mapping[str, float]) -> str:
    """How often each member of a mixture came, beside how often it was to, in a line; "" without members.

    >>> proportions({"glue/cola": 30, "glue/rte": 10}, {"glue/cola": 0.77, "glue/rte": 0.23})
    '40 examples: glue/cola 75.0 % (77.0 % asked), glue/rte 25.0 % (23.0 % asked)'
    """
    if not examples:
        return ""
    n = sum(examples.values())
    told = [f"{name} {count / n:.1%} ({shares[name]:.1%} asked)".replace("%", " %") for name, count in examples.items()]
    return f"{n:,} examples: {', '.join(told)}"


def _summary(run: TrainRun, model: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A finished run in numbers that are the same whenever it is run. tokens: of source and target. trainable: of its
    parameters, those that moved in the last step. examples: of each member of a mixture that has names."""
    last = rows[-max(1, len(rows) // 10) :]
    first = rows[0]["loss"]
    examples = {"examples": rows[-1]["examples"]} if "examples" in rows[-1] else {}
    return examples | {
        "steps": run.steps,
        "first_loss": first,
        "first_loss_expected": math.log(run.shape.table_rows) if run.init == "fresh" else None,
        "first_loss_warning": first_loss_warning(run, first),
        "last_loss": sum(row["loss"] for row in last) / len(last),
        "tokens": sum(row["tokens"] for row in rows),
        "target_tokens": sum(row["target_tokens"] for row in rows),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable": rows[-1]["trainable"],
    }


class _Clock:
    """Wall-clock of a run over all the processes that worked on it, as far as they came to a checkpoint."""

    def __init__(self, folder: Path):
        self.folder, self.found = folder, read_speeds(folder)
        self.began = self.started = time.perf_counter()
        self.step_seconds, self.tokens = 0.0, 0

    def start(self) -> None:
        self.started = time.perf_counter()

    def stop(self, tokens: int) -> None:
        self.step_seconds += time.perf_counter() - self.started
        self.tokens += tokens

    def write(self) -> None:
        passed = {
            "seconds": time.perf_counter() - self.began,
            "step_seconds": self.step_seconds,
            "tokens": self.tokens,
        }
        # Not synced: nothing depends on it, and a damaged one reads as zeros.
        (self.folder / SPEEDS).write_text(
            json.dumps({name: self.found[name] + value for name, value in passed.items()})
        )


def _speed(speeds: dict[str, float]) -> dict[str, float]:
    """seconds: all of the run's. tokens_per_second: while steps were made, evaluations and checkpoints left out."""
    return {
        "seconds": speeds["seconds"],
        "tokens_per_second": speeds["tokens"] / speeds["step_seconds"] if speeds["step_seconds"] else 0.0,
    }
