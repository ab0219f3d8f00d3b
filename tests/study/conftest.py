"""A report that several files of tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_page import Page
from study_folder import write_study

from t5study.study.report import write_report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A study's folder with its report, and its scores."""
    out = tmp_path_factory.mktemp("report") / "a study"
    scores = write_study(out)
    assert write_report(out) == out / "report.html"
    return out, scores


@pytest.fixture(scope="module")
def page(made: tuple[Path, dict[str, Any]]) -> Page:
    return Page((made[0] / "report.html").read_text(encoding="utf-8"))
