"""matplotlib's SVG as part of a page: small, without ids that clash, in the page's own colours and font.

Colours are roles. A figure is drawn in placeholder colours, which become CSS variables (--ink, --better, ...), so that
one drawing suits light, dark and paper. Text stays text: it can be selected, searched and read aloud. The same figure
gives the same bytes: no date, no random ids.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

# Roles: placeholder colours in drawings, CSS variables in the page. None is black, which matplotlib leaves out.
ROLES = ("ink", "muted", "rule", "panel", "band", "better", "worse", "c1", "c2", "c3", "c4", "c5", "c6")
COLOUR = {role: f"#01{i:02x}ff" for i, role in enumerate(ROLES)}
LINES = ("c1", "c2", "c3", "c4", "c5", "c6")

WIDTH = 330.0  # points; the page shows a figure between 1 and 1.5 times as large
FONT = 9.8
SMALL = 8.8

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label's $ is a dollar
    "font.family": "DejaVu Sans",  # comes with matplotlib; wider than what pages are set in
    "font.size": FONT,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": COLOUR["rule"],
    "axes.facecolor": "none",
    "axes.labelcolor": COLOUR["muted"],
    "axes.labelsize": SMALL,
    "figure.facecolor": "none",
    "text.color": COLOUR["ink"],
    "xtick.color": COLOUR["rule"],
    "ytick.color": COLOUR["rule"],
    "xtick.labelcolor": COLOUR["muted"],
    "ytick.labelcolor": COLOUR["ink"],
    "xtick.labelsize": SMALL,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
}


def draw(name: str, title: str, height: float, fill: Callable[[Any], None]) -> str:
    """A figure as an <svg> element. name: unlike any other's on the page. title: what it shows, for those who do not
    see it. height: in points. fill: draws on a matplotlib Figure of WIDTH by height points."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's fonts have it
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        fill(figure)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return clean(out.getvalue().decode(), name, title)


def clean(svg: str, name: str, title: str) -> str:
    """matplotlib's file -> an element for the page."""
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith("}style") or child.tag.endswith("}metadata"):
                parent.remove(child)
    used = set(re.findall(r"#([\w.-]+)\)", svg)) | set(re.findall(r'href="#([\w.-]+)"', svg))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text = element.text if element.tag == "text" else None
        element.tail = None
        element.attrib = _attributes(element.attrib, name, used)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-labelledby": f"{name}-title"}
    heading = ElementTree.Element("title", {"id": f"{name}-title"})
    heading.text = title
    root.insert(0, heading)
    return ElementTree.tostring(_unwrapped(root), encoding="unicode")


def _attributes(found: dict[str, str], name: str, used: set[str]) -> dict[str, str]:
    kept = {}
    for key, value in found.items():
        key = key.rpartition("}")[2]
        if key == "id":
            if value not in used:
                continue
            value = f"{name}-{value}"
        elif key == "href":
            value = f"#{name}-{value.removeprefix('#')}"
        elif key == "clip-path":
            value = value.replace("#", f"#{name}-")
        elif key == "style":
            value = _css(value)
        elif key in ("d", "x", "y", "transform", "width", "height"):
            value = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
            value = " ".join(value.split()).removesuffix(" z") + (" z" if value.rstrip().endswith("z") else "")
        if key == "transform" and value.startswith("rotate(-0 "):
            continue
        kept[key] = value
    return kept


def _css(style: str) -> str:
    """Roles for colours; the font's family is the page's."""
    style = re.sub(r"font-family:[^;]*;?\s*", "", style)
    for role, colour in COLOUR.items():
        style = style.replace(colour, f"var(--{role})")
    return style.strip().removesuffix(";")


def _unwrapped(element: ElementTree.Element) -> ElementTree.Element:
    """Groups that say nothing are replaced by what is in them; empty ones go."""
    children: list[ElementTree.Element] = []
    for child in element:
        child = _unwrapped(child)
        if child.tag in ("g", "defs") and not len(child):
            continue
        if child.tag == "g" and not child.attrib:
            children.extend(child)
        else:
            children.append(child)
    element[:] = children
    return element


def wrapped(label: str, width: int, lines: int = 2) -> str:
    """A label on at most `lines` lines of about `width` characters (those of East Asia are two wide), broken between
    words where that is possible; what is left is an ellipsis. Characters that no SVG may hold become spaces.

    >>> wrapped("span corruption 15%, mean length 3", 20), wrapped("one two three", 5, 2)
    ('span corruption 15%,\\nmean length 3', 'one\\ntwo …')
    """
    label = re.sub("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]", " ", label)
    told = [""]
    for word in label.split():
        if told[-1] and _wide(f"{told[-1]} {word}") > width:
            told.append("")
        else:
            word = f" {word}" if told[-1] else word
        for one in word:
            if _wide(told[-1] + one) > width:
                told.append("")
            told[-1] += one
    if len(told) > lines:
        told = told[:lines]
        while told[-1] and _wide(told[-1]) > width - 2:
            told[-1] = told[-1][:-1]
        told[-1] = told[-1].rstrip() + " …"
    return "\n".join(told)


def _wide(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)
