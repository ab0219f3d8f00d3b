"""What C4 makes of a page's address: its plain form, and which side of the validation split it is on."""

from __future__ import annotations

import hashlib
import re

from t5study.corpus.profiles import PROFILES, Profile

_SCHEME = re.compile("https?://(www[.])?")
_TRACKING = re.compile("[?](utm_|ref|feed).*")


def normalise_url(url: str, profile: Profile = PROFILES["3.1.0"]) -> str:
    """An address as C4 compares them, alike in all profiles. Not in the paper.

    >>> normalise_url("https://www.example.com/a/?utm_source=x")
    'example.com/a'

    The scheme goes wherever it stands, in the middle too, and what follows ?ref or ?feed goes whatever it is.
    """
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def url_key(url: str) -> bytes:
    """16 bytes that stand for an address: its md5, whose order is the official code's order of pages."""
    return hashlib.md5(url.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


def url_number(url: str) -> int:
    """The same of a normalised address as a number: what the official code draws lots with."""
    return int.from_bytes(url_key(url), "big")


def is_validation(url: str) -> bool:
    """Whether a page of this normalised address is held out: one in a thousand (profiles with `validation`)."""
    return url_number(url) % 1000 == 0
