"""The race for the best: who is dropped and when, what is never claimed, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from t5study.study.decide import LEVEL, chance, decide, looks, pooled, sentence

BASE = {"baseline": [5.0, 5.1, 5.2]}  # that is no candidate: its deviation is 0.1


def race(draw: np.random.Generator, means: dict[str, float], most: int) -> tuple[str | None, int]:
    """Seeds as they are asked for, until it is decided or there are no more: who won, and seeds spent in all."""
    repeated = {"baseline": (5 + 0.1 * draw.normal(size=3)).tolist()}
    values: dict[str, list[float | None]] = {label: [mean + 0.1 * draw.normal()] for label, mean in means.items()}
    while True:
        found = decide(values, most, repeated)
        if found.wanted is None:
            return (found.contenders[0] if found.decided else None), sum(map(len, values.values()))
        for label in found.contenders:
            missing = found.wanted - len(values[label])
            values[label] += [means[label] + 0.1 * draw.normal() for _ in range(missing)]


@pytest.mark.parametrize("lead", [0.0, 0.02])
def test_the_wrong_one_wins_in_five_races_of_a_hundred_at_most(lead: float):
    draw = np.random.default_rng(1)
    won = [race(draw, {"a": lead, "b": 0.0, "c": 0.0}, 8)[0] for _ in range(300)]
    wrong = sum(one is not None if lead == 0 else one in ("b", "c") for one in won)
    assert wrong <= 300 * LEVEL


def test_a_clear_winner_is_found_with_few_seeds_and_losers_get_none():
    draw = np.random.default_rng(2)
    found = [race(draw, {"a": 1.0, "b": 0.7, "c": -3.0}, 10) for _ in range(100)]
    assert np.mean([won == "a" for won, _ in found]) > 0.95
    assert np.mean([seeds for _, seeds in found]) < 13  # of thirty that there could be


def test_a_loser_is_dropped_at_the_first_look_and_stays_dropped():
    values = {"a": [3.0, 3.1], "b": [3.05, 3.0], "c": [9.0]}
    found = decide(values, 8, BASE, higher_is_better=False)
    assert found.dropped == {"c": 1}
    assert set(found.contenders) == {"a", "b"}
    assert (found.seeds, found.wanted) == (2, 4)
    assert decide({**values, "c": [9.0, 3.0, 3.0, 3.0]}, 8, BASE, higher_is_better=False).dropped == {"c": 1}


def test_what_is_dropped_is_told_by_the_pooled_student_test():
    """At the edge: three baselines and one run each, four candidates; look 1 has half of 5 %, a third a comparison."""
    std, freedom = pooled([BASE["baseline"]])
    far = stats.t.isf(LEVEL / 2 / 3, freedom) * std * 2**0.5
    for off, dropped in [(0.999 * far, {}), (1.001 * far, {"b": 1, "c": 1, "d": 1})]:
        values = {"a": [1.0], **{label: [1.0 - off] for label in "bcd"}}
        assert decide(values, 4, BASE).dropped == dropped


def test_without_repeats_or_without_spread_nobody_is_dropped():
    assert decide({"a": [1.0], "b": [99.0]}, 4).contenders == ("b", "a")
    assert decide({"a": [1.0, 1.0], "b": [2.0, 2.0]}, 2).contenders == ("b", "a")
    assert chance(1.0, 2, 2, (0.0, 4)) == chance(1.0, 2, 2, (0.1, 0)) == 1.0


def test_failed_seeds_count_as_tried_and_not_as_numbers():
    values = {"a": [1.0, None], "b": [1.05, 1.1], "none": [None]}
    found = decide(values, 2, BASE)
    assert set(found.contenders) == {"a", "b"}
    assert found.means["a"] == 1.0
    assert found.wanted is None  # no more than two seeds, and both were tried
    assert decide({"a": [None]}, 2).contenders == ()
    assert decide({"a": [None, 1.0], "b": [1.1, 1.1]}, 2, BASE).means["a"] == 1.0


def test_a_repeated_candidate_is_judged_by_all_its_seeds_from_the_first_look_on():
    lucky = {"a": [9.0, 1.0, 1.0], "b": [3.6]}
    found = decide(lucky, 1, {"a": [9.0, 1.0, 1.0]})
    assert found.means == {"a": pytest.approx(11 / 3), "b": 3.6}
    assert found.contenders == ("a", "b")
    assert decide({"a": [2.0, 2.1], "b": [1.0]}, 1, {"a": [2.0, 2.1]}).means["a"] == 2.05


def test_a_single_candidate_wins_at_once():
    found = decide({"a": [1.0], "b": [None]}, 8, BASE)
    assert (found.contenders, found.decided, found.wanted) == (("a",), True, None)
    assert sentence(found, "mean") == "a wins on mean with 1: it is alone (Student, 5 % for the whole race)."


def test_what_it_came_to_is_said():
    found = decide({"a": [1.0], "b": [0.9], "c": [-9.0]}, 1, BASE)
    assert sentence(found, "mean") == (
        "A tie on mean after 1 seed: b cannot be told from a, the best with 1 (Student, 5 % for the whole race)."
    )
    won = decide({"a": [1.0, 1.1], "b": [-4.0, -4.1], "c": [-9.0]}, 2, BASE)
    assert won.decided
    assert sentence(won, "mean").startswith("a wins on mean with 1: every other is told from it after 1 seed (")


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.floats(-2, 2), min_size=1, max_size=9), min_size=1))
def test_it_depends_on_what_was_looked_at_alone(values: dict[str, list[float]]):
    """Seeds beyond the last look change nothing; no look asks for more than the most; the best leads the contenders."""
    found = decide(values, 4, BASE)
    assert found.seeds in looks(4)
    assert found.wanted in (None, 2, 4)
    cut = {label: told[: max(found.seeds, 1)] for label, told in values.items()}
    again = decide(cut, 4, BASE)
    assert (again.contenders, again.dropped, again.seeds) == (found.contenders, found.dropped, found.seeds)
    best = found.contenders[0]
    assert all(found.means[best] >= found.means[label] for label in found.contenders)
    assert set(found.contenders) | set(found.dropped) == set(values)
