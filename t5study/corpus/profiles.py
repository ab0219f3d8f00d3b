"""The four programs that are called C4, as values: what each does differently. The rules themselves stand in rules.py.

    paper   what the paper's text promises; tensorflow_datasets c4 1.0.0 (wheel 1.3.0)
    2.2.0   what T5's own tasks were trained on (wheel 2.0.0): lines instead of three-sentence spans
    3.0.1   what the hub hosts as allenai/c4 (wheel 4.3.0): bad words on the finished text, local repeats go
    3.1.0   today's code (wheels 4.7.0 to 4.9.10): the newest copy of a page, words of the list taken literally

A variant is a value too: `replace(PROFILES["3.0.1"], bad_words=None)` is the hub's en.noblocklist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from t5study.ground.errors import UserError


@dataclass(frozen=True)
class Profile:
    """What a version decides. Every field plays a part in some page's fate, so all of them belong in a manifest."""

    name: str
    wheel: str  # the tensorflow_datasets release whose functions it equals

    page_characters: int = 190_000  # longer pages are left out before anything else
    sentences: int = 3  # fewer, and the page goes
    words: int = 5  # fewer, and the line goes
    word_characters: int | None = 1000  # a longer word, and the line goes; None: not looked at

    bad_words: Literal["lines", "text"] | None = "text"  # on kept lines before dedup, or on the text at the end
    bad_word_borders: Literal["a-z", "words"] = "words"  # what must stand on both sides: a non a-z, or no word/the end
    bad_words_literal: bool = False  # False: an entry is a regular expression, as it happens
    bad_words_anywhere: tuple[str, ...] = ("th", "zh")  # languages without borders between words
    bad_word_fraction: float = 1.0  # of pages with such a word, how many go

    span: Literal["window", "line"] = "line"  # what is not said twice: three sentences within a line, or a line
    fold: Literal["ASCII", "Unicode"] = "Unicode"  # which letters of a line are lower-cased before it is compared
    repeats: Literal["all go", "stay", "first stays"] = "first stays"  # of a span said twice by the page that owns it
    same_url: Literal["last", "largest text md5", "newest"] = "newest"  # which of the pages of one URL is taken

    language: str | None = "en"  # None: any
    probability: float = 0.99  # or what another detector measures by
    detector: str = "langdetect"  # the others are for texts of one's own (language.py)
    punkt: Literal["3.5", "3.9"] = "3.5"  # how NLTK of its day finds candidates for the end of a sentence
    validation: bool = True  # one URL in a thousand is held out


_PAPER = Profile(
    "paper", "1.3.0", word_characters=None, bad_words="lines", bad_word_borders="a-z", span="window",
    repeats="all go", same_url="last", validation=False,
)  # fmt: skip
_2_2_0 = Profile(
    "2.2.0", "2.0.0", bad_words="lines", bad_word_borders="a-z", fold="ASCII", repeats="stay", same_url="last"
)
_3_0_1 = Profile("3.0.1", "4.3.0", same_url="largest text md5")
_3_1_0 = Profile("3.1.0", "4.9.10", bad_words_literal=True, bad_words_anywhere=("ja", "th", "zh"), punkt="3.9")

PROFILES = {profile.name: profile for profile in (_PAPER, _2_2_0, _3_0_1, _3_1_0)}


def find_profile(name: str) -> Profile:
    """The profile of a name; UserError that lists them if there is none."""
    if name not in PROFILES:
        raise UserError(f"profile: found {name!r}; give one of {', '.join(PROFILES)}")
    return PROFILES[name]
