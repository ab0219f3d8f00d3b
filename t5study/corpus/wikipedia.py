"""A dump of a wiki (MediaWiki XML, .bz2 or .gz or plain) -> the text of its articles.

As the data set behind the paper's Wikipedia does it: articles of the main namespace that are no redirects; links to
files, images and media go, as do references, tables and templates; what is left is the text that a reader sees,
section by section, a blank line between two.
"""

from __future__ import annotations

import bz2
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from t5study.corpus.page import Drops, Page
from t5study.ground.errors import UserError

ARTICLE = 1 << 24  # bytes; the longest article of the English Wikipedia has half a megabyte
_BELIEVED, _RATIO = 1 << 27, 100  # XML packs 4 times by bzip2; a bomb a million
_REDIRECT = re.compile(r"\s*#\s*redirect\b", re.IGNORECASE)
_FILES = re.compile(r"\s*(file|image|media|category|datei|bild|fichier|archivo|kategorie|catégorie)\s*:", re.IGNORECASE)
_QUOTES = re.compile("('{2,})")
_UNREAD_TAGS = {"ref", "table", "gallery", "math", "timeline", "imagemap", "syntaxhighlight", "source"}


def read_dump(path: Path, drops: Drops) -> Iterator[Page]:
    """Articles of a dump, in its order; url is https://<language>.wikipedia.org/wiki/<title> by the dump's own base.

    Left out and counted: redirects, other namespaces, articles without text, articles above 16 MiB. A dump that is cut
    or damaged gives what stands before the damage, and that is counted too. UserError without mwparserfromhell.
    """
    try:
        import mwparserfromhell
    except ImportError:
        raise UserError(f"{path}: reading a wiki's dump needs mwparserfromhell: pip install 't5study[wiki]'") from None
    base = "https://en.wikipedia.org/wiki/"
    for name, fields in _elements(path, drops):
        if name == "base":
            base = fields["base"].rpartition("/")[0] + "/"
            continue
        title, text = fields.get("title", ""), fields.get("text", "")
        where = f"{title[:80]!r} of {path}"
        if fields.get("ns", "0").strip() != "0":
            drops.add("of another namespace", where)
        elif "redirect" in fields or _REDIRECT.match(text):
            drops.add("redirect", where)
        elif len(text) > ARTICLE:
            drops.add(f"article above {ARTICLE >> 20} MiB", where)
        elif article := _plain(mwparserfromhell, text):
            yield Page(article, base + title.replace(" ", "_"), fields.get("timestamp", ""), base.split("//")[-1][:2])
        else:
            drops.add("without text", where)


def _elements(path: Path, drops: Drops) -> Iterator[tuple[str, dict[str, str]]]:
    """("base", {...}) once, then ("page", its fields) for each page; everything read is let go of at once."""
    parser = ElementTree.XMLPullParser(("start", "end"))
    root: Any = None
    fields: dict[str, str] = {}
    unfinished = 0
    try:
        for block in _unpacked(path):
            if b"<!ENTITY" in block or b"<!DOCTYPE" in block:
                drops.add("dump that declares entities", str(path))
                return
            parser.feed(block)
            unfinished += len(block)
            for event, element in parser.read_events():  # pyright: ignore[reportAssignmentType]
                assert isinstance(element, ElementTree.Element)
                name = element.tag.rpartition("}")[2]
                if event == "start":
                    root = element if root is None else root
                    if name == "page":
                        fields = {}
                    continue
                match name:
                    case "base":
                        yield "base", {"base": element.text or ""}
                    case "title" | "ns" | "text" | "timestamp":
                        fields[name] = element.text or ""
                    case "redirect":
                        fields["redirect"] = "yes"
                    case "page":
                        yield "page", fields
                        root.clear()
                        unfinished = 0
            if unfinished > 4 * ARTICLE:
                drops.add("dump with a page without an end", str(path))
                return
        parser.close()
    except ElementTree.ParseError:
        drops.add("dump whose XML is damaged or cut", str(path))
    except (EOFError, OSError, zlib.error, ValueError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        drops.add("dump whose archive is damaged or cut", str(path))


def _unpacked(path: Path) -> Iterator[bytes]:
    """Blocks of a megabyte. ValueError beyond belief; a cut archive ends with EOFError."""
    total, most = 0, max(_BELIEVED, _RATIO * path.stat().st_size)
    if path.suffix.lower() == ".bz2":
        file: Any = bz2.open(path, "rb")
    elif path.suffix.lower() == ".gz":
        from isal import igzip

        file = igzip.open(path, "rb")
    else:
        file = open(path, "rb")
    with file:
        while block := file.read(1 << 20):
            total += len(block)
            if path.suffix.lower() in (".bz2", ".gz") and total > most:
                raise ValueError("unpacks beyond belief")
            yield block


def _plain(parser: Any, text: str) -> str:
    """Wikitext -> what a reader sees, without tables, references, templates and files."""
    # Before all else: an italic left open would leave a section unparsed, one around a template two marks as one
    code = parser.parse("\n".join(_without_quotes(line) for line in text.split("\n")), skip_style_tags=True)
    sections = [_section(parser, section) for section in code.get_sections(flat=True, include_headings=True)]
    return "\n\n".join(section for section in sections if section)


def _section(parser: Any, section: Any) -> str:
    def remove(node: Any) -> None:
        try:
            section.remove(node)
        except ValueError:  # went with the node that held it
            return

    for link in section.ifilter_wikilinks(recursive=True):
        if _FILES.match(str(link.title)):
            remove(link)
    for template in section.ifilter_templates(recursive=True):
        remove(template)
    for tag in section.ifilter_tags(recursive=True):
        if str(tag.tag).strip().lower() in _UNREAD_TAGS:
            remove(tag)
    lines = (line.strip() for line in section.strip_code(normalize=True, collapse=True).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _without_quotes(line: str) -> str:
    """A line without the marks of italics (2 apostrophes) and bold (3), as MediaWiki's doQuotes reads a line.

    Of four, and of more than five, those in front are text. If both kinds are left open, one bold is an apostrophe and
    an italic: after a word of one letter, else after a longer word, else after a space.

    >>> _without_quotes("in the ''Iliad'''s lines")
    "in the Iliad's lines"
    """
    if "''" not in line:
        return line
    parts = _QUOTES.split(line)  # text, marks, text, ..., text
    marks = [5 if len(run) > 5 else 3 if len(run) == 4 else len(run) for run in parts[1::2]]
    spare = ["'" * (len(run) - mark) for run, mark in zip(parts[1::2], marks, strict=True)]
    bold, italic = (sum(mark in (kind, 5) for mark in marks) for kind in (3, 2))
    if bold % 2 and italic % 2:
        places = [i for i, mark in enumerate(marks) if mark == 3]
        befores = {i: parts[2 * i] + spare[i] for i in places}
        one = [i for i in places if befores[i][-1:] != " " and befores[i][-2:-1] == " "]
        word = [i for i in places if befores[i][-1:] != " " and befores[i][-2:-1] != " "]
        for i in (one or word or places)[:1]:
            spare[i] += "'"
    return "".join(text + kept for text, kept in zip(parts[::2], [*spare, ""], strict=True))
