"""Metrics of longer texts: ROUGE for summaries, BLEU and chrF for translations.

BLEU and chrF are those of a whole corpus: their rows hold counts, not scores, and only the sums become a score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from t5study.metrics.counts import Given, Target, several

# sacreBLEU's own signatures of what `bleu` and `chrf` compute (WMT columns of the paper: its version 1.3.0 said "intl"
# too; chrF as WMT publishes it).
BLEU_SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:intl|smooth:exp"
CHRF_SIGNATURE = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no"

_ORDERS = 4
_CHARACTERS = 6
_BETA = 2  # recall weighs twice as much as precision


def rouge(given: Given) -> np.ndarray:
    """(N, 4): one, then the F measures rouge1, rouge2 and rougeLsum of rouge_score, without stemming; " . " ends a
    sentence for rougeLsum, as in t5's own metric. Several references: the best for each number."""
    from rouge_score.rouge_scorer import RougeScorer  # 3 s to import: it brings nltk

    names = ["rouge1", "rouge2", "rougeLsum"]
    scorer = RougeScorer(rouge_types=names)
    rows = []
    for target, prediction in zip(given.targets, given.predictions, strict=True):
        best = np.zeros(3)
        for reference in several(target) if prediction is not None else ():
            found = scorer.score(
                target=reference.replace(" . ", " .\n"), prediction=(prediction or "").replace(" . ", " .\n")
            )
            best = np.maximum(best, [found[name].fmeasure for name in names])
        rows.append((1.0, *best))
    return np.array(rows)


def t5_rouge(targets: Sequence[Target], predictions: Sequence[str | None], seed: int = 123) -> dict[str, float]:
    """ROUGE as T5's own code reports it: not the mean over the examples but the median of the means of 1,000 resamples
    (rouge_score's BootstrapAggregator), which depends on a random state. With the default seed it gives the values that
    the authors keep with their code, to the last digit. For comparison with numbers published elsewhere."""
    scores_N3 = rouge(Given(targets, predictions))[:, 1:]
    state, n = np.random.RandomState(seed), len(scores_N3)
    found = {}
    for name, scores_N in zip(("rouge1", "rouge2", "rougeLsum"), scores_N3.T, strict=True):
        means = [scores_N[state.choice(n, size=n)].mean() for _ in range(1000)]
        found[name] = float(100 * np.percentile(means, 50))
    return found


def bleu_counts(targets: Sequence[Target], predictions: Sequence[str | None], tokenize: str = "intl") -> np.ndarray:
    """(N, 10): words of the answer, words of the closest reference, then matching and all n-grams of order 1 to 4."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize=tokenize, smooth_method="exp", effective_order=True)  # only silences its per-sentence warning
    rows = []
    for target, prediction in zip(targets, predictions, strict=True):
        found = bleu.sentence_score(prediction or "", list(several(target)))
        rows.append((found.sys_len, found.ref_len, *found.counts, *found.totals))
    return np.array(rows, float)


def bleu(given: Given) -> np.ndarray:
    """`bleu_counts` as the paper cuts words."""
    return bleu_counts(given.targets, given.predictions)


def bleu_of(totals_K: np.ndarray, labels: Sequence[str] = ()) -> tuple[float, ...]:
    """Corpus BLEU out of summed counts: exponential smoothing, brevity penalty (sacreBLEU's own arithmetic)."""
    from sacrebleu.metrics.bleu import BLEU

    whole = [round(x) for x in totals_K]
    correct, total = whole[2 : 2 + _ORDERS], whole[2 + _ORDERS :]
    return (float(BLEU.compute_bleu(correct, total, whole[0], whole[1], smooth_method="exp").score),)


def chrf(given: Given) -> np.ndarray:
    """(N, 18): for runs of 1 to 6 characters, white space left out: how many the answer has, how many the reference,
    how many both. Several references: those of the best one (Popović 2015; sacreBLEU keeps its own sums to itself)."""
    rows = []
    for target, prediction in zip(given.targets, given.predictions, strict=True):
        said = _runs(prediction or "")
        each = [_shared(said, _runs(reference)) for reference in several(target)]
        rows.append(max(each, key=lambda row: chrf_of(row)[0]))
    return np.array(rows)


def chrf_of(totals_K: np.ndarray, labels: Sequence[str] = ()) -> tuple[float, ...]:
    """Corpus chrF2 out of summed counts: precision and recall, each averaged over the orders that both texts have."""
    said, meant, both = totals_K.reshape(_CHARACTERS, 3).T
    there = (said > 0) & (meant > 0)
    if not both.any():
        return (0.0,)
    precision, recall = np.mean(both[there] / said[there]), np.mean(both[there] / meant[there])
    weight = _BETA**2
    return (float(100 * (1 + weight) * precision * recall / (weight * precision + recall)),)


def _runs(text: str) -> list[Counter[str]]:
    text = "".join(text.split())
    return [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in range(1, _CHARACTERS + 1)]


def _shared(said: list[Counter[str]], meant: list[Counter[str]]) -> np.ndarray:
    rows = []
    for answer, reference in zip(said, meant, strict=True):
        both = sum(min(count, reference[run]) for run, count in answer.items() if run in reference)
        # A reference without a run of this length takes the answer's out of the corpus' sum, as sacreBLEU does.
        rows += [answer.total() if reference else 0, reference.total(), both]
    return np.array(rows, float)
