"""One docstring: its summary, its body, its parameters, and its text without marks.

numpydoc's and Google's ways of writing parameters are read, and reStructuredText's marks are taken off. pydocs.py finds
docstrings; here they are only text.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Parameter:
    """One entry under "Parameters" or "Args:". default: as source text, "" if it has none."""

    name: str
    type: str
    default: str
    text: str


@dataclass(frozen=True)
class Documented:
    """An object and its docstring. module: the file it stands in. name: "function", "Class.method", "" for a module.
    kind: "module", "class", "function" or "topic". signature: "(a, axis=None)" or "". summary: the first paragraph on
    one line. body: the rest, as written, indentation removed."""

    package: str
    module: str
    name: str
    kind: str
    signature: str
    summary: str
    body: str
    parameters: tuple[Parameter, ...]


# --- text -------------------------------------------------------------------------------------------------------

LONG = 40  # a sentence of so many characters that occurs twice was copied
_HEADING = re.compile(r"^\s*(?:[-=~^]{3,}|(?:Args|Arguments|Returns|Raises|Examples?|Note|Yields|Shape)::?)\s*$", re.M)
_ROLE = re.compile(r":[\w:+-]+:`~?([^`]*)`")
_QUOTED = re.compile(r"``?~?([^`]*)``?")
_EMPHASIS = re.compile(r"(?<!\w)\*{1,2}([\w.]+)\*{1,2}(?!\w)")
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+")


def plain(text: str) -> str:
    """reStructuredText's marks off, white space single.

    >>> plain("Return the :class:`~io.BytesIO` of ``data``\\n  as *bytes*.")
    'Return the io.BytesIO of data as bytes.'
    """
    if "`" in text:
        text = _QUOTED.sub(r"\1", _ROLE.sub(r"\1", text))
    if "*" in text:
        text = _EMPHASIS.sub(r"\1", text)
    return " ".join(text.split())


def prose_of(body: str) -> str:
    """The description in a docstring's body: what stands before the first section, without examples and directives."""
    heading = _HEADING.search(body)
    if heading:
        # A numpydoc heading is the line above its underline; Google's "Args:" is the line itself.
        until = heading.start() if ":" in heading[0] else body.rfind("\n", 0, max(heading.start() - 1, 0)) + 1
        body = body[:until]
    lines = [line for line in body.split("\n") if not line.lstrip().startswith((">>>", "...", ".. "))]
    return plain("\n".join(lines))


def sentences(text: str) -> set[str]:
    """Its long sentences, in lower case: what tells a copy."""
    return {one.lower() for one in SENTENCE_END.split(text) if len(one) >= LONG}


# --- a docstring's parts -----------------------------------------------------------------------------------------


def whole(text: str) -> str:
    """No lone surrogates: an escape can spell one, UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


_SPELLED = re.compile(r"(?:[\w.]+\.)?(\w+)(\(.*?\))\s*(?:->\s*[^\n]*)?(?:\n--)?$", re.S)


class Found(NamedTuple):
    """An object in a file, as it stands. defaults: source text of each parameter's default."""

    name: str
    kind: str
    signature: str
    defaults: dict[str, str]
    doc: str


def document(package: str, module: str, found: Found) -> Documented | None:
    """The record of an object's docstring; None if it says nothing."""
    first, _, rest = whole(found.doc).partition("\n\n")
    signature, last = found.signature, found.name.rpartition(".")[2]
    # Objects written in C have their signature as the first line: "abs(input, *, out=None) -> Tensor".
    spelled = _SPELLED.match(first) if last and len(first) < 400 else None
    if spelled and spelled[1] == last:
        signature = signature or " ".join(spelled[2].replace("$", "").split())
        first, _, rest = rest.strip("\n").partition("\n\n")
    lines = first.strip().split("\n")
    for i, line in enumerate(lines):
        if _HEADING.match(line) and i:  # a section right under the summary
            at = i if ":" in line else i - 1
            rest = "\n".join(lines[at:]) + "\n\n" + rest
            lines = lines[:at]
            break
    summary = " ".join(line.strip() for line in lines)
    body = rest.strip("\n")
    if not summary and not body:
        return None
    return Documented(
        package, module, found.name, found.kind, signature, summary, body, _parameters(body, found.defaults)
    )


_NUMPYDOC = re.compile(r"^(?:Other )?Parameters\n[-=]{3,}\n(.*?)(?=^\S[^\n]*\n[-=]{3,}$|\Z)", re.M | re.S)
_GOOGLE = re.compile(r"^( *)(?:Args|Arguments|Keyword [Aa]rg(?:ument)?s):\n((?:(?:\1 +\S[^\n]*| *)(?:\n|\Z))+)", re.M)
_NUMPYDOC_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, ?\*{0,2}\w+)*)(?: ?: ?(.*))?$")
_GOOGLE_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, ?\w+)*) ?(?:\((.*?)\))?: ?(.*)$")
_DEFAULT = re.compile(r"\bdefaults?(?:\s*[:=]\s*|\s+(?:to|is)?\s*)(\S.*)$", re.I)


def _parameters(body: str, defaults: dict[str, str]) -> tuple[Parameter, ...]:
    """Entries of numpydoc's "Parameters" sections and of Google's "Args:"."""
    found: list[Parameter] = []
    for section in _NUMPYDOC.finditer(body):
        for head, text in _entries(section[1]):
            if entry := _NUMPYDOC_ENTRY.match(head):
                found += _each(entry[1], entry[2] or "", text, defaults)
    for section in _GOOGLE.finditer(body):
        for head, text in _entries(inspect.cleandoc("\n" + section[2])):
            if entry := _GOOGLE_ENTRY.match(head):
                found += _each(entry[1], entry[2] or "", f"{entry[3]}\n{text}".strip(), defaults)
    return tuple(found)


def _entries(section: str) -> Iterator[tuple[str, str]]:
    """(line, what is indented under it) of a section whose entries stand at the margin."""
    head, under = "", []
    for line in [*section.split("\n"), "end"]:
        if line[:1].strip():
            if head:
                yield head, inspect.cleandoc("\n" + "\n".join(under)).strip()
            head, under = line.rstrip(), []
        else:
            under.append(line)


def _each(names: str, kind: str, text: str, defaults: dict[str, str]) -> Iterator[Parameter]:
    told = _DEFAULT.search(kind)
    for name in (one.strip() for one in names.split(",")):
        default = defaults.get(name.lstrip("*"), "") or (told[1].strip(" .`") if told else "")
        yield Parameter(name, kind.strip(), default, text)
