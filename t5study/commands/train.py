"""The command train pretrain, and what it shares with train finetune (finetune.py).

Both are whole or nothing to come back to: the folder of the run belongs to one configuration, an interrupted run goes
on in it, a finished one says so and is left as it is.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5study.commands.asked import machine_of, needs
from t5study.ground.errors import UserError

if TYPE_CHECKING:
    from t5study.feed.stream import Stream
    from t5study.ground.machine import Machine
    from t5study.train.run import TrainRun

RATES = {
    ("pretrain", "adafactor"): 0.01,  # paper, section 3.1.2: 1 / sqrt(10,000) and falling from there
    ("pretrain", "adamw"): 0.001,
    ("finetune", "adafactor"): 0.001,  # section 3.1.2
    ("finetune", "adamw"): 0.0001,
}


def pretrain(args: argparse.Namespace) -> None:
    needs(args, "tokens", "vocab", "out")
    from t5study import objectives
    from t5study.corpus.tokens import TokenStore
    from t5study.feed.sources import DocumentSource
    from t5study.feed.stream import Stream
    from t5study.ground.store import digest_file
    from t5study.model import architectures, shapes
    from t5study.train.optim import InverseSquareRoot
    from t5study.vocab import load_vocab

    machine = machine_of(args)
    objective = objectives.parse(args.objective)
    lengths = objective.lengths(args.source_length)
    vocab = load_vocab(args.vocab)
    shape = shapes.shape_of(args.architecture, shapes.size(args.size, vocab.ids.table_rows))
    store = TokenStore.open(args.tokens)
    if store.vocab_digest != vocab.digest:
        raise UserError(
            f"{args.tokens}: was made with another vocabulary than {args.vocab}; give that one, or run "
            "`t5study corpus tokens` with this one"
        )
    tokens = digest_file(args.tokens / "tokens.npy")
    run = run_of(
        args,
        shape=shape,
        architecture=args.architecture,
        target_length=lengths.targets,
        schedule=InverseSquareRoot(scale=rate_of(args, "pretrain") * 100),
        data=(objective, tokens, digest_file(args.tokens / "offsets.npy"), vocab.digest),
        init="fresh",
    )

    def build() -> Any:
        """Whole, or without numbers where each rank will make its own rows' first values."""
        if not (machine.shard or machine.tensor):
            return architectures.build(shape, args.seed, args.architecture)
        import torch

        with torch.device("meta"):
            return architectures.build(shape, args.seed, args.architecture)

    source = DocumentSource(store.tokens, store.offsets, objective, lengths, vocab.ids, args.seed)
    carry_out(
        args,
        run,
        machine,
        build,
        Stream(source, args.rows, args.source_length, lengths.targets),
        vocab.path,
        label=f"pretrain {objective.label}",
        title=f"T5 {args.size}, pre-trained by {objective.label}",
        objective=args.objective,
        text=f"{len(store):,} documents, {store.n_tokens:,} tokens, xxh3 {tokens}",
    )


def run_of(args: argparse.Namespace, **own: Any) -> TrainRun:
    """A run as the flags of both commands have it, with what is a command's own."""
    from t5study.train.guard import Guard
    from t5study.train.run import TrainRun

    action = args.bad_step or "stop"
    return TrainRun(
        steps=args.steps,
        rows=args.rows,
        source_length=args.source_length,
        optimizer=_optimizer(args),
        dropout=args.dropout,
        seed=args.seed,
        save_every=args.save_every,
        weights=args.weights or "fp32",
        guard=Guard(action, args.spike or 0.0, args.save_every if action == "rewind" else 0),
        **own,
    )


def carry_out(
    args: argparse.Namespace,
    run: TrainRun,
    machine: Machine,
    build: Callable[[], Any],
    stream: Stream,
    vocab_path: Path | None,
    *,
    label: str,
    evaluate: Callable[[int, Any], dict[str, Any]] | None = None,
    **card: Any,
) -> None:
    """Trains, or goes on, or finds that all is done; writes OUT/model once. Under torchrun, with all its ranks."""
    from t5study.ground.fingerprint import fingerprint
    from t5study.model.released import save_released
    from t5study.train.loop import train
    from t5study.train.parallel import joined
    from t5study.train.speeds import told

    out, name = args.out, fingerprint(run)
    with joined(machine) as ranks:
        ranks.once(lambda: _check_folder(out))
        model = build()
        how = {"strict": args.strict, "profile": args.profile, "async_save": args.async_save}
        summary = train(run, model, stream, out, machine, label=label, evaluate=evaluate, ranks=ranks, **how)
    if not ranks.first:
        return
    if (out / "model").exists():
        _check_model(out / "model", name)
        print(f"{out}: finished before, {args.steps:,} steps; nothing to do")
    else:
        facts = {
            "steps": run.steps,
            "rows_a_step": run.rows,
            "source_tokens_a_row": run.source_length,
            "target_tokens_a_row": run.target_length,
            "optimizer": args.optimizer,
            "schedule": run.schedule,
            "dropout": run.dropout,
            "seed": run.seed,
            "run": name,
        }
        if summary["trainable"] < summary["parameters"]:
            facts["tuning"] = f"{run.tuning.label}: {summary['trainable']:,} of {summary['parameters']:,} parameters"
        facts |= {name: summary[name] for name in ("first_loss", "last_loss", "tokens", "target_tokens")}
        save_released(model, out / "model", vocab_path=vocab_path, **card, **facts, rerun=_again(args))
        first, last = summary["first_loss"], summary["last_loss"]
        print(f"{out}: {run.steps:,} steps, loss {first:.3f} -> {last:.3f} nats a target token")
        rate = f"{summary['tokens_per_second']:,.0f} tokens/s"
        print(f"speed: {', '.join((rate, *told(summary['waiting'], summary['utilisation'])))}")
    print(f"model: {out / 'model'}")


WHERE = (
    "run",
    "config",
    "out",
    "save_every",
    "device",
    "threads",
    "precision",
    "micro_batch",
    "shard",
    "tensor",
    "recompute",
    "update_in_backward",
    "strict",
    "profile",
    "async_save",
    "peak_tflops",
    "memory",
)


def _again(args: argparse.Namespace) -> str:
    """The command that makes this model again. Files go by their names alone: where they lie is this machine's."""
    words = ["t5study", *args.run.split(".")]
    for name, value in vars(args).items():
        if name not in WHERE and value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif name not in WHERE and value is not None and value is not False:
            values = value if isinstance(value, list) else [value]
            words.append(f"--{name.replace('_', '-')}")
            words += [Path(one).name if Path(str(one)).exists() else str(one) for one in values]
    return shlex.join(words)


def _check_folder(out: Path) -> None:
    """A folder is the run's, or empty, or not there: a run does not settle among somebody's files."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: found a file; give --out a folder")
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) if out.exists() else []
    if names and "run.json" not in names:
        raise UserError(f"{out}: found {names[0]!r} in it, which is no part of a run; choose another folder")


def _check_model(folder: Path, name: str) -> None:
    """The model that lies there is this run's and is whole."""
    from t5study.ground.store import verify

    card = verify(folder).get("card")
    if not isinstance(card, dict) or card.get("run") != name:
        raise UserError(f"{folder}: is not this run's model; delete it and run again")


def _optimizer(args: argparse.Namespace) -> Any:
    from t5study.train.optim import Adafactor, AdamW

    return Adafactor() if args.optimizer == "adafactor" else AdamW()


def rate_of(args: argparse.Namespace, stage: str) -> float:
    return RATES[stage, args.optimizer] if args.rate is None else args.rate
