"""One page of raw text on its way to becoming a document."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """text: what it says. url: where it came from, as a person would look it up; it plays no part in training."""

    text: str
    url: str = ""
