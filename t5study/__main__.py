"""t5study: from text, tasks and a compute budget to the T5 recipe that wins.

Heavy imports stay inside the commands (t5study/commands.py), so that `t5study --help` answers at once. Whatever a
user can cause ends in one line and exit code 2; Ctrl-C saves and exits 130, SIGTERM saves and exits 75 so that a
scheduler runs the command again.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from t5study.ground.errors import UserError

EXIT_USER, EXIT_AGAIN, EXIT_INTERRUPT = 2, 75, 130


class Parser(argparse.ArgumentParser):
    """argparse, with one-line errors that suggest the nearest flag."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def whole(low: int, high: int = 2**31) -> Callable[[str], int]:
    """A whole number from low to high, as an argparse type."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"found {text!r}, give a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"found {value}, give a number from {low:,} to {high:,}")
        return value

    return parse


def real(low: float, high: float, *, open_low: bool = False) -> Callable[[str], float]:
    """A finite number from low to high, as an argparse type."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"found {text!r}, give a number") from None
        if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
            above = "above" if open_low else "from"
            raise argparse.ArgumentTypeError(f"found {text}, give a number {above} {low:g} to {high:g}")
        return value

    return parse


def folder(text: str) -> Path:
    """A path a user typed: ~ is expanded, an unset $VARIABLE or an unusable name is refused."""
    expanded = os.path.expandvars(os.path.expanduser(text))
    if "$" in expanded and expanded == text:
        raise argparse.ArgumentTypeError(f"found {text!r}, whose variable is not set")
    if not text or "\0" in text or "\n" in text or len(os.fsencode(expanded)) > 4000:
        raise argparse.ArgumentTypeError(f"found {text[:60]!r}, which cannot be a path")
    return Path(expanded)


def build_parser() -> Parser:
    """The whole command line. Every leaf sets `run`, the name of a function in t5study/commands.py."""
    parser = Parser(prog="t5study", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    corpus = _group(commands, "corpus", "text files, or the documentation inside Python -> documents -> tokens")
    build = _leaf(corpus, "build", "corpus_build", "read documents into one Parquet file")
    _text(build)
    build.add_argument("--out", type=folder, required=True, help="folder to write; must not exist")
    tokens = _leaf(corpus, "tokens", "corpus_tokens", "documents -> tokens.npy and offsets.npy")
    tokens.add_argument("--corpus", type=folder, required=True, help="folder that `corpus build` wrote")
    tokens.add_argument("--vocab", type=folder, required=True, help="SentencePiece .model")
    tokens.add_argument("--max-tokens", type=whole(1, 2**50), help="stop after this many tokens")
    tokens.add_argument("--out", type=folder, required=True, help="folder to write; must not exist")
    inspect = _leaf(corpus, "inspect", "corpus_inspect", "counts of a corpus or token folder, with a sample")
    inspect.add_argument("folder", type=folder)

    vocab = _group(commands, "vocab", "train or look at a SentencePiece vocabulary")
    train_vocab = _leaf(vocab, "train", "vocab_train", "train a unigram vocabulary with 100 sentinels")
    _text(train_vocab)
    train_vocab.add_argument("--pieces", type=whole(1), default=32_000, help="pieces, sentinels not counted")
    train_vocab.add_argument("--out", type=folder, required=True, help="the .model file to write")
    look = _leaf(vocab, "inspect", "vocab_inspect", "sizes and special ids; encodes a text if given one")
    look.add_argument("vocab", type=folder)
    look.add_argument("text", nargs="?")

    train = _group(commands, "train", "pre-train or fine-tune one model")
    pretrain = _leaf(train, "pretrain", "train_pretrain", "pre-train on a token folder")
    pretrain.add_argument("--tokens", type=folder, help="folder that `corpus tokens` wrote")
    pretrain.add_argument("--vocab", type=folder, help="the .model the tokens were made with")
    pretrain.add_argument("--objective", default="span_corruption(rate=0.15, mean_span=3)", help="see `t5study show`")
    pretrain.add_argument("--size", default="tiny", help="a line of the size table (t5study/model/shapes.py)")
    _training(pretrain, steps=1000, rows=32, source=128, rate=0.01)
    finetune = _leaf(train, "finetune", "train_finetune", "fine-tune a checkpoint on tasks")
    finetune.add_argument("--checkpoint", type=folder, help="folder of a trained model")
    finetune.add_argument("--task", action="append", default=[], help="pydocs/NAME or a file; repeatable")
    finetune.add_argument("--metric", default=None, help="metric of task files that do not name one")
    _training(finetune, steps=500, rows=32, source=128, rate=0.001)
    finetune.add_argument("--target-length", type=whole(2, 65_536), default=64, help="target tokens a row")

    evaluate = _leaf(commands, "evaluate", "evaluate", "score a checkpoint on tasks; keeps every prediction")
    evaluate.add_argument("--checkpoint", type=folder, required=True)
    evaluate.add_argument("--task", action="append", required=True, help="pydocs/NAME or a file; repeatable")
    evaluate.add_argument("--metric", default=None, help="metric of task files that do not name one")
    evaluate.add_argument("--out", type=folder, help="folder for predictions and scores.json")
    _machine(evaluate)

    answer = _leaf(commands, "answer", "answer", "answer prompts with a trained model")
    answer.add_argument("checkpoint", type=folder)
    answer.add_argument("prompt", nargs="*", help="without a prompt, lines of standard input are answered")
    answer.add_argument("--max-length", type=whole(1, 65_536), default=64, help="tokens of the longest answer")
    _machine(answer)

    show = _leaf(commands, "show", "show", "show a batch of an objective as text, before any training")
    show.add_argument("objective", nargs="?", help="without one, lists them")
    show.add_argument("--text", help="your own sentence or text")
    show.add_argument("--vocab", type=folder, help="a .model; without it words are the tokens")
    show.add_argument("--seed", type=whole(0, 2**62), default=0)
    show.add_argument("--rows", type=whole(1, 100), default=3)

    study = _group(commands, "study", "the exploration itself: plan, run, judge, report")
    for name, text in [
        ("plan", "what is missing and what it costs on this machine"),
        ("run", "run the declared tables (1, 4, 5, 6, 7)"),
        ("rounds", "the tournament: each round's winner goes on to the next"),
    ]:
        leaf = _leaf(study, name, f"study_{name}", text)
        leaf.add_argument("--scale", default="laptop", help="smoke, laptop or evening")
        leaf.add_argument("--out", type=folder, default=Path("study-laptop"), help="folder of the study")
        leaf.add_argument("--text", nargs="+", metavar="PATTERN", help="own text instead of the embedded corpus")
        leaf.add_argument("--task", nargs="+", metavar="FILE", help="own task files instead of the embedded tasks")
        leaf.add_argument("--metric", default=None, help="metric of task files that do not name one")
        leaf.add_argument("--workers", type=whole(1, 256), help="runs side by side (default: one a core)")
        if name != "rounds":
            leaf.add_argument("--tables", default="all", help="for example 4,5")
    report = _leaf(study, "report", "study_report", "write report.html, report.md and CSV tables again")
    report.add_argument("--out", type=folder, default=Path("study-laptop"), help="folder of the study")
    return parser


def _group(commands: Any, name: str, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _leaf(commands: Any, name: str, run: str, text: str) -> Parser:
    leaf = commands.add_parser(name, help=text, description=text)
    leaf.set_defaults(run=run)
    return leaf


def _text(parser: Parser) -> None:
    parser.add_argument(
        "--text",
        nargs="+",
        metavar="PATTERN",
        help="files or patterns (.txt .md .jsonl .parquet, .gz .zst); without it the embedded corpus",
    )


def _training(parser: Parser, *, steps: int, rows: int, source: int, rate: float) -> None:
    parser.add_argument("--config", type=folder, help="TOML file with any of these flags; the command line wins")
    parser.add_argument("--out", type=folder, help="folder of the run; an interrupted run goes on in it")
    parser.add_argument("--steps", type=whole(1), default=steps)
    parser.add_argument("--rows", type=whole(1, 65_536), default=rows, help="packed rows a step")
    parser.add_argument("--source-length", type=whole(4, 65_536), default=source, help="source tokens a row")
    parser.add_argument("--optimizer", choices=["adafactor", "adamw"], default="adafactor")
    parser.add_argument("--rate", type=real(0, 10, open_low=True), default=rate, help="learning rate")
    parser.add_argument("--dropout", type=real(0, 0.9), default=0.1)
    parser.add_argument("--seed", type=whole(0, 2**62), default=0)
    parser.add_argument("--save-every", type=whole(1), default=100, help="steps between checkpoints")
    _machine(parser)


def _machine(parser: Parser) -> None:
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if torch sees one")
    parser.add_argument("--threads", type=whole(1, 1024), help="torch threads (default 1)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: fp32 on a CPU, bf16 on a GPU")
    parser.add_argument("--micro-batch", type=whole(0, 65_536), help="rows a forward pass, 0 for all")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line, with the values of `--config FILE` as defaults. UserError for every mistake."""
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = sorted("--" + name.replace("_", "-") for name in vars(args) if name != "run")
        near = difflib.get_close_matches(unknown[0], flags, n=1)
        raise UserError(
            f"command line: found unknown argument {unknown[0]!r}; "
            + (f"did you mean {near[0]}?" if near else "see --help")
        )
    if getattr(args, "config", None):
        args = parser.parse_args([*_leaf_words(argv), *_config_flags(args), *_flags_after(argv)])
    return args


def _leaf_words(argv: Sequence[str]) -> list[str]:
    return [word for word in argv[:2] if not word.startswith("-")]


def _flags_after(argv: Sequence[str]) -> list[str]:
    return list(argv[len(_leaf_words(argv)) :])


def _config_flags(args: argparse.Namespace) -> list[str]:
    """The keys of a TOML file as flags. An unknown or near-miss key is refused with a suggestion."""
    path = args.config
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give --config an existing TOML file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: found a folder; give --config a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: found invalid TOML ({error}); mend that line") from None
    known = {name.replace("_", "-") for name in vars(args)} - {"run", "config"}
    flags = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if flag not in known:
            near = difflib.get_close_matches(flag, sorted(known), n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise UserError(f"{path}: field {name}: unknown; {hint}")
        for item in value if isinstance(value, list) and flag == "task" else [value]:
            if isinstance(item, bool | list | dict):
                raise UserError(f"{path}: field {name}: found {item!r}; give a single number or text")
            flags.append(f"--{flag}={item}")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit code: 0, 2 for a user's mistake, 75 after SIGTERM, 130 after Ctrl-C."""
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        from t5study import commands

        getattr(commands, args.run)(args)
    except UserError as error:
        print(f"t5study: error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER
    except BrokenPipeError:
        # `t5study ... | head`: the reader has seen enough. Keep the interpreter from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("t5study: interrupted; run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPT
    return 0


if __name__ == "__main__":
    sys.exit(main())
