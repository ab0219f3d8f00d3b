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


def tasks(parser: Parser, benchmarks: bool = False) -> None:
    """benchmarks: whether one may stand for its tasks."""
    whole = "; or benchmarks: glue, superglue ..., all" if benchmarks else ""
    parser.add_argument(
        "--task",
        nargs="+",
        action="extend",
        type=place,
        metavar="TASK",
        help="own task files (JSON lines or TSV with input and target) or addresses: glue/cola, superglue/boolq, "
        f"squad/v1, cnndm/summarize, wmt/ende, pydocs/package ...{whole}; commas may stand between them",
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
