"""The pronoun form: WSC, DPR and WNLI ask, in one form, which noun a marked pronoun stands for (paper, section 2.4).

    wsc: The cup fell on the plate and *it* broke.   ->   the cup

Each of the three comes in a form of its own and is brought into this one as t5 does it, its oddities included: WSC
counts words from one space to the next, DPR marks the pronoun where it first stands before a space, a full stop or a
comma, and WNLI says the noun only by a second sentence in which it stands in the pronoun's place, so that the pronoun
is that one around which the two sentences agree the longest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "wsc:"
_PRONOUNS = frozenset({"he", "she", "they", "it", "her", "his", "their", "them", "him"})
_ARTICLES = ("a", "an", "the")
_MARKS = ".,?!"


class NoPronoun(ValueError):
    """A row that cannot be brought into the form; the message says what was looked for."""


# --- WSC --------------------------------------------------------------------------------------------------------


def mark_wsc(text: str, pronoun: str, index: int) -> str:
    """A WSC text with its pronoun marked. index: of its word, words being what stands between single spaces.

    The index is wrong in one official text (it points at the word before), and in another the word has punctuation
    stuck to it; t5 has both written out by hand. Here the nearest word that is the pronoun is taken, and where none
    is, the nearest that begins with it and goes on in punctuation, which is set apart; the text's outer spaces then go,
    as they do in t5's copy. Both of its texts come out as it has them.

    >>> mark_wsc("The cup fell on the plate and it broke.", "it", 7)
    'The cup fell on the plate and *it* broke.'
    >>> mark_wsc('The pony threw him. "Good for him," he said. ', "him", 6)
    'The pony threw him. "Good for *him* ," he said.'
    """
    words = text.split(" ")
    nearest = sorted(range(len(words)), key=lambda i: (abs(i - index), i))
    whole = [i for i in nearest if words[i] == pronoun]
    stuck = [i for i in nearest if re.fullmatch(re.escape(pronoun) + r"\W+", words[i])]
    at_index = [i for i in (*whole, *stuck) if i == index]
    for i in (*at_index, *whole, *stuck):
        rest = words[i][len(pronoun) :]
        marked = " ".join([*words[:i], f"*{pronoun}*", *([rest] if rest else []), *words[i + 1 :]])
        return marked.strip() if rest else marked
    raise NoPronoun(f"found no word {pronoun!r} in the text")


def mend_span(text: str, span: str, index: int) -> str:
    """A span of WSC as it stands in the text ("wsc.fixed" of TFDS and of the hub): where it does not, its first letter
    takes the case of the text's word, a full stop at its end goes, and a line break is a space.

    >>> mend_span("I poured water from the bottle until it was empty.", "The bottle", 4)
    'the bottle'
    """
    words = text.split()
    if span in text or not span or not 0 <= index < len(words):
        return span
    first = span[0].lower() if words[index][0].islower() else span[0].upper()
    mended = (first + span[1:]).rstrip(".").replace("\n", " ")
    return mended if mended in text else span


def stands_in(span: str, text: str) -> bool:
    """Whether all words of a span are in a text, in whatever case and place: some spans name two people that the text
    names apart."""
    return bool(found := _plain_words(span)) and found <= _plain_words(text)


def _plain_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


# --- DPR --------------------------------------------------------------------------------------------------------


def mark_dpr(sentence: str, pronoun: str) -> str:
    """A DPR sentence with its pronoun marked: the first that stands between a space and a space, a full stop or a
    comma. Where it stands otherwise alone ("it's"), the sentence stays as it is, as it does in t5. A few of the real
    pronouns are nouns of several words.

    >>> mark_dpr("The bees stung the bear until they ran, and they hid.", "they")
    'The bees stung the bear until *they* ran, and they hid.'
    """
    if not stands_in(pronoun, sentence):
        raise NoPronoun(f"found no {pronoun!r} in the sentence")
    return re.sub(rf" ({re.escape(pronoun)})([ .,])", r" *\1*\2", sentence, count=1)


# --- WNLI -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Match:
    """A pronoun of the premise. index: its word. agreeing: words around it that the hypothesis has too. noun: what
    stands between these there, "" if nothing does."""

    index: int
    agreeing: int
    noun: str


def convert_wnli(premise: str, hypothesis: str) -> tuple[str, str]:
    """A WNLI pair -> the premise with its pronoun marked, and the noun that the hypothesis puts in its place: "" where
    the two sentences differ elsewhere too (10 of the 804 pairs here; t5 scores any answer to these as another noun).

    >>> convert_wnli("The fish ate the worm. It was tasty.", "The worm was tasty.")
    ('The fish ate the worm. *It* was tasty.', 'The worm')
    """
    words, told = _bare_words(premise), _bare_words(hypothesis)
    matches = [_match(words, told, i) for i, word in enumerate(words) if word in _PRONOUNS]
    if not matches:
        raise NoPronoun(f"found none of {', '.join(sorted(_PRONOUNS))} in the sentence")
    best = max(matches, key=lambda match: match.agreeing)
    return _marked(premise, best.index), _as_written(_from_last_article(best.noun), hypothesis)


def _bare_words(sentence: str) -> list[str]:
    """Lower case, a punctuation mark at a word's end gone, no empty words."""
    bare = [re.sub(rf"[{_MARKS}]$", "", word) for word in sentence.strip().lower().split(" ")]
    return [word for word in bare if word]


def _match(premise: Sequence[str], hypothesis: Sequence[str], index: int) -> _Match:
    before, after = premise[:index], premise[index + 1 :]
    n_before = _agreeing(hypothesis[::-1], before[::-1])
    n_after = _agreeing(hypothesis, after)
    left = [re.escape(word) for word in before[len(before) - n_before :]]
    right = [re.escape(word) for word in after[:n_after]]
    told = " ".join(hypothesis)
    noun = ""
    if left or right:
        # in the middle; at the start, where what was before has gone; at the end, where what was after has gone
        for pattern in ([*left, "(.+)", *right], ["^(.+)", *right], [*left, "(.+)$"]):
            if found := re.search(" ".join(pattern), told):
                noun = found[1]
                break
    return _Match(index, n_before + n_after, noun)


def _agreeing(hypothesis: Sequence[str], words: Sequence[str]) -> int:
    """How many of the first words, joined, occur in the hypothesis, parts of words counted."""
    told = " ".join(hypothesis)
    return next((n for n in range(len(words)) if " ".join(words[: n + 1]) not in told), len(words))


def _marked(premise: str, index: int) -> str:
    """The word at an index marked, a punctuation mark at its end set apart."""
    words = premise.split(" ")
    words[index] = re.sub(rf"^(.*?)([{_MARKS}]?)$", r"*\1* \2", words[index]).rstrip()
    return " ".join(words)


def _from_last_article(noun: str) -> str:
    """The noun that was found may begin with the hypothesis; its last article is then its own."""
    words = noun.split(" ")
    return " ".join(words[max((words.index(article) for article in _ARTICLES if article in words), default=0) :])


def _as_written(noun: str, hypothesis: str) -> str:
    """The noun in the hypothesis' own case, without a punctuation mark or a possessive ending."""
    pattern = " ".join(rf"{re.escape(word)}[{_MARKS}]?" for word in noun.split(" "))
    found = re.search(pattern, hypothesis, re.IGNORECASE)
    if not found:
        raise NoPronoun(f"found the noun {noun!r} otherwise in the second sentence")
    return re.sub(rf"[{_MARKS}]$", "", found[0]).removesuffix("'s").removesuffix("'")
