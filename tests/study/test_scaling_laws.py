"""Power laws: known exponents come back, intervals cover them, and where nothing can be told nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import study_folder
from scipy import stats
from study_folder import VERDICT, write_study

from t5study.study.report_input import read_study
from t5study.study.report_scaling import by_size, by_steps, chosen_runs, drawing, widening
from t5study.study.scaling import Fit, fit, sentence


def law(found: Fit | str) -> Fit:
    assert isinstance(found, Fit), found
    return found


@pytest.mark.parametrize(
    ("floor", "exponent", "points"), [(0.0, 0.3, 4), (0.0, 0.08, 9), (1.7, 0.3, 8), (2.5, 0.5, 12)]
)
def test_a_law_without_noise_comes_back(floor: float, exponent: float, points: int):
    c = np.logspace(0, 4, points)
    found = law(fit(c.tolist(), (floor + 2 * c**-exponent).tolist()))
    assert found.law.floor == pytest.approx(floor, abs=2e-3)
    assert found.law.exponent == pytest.approx(exponent, rel=5e-3)
    assert found.then == pytest.approx(floor + 2 * (4 * c[-1]) ** -exponent, rel=1e-3)
    assert found.pays


@pytest.mark.parametrize(("floor", "points", "noise"), [(0.0, 4, 0.01), (0.0, 7, 0.02), (1.7, 10, 0.004)])
def test_the_intervals_cover_the_truth_as_often_as_they_say(floor: float, points: int, noise: float):
    c = np.logspace(0, 3.5, points)
    saved = 2 * (c[-1] ** -0.3 - (4 * c[-1]) ** -0.3)
    held = []
    for seed in range(60):
        error = noise * np.random.default_rng(seed).normal(size=points)
        found = law(fit(c.tolist(), ((floor + 2 * c**-0.3) * np.exp(error)).tolist(), resamples=200, seed=seed))
        held.append((found.exponent[0] <= 0.3 <= found.exponent[1], found.saved[0] <= saved <= found.saved[1]))
    assert np.mean(held, axis=0).min() >= 0.95 - 3 * (0.05 * 0.95 / 60) ** 0.5


def test_of_a_line_the_interval_is_students():
    c = np.logspace(0, 2, 5)
    loss = 3 * c**-0.2 * np.exp([0.01, -0.02, 0.015, -0.01, 0.005])
    found = law(fit(c.tolist(), loss.tolist(), resamples=20_000))
    line = stats.linregress(np.log(c), np.log(loss))
    half = stats.t.ppf(0.975, 3) * line.stderr
    assert found.law.floor == 0
    assert found.law.exponent == pytest.approx(-line.slope)
    assert found.exponent == pytest.approx((-line.slope - half, -line.slope + half), abs=0.06 * half)


def test_whether_more_pays_is_left_open_where_it_is_open():
    c = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert law(fit(c, [3.0, 3.02, 2.99, 3.01, 3.0])).pays is None
    assert "whether more pays cannot be told" in sentence(fit(c, [3.0, 3.02, 2.99, 3.01, 3.0]), "steps")
    assert law(fit(c, [3.0, 3.1, 3.2, 3.3, 3.4])).pays is False
    said = sentence(fit(c, [3.0, 2.8, 2.61, 2.42, 2.27]), "steps")
    assert "more still pays, if the law goes on holding; so few points cannot tell a floor" in said


@pytest.mark.parametrize(
    ("c", "why"), [([1.0, 2.0, 4.0], "3 sizes"), ([1.0, 4.0, 4.0, 4.0], "2 sizes"), ([0.0, 1.0, 2.0, 4.0], "3 sizes")]
)
def test_fewer_than_four_sizes_have_no_law(c: list[float], why: str):
    found = fit(c, [3.0, 2.9, 2.8, 2.7][: len(c)])
    assert isinstance(found, str)
    assert why in found


def test_points_that_bend_away_from_the_law_claim_nothing():
    """A parabola in logarithms falls ever faster: no power law is it, with a floor or without."""
    c = np.logspace(0, 2, 10)
    found = law(fit(c.tolist(), np.exp(1.8 - 0.1 * np.log(c) - 0.02 * np.log(c) ** 2).tolist()))
    assert found.bends
    assert found.pays is None
    assert "cannot be told, as the points bend away from the law (p 0.0" in sentence(found, "steps")


def test_a_law_that_holds_is_called_bent_as_seldom_as_p_says():
    c = np.logspace(0, 3, 10)
    draws = [0.01 * np.random.default_rng(seed).normal(size=10) for seed in range(150)]
    bent = [law(fit(c.tolist(), (3 * c**-0.2 * np.exp(each)).tolist(), resamples=2)).bends for each in draws]
    assert np.mean(bent) <= 0.05 + 2 * (0.05 * 0.95 / 150) ** 0.5


def test_equal_points_give_equal_laws_in_any_order():
    c, loss = [1.0, 2.0, 4.0, 8.0], [4.0, 3.1, 2.2, 1.7]
    assert fit(c, loss) == fit(c[::-1], loss[::-1])


# --- in a study -------------------------------------------------------------------------------------------------


def test_a_pre_trainings_windows_widen_and_leave_out_its_beginning():
    steps = list(range(1, 1001))
    points = widening(steps, [2 * step**-0.1 for step in steps])
    assert len(points) == 10
    assert 100 <= points[0][0] < 130
    assert np.ptp(np.diff(np.log([c for c, _ in points]))) < 0.02
    assert law(fit(*zip(*points, strict=True))).law.exponent == pytest.approx(0.1, rel=0.02)
    assert widening([1, 2, 3], [3.0, 2.0, 1.0]) == []


def sized() -> dict[str, Any]:
    """Table 6's rows as five sizes: their nats fall by a power of their parameters; one is an ensemble."""
    scores = study_folder.scores()
    table = scores["tables"][3]
    table |= {"number": "13", "axes": ["size", "pretraining", "ensemble"]}
    table["rows"] = table["rows"][:3] + scores["tables"][4]["rows"][1:4]
    for row, size in zip(table["rows"], (0.5, 1.0, 2.0, 4.0, 4.0, 8.0), strict=True):
        row["relative"] = {"parameters": size, "cost": 1.5 * size}
        row["paper"] = None
        for key in row["runs"]:
            scores["runs"][key]["cells"][VERDICT]["value"] = 3 * size**-0.1
    (last,) = table["rows"][-1]["runs"]
    scores["runs"][last]["experiment"]["ensemble"] = {"models": 4}
    (dearer,) = table["rows"][-3]["runs"]
    scores["runs"][dearer]["experiment"]["pretraining"] = 2.0
    scores["tables"] = [scores["tables"][0], table]
    return scores


def test_sizes_have_a_law_of_parameters_and_one_of_compute(tmp_path: Path):
    write_study(tmp_path, sized(), journals=False)
    parameters, compute = by_size(read_study(tmp_path))
    assert [c for c, _ in parameters.points] == [0.5, 1.0, 2.0, 4.0]  # no ensemble, none that read more text
    assert [c for c, _ in compute.points] == [0.75, 1.5, 3.0, 6.0, 6.0]
    for each in (parameters, compute):
        assert law(each.found).law.exponent == pytest.approx(0.1)
    assert parameters.said.startswith("Table 13, mean nats: L = 3 C^−0.100, C in times the baseline's parameters")


def test_too_few_sizes_say_so(tmp_path: Path):
    scores = sized()
    scores["tables"][1]["rows"] = scores["tables"][1]["rows"][:3]
    write_study(tmp_path, scores, journals=False)
    parameters, _ = by_size(read_study(tmp_path))
    assert parameters.said.endswith("No law of times the baseline's parameters: 3 sizes: a law takes 4 at least.")
    assert drawing("none", "none", [parameters], "C") == ""


def test_the_baseline_and_the_winners_have_a_law_of_their_steps(tmp_path: Path):
    write_study(tmp_path)
    study = read_study(tmp_path)
    told = by_steps(study, chosen_runs(study))
    assert told[0].label == "replace spans 15% (baseline)"
    assert len(told) == 4
    for each in told:
        assert len(each.points) == 10
        assert law(each.found).exponent[0] < law(each.found).exponent[1]
        assert "steps of pre-training, from 10 points" in each.said
    svg = drawing("laws", "laws", told, "steps")
    assert svg.count("stroke-dasharray") >= 4
