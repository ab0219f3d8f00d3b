"""langdetect's method in plain Python: what language_loops.py compiles, for machines where nothing can be compiled.

Slow (a few hundred pages a second), and the second opinion that the compiled loops are tested against.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from t5study.corpus.language_tables import Tables

_TRIALS, _CERTAIN, _MOST_DRAWS = 7, 0.99999, 1000


def probabilities(text: str, known: Tables) -> np.ndarray | None:
    """The mean probability of each language, in the order of known.languages; None if the text has no known n-gram."""
    rows = [known.ngrams[ngram] for ngram in _ngrams(text, known) if ngram in known.ngrams]
    if not rows:
        return None
    chances = random.Random(0)
    means = np.zeros(len(known.languages))
    for _ in range(_TRIALS):
        weight = (0.5 + chances.gauss(0.0, 1.0) * 0.05) / 10_000
        chance_L = np.full(len(known.languages), 1 / len(known.languages))
        for draw in range(_MOST_DRAWS + 1):
            chance_L *= weight + known.rates_WL[chances.choice(rows)]
            if draw % 5 == 0:
                chance_L /= chance_L.sum()
                if chance_L.max() > _CERTAIN:
                    break
        means += chance_L / _TRIALS
    return means


def _ngrams(text: str, known: Tables) -> Iterator[str]:
    """One to three characters that end at each place, from a word's leading space to its trailing one."""
    latin = sum("A" <= one <= "z" for one in text)
    other = sum(one >= "\u0300" for one in text)  # Vietnamese letters too: language_loops says why
    gram, shouting = " ", False
    for raw in text:
        if latin * 2 < other and "A" <= raw <= "z":
            continue
        one = chr(known.plain_C[ord(raw)]) if raw <= "\uffff" else raw
        last = gram[-1]
        if last == " ":
            gram, shouting = " ", False
            if one == " ":
                continue
        gram = gram[-2:] + one
        shouting = one.isupper() and (shouting or last.isupper())
        if not shouting:
            yield from (gram[-n:] for n in range(1, len(gram) + 1) if gram[-n:] != " ")
