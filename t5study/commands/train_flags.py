"""Flags of commands that train, or that run a model: what a run is, and on what it runs."""

from __future__ import annotations

from t5study.commands.flags import (
    Parser,
    Real,
    Whole,
    WholeOrAuto,
    data,
    folder,
    size,
    span,
    split_missing,
)


def training(parser: Parser, *, steps: int, rate: str, source_length: int | None = 128) -> None:
    parser.add_argument("--config", type=folder, help="TOML file with any of these flags; the command line wins")
    parser.add_argument("--out", type=folder, help="folder of the run; an interrupted run goes on in it")
    parser.add_argument("--steps", type=Whole(1), default=steps, help="optimiser steps")
    parser.add_argument("--rows", type=Whole(1, 65_536), default=32, help="packed rows a step")
    told = "" if source_length else " (default: the benchmark's, 512; of own tasks 128)"
    parser.add_argument(
        "--source-length", type=Whole(4, 65_536), default=source_length, help=f"source tokens a row{told}"
    )
    parser.add_argument("--optimizer", choices=["adafactor", "adamw"], default="adafactor", help="T5's is adafactor")
    parser.add_argument("--rate", type=Real(0, 10, open=True), help=f"learning rate (default: {rate})")
    parser.add_argument("--dropout", type=Real(0, 0.9), default=0.1, help="part of the activations set to zero")
    parser.add_argument("--seed", type=Whole(0, 2**62), default=0, help="of weights, order, noise and dropout")
    parser.add_argument("--save-every", type=Whole(1), default=100, help="steps between checkpoints")
    parser.add_argument(
        "--async-save",
        action="store_true",
        help="write checkpoints while steps go on; takes memory for one more copy of weights and optimiser state",
    )
    parser.add_argument(
        "--bad-step",
        choices=["stop", "skip", "rewind"],
        help="what to do about a loss or gradient that is NaN or Inf, or a spike: stop (default), skip its examples, "
        "or rewind to the last checkpoint and go on with the examples after it",
    )
    parser.add_argument(
        "--spike", type=Real(1, 1e9), help="a loss this many deviations above the last ones is bad too (default: none)"
    )
    parser.add_argument("--strict", action="store_true", help="stop at a damaged checkpoint, take none before it")
    parser.add_argument(
        "--profile", type=span, metavar="FIRST:LAST", help="steps to profile, into OUT/profile-*: 20:25"
    )
    machine(parser, fits=True)
    parser.add_argument(
        "--memory",
        type=size,
        help="that --micro-batch auto may fill, as 20GB: of the process, or of a GPU (default: all that is free)",
    )
    parser.add_argument(
        "--peak-tflops",
        type=Real(0, 1e6, open=True),
        help="of a device, to tell what part of it is used (default: measured by matrix products)",
    )
    parser.add_argument(
        "--shard",
        type=Whole(2, 65_536),
        nargs="?",
        const=0,
        metavar="RANKS",
        help="under torchrun: keep only a part of weights, gradients and optimiser state on each rank (FSDP2), cut "
        "among all ranks or, in copies, among so many neighbours (those of one host)",
    )
    parser.add_argument(
        "--tensor",
        type=Whole(2, 65_536),
        metavar="RANKS",
        help="under torchrun: so many neighbours (of one host) keep one model between them, each some heads and hidden "
        "columns of every layer, and work on the same rows; in copies if there are more",
    )
    parser.add_argument(
        "--update-in-backward",
        action="store_true",
        help="move each weight as soon as its gradient is there, so that gradients are not kept: adafactor on one "
        "rank, without micro-batches; a bad gradient is then found behind the update",
    )
    parser.add_argument(
        "--weights",
        choices=["fp32", "bf16"],
        help="how matrices are kept (default: fp32); bf16: half the memory, rounded at random after each update "
        "(adafactor, one rank)",
    )
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="run each layer again in the backward pass instead of keeping what it made: a third more work, far less "
        "memory",
    )


def finetuning(parser: Parser) -> None:
    parser.add_argument(
        "--tuning",
        default="all",
        help="which weights move: all, adapters(32), unfreezing(12) (from the top layer down)",
    )
    parser.add_argument(
        "--target-length",
        type=Whole(2, 65_536),
        help="target tokens a row (default: the benchmark's, 84 for glue, 62 superglue, 97 squad, 512; own tasks 64)",
    )
    parser.add_argument("--evaluate-every", type=Whole(0), default=0, help="steps between evaluations, 0 for none")
    parser.add_argument("--evaluation-rows", type=Whole(1), help="validation rows scored of a task (default: all)")
    parser.add_argument(
        "--mixing",
        help="how often each task comes: official (a benchmark's fixed rates; its default), proportional(524288) (by "
        "rows, none counted above that; the default of several tasks), temperature(2, 2097152), equal",
    )
    data(parser)
    split_missing(parser)
    parser.add_argument("--leave-out", help="a benchmark to leave out of --task all (all seven at once)")
    parser.add_argument(
        "--unlabeled", type=folder, help="tokens to pre-train on beside the tasks (`corpus tokens`), as one more member"
    )
    parser.add_argument(
        "--objective", default="span_corruption(rate=0.15, mean_span=3)", help="what is asked of the unlabeled tokens"
    )
    parser.add_argument(
        "--unlabeled-size", type=Real(1, 1e15), default=1e6, help="examples that the unlabeled member counts as"
    )


def machine(parser: Parser, fits: bool = False) -> None:
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if torch sees one")
    parser.add_argument("--threads", type=Whole(1, 1024), help="torch threads (default: 1)")
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        help="of matrix products (default: fp32 on a CPU, bf16 on a GPU); a CPU that multiplies bf16 itself is up "
        "to 1.7 times as fast in it",
    )
    told = "; auto: as many as there is memory for, layers run again if need be, kept in OUT/machine.json" * fits
    kind = WholeOrAuto(0, 65_536) if fits else Whole(0, 65_536)
    parser.add_argument("--micro-batch", type=kind, help=f"rows a forward pass, 0 for all{told}")
