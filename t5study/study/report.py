"""The report: a study's folder -> one HTML page, the same as Markdown, its numbers as CSV and its tables as LaTeX.

The page is one file that opens from disk: no script, nothing fetched, light and dark, narrow and wide, printable. Equal
folders give equal bytes. Everything is read and rendered before the first file is written.

    report_input, report_fields    what is in the folder, checked; report_journals: its curves
    findings                       what it means: changes in units of noise, bold, signal
    differences, examples, paired  each row against the baseline, tested over seeds and over examples
    report_text, report_method     the words; report_differences: of the tests; report_numbers: figures and lists
    report_scaling, scaling        laws of loss and size, and what more would bring
    figures, svg                   the drawings
    report_view, report_files      what is shown, and the CSV
    report_latex                   the tables to be put into a paper
    report.*.j2                    how it is laid out
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from t5study.ground.journal import duration
from t5study.ground.store import write_text
from t5study.study import (
    report_costs,
    report_differences,
    report_files,
    report_latex,
    report_method,
    report_numbers,
    report_scaling,
    report_text,
)
from t5study.study.report_input import Study, read_study
from t5study.study.report_view import cell_values, page


def write_report(out: Path) -> Path:
    """Writes a study's report.html, report.md, tables/*.csv and tables/*.tex into its folder; the path of report.html.

    Each file appears whole. UserError, in one line, if scores.json is missing or damaged.
    """
    out = Path(out)
    study = read_study(out)
    shown = page(study)
    tables = report_files.tables(study, shown) | report_latex.tables(study, shown)
    files = {f"tables/{name}": content for name, content in tables.items()}
    files["report.md"] = render(study, shown, "report.md.j2")
    files["report.html"] = render(study, shown, "report.html.j2")
    (out / "tables").mkdir(exist_ok=True)
    for name, content in files.items():
        # A label may hold half a character (a lone surrogate, which JSON can spell): it is shown as its escape.
        write_text(out / name, content.encode("utf-8", "backslashreplace").decode())
    for old in (out / "tables").glob("table_*"):
        if old.suffix in (".csv", ".tex") and old.name not in tables:
            old.unlink()
    return out / "report.html"


def render(study: Study, shown: dict[str, Any], template: str) -> str:
    """Sets one template. Whatever a label holds, it is text: HTML and Markdown are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": report_numbers.figure,
        "signed": report_numbers.signed,
        "sigmas": report_numbers.sigmas,
        "size": report_numbers.size,
        "count": report_numbers.count,
        "plural": report_numbers.plural,
        "duration": duration,
        "md": markdown,
        "svg": Markup,  # our own drawings, escaped when they were made
        "full": repr,
        "state": lambda cell: type(cell).__name__.lower(),
    }
    environment.globals |= {
        "MARKS": report_text.MARKS,
        "title": report_text.title(study),
        "asked": report_text.asked(study),
        "took": report_text.took(study),
        "promised": report_costs.promised(study),
        "round_sentence": partial(report_text.round_sentence, study),
        "rounds_rule": report_text.rounds_rule(study),
        "rests_on": report_text.rests_on(study),
        "gain_sentence": report_text.gain_sentence(study),
        "scaling_said": report_scaling.SAID,
        "published_said": report_text.PUBLISHED,
        "tests_said": report_differences.SAID,
        "noise_notes": report_text.noise_notes(study),
        "not_run": report_text.not_run(study),
        "settings": report_method.settings(study.scale),
        "unofficial": report_method.unofficial(study),
        "differences": report_method.differences(study),
        "rerun": report_method.rerun(study),
        "cell_values": cell_values,
    }
    return environment.get_template(template).render(shown)


def markdown(text: object) -> str:
    r"""A label as Markdown text, on one line.

    >>> print(markdown("a|b *c*\n<d>"))
    a\|b \*c\* &lt;d&gt;
    """
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", line)
