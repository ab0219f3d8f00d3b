"""Compare: two checkpoints' predictions on the same rows -> is one better, or is it chance?

    difference and interval     paired bootstrap: both systems are scored on the same resamples of the rows (Efron &
                                Tibshirani 1993; Koehn 2004), groups drawn whole; percentile interval
    p of the difference         how often a resample lies as far from the difference that was found as that lies from
                                0 (the shifted null of Efron & Tibshirani, section 16.4), two-sided, with the added one
    p of BLEU and chrF          sacreBLEU's own paired bootstrap, so that it is the number that others print
    McNemar                     exact (binomial), on rows that one system has right and the other wrong; a group
                                (MultiRC: a question) is right if all of it is
    Holm                        p of several tasks at once, corrected (Holm 1979)

It tells of other rows of the same kind. Of other seeds it says nothing: for that, train again.

    U  units: rows, or groups of them    R  resamples    K  numbers a unit    N  rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from t5study.evaluate.evaluation import Interval, Prediction
from t5study.evaluate.predictions import Kept
from t5study.ground.errors import UserError
from t5study.metrics import metric as metrics
from t5study.metrics.counts import Given, several

RESAMPLES = 2000
_AT_ONCE = 1 << 22  # weights held at once


@dataclass(frozen=True)
class Difference:
    """One number of both systems: theirs, first minus second, its 95 % interval, and p two-sided."""

    first: float
    second: float
    difference: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class McNemar:
    """Units that only one of the two has right, and how likely so uneven a split would be if either had them as
    often (exact, two-sided; 1 where there are none)."""

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """task, metric: what was compared, and the number that counts. numbers: each of the metric's, and "nats" (a target
    token; less is better) where both read the targets as the same tokens. mcnemar: None where an answer is not just
    right or wrong. holm: p of the number that counts, corrected for all tasks that were compared with it."""

    task: str
    metric: str
    n: int
    numbers: dict[str, Difference] = field(default_factory=dict)
    mcnemar: McNemar | None = None
    holm: float = 1.0

    @property
    def p(self) -> float:
        """Of the number that counts."""
        return self.numbers[self.metric].p


def compare(first: Kept, second: Kept, resamples: int = RESAMPLES, seed: int = 12345) -> Comparison:
    """Two files of predictions of one task. UserError if they are of different tasks or rows."""
    a, b = paired(first, second)
    about = first.about
    if about.split == "test":
        raise UserError(f"{first.path}: holds answers to test rows, which have no labels; compare validation answers")
    metric, primary = metrics.find(about.metric)
    groups = [one.row.group for one in a]
    units = [
        metric.units([x.row.answers for x in one], [x.answer for x in one], about.labels, groups) for one in (a, b)
    ]
    drawn = [_resampled(units_UK, resamples, seed) for units_UK in units]
    scores_R = [np.array([metric.finish(totals_K, about.labels) for totals_K in totals_RK]) for totals_RK in drawn]
    whole = [metric.finish(units_UK.sum(0), about.labels) for units_UK in units]
    numbers = {
        name: _difference(whole[0][i], whole[1][i], scores_R[0][:, i] - scores_R[1][:, i])
        for i, name in enumerate(metric.names)
    }
    for name in numbers:
        if name in ("bleu", "chrf"):
            found = numbers[name]
            p = sacrebleu_p(name, a, b, resamples)
            numbers[name] = Difference(found.first, found.second, found.difference, found.interval, p)
    if (nats := _nats(a, b, resamples, seed)) is not None:
        numbers["nats"] = nats
    right = [_right(about.metric, about.labels, one) for one in (a, b)]
    return Comparison(
        task=about.task,
        metric=primary,
        n=len(a),
        numbers=numbers,
        mcnemar=None if right[0] is None or right[1] is None else mcnemar(*_by_group(right[0], right[1], groups)),
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: the smallest p times how many there are, the next times one less, never falling, at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, p[i] * (len(p) - rank)))
        out[i] = least
    return out


# --- the same rows ------------------------------------------------------------------------------------------------


def paired(first: Kept, second: Kept) -> tuple[list[Prediction], list[Prediction]]:
    """Both files' predictions in the first one's order. UserError if they are not of the same task and rows."""
    for name in ("task", "split", "metric", "labels"):
        one, other = getattr(first.about, name), getattr(second.about, name)
        if one != other:
            raise UserError(
                f"{second.path}: found {name} {other!r}, but {one!r} in {first.path}; compare like with like"
            )
    others = {one.row.id: one for one in second.predictions}
    mine = {one.row.id for one in first.predictions}
    for path, there, here in ((second.path, mine, others.keys()), (first.path, others.keys(), mine)):
        if missing := [name for name in there if name not in here]:
            raise UserError(
                f"{path}: has no answer to row {sorted(missing)[0][:40]!r} and {len(missing) - 1} others that the "
                "other file has; evaluate both on the same rows"
            )
    if not mine:
        raise UserError(f"{first.path}: holds no predictions; evaluate again")
    ordered = [others[one.row.id] for one in first.predictions]
    for one, other in zip(first.predictions, ordered, strict=True):
        if one.row != other.row:
            raise UserError(
                f"{second.path}: row {one.row.id[:40]!r} is another one than in {first.path}; evaluate both on "
                "the same version of the task"
            )
    return list(first.predictions), ordered


# --- tests --------------------------------------------------------------------------------------------------------


def _resampled(units_UK: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(R, K) sums over resamples. Equal seeds and numbers of units draw equal units: that is what pairs two systems."""
    u = len(units_UK)
    random = np.random.default_rng(seed)
    totals, each = [], max(1, _AT_ONCE // u)
    for first in range(0, resamples, each):
        size = min(each, resamples - first)
        totals.append(random.multinomial(u, np.full(u, 1 / u), size=size) @ units_UK)
    return np.concatenate(totals)


def _difference(first: float, second: float, drawn_R: np.ndarray) -> Difference:
    first, second = float(first), float(second)
    found = first - second
    low, high = np.quantile(drawn_R, [0.025, 0.975])
    rounding = 1e-9 * max(1.0, abs(first), abs(second))
    as_far = int((np.abs(drawn_R - found) >= abs(found) - rounding).sum())
    return Difference(first, second, found, (float(low), float(high)), (as_far + 1) / (len(drawn_R) + 1))


def sacrebleu_p(name: str, first: Sequence[Prediction], second: Sequence[Prediction], resamples: int) -> float:
    """p of sacreBLEU's paired bootstrap of the second against the first, with this project's settings of the metric."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.significance import PairedTest, Result

    metric = BLEU(tokenize="intl", smooth_method="exp") if name == "bleu" else CHRF()
    references = [one.row.references or (one.row.target,) for one in first]
    streams = [[one[i] if i < len(one) else one[0] for one in references] for i in range(max(map(len, references)))]
    said = [[one.answer or "" for one in each] for each in (first, second)]
    systems: list[tuple[str, Sequence[str]]] = [("first", said[0]), ("second", said[1])]
    test = PairedTest(systems, {name: metric}, streams, test_type="bs", n_samples=resamples)
    _, results = test()
    found = [each[1] for name, each in results.items() if name != "System"]
    (result,) = found
    assert isinstance(result, Result)
    assert result.p_value is not None
    return result.p_value


def _nats(a: Sequence[Prediction], b: Sequence[Prediction], resamples: int, seed: int) -> Difference | None:
    """Nats a target token; nothing where the two count the targets' tokens differently (another vocabulary)."""
    if any(x.nats is None or y.nats is None or x.tokens != y.tokens for x, y in zip(a, b, strict=True)):
        return None
    units_NK = np.array([(x.nats, y.nats, x.tokens) for x, y in zip(a, b, strict=True)], float)
    first, second, tokens = units_NK.sum(0)
    drawn_RK = _resampled(units_NK, resamples, seed)
    return _difference(first / tokens, second / tokens, (drawn_RK[:, 0] - drawn_RK[:, 1]) / drawn_RK[:, 2])


def mcnemar(first_U: np.ndarray, second_U: np.ndarray) -> McNemar:
    """Exact McNemar test of two systems' right answers (bool).

    >>> mcnemar(np.array([True] * 9 + [False]), np.array([False] * 9 + [True]))
    McNemar(only_first=9, only_second=1, p=0.021484375)
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first_U & ~second_U).sum()), int((second_U & ~first_U).sum())
    both = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, both, 0.5).pvalue) if both else 1.0)


_RIGHT_OR_WRONG = {"accuracy": 1, "exact_match": 1, "squad": 1, "squad2": 1, "referent": 1, "record": 2}  # its column


def _right(metric: str, labels: Sequence[str], predictions: Sequence[Prediction]) -> np.ndarray | None:
    """Which answers are right; None where the metric knows more than right and wrong."""
    answers = [one.answer for one in predictions]
    if labels:
        return np.array([one.answer in several(one.row.answers) for one in predictions])
    if metric not in _RIGHT_OR_WRONG:
        return None
    found = metrics.find(metric)[0]
    counts_NK = found.count(Given([one.row.answers for one in predictions], answers, labels))
    return np.asarray(counts_NK)[:, _RIGHT_OR_WRONG[metric]] == 1


def _by_group(first_N: np.ndarray, second_N: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which groups are right: those that are all right."""
    group_N = Given(groups, [None] * len(groups), (), groups).group_numbers_N
    wrong = [np.bincount(group_N, ~right_N) > 0 for right_N in (first_N, second_N)]
    return ~wrong[0], ~wrong[1]


def as_json(found: Comparison) -> dict[str, Any]:
    """A comparison as plain JSON."""
    numbers = {
        name: {"first": one.first, "second": one.second, "difference": one.difference}
        | {"low": one.interval[0], "high": one.interval[1], "p": one.p}
        for name, one in found.numbers.items()
    }
    test = found.mcnemar
    split = None if test is None else {"only_first": test.only_first, "only_second": test.only_second, "p": test.p}
    about = {"task": found.task, "metric": found.metric, "n": found.n, "holm": found.holm}
    return {**about, "numbers": numbers, "mcnemar": split}
