"""Aho-Corasick (1975), compiled by numba: one step a character, whatever the number of entries.

N  characters    S  states    K  classes of characters (0: in no entry)    C  code points below 65,536    E  entries

States in which no entry ends come first, so that one comparison a character tells whether to look closer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit

ANYWHERE, OTHER_THAN_A_TO_Z, NO_WORD_CHARACTER, WITHIN_A_LINE = 0, 1, 2, 3


@dataclass(frozen=True, eq=False)
class Automaton:
    """step_SK: where the row of the next state begins, if rows of K follow one another. ends: the first state in which
    an entry ends. entry_S: the longest entry that ends in a state, or -1. shorter_S: the state of the next shorter one
    that ends there too, or 0."""

    class_C: np.ndarray
    step_SK: np.ndarray
    ends: int
    entry_S: np.ndarray
    shorter_S: np.ndarray
    length_E: np.ndarray

    def first(self, text: str, borders: int) -> int:
        """The number of an entry that stands in a text with such borders, or -1."""
        if text.isascii():
            return self.first_of(np.frombuffer(text.encode("ascii"), np.uint8), borders)[0]
        return self.first_of(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), borders)[0]

    def first_of(self, code_N: np.ndarray, borders: int) -> tuple[int, int]:
        """The same, and the place of its last character. code_N: characters, uint32, or bytes, uint8."""
        return first_hit(
            code_N, self.class_C, self.step_SK, self.ends, self.entry_S, self.shorter_S, self.length_E,
            word_characters(), borders,
        )  # fmt: skip


@lru_cache(maxsize=1)
def word_characters() -> np.ndarray:
    """Whether a code point is a word's, as \\w has it: (1,114,112,)."""
    word_P = np.array([chr(code).isalnum() for code in range(0x110000)], np.bool_)
    word_P[ord("_")] = True
    return word_P


def build(entries: Sequence[str]) -> Automaton:
    """The automaton of entries, none of them empty."""
    letters = sorted({letter for entry in entries for letter in entry})
    number = {letter: k for k, letter in enumerate(letters, 1)}
    children: list[dict[int, int]] = [{}]
    ends = {}
    for e, entry in enumerate(entries):
        state = 0
        for letter in entry:
            state = children[state].setdefault(number[letter], len(children))
            if state == len(children):
                children.append({})
        ends[state] = e
    step_SK = np.zeros((len(children), len(letters) + 1), np.int32)
    entry_S, shorter_S = np.full(len(children), -1, np.int32), np.zeros(len(children), np.int32)
    back_S = [0] * len(children)
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        back = back_S[state]
        step_SK[state] = step_SK[back]
        entry_S[state] = ends.get(state, -1)
        shorter_S[state] = back if entry_S[back] >= 0 else shorter_S[back]
        for k, child in children[state].items():
            back_S[child] = int(step_SK[back, k]) if state else 0
            step_SK[state, k] = child
            waiting.append(child)
    class_C = np.zeros(0x110000 if letters and letters[-1] > "\uffff" else 1 << 16, np.int32)
    class_C[[ord(letter) for letter in letters]] = np.arange(1, len(letters) + 1)
    length_E = np.array([len(entry) for entry in entries], np.int64)
    ending_S = (entry_S >= 0) | (shorter_S > 0)
    old_S = np.argsort(ending_S, kind="stable")  # of each state the one that it was; the first stays the first
    new_S = np.argsort(old_S).astype(np.int32)
    rows_SK = new_S[step_SK[old_S]] * np.int32(len(letters) + 1)
    ends = len(children) - int(ending_S.sum())
    return Automaton(class_C, rows_SK, ends, entry_S[old_S], new_S[shorter_S[old_S]], length_E)


@njit(cache=True, nogil=True)
def first_hit(code_N, class_C, step_SK, ends, entry_S, shorter_S, length_E, word_P, borders):
    """(number of the entry that ends first with the borders asked for around it, place of its last character);
    (-1, -1) if none does."""
    characters, row, classes = len(code_N), 0, step_SK.shape[1]
    next_T = step_SK.reshape(-1)
    for i in range(characters):
        code = code_N[i]
        row = next_T[row + (class_C[code] if code < len(class_C) else 0)]
        if row < ends * classes:
            continue
        ending = row // classes
        while ending:
            entry = entry_S[ending]
            if entry >= 0:
                start, end = i + 1 - length_E[entry], i + 1
                before = code_N[start - 1] if start > 0 else 0
                after = code_N[end] if end < characters else 0
                if borders in (OTHER_THAN_A_TO_Z, WITHIN_A_LINE):  # the ends of a line are no borders
                    inside = start > 0 and end < characters
                    stands = inside and not (97 <= before <= 122 or 97 <= after <= 122)
                    if borders == WITHIN_A_LINE:
                        stands = stands and before != 10 and after != 10
                else:
                    stands = borders == ANYWHERE or not (word_P[before] or word_P[after])
                if stands:
                    return entry, i
            ending = shorter_S[ending]
    return -1, -1
