"""t5study: from text, tasks and a compute budget to the T5 recipe that wins.

Heavy imports stay inside the commands (t5study/commands), so that `t5study --help` answers at once. Whatever a
user can cause ends in one line on standard error and exit code 2; Ctrl-C saves and exits 130, a scheduler's signal
saves and exits 75 so that it runs the command again, as a process does whose fellow died; a full disk
exits 74.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import io
import os
import select
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from t5study.commands.flags import Parser, Real, Whole, WholeOrAuto
from t5study.commands.tree import build_parser
from t5study.ground.errors import Lost, NoRoom, Stopped, UserError

EXIT_USER, EXIT_IO, EXIT_INTERRUPT = 2, 74, 130
LARGEST_CONFIG = 1 << 20

# --- reading a command line ---------------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line, with the values of `--config FILE` as defaults. UserError for every mistake."""
    parser = build_parser()
    leaf = _leaf_of(parser, argv)
    args = parser.parse_args(argv)
    if getattr(args, "config", None):
        settings = _config(args.config, leaf)
        # A list on the command line replaces the file's; argparse itself would append to it.
        leaf.set_defaults(**{name: value for name, value in settings.items() if not isinstance(value, list)})
        args = parser.parse_args(argv)
        for name, value in settings.items():
            if isinstance(value, list) and not getattr(args, name):
                setattr(args, name, value)
    return args


def _leaf_of(parser: Parser, argv: Sequence[str]) -> Parser:
    """The parser that a command line leads to. UserError, with the nearest name, for an unknown command or flag:
    argparse itself would first complain of what is missing, which is the misspelt one."""
    words = list(argv)
    while (choices := _choices(parser)) and words and not words[0].startswith("-"):
        if words[0] not in choices:
            raise UserError(f"command line: found unknown command {words[0][:40]!r}; {_nearest(words[0], choices)}")
        parser = choices[words.pop(0)]
    flags = parser._option_string_actions
    for word in words[: words.index("--") if "--" in words else None]:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in flags:
            near = _nearest(name, [flag for flag in flags if flag.startswith("--")])
            raise UserError(f"command line: found unknown argument {name[:40]!r}; {near}")
    return parser


def _choices(parser: Parser) -> dict[str, Parser]:
    groups = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return groups[0] if groups else {}


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _config(path: Path, leaf: Parser) -> dict[str, Any]:
    """The keys of a TOML file as values of the leaf's flags, each checked as the flag would be."""
    flags = {
        action.dest.replace("_", "-"): action
        for action in leaf._actions
        if action.option_strings and action.dest not in ("help", "config")
    }
    settings: dict[str, Any] = {}
    for name, value in _toml(path).items():
        action = flags.get(name.replace("_", "-"))
        if action is None:
            raise UserError(f"{path}: field {name[:40]}: unknown; {_nearest(name.replace('_', '-'), flags)}")
        if action.dest in settings:
            raise UserError(f"{path}: field {name}: found twice, with - and with _; remove one")
        many = isinstance(value, list) and action.nargs == "+"
        values = [_checked(path, name, one, action) for one in (value if many else [value])]
        settings[action.dest] = values if action.nargs == "+" else values[0]
    return settings


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    if path.is_dir():
        raise UserError(f"{path}: found a folder; give --config a TOML file")
    if not path.is_file():
        raise UserError(f"{path}: no such file; give --config an existing TOML file")
    if (size := path.stat().st_size) > LARGEST_CONFIG:
        raise UserError(f"{path}: found {size:,} bytes; a configuration has a few lines, give --config a TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found bytes that are not UTF-8 at {error.start}; give --config a TOML file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{path}: found invalid TOML ({error}); mend that line") from None


def _checked(path: Path, name: str, value: Any, action: argparse.Action) -> Any:
    def wrong(found: str) -> NoReturn:
        raise UserError(f"{path}: field {name}: found {found}")

    number = isinstance(action.type, Whole | Real)
    if isinstance(value, bool | list | dict):
        wrong(f"{str(value)[:40]}; give a single {'number' if number else 'text'}")
    if number and isinstance(value, str) and not (value == "auto" and isinstance(action.type, WholeOrAuto)):
        wrong(f"the text {value[:40]!r}; give a number, without quotes")
    if not number and not isinstance(value, str):
        wrong(f"{str(value)[:40]}; give a text, in quotes")
    if action.choices and value not in action.choices:
        wrong(f"{value[:40]!r}; {_nearest(value, action.choices)}")
    try:
        return action.type(str(value)) if callable(action.type) else value
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{path}: field {name}: {error}") from None


# --- running ------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit code: 0, 2 for a user's mistake, 74 where nothing can be written, 75 after
    SIGTERM and the like or where another process is gone, 130 after Ctrl-C."""
    _streams()
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        return _told(f"error: {error}", EXIT_IO if isinstance(error, NoRoom) else EXIT_USER)
    except (Stopped, Lost) as ended:
        return _told(str(ended), ended.code)
    except KeyboardInterrupt:
        return _told("interrupted; run the same command again to go on", EXIT_INTERRUPT)
    except BrokenPipeError:
        return _left()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
        hint = "make room and run the same command again" if full else "check the path and its permissions"
        return _told(f"error: {where}{error.strerror or error}; {hint}", EXIT_IO if full else EXIT_USER)


def _run(argv: Sequence[str]) -> int:
    """Output is flushed here, where a full disk or a reader that left can still be told from success."""
    code = 0
    try:
        args = parse(argv)
        module, _, function = args.run.partition(".")
        getattr(importlib.import_module(f"t5study.commands.{module}"), function)(args)
    except SystemExit as leave:  # --help and --version
        code = leave.code if isinstance(leave.code, int) else 0
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _streams() -> None:
    """Streams that no locale can break: a character it lacks is escaped, a byte it cannot read is kept to be told of.
    A standard stream that was closed gets a descriptor that leads nowhere, lest the next file opened take its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def _left() -> int:
    """What a broken pipe comes to. `t5study ... | head`: the reader has seen enough, and the interpreter is kept from
    flushing into the closed pipe. Any other is of a process or a connection that work was given to."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and _is_left(stream)]
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    told = "error: found a process or a connection gone (broken pipe); run the same command again to go on"
    return 0 if streams else _told(told, Lost.code)


def _is_left(stream: IO[str]) -> bool:
    """Whether nobody can read any more what a stream writes: of its pipe or socket the kernel says so unasked."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except ValueError:  # it is closed, or has no descriptor
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _told(text: str, code: int) -> int:
    """One line on standard error, if anybody listens."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"t5study: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
