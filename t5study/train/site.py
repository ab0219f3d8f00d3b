"""A run at work: what it moves, where it is kept, and the ways back to a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from t5study.ground.errors import UserError
from t5study.ground.fingerprint import fingerprint
from t5study.ground.journal import read_journal
from t5study.train.checkpoint import Checkpoint, Prefix, load_latest, require_room_for_run, save, size
from t5study.train.folder import EVALUATIONS, JOURNAL, SUMMARY, clean, drop_after, truncate
from t5study.train.guard import Guard, Judge, Rewind
from t5study.train.optim import Optimizer
from t5study.train.parallel import ALONE, Ranks
from t5study.train.run import TrainRun
from t5study.train.tuning import Movement


@dataclass
class Site:
    """A run with what it moves and where it is kept."""

    run: TrainRun
    model: Any
    movement: Movement
    optimizer: Optimizer
    folder: Path
    ranks: Ranks = ALONE
    strict: bool = False
    given: Any = None  # the model as it was given, where `model` is one of which each rank has pieces
    found: Checkpoint | None = None  # on the first rank: what it has read and not given to all yet
    judge: Judge = field(default_factory=lambda: Judge(Guard()))

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """By name, of the size of the whole wherever pieces of it are."""
        if self.ranks.tensor:
            from t5study.train import slices

            return slices.wholes(self.model)
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

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after a step."""
        run = self.run
        return step % run.save_every == 0 or step == run.steps or bool(run.guard.back and step % run.guard.back == 0)

    def anchor(self, step: int) -> int | None:
        """The step that a bad one after `step` would go back to: its checkpoint is kept beside the newest two."""
        return step // self.run.guard.back * self.run.guard.back if self.run.guard.back else None

    @contextmanager
    def whole(self) -> Iterator[Any]:
        """The model to evaluate: with all its weights, of a model in pieces on the first rank's device. One that was
        given on the meta device is filled on the first rank alone."""
        if not self.ranks.cut:
            yield copy.deepcopy(self.model).float() if self.run.weights == "bf16" else self.model
            return
        from t5study.train import pieces

        weights = self.weights
        if self.given.embedding.is_meta and self.ranks.first:
            self.given.to_empty(device="cpu")
        with torch.no_grad():
            for name, weight in self.given.named_parameters():
                value = pieces.whole(weights[name])
                if not weight.is_meta:
                    weight.copy_(value)
        if self.ranks.first:
            self.given.to(self.model.embedding.device)
        yield self.given
        if not self.given.embedding.is_meta:
            self.given.cpu()

    def tensors(self) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        """Weights and optimiser's state, all of each: all ranks have to ask. The live ones, to save before the next
        step, where they are whole."""
        weights, state = self.weights, self.optimizer.state_tensors()
        if not self.ranks.cut:
            return weights, state
        from t5study.train import pieces

        return pieces.gather(weights, self.ranks), pieces.gather(state, self.ranks)

    def journal_sizes(self) -> dict[str, int]:
        """How much of each journal belongs to the step at hand, in bytes."""
        return {name: (self.folder / name).stat().st_size for name in (JOURNAL, EVALUATIONS)}

    def save(
        self,
        step: int,
        position: int,
        tensors: tuple[Mapping[str, Any], Mapping[str, Any]],
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """Writes a checkpoint. sizes: of the journals at that step, if they may have grown since."""
        sizes = sizes or self.journal_sizes()
        checkpoint = Checkpoint(
            step,
            position,
            fingerprint(self.run),
            *tensors,
            {name: Prefix.of(self.folder / name, size) for name, size in sizes.items()},
        )
        save(self.folder, checkpoint, self.run, spare=self.anchor(step))

    def resume(self) -> tuple[int, int]:
        """Brings weights, optimiser and journals to the newest good checkpoint. Returns its step and position.

        Of a run that is done (it has a summary) only the weights and the optimiser's state are touched. The first rank
        reads; the others get what it has, whatever number of ranks wrote it.
        """
        step, position, memory = self.ranks.once(self._resume)
        self.judge = Judge.recalled(self.run.guard, memory)
        self._share(step)
        return step, position

    def rewind(self, rewind: Rewind) -> tuple[int, int]:
        """Brings weights, optimiser and journals to an earlier step's checkpoint. Returns that step, and the position
        to go on from: after the examples of the steps that are undone."""
        memory = self.ranks.once(lambda: self._rewind(rewind.step))
        self.judge = Judge.recalled(self.run.guard, memory).after(self.judge, rewind.step)
        self._share(rewind.step)
        return rewind.step, rewind.position

    def _resume(self) -> tuple[int, int, dict[str, Any]]:
        clean(self.folder)
        found = self._load()
        if found and found.step == self.run.steps and (self.folder / SUMMARY).exists():
            return found.step, found.position, Judge(self.run.guard).memory
        (self.folder / SUMMARY).unlink(missing_ok=True)
        require_room_for_run(self.folder, self.size)
        memory = self._cut(found)
        return (found.step, found.position, memory) if found else (0, 0, memory)

    def _rewind(self, step: int) -> dict[str, Any]:
        drop_after(self.folder, step)  # first: they rely on rows of the journals that are cut next
        found = self._load()
        if found is None or found.step != step:
            raise UserError(f"{self.folder}: has no good checkpoint of step {step} to go back to; start over")
        return self._cut(found)

    def _cut(self, found: Checkpoint | None) -> dict[str, Any]:
        """Cuts the journals back to a checkpoint, or to nothing. Returns what a judge remembers of them."""
        for name in (JOURNAL, EVALUATIONS):
            truncate(self.folder / name, found.journals[name].bytes if found else 0)
        return Judge(self.run.guard, read_journal(self.folder / JOURNAL)).memory

    def _load(self) -> Checkpoint | None:
        """The newest good checkpoint, if there is one."""
        self.found = load_latest(self.folder, fingerprint(self.run), self.weights, self._state_at, self.strict)
        return self.found

    def _share(self, step: int) -> None:
        """Brings weights and optimiser, on all ranks, to what the first has read, if it has."""
        found, self.found = self.found, None
        if not self.ranks.most(int(found is not None)):
            return
        if not self.ranks.first:
            self._state_at(step)
        weights = self.weights
        with torch.no_grad():
            for name, value in self.ranks.shared(found and found.weights, weights):
                self._fill(weights[name], value)
        state = self.optimizer.state_tensors()
        self.optimizer.load(dict(self.ranks.shared(found and found.optimizer, state)))

    def _fill(self, weight: torch.Tensor, value: torch.Tensor) -> None:
        if self.ranks.cut:
            from t5study.train import pieces

            pieces.fill(weight, value)
        else:
            weight.copy_(value)

    def _state_at(self, step: int) -> Mapping[str, torch.Tensor]:
        """Gives the run the optimiser that it has at a step; returns its state, yet to be filled."""
        if len(self.movement.groups) > 1:
            self.optimizer = self.movement.optimizer(self.run.optimizer, step)
        return self.optimizer.state_tensors()


class Nowhere:
    """Journal, clock and progress of a rank that is not the first."""

    def told(self) -> list[str]:
        return []

    def append(self, row: dict[str, Any]) -> None:
        pass

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None:
        pass

    def sync(self) -> None:
        pass

    def start(self) -> None:
        pass

    def got(self) -> None:
        pass

    def stop(self, step: int, tokens: int, flops: int = 0) -> None:
        pass

    def write(self, step: int) -> None:
        pass

    def close(self) -> None:
        pass
