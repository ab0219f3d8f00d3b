"""Noise in numbers: textbook cases, and the paper's own bold marks."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from t5study.study import noise
from t5study.study.tables.objectives import TABLE_1

PAPER = Path(__file__).parents[1] / "paper"


def test_spread_is_that_of_a_sample():
    found = noise.spread([83.1, 83.4, 83.2, 82.9])
    assert found.runs == 4
    assert found.mean == pytest.approx(np.mean([83.1, 83.4, 83.2, 82.9]))
    assert found.std == pytest.approx(np.std([83.1, 83.4, 83.2, 82.9], ddof=1))


def test_one_run_has_no_deviation_and_no_interval():
    assert noise.spread([4.0]) == noise.Spread(1, 4.0, None)
    assert noise.mean_interval([4.0]) is None
    with pytest.raises(ValueError, match="no runs"):
        noise.spread([])


def test_the_interval_of_a_mean_is_students():
    # Three runs: t(0.975, 2) = 4.3027; std 1, so 4 +- 4.3027 / sqrt(3).
    low, high = noise.mean_interval([3.0, 4.0, 5.0]) or (0, 0)
    assert (low, high) == pytest.approx((4 - 4.302653 / math.sqrt(3), 4 + 4.302653 / math.sqrt(3)), abs=1e-6)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(7.0, 2.0, size=(2000, 3))
    covered = np.mean([low <= 7.0 <= high for low, high in map(noise.mean_interval, draws.tolist())])  # type: ignore
    assert covered == pytest.approx(0.95, abs=0.015)


def test_the_noise_of_a_difference_is_welchs():
    a, b = [5.1, 5.3, 5.6], [4.0, 4.9, 4.4, 4.1]
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert noise.difference_noise(a, b) == pytest.approx((interval.high - interval.low) / 2)


def test_a_single_run_is_given_the_baselines_deviation():
    # std 1 over three runs; one run against their mean: t(0.975, 2) * sqrt(1/3 + 1) = 4.9683.
    assert noise.difference_noise([3.0, 4.0, 5.0], [9.0]) == pytest.approx(4.302653 * math.sqrt(4 / 3), abs=1e-5)
    assert noise.difference_noise([9.0], [3.0, 4.0, 5.0]) == noise.difference_noise([3.0, 4.0, 5.0], [9.0])


def test_gain_knows_which_way_is_better():
    lower = noise.gain([3.0, 3.1, 3.2], [4.0, 4.1, 4.2], higher_is_better=False)
    assert lower.gain == pytest.approx(1.0)
    assert lower.above_noise
    assert not noise.gain([3.0, 3.1, 3.2], [4.0, 4.1, 4.2]).above_noise  # worse is no gain
    assert not noise.gain([40.0, 50.0, 60.0], [39.0, 49.0, 62.0]).above_noise
    assert not noise.gain([50.0], [40.0]).above_noise  # nobody knows


def test_identical_runs_make_any_difference_signal():
    assert noise.gain([2.0, 2.0], [1.0, 1.0]).above_noise


def test_two_deviations_off_is_not_bold():
    assert noise.within_two({"best": 83.28, "shared": 82.81}, 0.235) == ("best",)
    assert noise.within_two({"best": 83.28, "near": 82.82}, 0.235) == ("best", "near")
    assert noise.within_two({"a": 2.0, "b": 1.0, "c": 1.05}, 0.05, higher_is_better=False) == ("b", "c")
    assert noise.within_two({"a": 1.0, "b": 1.0, "c": 0.9}, None) == ("a", "b")
    assert noise.within_two({}, 1.0) == ()


@pytest.mark.parametrize("number", ["1", "4", "5", "6", "7"])
def test_the_papers_bold_marks_follow_from_its_deviations(number: str):
    """126 cells; those of Table 7 are marked by the rule itself ("rule:yes"), the others were read off the page."""
    deviation = TABLE_1.deviation
    assert deviation is not None
    values: dict[str, dict[str, float]] = defaultdict(dict)
    printed: dict[str, set[str]] = defaultdict(set)
    with open(PAPER / f"table_{number}.csv", encoding="utf-8") as file:
        for cell in csv.DictReader(file):
            if "deviation" not in cell["row"]:
                values[cell["column"]][cell["row"]] = float(cell["value"])
                if cell["bold"].endswith("yes"):
                    printed[cell["column"]].add(cell["row"])
    assert set(values) == set(deviation)
    for column, found in values.items():
        assert set(noise.within_two(found, deviation[column])) == printed[column], column
