"""Scaling in the report: which points a study has, the laws through them, and the drawing.

    steps         a pre-training's own loss, by windows that widen as its steps do. The inverse square root schedule
                  does not know when it will end: a shorter run would have had the loss that a longer one passes.
    parameters    rows of a table of sizes that read as much text each, by the verdict's likelihood
    compute       all rows of such a table, by what their training costs beside the baseline's; ensembles are no point

Losses of different objectives are asked different things: a law is of one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t5study.study.figures import Curve, end_labels
from t5study.study.findings import Line, baseline_runs, line
from t5study.study.report_input import Study
from t5study.study.report_journals import losses
from t5study.study.scaling import Fit, fit, sentence
from t5study.study.svg import COLOUR, LINES, SMALL, WIDTH, draw

SAID = (
    "The loss as a power law of what is spent, with a floor where the points ask for one (AICc); in brackets 95 % "
    "(parametric bootstrap). What lies beyond the points is the law’s word, not a measurement; and losses of different "
    "objectives are not to be compared."
)
SIZES = {"size", "pretraining", "finetuning", "batch", "ensemble"}  # axes of tables that spend more or less
WINDOWS = 10


@dataclass(frozen=True)
class Scaled:
    """label: of the runs. what: C is. points: (C, loss). found: the law, or why there is none."""

    label: str
    what: str
    points: tuple[tuple[float, float], ...]
    found: Fit | str

    @property
    def said(self) -> str:
        return f"{self.label}: {sentence(self.found, self.what)}"


def by_steps(study: Study, chosen: Iterable[tuple[str, Sequence[str]]]) -> list[Scaled]:
    """The laws of pre-trainings against their steps: of runs of equal experiments, by label. None without a journal."""
    told = []
    for label, keys in chosen:
        seeds = [dict(rows) for key in keys if (rows := losses(study, study.runs[key], "pretrain"))]
        if not seeds:
            continue
        steps = sorted(set.intersection(*map(set, seeds)))
        points = widening(steps, [sum(rows[step] for rows in seeds) / len(seeds) for step in steps])
        told.append(_scaled(label, "steps of pre-training", points))
    return told


def widening(steps: Sequence[float], loss: Sequence[float], windows: int = WINDOWS) -> list[tuple[float, float]]:
    """A long curve as the means of windows that are equally wide in logarithms; its first tenth is left out.

    >>> widening(list(range(1, 101)), [2.0] * 100, windows=2)
    [(20.5, 2.0), (66.0, 2.0)]
    """
    if not steps or steps[-1] < 2 * windows:
        return []
    edges = np.geomspace(max(1.0, steps[-1] / 10), steps[-1], windows + 1)
    place_P = np.digitize(steps, edges[1:-1], right=True)
    inside_P = np.asarray(steps) >= edges[0]
    told = []
    for k in range(windows):
        of_P = inside_P & (place_P == k)
        if of_P.any():
            told.append((float(np.asarray(steps)[of_P].mean()), float(np.asarray(loss)[of_P].mean())))
    return told


def by_size(study: Study) -> list[Scaled]:
    """The laws of tables that are about size and cost: by parameters and by compute, where anything was measured."""
    column = study.column(study.verdict_column)
    if column.kind != "likelihood":
        column = study.mean_column("likelihood") or column
    if column.kind != "likelihood":
        return []
    told = []
    for table in study.tables:
        if not set(table.axes) <= SIZES:
            continue
        rows = [(row, line(study, row.label, row.runs)) for row in table.rows if row.runs and row.cost is not None]
        plain = [(row, each) for row, each in rows if not _experiment(study, each).get("ensemble")]
        for what, alike in [("parameters", True), ("compute", False)]:
            points = [
                (size, value)
                for row, each in plain
                if (value := each.cells[column.name].value) is not None
                and (size := row.parameters if alike else row.cost) is not None
                and (not alike or _as_much_text(_experiment(study, each)))
            ]
            if points:
                told.append(_scaled(f"Table {table.number}, {column.name}", f"times the baseline's {what}", points))
    return told


def _experiment(study: Study, each: Line) -> dict[str, Any]:
    return dict(study.runs[each.runs[0]].experiment)


def _as_much_text(experiment: dict[str, Any]) -> bool:
    return all(experiment.get(name, 1.0) == 1.0 for name in ("pretraining", "finetuning", "batch"))


def _scaled(label: str, what: str, points: Sequence[tuple[float, float]]) -> Scaled:
    found = fit([c for c, _ in points], [loss for _, loss in points])
    return Scaled(label, what, tuple(points), found)


def chosen_runs(study: Study) -> list[tuple[str, tuple[str, ...]]]:
    """The baseline and what won, each once, at most four."""
    base = baseline_runs(study)
    told = [(study.runs[base[0]].label + " (baseline)", base)] if base else []
    told += [(each.label, each.runs) for turn in study.rounds for each in turn.candidates if each.label == turn.winner]
    unlike: dict[tuple[str, ...], str] = {}
    for label, runs in told:
        if runs:
            unlike.setdefault(runs, label)
    return [(label, runs) for runs, label in unlike.items()][:4]


# --- the drawing ------------------------------------------------------------------------------------------------


def drawing(name: str, title: str, scaled: Sequence[Scaled], xlabel: str) -> str:
    """Points, the law through them and, dashed, where it goes on to; C is logarithmic. "" where no law was found."""
    there = [(each, each.found) for each in scaled if isinstance(each.found, Fit)]
    if not there:
        return ""
    left, right, top, bottom, height = 38.0, 118.0, 8.0, 34.0, 206.0
    ends = []
    for each, found in there:
        c = sorted(c for c, _ in each.points)
        along = np.geomspace(c[0], c[-1] * found.times, 60)
        loss = tuple(found.law.at(float(one)) for one in along)
        ends.append(Curve(each.label, tuple(np.log10(along).tolist()), loss))

    def fill(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        ax = figure.add_axes(
            (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
        )
        for k, (curve, (each, found)) in enumerate(zip(ends, there, strict=True)):
            colour, beyond = COLOUR[LINES[k % 6]], np.log10(max(c for c, _ in each.points))
            within = [i for i, x in enumerate(curve.steps) if x <= beyond + 1e-9]
            ax.plot(curve.steps[: len(within)], curve.values[: len(within)], color=colour, linewidth=1.5)
            after = slice(max(0, len(within) - 1), None)
            ax.plot(curve.steps[after], curve.values[after], color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
            ax.plot(np.log10([c for c, _ in each.points]), [loss for _, loss in each.points], "o", color=colour,
                    markersize=3.5, markerfacecolor=COLOUR["panel"])  # fmt: skip
            low, high = found.now - found.saved[1], found.now - found.saved[0]
            ax.plot([curve.steps[-1]] * 2, [low, high], color=colour, linewidth=1.4)
        losses = [loss for curve in ends for loss in curve.values] + [y for each, _ in there for _, y in each.points]
        margin = (max(losses) - min(losses)) * 0.08 or 0.5
        frame = (min(losses) - margin, max(losses) + margin)
        ax.set_ylim(*frame)
        low, high = min(curve.steps[0] for curve in ends), max(curve.steps[-1] for curve in ends)
        ax.set_xlim(low - (high - low) * 0.03, high + (high - low) * 0.02)
        shown = ticks(10**low, 10**high)
        ax.set_xticks(np.log10(shown), [f"{each:,g}" for each in shown])
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.tick_params(axis="y", labelcolor=COLOUR["muted"], labelsize=SMALL)
        ax.grid(color=COLOUR["rule"], linewidth=0.5, alpha=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel(xlabel, labelpad=1)
        ax.set_ylabel("nats a target token", labelpad=3)
        end_labels(ax, ends, frame, height - top - bottom)

    return draw(name, title, height, fill)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends of a logarithmic axis, five at most.

    >>> ticks(90, 4000), ticks(0.4, 17)
    ([100.0, 200.0, 500.0, 1000.0, 2000.0], [0.5, 1.0, 2.0, 5.0, 10.0])
    """
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [
            round(m * 10.0**k, 12) for k in range(-12, 16) for m in steps if low * 0.999 <= m * 10.0**k <= high * 1.001
        ]
        if len(found) <= 5:
            return found
    return found[:: len(found) // 5 + 1]
