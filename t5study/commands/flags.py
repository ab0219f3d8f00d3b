"""Flags: their types, what several commands share of them, and a parser whose mistakes are one line.

Light by law: `t5study --help` answers from this module, tree.py and `__main__` alone.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from t5study.ground.errors import UserError

# --- types of flags -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """A whole number from low to high."""

    low: int
    high: int = 2**31

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"found {text[:40]!r}, give a whole number") from None
        if not self.low <= value <= self.high:
            raise argparse.ArgumentTypeError(f"found {value}, give a number from {self.low:,} to {self.high:,}")
        return value


@dataclass(frozen=True)
class WholeOrAuto(Whole):
    """The same, or the word that leaves it to the program: -1 then."""

    def __call__(self, text: str) -> int:
        if text == "auto":
            return -1
        try:
            return super().__call__(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, or auto") from None


@dataclass(frozen=True)
class Real:
    """A finite number from low to high; above low if it is `open`."""

    low: float
    high: float
    open: bool = False

    def __call__(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"found {text[:40]!r}, give a number") from None
        if not math.isfinite(value) or not self.low <= value <= self.high or (self.open and value == self.low):
            above = "above" if self.open else "from"
            raise argparse.ArgumentTypeError(f"found {text}, give a number {above} {self.low:g} to {self.high:g}")
        return value


def size(text: str) -> int:
    """Bytes: 5GB, 500MB, 20kB or a plain number.

    >>> size("5GB"), size("20000")
    (5000000000, 20000)
    """
    found = re.fullmatch(r"(\d{1,12})\s*(|[kKMG]B)", text.strip())
    value = int(found[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[found[2][:1].upper()] if found else 0
    if not 1 <= value <= 10**15:
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, give a size such as 500MB or 5GB")
    return value


def time(text: str) -> float:
    """Seconds: 45s, 30min, 8h, 1h30min, 2d.

    >>> time("8h"), time("1h30min")
    (28800.0, 5400.0)
    """
    number = r"(\d{1,6}(?:\.\d{1,6})?)"
    found = re.fullmatch(rf"(?:{number}d)?(?:{number}h)?(?:{number}m(?:in)?)?(?:{number}s)?", text.replace(" ", ""))
    units = (86400, 3600, 60, 1)
    value = sum(float(n) * unit for n, unit in zip(found.groups(), units, strict=True) if n) if found else 0.0
    if not 1 <= value <= 10**9:
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, give a time such as 30min, 8h or 2d")
    return value


def span(text: str) -> tuple[int, int]:
    """First and last of some steps.

    >>> span("20:25")
    (20, 25)
    """
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text.strip())
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last:
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, give the first and the last step, as in 20:25")
    return first, last


def place(text: str) -> str:
    """A path, a pattern or an address: ~ and $VARIABLES are expanded; what is not set, or is no path, is refused."""
    for name in re.findall(r"\$\{?(\w+)", text):
        if name not in os.environ:
            raise argparse.ArgumentTypeError(f"found {text[:60]!r}, whose variable {name} is not set")
    expanded = os.path.expandvars(os.path.expanduser(text))
    if expanded.startswith("~"):
        raise argparse.ArgumentTypeError(f"found {text[:60]!r}, and no such user's home folder is known")
    if not expanded.strip() or {"\0", "\n", "\r"} & set(expanded) or len(os.fsencode(expanded)) > 4000:
        raise argparse.ArgumentTypeError(f"found {text[:60]!r}, which cannot be a path")
    return expanded


def folder(text: str) -> Path:
    """A `place` as a Path."""
    return Path(place(text))


# --- the parser ---------------------------------------------------------------------------------------------------


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps examples as they are; shows a default only where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, []) else action.help


class Parser(argparse.ArgumentParser):
    """argparse, with one-line errors. mixed: texts may stand behind flags too, which argparse alone then refuses."""

    mixed = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, formatter_class=Formatter, allow_abbrev=False, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self.mixed:
            return super().parse_known_args(args, namespace)
        self.mixed = False  # the method below comes back here, twice
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.mixed = True

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def named_place(text: str) -> tuple[str, str]:
    """NAME=PATTERN as both."""
    name, equals, pattern = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z][\w.+-]{0,63}", name):
        raise argparse.ArgumentTypeError(f"found {text[:60]!r}; give NAME=PATTERN, as in wikipedia='wiki/*.txt'")
    return name, place(pattern)


class Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, *_: Any) -> NoReturn:
        from t5study.ground.store import code_version

        print(f"t5study {code_version()}")
        raise SystemExit(0)


# --- flags that several commands have -------------------------------------------------------------------------------


def architecture(parser: Parser) -> None:
    parser.add_argument(
        "--architecture",
        default="encoder_decoder",
        help="encoder_decoder, shared_encoder_decoder, language_model or prefix_lm, beside that size",
    )


def text(parser: Parser) -> None:
    parser.add_argument(
        "--text",
        nargs="+",
        type=place,
        metavar="PATTERN",
        help="files or quoted patterns (.txt .md .jsonl .parquet, also .gz .zst); without it, the documentation inside "
        "the installed Python packages",
    )


def corpora(parser: Parser) -> None:
    parser.add_argument(
        "--corpus",
        action="append",
        type=named_place,
        metavar="NAME=PATTERN",
        help="a further text to pre-train on, by name (Table 8 asks for c4-unfiltered, realnews-like, webtext-like, "
        "wikipedia, wikipedia-books); once more for each, or for more files of one name",
    )


def tasks(parser: Parser, more: str = "") -> None:
    parser.add_argument(
        "--task",
        nargs="+",
        action="extend",
        type=place,
        metavar="TASK",
        help="own task files (JSON lines or TSV with input and target) or addresses: glue/cola, superglue/boolq, "
        "squad/v1, cnndm/summarize, wmt/ende, pydocs/package ..." + more,
    )
    parser.add_argument("--metric", help="metric of task files that name none: accuracy, f1, squad, rouge, bleu ...")


def data(parser: Parser) -> None:
    parser.add_argument(
        "--data", type=folder, help="folder of the benchmarks' files (default: $T5STUDY_DATA, if that is set)"
    )


def benchmarks(parser: Parser) -> None:
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        type=place,
        metavar="NAME",
        help="the paper's benchmarks in place of tasks, each fine-tuned on alone: glue, cnndm, squad, superglue, ende, "
        "enfr, enro; all: these seven, the columns of the paper's tables",
    )
    data(parser)
    split_missing(parser)


def split_missing(parser: Parser) -> None:
    parser.add_argument(
        "--split-missing",
        action="store_true",
        help="where a benchmark's training or validation rows are not there, cut them out of the other ones, by "
        "document; told with every number, as that is no official split",
    )


def checkpoint(parser: Parser) -> None:
    parser.add_argument(
        "--checkpoint", type=folder, help="folder of a model: config.json, model.safetensors, spiece.model"
    )
    vocab(parser)


def vocab(parser: Parser) -> None:
    parser.add_argument("--vocab", type=folder, help="a .model (or: bytes), if the model's folder has none")


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


def until_decided(parser: Parser) -> None:
    parser.add_argument(
        "--until-decided",
        action="store_true",
        help="further seeds of the candidates that cannot be told from a round's best, until one is left",
    )
    parser.add_argument("--most-seeds", type=Whole(1, 1000), help="seeds of a candidate, at most (default: 10)")
    parser.add_argument(
        "--budget", type=time, metavar="TIME", help="30min, 8h, 2d: no further seed that would end later"
    )


def machine(parser: Parser, fits: bool = False) -> None:
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if torch sees one")
    parser.add_argument("--threads", type=Whole(1, 1024), help="torch threads (default: 1)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: fp32 on a CPU, bf16 on a GPU")
    told = "; auto: as many as there is memory for, layers run again if need be, kept in OUT/machine.json" * fits
    kind = WholeOrAuto(0, 65_536) if fits else Whole(0, 65_536)
    parser.add_argument("--micro-batch", type=kind, help=f"rows a forward pass, 0 for all{told}")
