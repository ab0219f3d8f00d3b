"""The rounds over a store that holds scores of our choosing: who wins, who is tied, what goes on, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from toy_study import put, put_run, toy_question

from t5study.ground.store import Store
from t5study.objectives import BertStyle, Denoising, Deshuffle, DropTokens, Objective, PrefixLM, ReplaceSpans
from t5study.study import ledger
from t5study.study.baseline import BASELINE
from t5study.study.experiment import Experiment
from t5study.study.ledger import Ledger
from t5study.study.rounds import Tournament, rates, spans, strategies
from t5study.study.search import replay
from t5study.study.tables.later import DENOISERS
from t5study.study.tables.objectives import TABLE_5, TABLE_6, TABLE_7
from t5study.study.training import Finetune
from t5study.study.verdict import judge

SPREAD = (0.0, 0.02, -0.02)  # of the baseline's seeds: their standard deviation is 0.02


def nats_by_default(experiment: Experiment) -> float:
    """Replace spans at 15 % leads, as in the paper."""
    if not experiment.pretraining:
        return 4.0 + SPREAD[experiment.seed]
    off = {PrefixLM(): 0.3, BertStyle(): 0.1, Deshuffle(): 0.9, DropTokens(): 0.03}
    objective = experiment.objective
    if isinstance(objective, Denoising) and objective not in off:
        distance = abs(objective.rate - 0.15)
        distance += 0.1 * abs(objective.mean_span - 3.0) - 0.05 if objective.mean_span else 0.0
        off[objective] = distance + (0.2 if objective.inputs == "mask" else 0.0)
    return 3.0 + off[objective] + SPREAD[experiment.seed]


class Played:
    """A tournament played on made-up numbers, and in which calls its runs came."""

    def __init__(
        self,
        root: Path,
        nats: Callable[[Experiment], float | None] = nats_by_default,
        most_seeds: int = 0,
        may: int = 99,
    ):
        """may: how often further seeds may be run."""
        self.question, self.store = toy_question(), Store(root / "store")
        self.calls: list[list[Experiment]] = []
        self.failed: dict[Finetune, str] = {}
        self.meanwhile: list[list[Experiment]] = []
        self.expected: list[set[Experiment]] = []
        asked: list[int] = []

        def there_is_time(further: Sequence[Experiment]) -> bool:
            asked.append(len(further))
            return len(asked) <= may

        self.tournament = Tournament(self.question, self.store, self.failed.get, most_seeds, there_is_time)  # type: ignore[arg-type]

        def run(wanted: Iterable[Experiment], meanwhile: Iterable[Experiment], expected: Iterable[Experiment]) -> None:
            self.calls.append(list(wanted))
            self.meanwhile.append(list(meanwhile))
            self.expected.append(set(expected))
            for experiment in self.calls[-1]:
                stage, value = self.question.stages(experiment)[0], nats(experiment)
                if value is None:
                    self.failed[stage] = "the loss is nan"
                    for task in stage.tasks:
                        put(self.store, task.rows, {})
                else:
                    put_run(self.store, stage, value)

        self.tournament.play(run)
        self.told = self.tournament.told

    def labels(self, number: int) -> list[str]:
        return [candidate["label"] for candidate in self.told[number - 1]["candidates"]]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return Played(tmp_path_factory.mktemp("usual"))


def test_the_papers_winners_lead_through_the_papers_tables(usual: Played):
    assert [told["table"] for told in usual.told] == ["4", "5", "6", "7"]
    assert [told["winner"] for told in usual.told] == [
        "BERT-style 15%",
        "replace spans 15%",
        "replace spans 15%",
        "span corruption 15%, mean length 3",
    ]
    assert usual.labels(1) == ["prefix LM", "BERT-style 15%", "deshuffling"]
    for number, table in [(2, TABLE_5), (3, TABLE_6), (4, TABLE_7)]:
        candidates = usual.told[number - 1]["candidates"]
        assert [one["label"] for one in candidates] == [row.experiment.objective.label for row in table.rows]
        assert [one["paper"] for one in candidates] == [row.paper for row in table.rows]


def test_shared_runs_are_asked_for_once_and_the_noise_is_repeated(usual: Played):
    """15 pre-trainings (13 objectives, the baseline from two seeds more) and 3 fine-tunings from fresh weights."""
    experiments = usual.tournament.experiments
    assert len(experiments) == len(set(experiments)) == 18
    assert sum(one.pretraining == 0 for one in experiments) == 3
    assert sum(one.but(seed=0) == BASELINE for one in experiments) == 3
    # What is likely is counted in from the start, so that the share done never falls.
    assert [len(expected) for expected in usual.expected] == [18, 18, 18, 18, 18]


def test_idle_workers_get_what_is_certain(usual: Played):
    certain = {BASELINE.but(objective=objective) for objective in strategies(BertStyle())}
    assert certain <= set(usual.meanwhile[0])
    assert all(BASELINE.but(pretraining=0.0, seed=seed) in usual.meanwhile[0] for seed in range(3))


def test_a_tie_is_called_a_tie(usual: Played):
    second = usual.told[1]
    assert second["ties"] == ["drop tokens 15%"]  # 0.03 off, two standard deviations are 0.04
    assert second["verdict"] == (
        "A tie: drop tokens 15% lies within two standard deviations of our baseline (2 x 0.02) of replace spans 15%, "
        "the best on mean nats with 3. replace spans 15% goes on."
    )
    assert usual.told[0]["ties"] == []
    assert usual.told[0]["verdict"] == (
        "BERT-style 15% wins on mean nats with 3.1: the next, prefix LM, is 0.2 behind, "
        "more than two standard deviations of our baseline (2 x 0.02)."
    )


def test_the_best_that_hides_tokens_goes_on_where_the_winner_hides_none(tmp_path: Path):
    played = Played(tmp_path, lambda one: 2.0 if one.objective == PrefixLM() else nats_by_default(one))
    first = played.told[0]
    assert (first["winner"], first["goes_on"]) == ("prefix LM", "BERT-style 15%")
    assert (
        "hides no tokens whose share could be varied; BERT-style 15%, the best that does, goes on" in first["verdict"]
    )
    assert [told["winner"] for told in played.told[1:3]] == ["replace spans 15%"] * 2


def test_any_strategy_can_win_and_is_varied(tmp_path: Path):
    def nats(one: Experiment) -> float:
        objective = one.objective
        if isinstance(objective, Denoising) and objective.inputs == "drop":
            return 1.0 + abs(objective.rate - 0.5) + 0.1 * (objective.mean_span or 1.0)
        return nats_by_default(one)

    played = Played(tmp_path, nats)
    assert [told["goes_on"] for told in played.told[1:3]] == ["drop tokens 15%", "drop tokens 50%"]
    assert played.labels(3) == ["drop tokens 10%", "drop tokens 15%", "drop tokens 25%", "drop tokens 50%"]
    assert played.labels(4)[:2] == ["drop tokens 50%", "drop tokens in spans 50%, mean length 2"]
    paper = [one["paper"] is not None for one in played.told[2]["candidates"]]
    assert paper == [False, True, False, False]  # the paper dropped 15 % only


def test_a_failed_candidate_is_told_and_the_others_go_on(tmp_path: Path):
    played = Played(tmp_path, lambda one: None if one.objective == Deshuffle() else nats_by_default(one))
    first = played.told[0]
    assert first["winner"] == "BERT-style 15%"
    assert first["verdict"].endswith(" deshuffling failed: the loss is nan.")
    (run,) = first["candidates"][2]["runs"]
    scores = Ledger(played.question, played.store, played.failed.get).scores(played.tournament.experiments, played.told)  # type: ignore
    assert scores["runs"][run]["cells"]["mean nats"] == {"state": "failed", "reason": "the loss is nan"}


def test_where_every_candidate_fails_the_rounds_end(tmp_path: Path):
    played = Played(tmp_path, lambda one: None if one.objective in rates(ReplaceSpans()) else nats_by_default(one))
    assert [told["winner"] for told in played.told] == [
        "BERT-style 15%",
        "drop tokens 15%",
        "drop tokens 15%",
        "drop tokens in spans 15%, mean length 3",
    ]
    assert "without repeated baselines nobody can tell" in played.told[0]["verdict"]

    none = Played(tmp_path / "none", lambda one: None if one.pretraining else 4.0)
    assert [told["winner"] for told in none.told] == [None]
    assert none.told[0]["verdict"].startswith("No candidate could be run. prefix LM failed: the loss is nan.")


def test_a_baseline_is_judged_by_the_mean_of_its_seeds(tmp_path: Path):
    """Its first seed alone would win; over three it does not."""
    lucky = {0: 2.5, 1: 3.5, 2: 3.6}
    played = Played(
        tmp_path,
        lambda one: lucky[one.seed] if one.objective == ReplaceSpans() and one.pretraining else nats_by_default(one),
    )
    assert played.told[1]["winner"] == "drop tokens 15%"


def test_a_replay_tells_the_same_and_runs_nothing(usual: Played):
    again = replay(usual.question, usual.store, lambda stage: None)
    assert json.dumps(again.told) == json.dumps(usual.told)
    assert set(again.experiments) == set(usual.tournament.experiments)


def test_a_replay_of_half_a_tournament_stops_there(tmp_path: Path):
    question, store = toy_question(), Store(tmp_path / "store")
    for objective in (PrefixLM(), BertStyle(), Deshuffle()):
        put_run(store, question.stages(BASELINE.but(objective=objective))[0], 3.0)
    half = replay(question, store, lambda stage: None)
    assert [told["number"] for told in half.told] == [1]


def test_equals_stay_in_the_papers_order():
    values: dict[Objective, float] = {PrefixLM(): 3.0, BertStyle(): 3.0}
    verdict = judge(values, {}, 0.0, "mean nats", higher_is_better=False)
    assert (verdict.winner, verdict.ties, verdict.goes_on) == ("prefix LM", ("BERT-style 15%",), BertStyle())


def test_higher_can_be_better():
    values: dict[Objective, float] = {PrefixLM(): 61.0, BertStyle(): 60.0, Deshuffle(): 55.0}
    verdict = judge(values, {}, 0.6, "mean", higher_is_better=True)
    assert (verdict.winner, verdict.ties) == ("prefix LM", ("BERT-style 15%",))


def test_variants_keep_all_but_what_they_vary():
    winner = Denoising(0.25, None, "drop", "drop", overflow="enough")
    names = ("BERT-style", "MASS-style", "replace spans", "drop tokens")
    assert [one.label for one in strategies(winner)] == [f"{name} 25%, enough sentinels" for name in names]
    assert [one.rate for one in rates(winner) if isinstance(one, Denoising)] == [0.10, 0.15, 0.25, 0.50]
    assert [one.mean_span for one in spans(winner) if isinstance(one, Denoising)] == [None, 2.0, 3.0, 5.0, 10.0]
    assert winner in strategies(winner)
    assert winner in rates(winner)
    assert winner in spans(winner)


# --- until decided --------------------------------------------------------------------------------------------------


def racing(experiment: Experiment) -> float | None:
    """BERT-style and prefix LM are five deviations apart, the four rates are equal, and the rest is far apart."""
    chance = np.random.default_rng([experiment.seed, len(experiment.objective.label)]).normal(0, 0.01)
    off = {PrefixLM(): 0.12, BertStyle(): 0.07, Deshuffle(): 3.0, DropTokens(): 1.0}
    objective = experiment.objective
    if isinstance(objective, Denoising) and objective not in off:
        off[objective] = 0.0 if objective.mean_span is None else 2.0 + objective.mean_span
        off[objective] += 0.9 if objective.inputs == "mask" else 0.0
    return 3.0 + (1.0 if not experiment.pretraining else 0.0) + off[objective] + chance


def seeds_of_each(played: Played, number: int) -> dict[str, int]:
    return {each["label"]: len(each["runs"]) for each in played.told[number - 1]["candidates"]}


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return Played(tmp_path_factory.mktemp("raced"), racing, most_seeds=4)


def test_a_round_goes_on_until_its_winner_is_clear(raced: Played):
    first = raced.told[0]
    seeds = seeds_of_each(raced, 1)
    assert seeds["deshuffling"] == 1  # told from the best at once: it gets no further seed
    assert seeds["prefix LM"] in (2, 4)
    assert (first["winner"], first["ties"]) == ("BERT-style 15%", [])
    assert first["verdict"].startswith("BERT-style 15% wins on mean nats with 3.0")
    assert "(Student, 5 % for the whole race)" in first["verdict"]


def test_a_round_without_a_winner_ends_with_its_seeds_and_is_a_tie(raced: Played):
    third = raced.told[2]
    assert set(seeds_of_each(raced, 3).values()) == {4}
    assert len(third["ties"]) == 3
    assert third["verdict"].startswith("A tie on mean nats after 4 seeds: ")
    assert third["goes_on"] == third["winner"]


def test_a_replay_of_a_race_tells_the_same_and_runs_nothing(raced: Played):
    again = replay(raced.question, raced.store, lambda stage: None, most_seeds=4)
    assert json.dumps(again.told) == json.dumps(raced.told)
    assert set(again.experiments) == set(raced.tournament.experiments)


def test_all_seeds_are_in_the_scores_and_in_their_noise(raced: Played, tmp_path: Path):
    from t5study.study.report_input import read_study

    book = Ledger(raced.question, raced.store, most_seeds=4)
    ledger.write(tmp_path, book, raced.tournament.experiments, raced.told)
    study = read_study(tmp_path)
    assert len(study.runs) == len(raced.tournament.experiments)
    assert study.noise["mean nats"].runs == 4  # the baseline was a contender
    assert {run.seed for run in study.runs.values()} == {0, 1, 2, 3}


def test_when_there_is_no_time_it_stops_and_says_what_it_knows(tmp_path: Path):
    played = Played(tmp_path, racing, most_seeds=4, may=1)
    assert max(seeds_of_each(played, 1).values()) == 2
    assert seeds_of_each(played, 3)["replace spans 25%"] == 1
    assert played.told[2]["verdict"].startswith("A tie on mean nats after 1 seed: ")


def test_a_seed_that_fails_ends_no_race(tmp_path: Path):
    played = Played(
        tmp_path, lambda one: None if (one.objective, one.seed) == (PrefixLM(), 1) else racing(one), most_seeds=2
    )
    assert [told["number"] for told in played.told] == [1, 2, 3, 4]
    assert seeds_of_each(played, 1)["prefix LM"] == 2  # the failed one is a run, too


def test_without_the_option_no_seed_beyond_the_baselines_is_run(usual: Played):
    assert {one.seed for one in usual.tournament.experiments if one.but(seed=0) != BASELINE and one.pretraining} == {0}


# --- the ledger on the same store -----------------------------------------------------------------------------------


def test_scores_hold_all_that_the_report_reads(usual: Played, tmp_path: Path):
    from t5study.study.report_input import read_study

    book = Ledger(usual.question, usual.store)
    ledger.write(tmp_path, book, usual.tournament.experiments, usual.told)
    study = read_study(tmp_path)
    assert [column.name for column in study.columns] == [
        "parity",
        "sign",
        "mean",
        "parity nats",
        "sign nats",
        "mean nats",
    ]
    assert study.verdict_column == "mean nats"
    assert len(study.runs) == 18
    assert study.noise["mean nats"].runs == 3
    assert study.noise["mean nats"].std == pytest.approx(0.02)
    assert study.gain["mean nats"].gain == pytest.approx(1.0)
    assert study.gain["mean nats"].above_noise
    assert [len(row.runs) for row in study.tables[0].rows] == [3, 3]
    assert [len(row.runs) for row in study.tables[2].rows] == [1, 1, 3, 1]
    assert study.costs["total_s"] == 2.0 * (3 + 2 + 15 + 18)  # text, vocabulary, tokens; two tasks; runs
    none = next(run for run in study.runs.values() if run.label == "no pre-training")
    assert (none.pretrain, none.tokens["pretrain"]) == (None, 0)


def test_scores_do_not_depend_on_the_order_of_runs_and_are_left_alone_if_equal(usual: Played, tmp_path: Path):
    ledger.write(tmp_path, Ledger(usual.question, usual.store), usual.tournament.experiments, usual.told)
    before = (tmp_path / "scores.json").read_bytes(), (tmp_path / "scores.json").stat().st_mtime_ns
    ledger.write(tmp_path, Ledger(usual.question, usual.store), usual.tournament.experiments[::-1], usual.told)
    assert ((tmp_path / "scores.json").read_bytes(), (tmp_path / "scores.json").stat().st_mtime_ns) == before
    (tmp_path / "scores.json").write_text("{")  # damaged: written anew
    ledger.write(tmp_path, Ledger(usual.question, usual.store), usual.tournament.experiments, usual.told)
    assert (tmp_path / "scores.json").read_bytes() == before[0]


def test_rows_that_were_not_run_have_no_runs(tmp_path: Path):
    question, store = toy_question(), Store(tmp_path / "store")
    put_run(store, question.stages(BASELINE)[0], 3.0)
    scores = Ledger(question, store).scores([BASELINE, BASELINE.but(seed=1)])
    assert len(scores["runs"]) == 1
    assert {row["label"]: len(row["runs"]) for row in scores["tables"][0]["rows"]} == {
        "Baseline average": 1,
        "No pre-training": 0,
    }
    assert scores["noise"]["mean nats"] == {"runs": 1, "mean": 3.0, "std": None}
    assert scores["gain"] == {}


def test_published_figures_are_in_the_scores_where_there_are_any(usual: Played):
    """In no other row: what studies wrote before stays as it was."""
    book = Ledger(usual.question, usual.store)
    rows = {row["label"]: row.get("published") for row in book._table(DENOISERS, set())["rows"]}
    assert [label for label, told in rows.items() if told] == ["UL2"]
    assert rows["UL2"] == [asdict(one) for one in DENOISERS.row("UL2").published]
    assert not any("published" in row for table in book.scores([])["tables"] for row in table["rows"])
