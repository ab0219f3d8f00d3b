"""Metrics: two lists of answers -> a number. Pure functions, in per cent, as the T5 paper reports them.

Every metric is told twice over: `counts` (a row of numbers an example, (N, K) float64) and `finish` (the sum of those
rows -> the numbers). All that a metric knows about an example is in its row, so scoring is one sum, and an interval
over examples is a few hundred weighted sums: no prediction is compared twice, BLEU's included.

Targets are texts, or several acceptable texts each. A prediction is a text, or None: an answer that was no answer at
all. None is always wrong; it is never dropped, so that giving no answer can never raise a score. Nor is an answer of
more than MOST_CHARACTERS one.

    N  examples    K  numbers an example    U  units: examples, or groups of them    R  resamples
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t5study.ground.errors import UserError
from t5study.metrics import answers, classes, numbers, texts
from t5study.metrics.counts import Counts, Finish, Given, Target, led_by_their_mean, mean

# Longer answers are none. T5's longest (512 tokens) has some 2,000 characters, and to count the common words or the
# runs of characters of a whole book takes minutes.
MOST_CHARACTERS = 200_000


@dataclass(frozen=True)
class Metric:
    """One computation. names: its numbers, in the order that `finish` returns them. primary: the one that the paper's
    main tables show. labels: how many labels it needs (0: works on any text, -1: any number from two up)."""

    names: tuple[str, ...]
    primary: str
    count: Counts
    finish: Finish
    labels: int = 0

    def counts(
        self,
        targets: Sequence[Target],
        predictions: Sequence[str | None],
        labels: Sequence[str] = (),
        groups: Sequence[str] = (),
    ) -> np.ndarray:
        """(N, K): a row an example. ValueError if there is no example or the lists differ in length."""
        if len(targets) != len(predictions) or not len(targets):
            raise ValueError(f"{len(targets)} targets and {len(predictions)} predictions")
        if groups and len(groups) != len(targets):
            raise ValueError(f"{len(targets)} targets and {len(groups)} groups")
        said = [None if text is not None and len(text) > MOST_CHARACTERS else text for text in predictions]
        return np.asarray(self.count(Given(targets, said, labels, groups)), float)

    def units(
        self,
        targets: Sequence[Target],
        predictions: Sequence[str | None],
        labels: Sequence[str] = (),
        groups: Sequence[str] = (),
    ) -> np.ndarray:
        """(U, K): rows of what may be drawn again on its own: an example, or the sum of a group's (the answers of one
        MultiRC question stand and fall together). In the order in which groups first appear."""
        counts_NK = self.counts(targets, predictions, labels, groups)
        if not any(groups):
            return counts_NK
        group_N = Given(targets, predictions, labels, groups).group_numbers_N
        units_UK = np.zeros((group_N.max() + 1, counts_NK.shape[1]))
        np.add.at(units_UK, group_N, counts_NK)
        return units_UK

    def score(
        self,
        targets: Sequence[Target],
        predictions: Sequence[str | None],
        labels: Sequence[str] = (),
        groups: Sequence[str] = (),
    ) -> dict[str, float]:
        """The numbers over all examples. ValueError if there is no example or the lists differ in length."""
        totals_K = self.counts(targets, predictions, labels, groups).sum(0)
        return dict(zip(self.names, self.finish(totals_K, labels), strict=True))


def intervals(
    metric: Metric,
    targets: Sequence[Target],
    predictions: Sequence[str | None],
    labels: Sequence[str] = (),
    groups: Sequence[str] = (),
    resamples: int = 500,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals over examples (percentile method; Efron 1979): how far the score would move with other
    examples of the same kind. Groups are drawn whole. It says nothing about seeds. Deterministic: the resamples' seed
    is fixed.

    An example that is resampled w times weighs w times. For Spearman the ranks are those of the whole set.
    """
    units_UK = metric.units(targets, predictions, labels, groups)
    u = len(units_UK)
    weights_RU = np.random.default_rng(0).multinomial(u, np.full(u, 1 / u), size=resamples)
    totals_RK = weights_RU @ units_UK
    scores = np.array([metric.finish(totals_K, labels) for totals_K in totals_RK])
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, [tail, 1 - tail], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(metric.names)}


def find(name: str) -> tuple[Metric, str]:
    """A metric by its own name or by one of its numbers, and the number meant. UserError lists the names.

    >>> find("squad")[1], find("rouge1")[1], find("multirc")[1]
    ('exact_match', 'rouge1', 'mean')
    """
    if name in METRICS:
        return METRICS[name], METRICS[name].primary
    owners = {own: metric for own, metric in METRICS.items() if name in metric.names}
    if name in ("mean", "em") and owners:  # unlike accuracy or pearson, another thing in each of its metrics
        raise UserError(f"metric: found {name!r}, which several have; give one of {', '.join(owners)}")
    for metric in owners.values():
        return metric, name
    raise UserError(f"metric: found {name!r}; give one of {', '.join(METRICS)}")


def score(
    name: str,
    targets: Sequence[Target],
    predictions: Sequence[str | None],
    labels: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> dict[str, float]:
    """All numbers of the metric `name` (see `find`), in per cent.

    >>> score("accuracy", ["yes", "no", "no"], ["yes", "yes", None])
    {'accuracy': 33.33333333333333}
    >>> score("multirc", ["True", "False", "True"], ["True", "False", "False"], ("False", "True"), ("q1", "q1", "q2"))
    {'mean': 58.333333333333336, 'f1a': 66.66666666666667, 'em': 50.0}
    """
    return find(name)[0].score(targets, predictions, labels, groups)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(("accuracy",), "accuracy", classes.accuracy, mean),
    "f1": Metric(("f1",), "f1", classes.confusion, classes.f1, labels=2),
    "mean_f1": Metric(("mean_f1",), "mean_f1", classes.confusion, classes.mean_f1, labels=-1),
    "matthews": Metric(("matthews",), "matthews", classes.confusion, classes.matthews, labels=-1),
    "correlation": Metric(("pearson", "spearman"), "pearson", numbers.moments, numbers.correlations),
    "squad": Metric(("exact_match", "token_f1"), "exact_match", answers.squad, mean),
    "rouge": Metric(("rouge1", "rouge2", "rougeLsum"), "rouge2", texts.rouge, mean),
    "bleu": Metric(("bleu",), "bleu", texts.bleu, texts.bleu_of),
    "chrf": Metric(("chrf",), "chrf", texts.chrf, texts.chrf_of),
    "squad2": Metric(("exact_match", "token_f1"), "exact_match", answers.squad2, mean),
    "referent": Metric(("accuracy",), "accuracy", answers.referent, mean),
    "f1_accuracy": Metric(
        ("mean", "f1", "accuracy"), "mean", classes.confusion, led_by_their_mean(classes.f1_and_accuracy), labels=2
    ),
    "cb": Metric(
        ("mean", "mean_f1", "accuracy"),
        "mean",
        classes.confusion,
        led_by_their_mean(classes.mean_f1_and_accuracy),
        labels=-1,
    ),
    "correlations": Metric(
        ("mean", "pearson", "spearman"), "mean", numbers.moments, led_by_their_mean(numbers.correlations)
    ),
    "multirc": Metric(
        ("mean", "f1a", "em"), "mean", classes.multirc_counts, led_by_their_mean(classes.f1a_and_em), labels=2
    ),
    "record": Metric(("mean", "f1", "em"), "mean", answers.record, led_by_their_mean(mean)),
}
