"""The two kinds of nodes of the command line: a group of commands, and a command."""

from __future__ import annotations

import textwrap
from typing import Any

from t5study.commands.flags import Parser


def group(commands: Any, name: str, text: str) -> Any:
    """Adds a group; returns what its commands are added to."""
    parser = commands.add_parser(name, help=text, description=text)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def leaf(commands: Any, name: str, run: str, text: str, example: str) -> Parser:
    """Adds a command. run: its function, as "module.function" below t5study/commands. text: its first sentence stands
    in lists. example: the words behind the command's own; further lines are further examples, spelt out."""
    parser = commands.add_parser(name, help=_short(text), description=textwrap.fill(text, 88))
    parser.epilog = f"example:\n  {parser.prog} {example}"
    parser.set_defaults(run=run)
    return parser


def _short(text: str) -> str:
    """A command's first sentence, as a line of a list."""
    return text[:1].lower() + text[1:].partition(". ")[0].partition(": ")[0].removesuffix(".")
