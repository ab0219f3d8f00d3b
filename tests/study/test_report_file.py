"""The report is one safe file, the same for equal folders, and leaves what was there alone if something is wrong."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import study_folder
from report_page import Page
from study_folder import EXPERIMENTS, HOSTILE, fingerprint, write_study

from t5study.ground.errors import UserError
from t5study.study.report import write_report
from t5study.study.report_input import read_study
from t5study.study.report_method import rerun

Scores = dict[str, Any]


# --- the file ---------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_and_nothing_runs(made: tuple[Path, Scores], page: Page) -> None:
    html = (made[0] / "report.html").read_text(encoding="utf-8")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action", "data")]
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    assert "http" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) == {"#"}


def test_labels_are_text(made: tuple[Path, Scores], page: Page) -> None:
    out, _ = made
    assert "b" in {tag for tag, _ in page.tags}
    assert "<b>own</b>" in page.words
    assert HOSTILE.split("25%")[0].strip() in page.words
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b>" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_ids_are_unlike_and_what_they_name_is_there(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        named = [attributes.get(name, "") for name in ("href", "xlink:href")]
        named += re.findall(r"url\((#[^)]*)\)", attributes.get("clip-path", ""))
        wanted = [name.removeprefix("#") for name in named if name] + attributes.get("aria-labelledby", "").split()
        assert set(wanted) <= set(ids)


def test_every_drawing_has_a_title_and_the_page_s_colours(made: tuple[Path, Scores], page: Page) -> None:
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    # rounds: forest and losses; tables; beside the paper, gains; curves; scaling
    assert len(drawings) == 4 * 2 + 5 + 2 + 3 + 1
    assert all(attributes["role"] == "img" and "width" not in attributes for attributes in drawings)
    html = (made[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"#01[0-9a-f]{2}ff", html)
    svg = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.S))
    assert not re.findall(r"(?:fill|stroke): (?!none|var\()[^;\"]+", svg)
    defined = set(re.findall(r"--([\w]+):", html))
    assert set(re.findall(r"var\(--(\w+)\)", html)) <= defined


def test_curves_carry_their_names_and_failed_runs_are_in_the_forest(made: tuple[Path, Scores]) -> None:
    html = (made[0] / "report.html").read_text(encoding="utf-8")
    losses = html[html.index('id="round-1-losses-title"') :].split("</svg>")[0]
    for label in ("prefix LM", "BERT-style 15%", "deshuffling"):
        assert f">{label}</text>" in losses
    forest = html[html.index('id="table-5-title"') :].split("</svg>")[0]
    assert forest.count(">failed</text>") == 2


def test_equal_folders_give_equal_bytes_and_costs_change_only_their_lines(
    made: tuple[Path, Scores], tmp_path: Path
) -> None:
    out, _ = made
    again = tmp_path / out.name
    shutil.copytree(out, again, ignore=shutil.ignore_patterns("report.*", "tables"))
    write_report(again)
    written = sorted(
        path.relative_to(out) for path in out.rglob("*") if path.suffix in (".html", ".md", ".csv", ".tex")
    )
    assert len(written) == 2 + 5 + 4 + 5
    for path in written:
        assert (again / path).read_bytes() == (out / path).read_bytes(), path
    costs = json.loads((again / "costs.json").read_text())
    costs["total_s"] += 3600
    (again / "costs.json").write_text(json.dumps(costs))
    write_report(again)
    for path in written:
        before, after = ((folder / path).read_text(encoding="utf-8").splitlines() for folder in (out, again))
        changed = [a for a, b in zip(before, after, strict=True) if a != b]
        assert all("of work" in line for line in changed)
        assert bool(changed) == (path.suffix in (".html", ".md"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda scores: scores.pop("noise"), "field noise is missing"),
        (lambda scores: scores.update(format=99), "field format: found 99"),
        (lambda scores: scores.update(verdict_column="no such"), "field verdict_column: found 'no such'"),
        (lambda scores: scores.update(tables={"1": 2}), "field tables: found {'1': 2}, not a list"),
        (
            lambda scores: scores["tables"][1]["rows"][0].update(runs=["ab12"]),
            "field tables.1.rows.0.runs.0: found 'ab12'",
        ),
        (lambda scores: _first(scores)["cells"].pop("mean"), "cells.mean is missing"),
        (
            lambda scores: _first(scores)["cells"]["mean"].update(value="12"),
            "cells.mean.value: found '12', not a finite",
        ),
        (lambda scores: _first(scores)["cells"]["mean"].update(value=float("nan")), "not a finite number"),
        (lambda scores: _first(scores)["cells"]["mean"].update(state="guessed"), "cells.mean.state: found 'guessed'"),
        (lambda scores: _first(scores).update(pretrain="../../../etc"), "not below"),
    ],
)
def test_damaged_scores_are_one_line_and_leave_the_old_report(damage: Any, says: str, tmp_path: Path) -> None:
    scores = study_folder.scores()
    damage(scores)
    write_study(tmp_path, scores, journals=False)
    (tmp_path / "report.html").write_text("the old one")
    with pytest.raises(UserError) as caught:
        write_report(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert says in message
    assert str(tmp_path / "scores.json") in message
    assert (tmp_path / "report.html").read_text() == "the old one"
    assert not (tmp_path / "report.md").exists()


def _first(scores: Scores) -> dict[str, Any]:
    return scores["runs"][fingerprint("bert", 0)]


@pytest.mark.parametrize(("content", "says"), [(None, "no such file"), ("{", "damaged JSON"), ("[]", "not an object")])
def test_missing_or_torn_scores(content: str | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "scores.json").write_text(content)
    with pytest.raises(UserError, match=says) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("report*")) == []


def test_what_is_not_there_is_said_and_old_tables_go(tmp_path: Path) -> None:
    write_study(tmp_path, journals=False)
    (tmp_path / "costs.json").unlink()
    (tmp_path / "study.json").unlink()
    (tmp_path / "tables").mkdir()
    for suffix in ("csv", "tex"):
        (tmp_path / "tables" / f"table_99.{suffix}").write_text("old")
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "How long it took was not recorded" in page.words
    assert "there are no curves" in page.words
    assert "so there is no law" in page.words
    assert not list((tmp_path / "tables").glob("table_99.*"))
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_commands_to_run_again_quote_what_was_given(tmp_path: Path) -> None:
    out = tmp_path / "it's here"
    write_study(out, journals=False)
    asked = {"scale": "evening", "text": ["my text/*.txt"], "tasks": ["a.jsonl", "b;c.tsv"], "metric": "bleu"}
    (out / "study.json").write_text(json.dumps(asked))
    raced = rerun(replace(read_study(out), asked={**asked, "most_seeds": 6}))[0][1]
    assert raced.endswith("s here' --until-decided --most-seeds 6")
    page = Page(write_report(out).read_text(encoding="utf-8"))
    flags = "--scale evening --text 'my text/*.txt' --task a.jsonl 'b;c.tsv' --metric bleu --out 'it'\"'\"'s here'"
    assert f"t5study study rounds {flags}" in page.words
    assert all(label in page.words for label, _, seeds in EXPERIMENTS.values() if seeds)
