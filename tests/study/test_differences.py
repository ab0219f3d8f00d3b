"""Rows against the baseline: which runs are paired, what is corrected together, and what may be claimed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import study_folder
from kept_predictions import kept
from study_folder import VERDICT, fingerprint, write_study

from t5study.evaluate.compare import holm
from t5study.evaluate.predictions import Kept, save_predictions
from t5study.ground.errors import UserError
from t5study.metrics import metric as metrics
from t5study.study import report_files
from t5study.study.differences import Difference, differences
from t5study.study.examples import compared, weights
from t5study.study.findings import table_lines
from t5study.study.paired import Contrast
from t5study.study.report_differences import outcome_sentence, rows_tested, words
from t5study.study.report_input import StudiedBenchmark, Study, read_study
from t5study.study.report_view import _panels, _table
from t5study.study.scores import Column

LABELS = ("no", "yes")
TASKS = [f"pydocs/{name}" for name, *_ in study_folder.TASKS]
N = 80


def answers(task: str, right: float, seed: int) -> Kept:
    """80 answers, of which about that part is right; likelihoods that are the better the more are."""
    chance = np.random.default_rng([seed, len(task)])
    targets = [LABELS[i % 2] for i in range(N)]
    said = [one if chance.random() < right else LABELS[one == "no"] for one in targets]
    nats = (2.0 - right + np.random.default_rng(len(task)).normal(0, 0.5, N) ** 2 + chance.normal(0, 0.05, N)).tolist()
    return kept(said, targets, task=task, metric="accuracy", labels=LABELS, nats=nats)


def keep(out: Path, name: str, seed: int, right: float, tasks: list[str] = TASKS) -> None:
    """A run's fine-tuning as it lies in the store: results that name the steps, and predictions of those steps."""
    run = out / "store" / "finetune" / fingerprint(name, seed)
    steps = {"metric": {"step": 400}, "nats": {"step": 500}}
    for step in (400, 500):
        for k, task in enumerate(tasks):
            found = answers(task, right if step == 400 else right + 0.01, seed)
            path = run / "predictions" / f"{step:07d}" / f"{k:02d}-task.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_predictions(found.predictions, path, found.about)
    (run / "result.json").write_text(json.dumps({"tasks": dict.fromkeys(tasks, steps)}))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Table 7: the baseline and `s3` have predictions; `s2`, `s5` and `s10` have one seed, and `s5` no predictions."""
    out = tmp_path_factory.mktemp("differences")
    scores = study_folder.scores()
    for seed, value in [(0, 3.0), (1, 3.1), (2, 3.05)]:
        scores["runs"][fingerprint("baseline", seed)]["cells"][VERDICT]["value"] = value
    for seed, value in [(0, 2.8), (1, 2.901)]:
        scores["runs"][fingerprint("s3", seed)]["cells"][VERDICT]["value"] = value
    write_study(out, scores, journals=False)
    told = {"baseline": (0.6, (0, 1, 2)), "s3": (0.9, (0, 1)), "s2": (0.62, (0,)), "s10": (0.3, (0,))}
    for name, (right, seeds) in told.items():
        for seed in seeds:
            keep(out, name, seed, right)
    return read_study(out)


def table_7(study: Study) -> list[dict[str, Difference]]:
    return differences(study, table_lines(study, study.tables[4]))


def contrast(found: Contrast | str) -> Contrast:
    assert isinstance(found, Contrast), found
    return found


def test_equal_seeds_are_paired_and_the_third_baseline_has_no_partner(study: Study):
    found = table_7(study)[2][VERDICT]
    seeds = contrast(found.seeds.found)
    assert (seeds.pairs, seeds.how) == (2, "Student")
    assert seeds.mean == pytest.approx(((2.8 - 3.0) + (2.901 - 3.1)) / 2)
    assert found.seeds.holm == pytest.approx(seeds.p)  # no other row has two seeds
    assert found.outcome == "better"  # fewer nats
    assert words(found.seeds, found.column).startswith("−0.200 [−0.206, −0.193], p 0.0016 (Student, 2 pairs)")


def test_one_seed_claims_nothing_whatever_its_examples_say(study: Study):
    found = table_7(study)[4][VERDICT]
    assert contrast(found.examples.found).p < 1e-6
    assert found.examples.told_apart
    assert found.seeds.found == "one seed in common: nothing is known of its noise"
    assert found.outcome == "one seed"


def test_without_predictions_no_example_is_compared_and_it_says_so(study: Study):
    found = table_7(study)[3]["package"]
    assert found.examples.found == "pydocs/package: its predictions are not in the store"
    assert found.outcome == "not tested"


def test_damaged_predictions_are_one_line(tmp_path: Path):
    write_study(tmp_path, journals=False)
    keep(tmp_path, "baseline", 0, 0.6)
    keep(tmp_path, "prefix", 0, 0.5)
    damaged = tmp_path / "store" / "finetune" / fingerprint("prefix", 0) / "predictions" / "0000400" / "00-task.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    study = read_study(tmp_path)
    pair = study.runs[fingerprint("prefix", 0)], study.runs[fingerprint("baseline", 0)]
    with pytest.raises(UserError, match="found damaged predictions") as caught:
        compared(study, study.column("package"), [pair])
    assert str(damaged) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_baseline_is_not_compared_with_itself(study: Study):
    assert table_7(study)[0] == {}


def test_the_verdict_column_is_corrected_over_its_rows_and_the_others_together(study: Study):
    found = table_7(study)
    for verdict in (True, False):
        tested = [
            each.examples
            for row in found
            for name, each in row.items()
            if (name == VERDICT) == verdict and isinstance(each.examples.found, Contrast)
        ]
        assert len(tested) == (3 if verdict else 39)
        p = [contrast(each.found).p for each in tested]
        assert [each.holm for each in tested] == holm(p)
    assert not any(each.seeds.told_apart for row in found for each in row.values() if each.seeds.holm is None)


def test_examples_are_paired_within_seeds_and_their_difference_is_the_scores(study: Study):
    """Of accuracy: the mean over seeds of what the two files score."""
    column = study.column("package")
    pairs = [(study.runs[fingerprint("s3", seed)], study.runs[fingerprint("baseline", seed)]) for seed in (0, 1)]
    found = contrast(compared(study, column, pairs))
    each = [score(answers(column.task, 0.9, seed)) - score(answers(column.task, 0.6, seed)) for seed in (0, 1)]
    assert found.mean == pytest.approx(np.mean(each))
    assert found.pairs == N
    mean = contrast(compared(study, study.column("mean"), pairs))
    tasks = [contrast(compared(study, study.column(name), pairs)).mean for name, *_ in study_folder.TASKS]
    assert mean.mean == pytest.approx(np.mean(tasks))
    assert mean.pairs == 6 * N


def score(found: Kept) -> float:
    metric, primary = metrics.find(found.about.metric)
    targets = [one.row.answers for one in found.predictions]
    told = metric.score(targets, [one.answer for one in found.predictions], LABELS)
    return told[primary]


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "f1"])
def test_a_pseudo_value_is_what_the_score_loses_without_the_example(metric: str):
    from t5study.study.examples import _by_metric

    chance = np.random.default_rng(3)
    targets = [LABELS[i] for i in chance.integers(0, 2, 30)]
    said = [LABELS[i] if i < 2 else None for i in chance.integers(0, 3, 30)]
    found = _by_metric(kept(said, targets, metric=metric, labels=LABELS))
    assert not isinstance(found, str)
    kind, primary = metrics.find(metric)
    whole = kind.score(targets, said, LABELS)[primary]
    assert found[0] == pytest.approx(whole)
    for i, value in enumerate(found[1].values()):
        without = kind.score(targets[:i] + targets[i + 1 :], said[:i] + said[i + 1 :], LABELS)[primary]
        assert value == pytest.approx(30 * whole - 29 * without)


def test_groups_are_examples_and_nats_are_a_ratio():
    from t5study.study.examples import _by_likelihood, _by_metric

    grouped = kept(["yes", "no"] * 6, ["yes"] * 12, labels=LABELS, groups=[f"q{i // 3}" for i in range(12)])
    found = _by_metric(grouped)
    assert not isinstance(found, str)
    assert list(found[1]) == ["q0", "q1", "q2", "q3"]
    likely = _by_likelihood(kept(["yes"] * 3, ["yes"] * 3, nats=[1.0, 2.0, 6.0]))
    assert not isinstance(likely, str)
    assert likely[0] == pytest.approx(9 / 6)
    assert list(likely[1].values()) == pytest.approx([3 * 1.5 - 2 * 8 / 4, 3 * 1.5 - 2 * 7 / 4, 3 * 1.5 - 2 * 3 / 4])


def test_an_average_weighs_its_groups_and_the_mean_its_benchmarks(study: Study):
    from dataclasses import replace

    glue = StudiedBenchmark("glue", "GLUE", (("cola",), ("mnli", "mnli_mm")), (), None)
    benchmarks = (glue, StudiedBenchmark("squad", "SQuAD", (("squad/v1",),), (), None))
    several = replace(study, benchmarks=(*benchmarks, StudiedBenchmark("ende", "EnDe", (), (), "no rows")))

    def of(name: str, task: str, kind: str = "metric") -> dict[str, float]:
        return weights(several, Column(name, task, "", kind, True, "%"))

    assert of("GLUE", "glue") == {"cola": 0.5, "mnli": 0.25, "mnli_mm": 0.25}
    assert of("GLUE nats", "glue", "likelihood") == of("GLUE", "glue")
    assert of("SQuAD", "squad") == {"squad/v1": 1.0}
    assert of("mean", "mean") == {"cola": 0.25, "mnli": 0.125, "mnli_mm": 0.125, "squad/v1": 0.5}
    assert of("CoLA", "cola") == {"cola": 1.0}
    assert weights(study, study.column(VERDICT)) == dict.fromkeys(TASKS, pytest.approx(1 / 6))


def test_words_say_a_tie_and_who_stays_open(study: Study):
    lines = table_lines(study, study.tables[4])
    rows = rows_tested(study.column(VERDICT), lines, table_7(study))
    assert [row.outcome for row in rows] == ["one seed", "better", "not tested", "one seed"]
    said = outcome_sentence(study.column(VERDICT), rows)
    assert said == "On mean nats, over seeds: better: 3; open, as 2 rows of one seed have no test."
    tie = outcome_sentence(study.column(VERDICT), [rows[1].__class__("3", "", "", "tie")])
    assert tie == "On mean nats, over seeds: a tie: 3."


def test_csv_has_both_tests_and_says_why_there_is_none(study: Study):
    view = _table(study, study.tables[4], _panels(study))
    rows: list[dict[str, Any]] = [
        dict(zip(report_files._TABLE, row, strict=True)) for row in report_files._table(study, view)
    ]
    ours = {(row["row"], row["column"]): row for row in rows if row["source"] == "ours"}
    found = table_7(study)[2][VERDICT]
    told = ours["3", VERDICT]
    seeds = contrast(found.seeds.found)
    assert (told["seed_low"], told["seed_p"], told["seed_holm"]) == (seeds.low, seeds.p, found.seeds.holm)
    assert (told["example_test"], told["outcome"]) == (contrast(found.examples.found).how, "better")
    assert ours["10", VERDICT]["seed_test"].startswith("one seed")
    assert ours["10", VERDICT]["seed_p"] is None
    assert all(row["outcome"] is None for row in rows if row["source"] == "paper" or row["starred"] == "yes")
