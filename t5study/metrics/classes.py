"""Metrics of a choice among fixed labels: accuracy, F1, Matthews, and what CB and MultiRC are scored by.

A confusion matrix has one column more than it has classes: answers that are none of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from t5study.metrics.counts import Given, several


def accuracy(given: Given) -> np.ndarray:
    """(N, 2): one, right or not."""
    answers = zip(given.targets, given.predictions, strict=True)
    return np.array([(1, prediction is not None and prediction in several(target)) for target, prediction in answers])


def confusion(given: Given) -> np.ndarray:
    """(N, C * (C + 1)) one-hot cells of the confusion matrix; the last column is "not one of the labels"."""
    number = {label: i for i, label in enumerate(given.labels)}
    c = len(given.labels)
    cells_NK = np.zeros((len(given.targets), c * (c + 1)))
    for i, (target, prediction) in enumerate(zip(given.targets, given.predictions, strict=True)):
        (truth,) = several(target)
        if truth not in number:
            raise ValueError(f"target {truth!r} is none of the labels {tuple(given.labels)}")
        answer = c if prediction is None else number.get(prediction, c)
        cells_NK[i, number[truth] * (c + 1) + answer] = 1
    return cells_NK


def f1(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """F1 of the second label (T5 lists classes by index, and 1 is the positive one: "equivalent", "duplicate").

    An invalid answer counts as the opposite of its target (t5 f1_score_with_invalid): a missed positive is a false
    negative, a missed negative a false positive.
    """
    negative, positive = totals_K.reshape(2, 3)
    true_positive, false_positive, false_negative = positive[1], negative[1] + negative[2], positive[0] + positive[2]
    wrong = false_positive + false_negative
    return (float(200 * true_positive / (2 * true_positive + wrong)) if true_positive else 0.0,)


def mean_f1(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """F1 of every class, averaged (t5 mean_multiclass_f1, for CB): a class never answered and never asked counts 0."""
    matrix, c = _matrix(totals_K, labels)
    hits, asked, answered = np.diag(matrix[:, :c]), matrix.sum(1), matrix[:, :c].sum(0)
    return (float(np.mean(200 * hits / np.maximum(asked + answered, 1))),)


def matthews(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """Matthews correlation over any number of classes (Gorodkin 2004; scikit-learn's formula). "No valid label" is a
    class of its own among the answers. A constant answer has no correlation: 0."""
    matrix, c = _matrix(totals_K, labels)
    n, hits = matrix.sum(), np.trace(matrix[:, :c])
    asked, answered = matrix.sum(1), matrix.sum(0)
    covariance = hits * n - asked @ answered[:c]
    spread = (n * n - answered @ answered) * (n * n - asked @ asked)
    return (float(100 * covariance / math.sqrt(spread)) if spread > 0 else 0.0,)


def right(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """Accuracy, out of a confusion matrix."""
    matrix, c = _matrix(totals_K, labels)
    return (float(100 * np.trace(matrix[:, :c]) / matrix.sum()),)


def f1_and_accuracy(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """MRPC and QQP."""
    return (*f1(totals_K, labels), *right(totals_K, labels))


def mean_f1_and_accuracy(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """CB."""
    return (*mean_f1(totals_K, labels), *right(totals_K, labels))


def multirc_counts(given: Given) -> np.ndarray:
    """(N, 8): cells of the confusion matrix, then, in the row of a question's first answer alone: one, and whether all
    of the question's answers are judged right (Khashabi et al. 2018: F1a and EM, "exact match")."""
    group_N = given.group_numbers_N
    right_N = accuracy(given)[:, 1]
    missed_G = np.bincount(group_N, 1 - right_N)
    questions_N2 = np.zeros((len(group_N), 2))
    _, first_G = np.unique(group_N, return_index=True)
    questions_N2[first_G, 0] = 1
    questions_N2[first_G, 1] = missed_G == 0
    return np.hstack([confusion(given), questions_N2])


def f1a_and_em(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """MultiRC: F1 over all answers; the share of questions whose answers are all right."""
    return (*f1(totals_K[:6], labels), float(100 * totals_K[7] / totals_K[6]))


def _matrix(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, int]:
    return totals_K.reshape(len(labels), len(labels) + 1), len(labels)
