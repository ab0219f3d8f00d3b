"""Metrics of short answers: SQuAD's exact match and F1, ReCoRD's, and the rule for the referent of a pronoun."""

from __future__ import annotations

import re
import string
from collections import Counter

import numpy as np

from t5study.metrics.counts import Given, several

NO_ANSWER = "unanswerable"  # the answer to a SQuAD 2.0 question that the passage does not answer (see tasks/squad.py)
WRONG_CANDIDATE = "False"  # second text of a referent's target: the pronoun does not mean the first

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

# t5's list (postprocessors.py, wsc_simple).
_DETERMINERS = frozenset(
    {"a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that", "the", "their"}
    | {"these", "this", "those", "which", "whose", "your"}
)


def normalise_answer(text: str) -> str:
    """SQuAD's rule: lower case, no ASCII punctuation, no a/an/the, single spaces (official evaluate-v1.1.py).

    >>> normalise_answer("The  Denver Broncos!")
    'denver broncos'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def token_f1(target: str, prediction: str) -> float:
    """F1 over the words of two normalised answers, 0 where they share none."""
    a, b = target.split(), prediction.split()
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


def squad(given: Given) -> np.ndarray:
    """(N, 3): one, exact match, F1. Best over the references, for each of the two apart."""
    rows = []
    for target, prediction in zip(given.targets, given.predictions, strict=True):
        if prediction is None:
            rows.append((1.0, 0.0, 0.0))
            continue
        answer = normalise_answer(prediction)
        references = [normalise_answer(reference) for reference in several(target)]
        exact = float(answer in references)
        rows.append((1.0, exact, max((token_f1(reference, answer) for reference in references), default=0.0)))
    return np.array(rows)


def squad2(given: Given) -> np.ndarray:
    """(N, 3) as `squad`, for questions that may have no answer (official evaluate-v2.0.py): where the target or the
    answer is NO_ANSWER, both numbers say whether both are. None is no answer at all, and so wrong there too."""
    rows_N3 = squad(given)
    none = normalise_answer(NO_ANSWER)
    for i, (target, prediction) in enumerate(zip(given.targets, given.predictions, strict=True)):
        references = {normalise_answer(reference) for reference in several(target)}
        answer = None if prediction is None else normalise_answer(prediction)
        if none in references or answer == none:
            rows_N3[i, 1:] = none in references and answer == none
    return rows_N3


def record(given: Given) -> np.ndarray:
    """(N, 3): weight, F1, exact match, by SQuAD's rule. Of a group (one query of one passage, asked once for each of
    its answers) only the first example weighs: t5 counts a query once, against all of its answers."""
    group_N = given.group_numbers_N
    _, first_G = np.unique(group_N, return_index=True)
    weight_N1 = np.zeros((len(group_N), 1))
    weight_N1[first_G] = 1
    return squad(given)[:, [0, 2, 1]] * weight_N1


def referent(given: Given) -> np.ndarray:
    """(N, 2): one, right or not, where a pronoun's referent is asked for (WSC, DPR, WNLI). A target is the candidate
    that the pronoun means, or (candidate, "True" or "False"), which says whether it does: an answer is right if
    `means` agrees with that. A cleaned answer of no words is wrong, whichever was asked for."""
    rows = []
    for target, prediction in zip(given.targets, given.predictions, strict=True):
        candidate, label = (target, "True") if isinstance(target, str) else (target[0], (*target, "True")[1])
        found = None if prediction is None else means(prediction, candidate)
        rows.append((1.0, found is not None and found == (label != WRONG_CANDIDATE)))
    return np.array(rows, float)


def means(answer: str, candidate: str) -> bool | None:
    """Whether an answer means the candidate (t5 wsc_simple): without case and determiners, the words of one are among
    the words of the other, and both or neither have an apostrophe. None if no word is left of the answer.

    >>> means("The fuzzy Bunny", "bunny"), means("Bob's", "Bob"), means("the", "bunny"), means("cat", "bunny")
    (True, False, None, False)
    """
    said, meant = _bare(answer), _bare(candidate)
    if not said:
        return None
    if ("'" in said) != ("'" in meant):
        return False
    words, others = set(said.split(" ")), set(meant.split(" "))
    return words <= others or others <= words


def _bare(text: str) -> str:
    return " ".join(word for word in text.strip().lower().split(" ") if word not in _DETERMINERS)
