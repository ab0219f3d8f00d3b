"""A run's answers, example by example, out of the predictions that its fine-tunings keep: as differences of two runs.

    column         a weighted mean over tasks: one task, a benchmark's groups, or the mean over all
    example        a task's unit: a row, or the rows of a group, which stand and fall together
    its value      the jackknife's pseudo-value (Tukey 1958): what the score would lose without it, times how many there
                   are. Of a score that is a mean it is the example's own score; of others (Matthews, F1, BLEU, nats a
                   token) their mean is the score but for a bias of the order of one over the examples
    seeds          of several pairs of runs an example's difference is the mean over the pairs

Each task is taken at the checkpoint that counts for its column: the best by its metric, or by likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from t5study.ground.errors import UserError
from t5study.ground.store import read_json
from t5study.study.paired import Contrast, by_example
from t5study.study.report_input import Run, Study
from t5study.study.scores import Column
from t5study.study.stages import RESULT

if TYPE_CHECKING:
    from t5study.evaluate.predictions import Kept

Groups = Sequence[Sequence[str]]


def weights(study: Study, column: Column) -> dict[str, float]:
    """Task -> its weight in a column: 1 of a task's own; of an average what its groups make of it.

    The members of a group share one weight, the groups of a benchmark another, the benchmarks a third.
    """
    heading = column.name.removesuffix(" nats") if column.kind == "likelihood" else column.name
    groups = {one.column: one.groups for one in study.benchmarks if one.groups}
    if heading in groups:
        return _mean(groups[heading])
    if heading == "mean" or column.task == "mean":
        parts = [_mean(each) for each in groups.values()] or [{str(task["name"]): 1.0} for task in study.tasks]
        return {name: weight / len(parts) for part in parts for name, weight in part.items()}
    return {column.task: 1.0}


def _mean(groups: Groups) -> dict[str, float]:
    return {name: 1 / len(groups) / len(group) for group in groups for name in group}


def compared(study: Study, column: Column, pairs: Sequence[tuple[Run, Run]]) -> Contrast | str:
    """The difference of the first runs to the second in a column, tested by example; or why it cannot be.

    pairs: runs of equal seeds. UserError if predictions are damaged.
    """
    if not pairs:
        return "no run to compare"
    strata, found = [], 0.0
    for task, weight in weights(study, column).items():
        differences = []
        for first, second in pairs:
            one, other = (_values(study.folder / "store", run.finetunes, task, column.kind) for run in (first, second))
            if isinstance(one, str):
                return one
            if isinstance(other, str):
                return other
            (score_a, values_a), (score_b, values_b) = one, other
            if values_a.keys() != values_b.keys():
                return f"{task}: the two were scored on other rows"
            differences.append([values_a[name] - values_b[name] for name in values_a])
            found += weight * (score_a - score_b) / len(pairs)
        strata.append((weight * np.mean(differences, axis=0)).tolist())
    return by_example(strata, found)


# --- one run on one task ----------------------------------------------------------------------------------------

Values = tuple[float, Mapping[str, float]]  # the score; example -> its pseudo-value


def _values(store: Path, finetunes: tuple[str, ...], task: str, kind: str) -> Values | str:
    """At the checkpoint that counts; or why there is none."""
    for name in finetunes:
        path = store / name / RESULT
        scores = read_json(path).get("tasks", {}).get(task) if path.is_file() else None
        if scores is None:
            continue
        file = _file(store / name, task, scores["metric" if kind == "metric" else "nats"]["step"])
        if file is None:
            continue
        return _read(file, kind)
    return f"{task}: its predictions are not in the store"


@lru_cache(maxsize=512)
def _read(file: Path, kind: str) -> Values | str:
    """Once a process: the baseline's are asked for by every row, and what is in a store stays."""
    from t5study.evaluate.predictions import read_predictions

    kept = read_predictions(file)
    return _by_metric(kept) if kind == "metric" else _by_likelihood(kept)


def _file(run: Path, task: str, step: int) -> Path | None:
    """The file of predictions that says it is of that task. UserError for a file that cannot be read."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    from t5study.evaluate.predictions import ABOUT

    for path in sorted((run / "predictions" / f"{step:07d}").glob("*.parquet")):
        try:
            told = json.loads((pq.read_schema(path).metadata or {}).get(ABOUT, b"{}"))
        except (pa.ArrowException, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{path}: found damaged predictions ({reason}); remove {run} and run the study again"
            ) from None
        if told.get("task") == task:
            return path
    return None


def _by_metric(kept: Kept) -> Values | str:
    from t5study.metrics import metric as metrics

    metric, primary = metrics.find(kept.about.metric)
    at, labels = metric.names.index(primary), kept.about.labels
    rows = [one.row for one in kept.predictions]
    groups = [row.group for row in rows]
    units_UK = metric.units([row.answers for row in rows], [one.answer for one in kept.predictions], labels, groups)
    total_K, u = units_UK.sum(0), len(units_UK)
    score = float(metric.finish(total_K, labels)[at])
    if u < 2:
        return f"{kept.about.task}: has a single example"
    names = list(dict.fromkeys(groups)) if any(groups) else [row.id for row in rows]
    # Equal rows of counts leave equal scores: of answers right or wrong there are two.
    kinds_JK, kind_U = np.unique(units_UK, axis=0, return_inverse=True)
    without_J = np.array([metric.finish(total_K - unit_K, labels)[at] for unit_K in kinds_JK])
    values_U = u * score - (u - 1) * without_J[kind_U.reshape(-1)]
    return score, dict(zip(names, values_U.tolist(), strict=True))


def _by_likelihood(kept: Kept) -> Values | str:
    found = [(one.row.id, one.nats, one.tokens) for one in kept.predictions]
    nats_N = np.array([np.nan if nats is None else nats for _, nats, _ in found])
    tokens_N = np.array([tokens for _, _, tokens in found], float)
    if np.isnan(nats_N).any() or len(found) < 2:
        return f"{kept.about.task}: its predictions tell no likelihood"
    nats, tokens, n = nats_N.sum(), tokens_N.sum(), len(found)
    values_N = n * nats / tokens - (n - 1) * (nats - nats_N) / (tokens - tokens_N)
    return float(nats / tokens), dict(zip((name for name, _, _ in found), values_N.tolist(), strict=True))
