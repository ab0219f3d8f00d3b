r"""A study's tables as LaTeX, to be put into a paper: `\input{tables/table_5.tex}` with `\usepackage{booktabs}`.

Each file has our rows in both kinds of columns and, where the paper has the table, its rows; below the figures stands
what each of them changes from its baseline, ours from ours and the paper's from its own (law 5). Bold, numbers and rows
are those of the page. A cell without a number says why in its place: absent or failed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from t5study.study.findings import Judged, Line, PaperRow
from t5study.study.report_differences import SAID
from t5study.study.report_input import Study
from t5study.study.report_numbers import figure, signed
from t5study.study.report_text import PUBLISHED
from t5study.study.report_view import TableView

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "-": "-{}", "[": "{[}", "]": "{]}",
    "*": "{*}", "★": r"$\star$", "†": r"\textdagger{}", "−": "$-$", "–": "--", "σ": r"$\sigma$", "τ": r"$\tau$",
}  # fmt: skip
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn"}
_HEAD = """% Needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs}.
% UTF-8: letters beyond Latin need a font that has them.
"""


def tables(study: Study, shown: dict[str, Any]) -> dict[str, str]:
    """File name -> content. shown: as report_view.page gives it."""
    return {f"table_{_word(view.table.number)}.tex": _file(study, shown, view) for view in shown["tables"]}


def escaped(text: object) -> str:
    r"""A label as LaTeX text, on one line; what cannot be printed (controls, half a character) as Python writes it.

    A bracket or star is braced, because after `\\` it would be an option of that; so are hyphens, which join to dashes.

    >>> print(escaped("50% of a_b\\c"))
    50\% of a\_b\textbackslash{}c
    >>> print(escaped("[x]\n\ud800"))
    {[}x{]} \textbackslash{}ud800
    """
    line = " ".join(str(text).split())
    printable = "".join(ascii(one)[1:-1] if unicodedata.category(one) in _UNPRINTABLE else one for one in line)
    return "".join(_SPECIAL.get(one, one) for one in printable)


def _word(number: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", number)


def _file(study: Study, shown: dict[str, Any], view: TableView) -> str:
    return _HEAD + "".join(f"\n{one}" for one in _parts(study, shown, view))


def _parts(study: Study, shown: dict[str, Any], view: TableView) -> Iterator[str]:
    """Ours, a table for each kind of columns; then the paper's."""
    ours = [each for each in view.lines if not each.reference]
    for i, (_, said, columns) in enumerate(shown["kinds"], 1):
        if not columns:
            continue
        blocks = [
            ("Ours", [(each, [_value(each.cells[one.name]) for one in columns]) for each in ours]),
            ("Ours minus our baseline", [(each, [_delta(each.cells[one.name]) for one in columns]) for each in ours]),
        ]
        notes = view.problems if i == 1 else ()
        yield _set(view, f"ours-{i}", f"Ours. {said}.", [column.name for column in columns], blocks, notes)
    if view.tests:
        block = ("", [(row.label, [escaped(one) for one in (row.seeds, row.examples, row.said)]) for row in view.tests])
        columns = ("over seeds", "over examples", study.verdict_column)
        yield _set(view, "tests", SAID, columns, [block], [view.outcome] if view.outcome else ())
    pairs = [(each, paper) for each, paper in zip(view.lines, view.paper, strict=True) if paper is not None]
    if pairs:
        names = [name for name in shown["paper_columns"] if any(name in paper.figures for _, paper in pairs)]
        blocks = [
            ("The paper", [(each, [_figure(paper, name) for name in names]) for each, paper in pairs]),
            (
                "The paper's minus its baseline",
                [(each, [_change(each, paper, name) for name in names]) for each, paper in pairs],
            ),
        ]
        errata = [f"† {each.label}: {each.erratum}" for each, _ in pairs if each.erratum]
        scale = "" if study.at_paper_scale else " At another scale than ours: compare changes, not figures."
        yield _set(view, "paper", f"The paper's figures.{scale}", names, blocks, errata)
    if view.published:
        rows = [
            (label, [escaped(f"{one.source}, {one.table}, {one.row}"), escaped(one.column), escaped(figure(one.value))])
            for label, one in view.published
        ]
        yield _set(view, "published", PUBLISHED, ("in", "measured", "figure"), [("", rows)], ())


# --- a table ----------------------------------------------------------------------------------------------------

Block = tuple[str, Sequence[tuple[Line | str, Sequence[str]]]]


def _set(
    view: TableView, name: str, said: str, columns: Sequence[str], blocks: Sequence[Block], notes: Sequence[str]
) -> str:
    """One table: a heading, then the blocks under each other, then notes."""
    width = len(columns) + 1
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(f'Table {view.table.number}: {view.table.caption}. {said}')}}}",
        rf"\label{{tab:study-{_word(view.table.number)}-{name}}}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(escaped, (", ".join(view.table.axes), *columns))) + r" \\",
    ]
    for heading, rows in blocks:
        lines += [r"\midrule"]
        lines += [rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escaped(heading)}}}}} \\"] if heading else []
        lines += [" & ".join((_label(each), *cells)) + r" \\" for each, cells in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {escaped(note)}" for note in notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _label(each: Line | str) -> str:
    if isinstance(each, str):
        return escaped(each)
    return escaped(f"{each.label}{' ★' if each.starred else ''}{' †' if each.erratum else ''}")


def _value(cell: Judged) -> str:
    """The mean over seeds, or why there is none."""
    return _bold(figure(cell.value, cell.column), cell.bold) if cell.values else rf"\textit{{{cell.state}}}"


def _delta(cell: Judged) -> str:
    if not cell.values:
        return rf"\textit{{{cell.state}}}"
    return "--" if cell.mark == "baseline" else escaped(signed(cell.delta, cell.column))


def _figure(paper: PaperRow, name: str) -> str:
    return _bold(figure(paper.figures.get(name)), name in paper.bold)


def _change(each: Line, paper: PaperRow, name: str) -> str:
    return "--" if each.starred else escaped(signed(paper.deltas.get(name)))


def _bold(number: str, bold: bool) -> str:
    return rf"\textbf{{{escaped(number)}}}" if bold else escaped(number)
