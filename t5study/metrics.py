"""Metrics: two lists of answers -> a number. Pure functions, in per cent, as the T5 paper reports them.

Every metric is told twice over: `counts` (a row of numbers an example, (N, K) float64) and `finish` (the sum of those
rows -> the numbers). All that a metric knows about an example is in its row, so scoring is one sum, and an interval
over examples is a few hundred weighted sums: no prediction is compared twice, BLEU's included.

Targets are texts, or several acceptable texts each. A prediction is a text, or None: an answer that was no answer at
all. None is always wrong; it is never dropped, so that giving no answer can never raise a score.

    N  examples    K  numbers an example    R  resamples
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from t5study.ground.errors import UserError

Target = str | Sequence[str]
Counts = Callable[[Sequence[Target], Sequence[str | None], Sequence[str]], np.ndarray]
Finish = Callable[[np.ndarray, Sequence[str]], tuple[float, ...]]

# sacreBLEU's own signature of what `bleu` computes (WMT columns of the paper; its version 1.3.0 said "intl" too).
BLEU_SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:intl|smooth:exp"
_ORDERS = 4


@dataclass(frozen=True)
class Metric:
    """One computation. names: its numbers, in the order that `finish` returns them. primary: the one that the paper's
    main tables show. labels: how many labels it needs (0: works on any text, -1: any number from two up)."""

    names: tuple[str, ...]
    primary: str
    counts: Counts
    finish: Finish
    labels: int = 0

    def score(
        self, targets: Sequence[Target], predictions: Sequence[str | None], labels: Sequence[str] = ()
    ) -> dict[str, float]:
        """The numbers over all examples. ValueError if there is no example or the two lists differ in length."""
        if len(targets) != len(predictions) or not len(targets):
            raise ValueError(f"{len(targets)} targets and {len(predictions)} predictions")
        totals_K = self.counts(targets, predictions, labels).sum(0)
        return dict(zip(self.names, self.finish(totals_K, labels), strict=True))


def intervals(
    metric: Metric,
    targets: Sequence[Target],
    predictions: Sequence[str | None],
    labels: Sequence[str] = (),
    resamples: int = 500,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals over examples (percentile method; Efron 1979): how far the score would move with other
    examples of the same kind. It says nothing about seeds. Deterministic: the resamples' seed is fixed.

    An example that is resampled w times weighs w times. For Spearman the ranks are those of the whole set.
    """
    counts_NK = metric.counts(targets, predictions, labels)
    n = len(counts_NK)
    weights_RN = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    totals_RK = weights_RN @ counts_NK
    scores = np.array([metric.finish(totals_K, labels) for totals_K in totals_RK])
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, [tail, 1 - tail], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(metric.names)}


def find(name: str) -> tuple[Metric, str]:
    """A metric by its own name or by one of its numbers, and the number meant. UserError lists the names.

    >>> find("squad")[1], find("rouge1")[1]
    ('exact_match', 'rouge1')
    """
    if name in METRICS:
        return METRICS[name], METRICS[name].primary
    for metric in METRICS.values():
        if name in metric.names:
            return metric, name
    raise UserError(f"metric: found {name!r}; give one of {', '.join(METRICS)}")


def score(
    name: str, targets: Sequence[Target], predictions: Sequence[str | None], labels: Sequence[str] = ()
) -> dict[str, float]:
    """All numbers of the metric `name` (see `find`), in per cent.

    >>> score("accuracy", ["yes", "no", "no"], ["yes", "yes", None])
    {'accuracy': 33.33333333333333}
    """
    return find(name)[0].score(targets, predictions, labels)


def _several(target: Target) -> Sequence[str]:
    return (target,) if isinstance(target, str) else target


def _mean(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """First column: how many examples. The others: sums of per-example scores in 0..1."""
    return tuple(float(total) / float(totals_K[0]) * 100 for total in totals_K[1:])


# --- classes ----------------------------------------------------------------------------------------------------


def _accuracy(targets: Sequence[Target], predictions: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    return np.array([(1, p is not None and p in _several(t)) for t, p in zip(targets, predictions, strict=True)], float)


def _confusion(targets: Sequence[Target], predictions: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """(N, C * (C + 1)) one-hot cells of the confusion matrix; the last column is "not one of the labels"."""
    number = {label: i for i, label in enumerate(labels)}
    c = len(labels)
    cells_NK = np.zeros((len(targets), c * (c + 1)))
    for i, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
        (truth,) = _several(target)
        if truth not in number:
            raise ValueError(f"target {truth!r} is none of the labels {tuple(labels)}")
        cells_NK[i, number[truth] * (c + 1) + number.get(prediction, c)] = 1  # type: ignore[arg-type]
    return cells_NK


def _f1(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """F1 of the second label (T5 lists classes by index, and 1 is the positive one: "equivalent", "duplicate").

    An invalid answer counts as the opposite of its target (t5 f1_score_with_invalid): a missed positive is a false
    negative, a missed negative a false positive.
    """
    negative, positive = totals_K.reshape(2, 3)
    true_positive, false_positive, false_negative = positive[1], negative[1] + negative[2], positive[0] + positive[2]
    wrong = false_positive + false_negative
    return (float(200 * true_positive / (2 * true_positive + wrong)) if true_positive else 0.0,)


def _mean_f1(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """F1 of every class, averaged (t5 mean_multiclass_f1, for CB): a class never answered and never asked counts 0."""
    c = len(labels)
    matrix = totals_K.reshape(c, c + 1)
    hits, asked, answered = np.diag(matrix[:, :c]), matrix.sum(1), matrix[:, :c].sum(0)
    return (float(np.mean(200 * hits / np.maximum(asked + answered, 1))),)


def _matthews(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """Matthews correlation over any number of classes (Gorodkin 2004; scikit-learn's formula). "No valid label" is a
    class of its own among the answers. A constant answer has no correlation: 0."""
    c = len(labels)
    matrix = totals_K.reshape(c, c + 1)
    n, hits = matrix.sum(), np.trace(matrix[:, :c])
    asked, answered = matrix.sum(1), matrix.sum(0)
    covariance = hits * n - asked @ answered[:c]
    spread = (n * n - answered @ answered) * (n * n - asked @ asked)
    return (float(100 * covariance / math.sqrt(spread)) if spread > 0 else 0.0,)


# --- numbers ----------------------------------------------------------------------------------------------------

UNREADABLE_NUMBER = -1.0  # what T5 gives an STS-B answer that is no number: its scores run from 0 to 5


def as_number(text: str | None) -> float | None:
    """A finite number, or None.

    >>> as_number("3.2"), as_number("abc"), as_number("nan"), as_number(None)
    (3.2, None, None, None)
    """
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _moments(targets: Sequence[Target], predictions: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """(N, 11): one, then x, y, xx, yy, xy of the values and again of their ranks; centred, so the sums keep their
    digits."""
    from scipy.stats import rankdata

    answers = [as_number(prediction) for prediction in predictions]
    values = [
        np.array([float(_several(target)[0]) for target in targets]),
        np.array([UNREADABLE_NUMBER if answer is None else answer for answer in answers]),
    ]
    columns = [np.ones(len(targets))]
    for x, y in (values, [rankdata(value) for value in values]):
        x, y = x - x.mean(), y - y.mean()
        columns += [x, y, x * x, y * y, x * y]
    return np.stack(columns, axis=1)


def _correlations(totals_K: np.ndarray, labels: Sequence[str]) -> tuple[float, ...]:
    """Pearson and Spearman. A constant answer (0/0, nan elsewhere) has no correlation: 0."""
    out = []
    for x, y, xx, yy, xy in totals_K[1:].reshape(2, 5) / totals_K[0]:
        spread_x, spread_y = xx - x * x, yy - y * y
        constant = spread_x <= 1e-12 * max(xx, 1e-300) or spread_y <= 1e-12 * max(yy, 1e-300)
        out.append(0.0 if constant else float(100 * (xy - x * y) / math.sqrt(spread_x * spread_y)))
    return tuple(out)


# --- answers ----------------------------------------------------------------------------------------------------

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """SQuAD's rule: lower case, no ASCII punctuation, no a/an/the, single spaces (official evaluate-v1.1.py).

    >>> normalise_answer("The  Denver Broncos!")
    'denver broncos'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _token_f1(target: str, prediction: str) -> float:
    a, b = target.split(), prediction.split()
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


def _squad(targets: Sequence[Target], predictions: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """Best over the references, for exact match and for F1 over words apart."""
    rows = []
    for target, prediction in zip(targets, predictions, strict=True):
        if prediction is None:
            rows.append((1.0, 0.0, 0.0))
            continue
        answer = normalise_answer(prediction)
        references = [normalise_answer(reference) for reference in _several(target)]
        exact = float(answer in references)
        rows.append((1.0, exact, max((_token_f1(reference, answer) for reference in references), default=0.0)))
    return np.array(rows)


# --- texts ------------------------------------------------------------------------------------------------------


def _rouge(targets: Sequence[Target], predictions: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """F measures of rouge_score without stemming; " . " ends a sentence for rougeLsum, as in t5's own metric. Several
    references: the best for each number."""
    from rouge_score.rouge_scorer import RougeScorer  # 3 s to import: it brings nltk

    names = ["rouge1", "rouge2", "rougeLsum"]
    scorer = RougeScorer(rouge_types=names)
    rows = []
    for target, prediction in zip(targets, predictions, strict=True):
        best = np.zeros(3)
        for reference in _several(target) if prediction is not None else ():
            found = scorer.score(
                target=reference.replace(" . ", " .\n"), prediction=(prediction or "").replace(" . ", " .\n")
            )
            best = np.maximum(best, [found[name].fmeasure for name in names])
        rows.append((1.0, *best))
    return np.array(rows)


def bleu_counts(targets: Sequence[Target], predictions: Sequence[str | None], tokenize: str = "intl") -> np.ndarray:
    """(N, 10): words of the answer, words of the closest reference, then matching and all n-grams of order 1 to 4."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize=tokenize, smooth_method="exp", effective_order=True)  # only silences its per-sentence warning
    rows = []
    for target, prediction in zip(targets, predictions, strict=True):
        found = bleu.sentence_score(prediction or "", list(_several(target)))
        rows.append((found.sys_len, found.ref_len, *found.counts, *found.totals))
    return np.array(rows, float)


def _bleu_counts(targets: Sequence[Target], predictions: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    return bleu_counts(targets, predictions)


def bleu_of(totals_K: np.ndarray, labels: Sequence[str] = ()) -> tuple[float, ...]:
    """Corpus BLEU out of summed counts: exponential smoothing, brevity penalty (sacreBLEU's own arithmetic)."""
    from sacrebleu.metrics.bleu import BLEU

    whole = [round(x) for x in totals_K]
    correct, total = whole[2 : 2 + _ORDERS], whole[2 + _ORDERS :]
    return (float(BLEU.compute_bleu(correct, total, whole[0], whole[1], smooth_method="exp").score),)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(("accuracy",), "accuracy", _accuracy, _mean),
    "f1": Metric(("f1",), "f1", _confusion, _f1, labels=2),
    "mean_f1": Metric(("mean_f1",), "mean_f1", _confusion, _mean_f1, labels=-1),
    "matthews": Metric(("matthews",), "matthews", _confusion, _matthews, labels=-1),
    "correlation": Metric(("pearson", "spearman"), "pearson", _moments, _correlations),
    "squad": Metric(("exact_match", "token_f1"), "exact_match", _squad, _mean),
    "rouge": Metric(("rouge1", "rouge2", "rougeLsum"), "rouge2", _rouge, _mean),
    "bleu": Metric(("bleu",), "bleu", _bleu_counts, bleu_of),
}
