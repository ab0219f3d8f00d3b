"""The report says what scores.json says, marks it by the rules, and is one safe file."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import study_folder
from report_page import Page
from scipy.stats import kendalltau
from scipy.stats import t as student
from study_folder import PAPER, VERDICT, columns, fingerprint, write_study

from t5study.study import findings, report_text
from t5study.study.report import markdown, write_report
from t5study.study.report_input import read_study
from t5study.study.report_latex import escaped

Scores = dict[str, Any]


def values_of(scores: Scores, runs: list[str], column: str) -> list[float]:
    cells = [scores["runs"][key]["cells"][column] for key in runs]
    return [cell["value"] for cell in cells if cell["state"] == "measured"]


def state_of(scores: Scores, runs: list[str], column: str) -> str:
    states = {scores["runs"][key]["cells"][column]["state"] for key in runs}
    return next((state for state in ("measured", "failed") if state in states), "absent")


def shown(value: float, column: str) -> str:
    return f"{value:.{3 if column.endswith('nats') else 2}f}".replace("-", "−")


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def own_rows(scores: Scores) -> list[tuple[dict[str, Any], int, dict[str, Any], str, int]]:
    """(table, row number, row, column, column number within its kind) of every cell of the tables."""
    found = []
    for table in scores["tables"]:
        for i, row in enumerate(table["rows"]):
            for kind in ("metric", "likelihood"):
                for k, column in enumerate(c for c in columns() if c.kind == kind):
                    found.append((table, i, row, column.name, k))
    return found


# --- the numbers ------------------------------------------------------------------------------------------------


def test_every_cell_of_every_table_is_in_the_page(made: tuple[Path, Scores], page: Page) -> None:
    _, scores = made
    checked = 0
    for table, i, row, column, k in own_rows(scores):
        kind = "likelihood" if column.endswith("nats") else "metric"
        told = page.tables[f"table-{table['number']}-{kind}"][i + 1]
        assert told[0][1].startswith(row["label"])
        css, text, value = told[k + 1]
        values = values_of(scores, row["runs"], column)
        if values:
            mean = sum(values) / len(values)
            assert value == pytest.approx(mean, rel=1e-12, abs=1e-12)
            assert text.startswith(shown(mean, column))
        else:
            state = state_of(scores, row["runs"], column)
            assert (text, value) == (state, None)
            assert state in css.split()
        checked += 1
    assert checked == sum(len(table["rows"]) for table in scores["tables"]) * len(columns())


def test_every_figure_of_the_paper_is_in_the_page_with_its_change(made: tuple[Path, Scores], page: Page) -> None:
    base = study_folder.paper_rows("1")["Baseline average *"]
    for table in made[1]["tables"]:
        for i, row in enumerate(table["rows"]):
            told = page.tables[f"table-{table['number']}-paper"][i + 1]
            for (_, text, value), column in zip(told[1:8], study_folder.PAPER_COLUMNS, strict=True):
                assert value == row["paper"][column]
                change = "" if row["starred"] else report_text.signed(row["paper"][column] - base[column])
                assert text.replace(" ", "") == f"{row['paper'][column]:.2f}{change}"


def test_every_cell_is_in_markdown(made: tuple[Path, Scores]) -> None:
    out, scores = made
    text = (out / "report.md").read_text(encoding="utf-8")
    for table, _, row, column, k in own_rows(scores):
        section = text[text.index(f"### Table {table['number']}:") :]
        kind = "By likelihood" if column.endswith("nats") else "By metric"
        lines = section[section.index(f"Ours. {kind}") :].split("\n\n")[1].splitlines()
        line = next(line for line in lines if line.startswith(f"| {markdown(row['label'])} "))
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        values = values_of(scores, row["runs"], column)
        told = cells[k + 2].strip("*").split("*")[0].split()[0]
        assert told == (shown(sum(values) / len(values), column) if values else state_of(scores, row["runs"], column))


def test_every_run_and_column_is_in_runs_csv_unrounded(made: tuple[Path, Scores]) -> None:
    out, scores = made
    rows = read_csv(out / "tables" / "runs.csv")
    assert len(rows) == len(scores["runs"]) * len(columns())
    for row in rows:
        cell = scores["runs"][row["run"]]["cells"][row["column"]]
        assert row["state"] == cell["state"]
        if cell["state"] == "measured":
            assert {key: float(row[key]) for key in ("value", "low", "high", "n", "unreadable", "step")} == {
                key: cell[key] for key in ("value", "low", "high", "n", "unreadable", "step")
            }
        else:
            assert row["value"] == ""
            assert row["reason"] == cell["reason"]


def test_tables_and_noise_as_csv(made: tuple[Path, Scores]) -> None:
    out, scores = made
    for table in scores["tables"]:
        rows = read_csv(out / "tables" / f"table_{table['number']}.csv")
        ours = {(row["row"], row["column"]): row for row in rows if row["source"] == "ours"}
        theirs = {(row["row"], row["column"]): float(row["value"]) for row in rows if row["source"] == "paper"}
        for row in table["rows"]:
            assert {column: theirs[row["label"], column] for column in row["paper"]} == row["paper"]
            for column in columns():
                values = values_of(scores, row["runs"], column.name)
                told = ours[row["label"], column.name]
                assert told["state"] == state_of(scores, row["runs"], column.name)
                assert int(told["seeds"]) == len(values)
                if values:
                    assert float(told["value"]) == pytest.approx(sum(values) / len(values), rel=1e-12, abs=1e-12)
    for row in read_csv(out / "tables" / "noise.csv"):
        assert float(row["std"]) == scores["noise"][row["column"]]["std"]
        assert float(row["gain_of_pretraining"]) == scores["gain"][row["column"]]["gain"]


def test_rounds_say_winner_ties_and_who_goes_on(made: tuple[Path, Scores], page: Page) -> None:
    out, scores = made
    rows = read_csv(out / "tables" / "rounds.csv")
    for turn in scores["rounds"]:
        assert turn["verdict"] in page.words
        told = {row["candidate"]: row["outcome"].split("; ") for row in rows if row["round"] == str(turn["number"])}
        assert set(told) == {each["label"] for each in turn["candidates"]}
        assert {label for label, outcome in told.items() if "tie" in outcome} == set(turn["ties"])
        assert "goes on" in told[turn["goes_on"]]
        assert ("ahead in a tie" if turn["ties"] else "winner") in told[turn["winner"]]
    assert (
        "A tie. replace spans 15% is ahead, but BERT-style 15% and MASS-style 15% cannot be told from it." in page.words
    )
    assert "BERT-style 15% wins" in page.words


def test_unreadable_answers_are_counted(made: tuple[Path, Scores], page: Page) -> None:
    runs = [fingerprint("baseline", seed) for seed in (0, 1, 2)]
    cells = [made[1]["runs"][key]["cells"]["package"] for key in runs]
    unreadable, n = sum(cell["unreadable"] for cell in cells), sum(cell["n"] for cell in cells)
    assert unreadable > 0
    assert f"{unreadable} of {n}" in page.tables["table-1-metric"][1][1][1]


# --- the rules --------------------------------------------------------------------------------------------------


def test_bold_is_within_two_deviations_of_the_best_on_unrounded_numbers(made: tuple[Path, Scores], page: Page) -> None:
    _, scores = made
    higher = {column.name: column.higher_is_better for column in columns()}
    bold, plain = 0, 0
    for table, i, row, column, k in own_rows(scores):
        values = values_of(scores, row["runs"], column)
        if not values:
            continue
        sign = 1 if higher[column] else -1
        all_values = [values_of(scores, each["runs"], column) for each in table["rows"]]
        best = max(sign * sum(each) / len(each) for each in all_values if each)
        gap = best - sign * sum(values) / len(values)
        expected = gap == 0 or gap < 2 * scores["noise"][column]["std"]
        kind = "likelihood" if column.endswith("nats") else "metric"
        told = "bold" in page.tables[f"table-{table['number']}-{kind}"][i + 1][k + 1][0].split()
        assert told == expected, (table["number"], row["label"], column)
        bold, plain = bold + told, plain + (not told)
    assert bold > 20
    assert plain > 20


@pytest.mark.parametrize("number", study_folder.TABLES)
def test_the_paper_s_bold_marks_follow_from_its_figures(number: str, page: Page) -> None:
    """Against the marks as they were read from the paper."""
    with open(PAPER / f"table_{number}.csv", encoding="utf-8", newline="") as file:
        marks = {(row["row"], row["column"]): row["bold"].endswith("yes") for row in csv.DictReader(file)}
    labels = [label for label in dict.fromkeys(label for label, _ in marks) if label != "Baseline standard deviation"]
    for told, label in zip(page.tables[f"table-{number}-paper"][1:], labels, strict=False):
        for (css, _, _), column in zip(told[1:8], study_folder.PAPER_COLUMNS, strict=True):
            assert ("bold" in css.split()) == marks[label, column], (label, column)


@pytest.mark.parametrize(
    ("away", "mark"),
    [
        (0.0, "noise"),
        (1.99, "noise"),
        (2.01, "worse"),
        (-2.01, "better"),
        (4.9, "worse"),
        (5.0, "sure_worse"),
        (-5.0, "sure_better"),
    ],
)
def test_a_difference_is_signal_from_two_deviations_and_sure_from_student_s_interval(
    away: float, mark: str, tmp_path: Path
) -> None:
    """Three baselines and one run of the variant: sure from t(0.975, 2) * sqrt(1 + 1/3) = 4.97 deviations."""
    assert 4.9 < student.ppf(0.975, 2) * (4 / 3) ** 0.5 < 5.0
    scores = study_folder.scores()
    for seed, value in enumerate((2.9, 3.0, 3.1)):
        scores["runs"][fingerprint("baseline", seed)]["cells"][VERDICT]["value"] = value
    scores["noise"][VERDICT] = {"runs": 3, "mean": 3.0, "std": 0.1}
    scores["runs"][fingerprint("prefix", 0)]["cells"][VERDICT]["value"] = 3.0 + away * 0.1
    write_study(tmp_path, scores, journals=False)
    study = read_study(tmp_path)
    cell = findings.line(study, "prefix LM", (fingerprint("prefix", 0),)).cells[VERDICT]
    assert cell.mark == mark
    assert cell.units == pytest.approx(-away, abs=1e-9)


def test_the_starred_row_and_the_erratum_are_marked(page: Page) -> None:
    assert "★" in page.tables["table-6-metric"][2][0][1]
    assert "★" not in page.tables["table-6-metric"][1][0][1]
    assert "made up: printed as 19.33 where 19.32 is meant" in page.words
    assert "†" in page.tables["table-7-paper"][5][0][1]


def test_failed_and_absent_look_it_and_say_why(made: tuple[Path, Scores], page: Page) -> None:
    out, _ = made
    drop, fifty = page.tables["table-5-likelihood"][4], page.tables["table-6-likelihood"][4]
    assert all((css, text) == ("failed", "failed") for css, text, _ in drop[1:])
    assert all((css, text) == ("absent", "absent") for css, text, _ in fifty[1:])
    for text in (page.words, (out / "report.md").read_text(encoding="utf-8")):
        assert "step 37: the loss is nan" in text
        assert "decoding ran out of memory" in text
        assert "1 of 2 seeds missing" in text
        assert "1 row not run, because the rounds took another way" in text
    for number, label, state in [("5", "Drop corrupted tokens", "failed"), ("6", "50%", "absent")]:
        (told,) = [row for row in page.tables[f"table-{number}-tests"] if row[0][1] == label]
        assert state in told[3][0].split()
        assert [text for _, text, _ in told[1:]] == ["–", "–", state]
        assert f"| {label} | – | – | *{state}* |" in (out / "report.md").read_text(encoding="utf-8")
        rows = [row for row in read_csv(out / "tables" / f"table_{number}.csv") if row["row"] == label]
        assert {row["state"] for row in rows if row["source"] == "ours"} == {state}
        tex = (out / "tables" / f"table_{number}.tex").read_text(encoding="utf-8")
        assert f"{escaped(label)} & -- & -- & {state}" in tex
    styles = (out / "report.html").read_text(encoding="utf-8")
    assert re.search(r"td\.failed, td\.absent {[^}]*repeating-linear-gradient", styles)


def test_figures_of_later_papers_stand_apart_and_enter_nothing(made: tuple[Path, Scores], page: Page) -> None:
    out, _ = made
    (head, row) = page.tables["table-7-published"]
    assert [text for _, text, _ in row] == ["3", "a later paper (2022)", "Table 9, spans_3 | 15%", "XNLI acc", "78.31"]
    assert row[4][2] == 78.305
    assert len(head) == 5
    assert [name for name in page.tables if name.endswith("-published")] == ["table-7-published"]
    assert "enter no comparison" in page.words
    line = "| 3 | a later paper (2022) | Table 9, spans_3 \\| 15% | XNLI acc | 78.31 |"
    assert line in (out / "report.md").read_text(encoding="utf-8")
    (told,) = [one for one in read_csv(out / "tables" / "table_7.csv") if one["source"] == "published"]
    assert (told["row"], told["column"], told["value"]) == ("3", "XNLI acc", "78.305")
    assert (told["change"], told["mark"], told["outcome"], told["seeds"]) == ("", "", "", "")
    assert told["note"] == "a later paper (2022), Table 9, spans_3 | 15%"
    tex = (out / "tables" / "table_7.tex").read_text(encoding="utf-8")
    assert "3 & a later paper (2022), Table 9, spans\\_3 \\textbar{} 15\\% & XNLI acc & 78.31" in tex


def test_absolute_gaps_stand_at_paper_scale_alone(made: tuple[Path, Scores], tmp_path: Path) -> None:
    out, _ = made
    for name in ("report.html", "report.md"):
        assert not re.search(r"\bgap [+−]?\d", (out / name).read_text(encoding="utf-8"))
    scores = json.loads(json.dumps(study_folder.scores(), ensure_ascii=False).replace('"package', '"GLUE'))
    for scale, expected in [("laptop", False), ("paper", True)]:
        scores["scale"]["name"] = scale
        write_study(tmp_path / scale, scores, journals=False)
        write_report(tmp_path / scale)
        ours = values_of(scores, [fingerprint("prefix", 0)], "GLUE")[0]
        gap = report_text.signed(ours - study_folder.paper_rows("4")["Prefix language modeling"]["GLUE"])
        for name in ("report.html", "report.md"):
            assert (f"gap {gap}" in (tmp_path / scale / name).read_text(encoding="utf-8")) == expected


def test_without_repeated_baselines_nothing_is_bold_or_marked(tmp_path: Path) -> None:
    scores = study_folder.scores()
    for told in scores["noise"].values():
        told |= {"runs": 1, "std": None}
    for told in scores["gain"].values():
        told |= {"noise": None, "above_noise": False}
    write_study(tmp_path, scores, journals=False)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    ours = [rows for name, rows in page.tables.items() if name.endswith(("-metric", "-likelihood"))]
    own = [cell for rows in ours for row in rows for cell in row]
    assert own
    assert not any("bold" in css.split() for css, _, _ in own)
    assert "there is no noise to judge by" in page.words
    assert not re.search(r"[▲▼△▽]", " ".join(text for _, text, _ in own))


def test_it_says_what_the_verdicts_rest_on_and_what_pretraining_brought(made: tuple[Path, Scores], page: Page) -> None:
    gain = made[1]["gain"]
    assert "On the likelihood of the tasks' targets (mean nats" in page.words
    assert f"{report_text.signed(gain[VERDICT]['gain']).split('.')[0]}." in page.words
    above = sum(told["above_noise"] for told in gain.values())
    assert f"above its noise on {above} of {len(gain)} columns" in page.words


def test_what_the_rounds_chose_is_told_over_no_pre_training(made: tuple[Path, Scores]) -> None:
    out, scores = made
    study = read_study(out)
    last = scores["rounds"][-1]
    chosen = next(each for each in last["candidates"] if each["label"] == last["goes_on"])
    without = [key for key, run in scores["runs"].items() if not run["pretrain"]]
    ours, none = (
        sum(values_of(scores, keys, VERDICT)) / len(values_of(scores, keys, VERDICT))
        for keys in (chosen["runs"], without)
    )
    assert f"({last['goes_on']}): +{shown(none - ours, VERDICT)} nats" in report_text.gain_sentence(study)
    assert none > ours


@pytest.mark.parametrize("number", ["4", "5", "6", "7"])
def test_a_table_says_how_far_its_order_is_the_papers(tmp_path: Path, number: str):
    write_study(tmp_path)
    study = read_study(tmp_path)
    table = next(table for table in study.tables if table.number == number)
    lines = findings.table_lines(study, table)
    found = findings.column_orders(study, lines)
    ours, theirs = [], []
    for each in lines:
        paper, value = findings.paper_row(study, each.paper), each.cells[VERDICT].value
        if not each.reference and paper and value is not None:
            ours.append(-value)  # nats: lower is better
            theirs.append(paper.typical)
    said = report_text.orders_sentence(found)
    if len(ours) < 4:
        assert found == []
        assert said == ""
        return
    assert found[0].found.rows == len(ours)
    assert found[0].found.tau == pytest.approx(kendalltau(ours, theirs)[0])
    assert all(each.holm >= each.found.p for each in found)
    assert f"{VERDICT} (likelihood) against its median change, {len(ours)} rows" in said


def test_the_page_shows_the_orders_where_there_are_any(tmp_path: Path):
    write_study(tmp_path)
    study = read_study(tmp_path)
    expected = [bool(findings.column_orders(study, findings.table_lines(study, table))) for table in study.tables]
    assert any(expected)
    write_report(tmp_path)
    assert (tmp_path / "report.md").read_text(encoding="utf-8").count("The order of the rows beside") == sum(expected)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("The order of the rows beside") == sum(expected)


def test_the_order_over_all_variants_comes_with_its_uncertainty(made: tuple[Path, Scores], page: Page):
    study = read_study(made[0])
    found = findings.agreement(study)
    assert found is not None
    assert found.order is not None
    ours, theirs = [], []
    for each in findings.variants(study):
        paper, units = findings.paper_row(study, each.paper), each.cells[VERDICT].units
        if paper and units is not None:
            ours.append(units)
            theirs.append(paper.typical)
    assert found.order.rows == found.compared == len(ours) > 7
    assert found.order.tau == pytest.approx(kendalltau(ours, theirs)[0])
    assert found.order.p == pytest.approx(kendalltau(ours, theirs)[1], abs=0.03)
    assert found.order.low is not None
    assert found.order.low < found.order.tau
    said = report_text.agreement_sentence(found)
    assert said in page.words
    assert f"τ {found.order.tau:+.2f} [{found.order.low:+.2f}, ".replace("-", "−") in said


def test_a_single_variant_has_no_order(tmp_path: Path):
    scores = study_folder.scores()
    scores["rounds"], scores["tables"] = [], scores["tables"][:1]
    write_study(tmp_path, scores, journals=False)
    found = findings.agreement(read_study(tmp_path))
    assert found is not None
    assert (found.compared, found.order) == (1, None)
    assert "it takes four variants" in report_text.agreement_sentence(found)


def test_scaling_is_told_and_in_csv(made: tuple[Path, Scores], page: Page):
    out, _ = made
    rows = read_csv(out / "tables" / "scaling.csv")
    assert [row["of"] for row in rows][:2] == ["replace spans 15% (baseline)", "BERT-style 15%"]
    for row in rows:
        low, exponent, high = (float(row[name]) for name in ("exponent_low", "exponent", "exponent_high"))
        assert low < exponent < high
        assert float(row["then"]) < float(row["now"])
        said = f"exponent {exponent:.3f} [{low:.3f}, {high:.3f}]. 4 times as much would take the loss from"
        assert said in page.words
        assert said.replace("[", "\\[").replace("]", "\\]") in (out / "report.md").read_text(encoding="utf-8")
