"""The training loop: `train()` makes a run's steps, and ends in the same bytes however often it was interrupted.

A step is: a batch, its gradients, a look at whether they are good, the optimiser's step, a row in the journal. At
checkpoints the journal is synced and the stream's position saved with the weights; a resumed run cuts the journal
back to the checkpoint and makes the same steps again. Nothing else carries over: order, noise and dropout are
functions of the seed and the step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from t5study.feed.stream import Stream
from t5study.ground.errors import Stopped, UserError
from t5study.ground.journal import Journal, Progress, read_journal
from t5study.ground.machine import AUTO, Machine, choose_library, use
from t5study.ground.store import read_json, write_json
from t5study.model import gpu
from t5study.model.shapes import sliced
from t5study.train import streamed
from t5study.train.fit import fitted
from t5study.train.folder import EVALUATIONS, JOURNAL, SUMMARY, alone, claim, keep, steps
from t5study.train.guard import Guard, Rewind, not_finite
from t5study.train.optim import Adafactor, Rounded, in_bf16
from t5study.train.parallel import ALONE, Ranks
from t5study.train.profile import Profile
from t5study.train.recompute import recomputed
from t5study.train.room import told_if_full
from t5study.train.run import TrainRun
from t5study.train.saver import Saver
from t5study.train.site import Nowhere, Site
from t5study.train.speeds import Clock, read_speeds, speed
from t5study.train.step import gradients
from t5study.train.stop import Stop
from t5study.train.streamed import Streamed
from t5study.train.summary import first_loss_warning, proportions, summary_of
from t5study.train.tuning import AllParameters, Movement
from t5study.train.work import Work, peak

_EXAMPLES_EVERY = 100  # steps between rows of the journal that tell how often each member of a mixture came


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
    *,
    strict: bool = False,
    profile: tuple[int, int] | None = None,
    async_save: bool = False,
) -> dict[str, Any]:
    """Trains a model to the end of the run and returns its summary. The model holds the final weights then.

    model: as the run begins, on any device. Where each rank keeps pieces of it it may be on the meta device: each makes
    its own's first values, of the run's seed, and the model is filled on the first rank alone. folder: made if it is
    not there; a run that was interrupted in it goes on, one that is done only loads its weights. evaluate(step, model):
    called every `evaluate_every` steps and at the end; its numbers become a row of evaluations.jsonl. progress:
    update(step, tokens=, loss=) and close(). strict: stop at a damaged checkpoint rather than take the one before.
    profile: first and last step to profile (profile.py). async_save: write checkpoints while steps go on (saver.py).
    ranks: all of them call this with the same run, stream and folder; the first alone reads, writes,
    evaluates, speaks.

    Raises Stopped after SIGINT, SIGTERM and the like (stop.py), when everything is saved. NoRoom: a full disk.
    UserError: another run's folder, another process at work in it, no good checkpoint among those there, a loss or
    gradient that is not finite.
    """
    if machine.compile:
        raise UserError("machine: compile: found True; the layers are compiled loops and kernels already, give False")
    use(machine)
    choose_library(run.shape.d_model)
    folder = Path(folder)
    ranks.rows(run.rows)
    check(run, machine, ranks)
    if not (fresh := model.embedding.is_meta):
        model.to(machine.device)
        ranks.share(model.parameters())
    work, settings = model, run.optimizer
    if ranks.shard:
        from t5study.train import shards

        work, settings = shards.spread(model, ranks, machine.device, run.seed), shards.Settings(run.optimizer)
    elif ranks.tensor:
        from t5study.train import slices

        work, settings = slices.spread(model, ranks, machine.device, run.seed), slices.Settings(run.optimizer)
    if ranks.cut and not fresh:
        model.cpu()  # until it is evaluated, or handed on
    if run.weights == "bf16" and isinstance(settings, Adafactor):
        in_bf16(model)
        settings = Rounded(settings, run.seed)
    if machine.streamed and isinstance(settings, Adafactor | Rounded):
        settings = streamed.Settings(settings)
    movement = Movement(run.tuning, work, run.steps, model)
    site = Site(run, work, movement, movement.optimizer(settings, 0), folder, ranks, strict, model)
    with told_if_full(folder, site.size), ExitStack() as held:
        ranks.once(lambda: folder.mkdir(parents=True, exist_ok=True))
        ranks.once(lambda: held.enter_context(alone(folder)))
        stop = held.enter_context(Stop())
        if isinstance(site.optimizer, Streamed):
            held.callback(site.optimizer.close)
        ranks.once(lambda: claim(folder, run))
        if machine.micro_batch == AUTO:
            done = ranks.once((folder / SUMMARY).exists)
            machine = replace(machine, micro_batch=0) if done else fitted(site, machine)
        held.enter_context(recomputed(work, machine.recompute, late=machine.streamed))
        step, position = site.resume()
        try:
            while not ranks.once((folder / SUMMARY).exists):
                try:
                    _go_on(site, stream, machine, step, position, label, evaluate, progress, stop, profile, async_save)
                except Rewind as rewind:
                    step, position = site.rewind(rewind)
                    continue
                ranks.once(lambda: write_json(folder / SUMMARY, summary_of(run, model, read_journal(folder / JOURNAL))))
        finally:
            model.requires_grad_(True)  # nothing stays frozen in a model that is handed on
        with site.whole():
            pass
        if not model.embedding.is_meta:
            model.to(machine.device).float()
        ranks.once(lambda: keep(folder, 1, up_to=run.steps))
        if signum := ranks.most(stop.signum or 0):  # it came with nothing left to do here; whoever called has more
            raise Stopped(signum)
        return ranks.once(lambda: {**read_json(folder / SUMMARY), **speed(read_speeds(folder))})


def check(run: TrainRun, machine: Machine, ranks: Ranks) -> None:
    """UserError for what cannot go together."""
    grows = len(run.tuning.changes(run.steps)) > 1
    for found, where, what in (
        (ranks.shard, "machine: shard", "found shards"),
        (ranks.tensor, "machine: tensor", "found heads and columns"),
        (machine.streamed, "machine: update in backward", "found updates inside the backward pass"),
        (run.weights == "bf16", "run: weights", "found bf16"),
    ):
        if found and grows:
            raise UserError(
                f"{where}: found {run.tuning.label}, which moves more and more weights; leave one of them out"
            )
        if found and not ranks.cut and ranks.world > 1:
            raise UserError(f"{where}: {what} on {ranks.world} ranks; give one rank, or leave it out")
        if found and ranks.cut and where not in ("machine: shard", "machine: tensor"):
            cut = "shards" if ranks.shard else "tensor parallelism"
            raise UserError(f"{where}: {what} with {cut}; leave one of them out")
    sliced(run.shape, ranks.tensor or 1)
    if machine.streamed:
        if not isinstance(run.optimizer, Adafactor):
            raise UserError("machine: update in backward: found AdamW; give Adafactor, or leave it out")
        if 0 < machine.micro_batch < run.rows:
            raise UserError(
                f"machine: update in backward: found micro-batches of {machine.micro_batch} of {run.rows} rows, whose "
                "gradients are sums; leave one of them out"
            )
        if run.guard != Guard():
            raise UserError(
                "machine: update in backward: found a rule for bad steps, which looks at a gradient before the weights "
                "move; leave one of them out"
            )


def _go_on(
    site: Site,
    stream: Stream,
    machine: Machine,
    step: int,
    position: int,
    label: str,
    evaluate: Callable[[int, Any], dict[str, Any]] | None,
    progress: Any,
    stop: Stop,
    profile: tuple[int, int] | None,
    async_save: bool,
) -> None:
    """From `step` steps done to the last one. Raises Stopped between two steps, after saving, and Rewind."""
    run, model, folder, ranks, judge = site.run, site.model, site.folder, site.ranks, site.judge
    weights, tells = list(model.parameters()), progress is None and ranks.first
    # Of weights that stand still no gradient is made: a step is then less than three forward passes.
    work = Work(run.shape, run.architecture) if ranks.first and run.tuning == AllParameters() else None
    if tells and site.movement.trainable(step + 1) < sum(site.movement.numbers.values()):
        print(f"t5study: {site.told(step + 1)}", file=sys.stderr)
    if tells and (how := gpu.told(machine.device)):
        print(f"t5study: {how}", file=sys.stderr)
    with (
        closing(Journal(folder / JOURNAL) if ranks.first else Nowhere()) as journal,
        closing(Journal(folder / EVALUATIONS) if ranks.first else Nowhere()) as evaluations,
        closing(Clock(folder, peak=lambda: ranks.world * peak(machine)) if ranks.first else Nowhere()) as clock,
        closing(Profile(folder, profile if ranks.first else None)) as profiled,
        closing(
            (progress or Progress(run.steps, label or folder.name, start=step, more=clock.told))
            if ranks.first
            else Nowhere()
        ) as shown,
        closing(stream.prefetch(position)) as batches,  # type: ignore[type-var]
        Saver(site, journal, evaluations, asynchronous=async_save) as saver,
    ):
        if run.guard.back and step == 0:
            tensors = site.tensors()
            ranks.once(lambda: steps(folder) or site.save(0, position, tensors))
        while True:
            # Of the weights as they are: a checkpoint of this step, if there is one, was saved before, so that a run
            # that is stopped need not wait for it and a resumed one begins with it.
            if evaluate and (step == run.steps or (step and run.evaluate_every and step % run.evaluate_every == 0)):
                with torch.no_grad(), site.whole() as judged:
                    ranks.once(lambda step=step, it=judged: evaluations.append({"step": step, **evaluate(step, it)}))
            if step == run.steps:
                if tells and (told := proportions(stream.taken(position), stream.shares)):
                    print(f"t5study: {told}", file=sys.stderr)
                return

            profiled.before(step + 1)
            clock.start()
            begin, (batch, position) = position, next(batches)
            clock.got()
            step += 1
            if site.movement.advance(step, site.optimizer) and tells:
                print(f"t5study: {site.told(step)}", file=sys.stderr)
            rate = run.schedule.rate(step - 1)
            stream_of = site.optimizer if isinstance(site.optimizer, Streamed) else None
            if stream_of:
                stream_of.begin(rate)
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
                streamed=stream_of,
            )
            row: dict[str, Any] = {"step": step}
            trainable = site.movement.trainable(step)
            if found := run.guard.found(taken, judge.losses):  # before the optimiser has seen it
                note = judge.decide(
                    step, found, not_finite(model, ranks), (begin, position), taken.culprits, tells=ranks.first
                )
                tokens = {"tokens": taken.tokens, "target_tokens": taken.target_tokens}
                row |= {"skipped": note, **tokens, "trainable": trainable}
            else:
                site.optimizer.step(rate)
                row |= {**taken.row, "rate": rate, "trainable": trainable}
            if step - 1 in judge.rewound:
                row["rewound"] = judge.rewound[step - 1]
            if (step % _EXAMPLES_EVERY == 0 or step == run.steps) and (examples := stream.taken(position)):
                row["examples"] = examples
            with saver.writing():
                journal.append(row)
                clock.stop(step, taken.tokens, work.of(batch) if work else 0)
            judge.saw(row)
            profiled.after(step)

            shown.update(step, tokens=taken.tokens, loss=None if found else taken.loss)
            if step == 1 and ranks.first and (warning := first_loss_warning(run, taken.loss)):
                print(f"t5study: warning: {warning}", file=sys.stderr)
            signum = ranks.most(saver.failed or stop.signum or 0)  # of any rank: all stop at this step, or none
            if site.saves(step) or signum:
                saver.save(step, position)
                clock.write(step)
            if signum:
                ranks.once(saver.wait)
                raise Stopped(signum)
