"""The report's figures: forests of intervals, our changes beside the paper's, losses, gains. Each gives one <svg>.

Marks are told twice, by colour and by shape: filled is sure, hollow is above noise by the paper's rule only, small and
grey is inside the noise. Figures are drawn narrow, for a phone; a wide page sets them side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from t5study.study.findings import BETTER, SIGNAL, SURE, Judged, Line
from t5study.study.report_input import Noise
from t5study.study.svg import COLOUR, LINES, SMALL, WIDTH, draw, wrapped

_LABELS = 122.0  # points for row labels
_ROW = 27.0


@dataclass(frozen=True)
class Panel:
    """One column of a forest. name: of the column; title: above it; noise: of its baseline."""

    name: str
    title: str
    higher_is_better: bool
    noise: Noise | None


@dataclass(frozen=True)
class Curve:
    """A named line. steps ascending, values of the same length."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


def forest(name: str, title: str, lines: Sequence[Line], panels: Sequence[Panel]) -> str:
    """Rows against columns: the mean over seeds, its interval over examples, every seed as a tick, and the noise of
    the baseline (two standard deviations to either side) as a band."""
    top, bottom, gap = 22.0, 34.0, 21.0
    height = top + bottom + _ROW * len(lines)
    wide = (WIDTH - _LABELS - 12 - gap * (len(panels) - 1)) / len(panels)

    def fill(figure: Any) -> None:
        for k, panel in enumerate(panels):
            left = _LABELS + 6 + k * (wide + gap)
            ax = figure.add_axes((left / WIDTH, bottom / height, wide / WIDTH, _ROW * len(lines) / height))
            _forest_panel(ax, lines, panel)
            ax.set_ylim(len(lines) - 0.5, -0.5)
            ax.set_yticks([])
            if k == 0:
                for i, each in enumerate(lines):
                    label = each.label + (" ★" if each.starred else "")
                    _row_label(figure, label, _y(i, top, height), height, "muted" if each.reference else "ink")

    return draw(name, title, height, fill)


def _y(i: int, top: float, height: float) -> float:
    return 1 - (top + _ROW * (i + 0.5)) / height


def _row_label(figure: Any, label: str, y: float, height: float, colour: str = "ink", lines: int = 2) -> None:
    """Line by line: matplotlib would align them by the widths of another font than the page's."""
    told = wrapped(label, 19, lines).split("\n")
    for k, text in enumerate(told):
        middle = y + (len(told) / 2 - k - 0.5) * 11.4 / height
        figure.text(_LABELS / WIDTH, middle, text, ha="right", va="center_baseline", color=COLOUR[colour])


def _forest_panel(ax: Any, lines: Sequence[Line], panel: Panel) -> None:
    cells = [each.cells[panel.name] for each in lines]
    ends = [end for cell in cells if cell.values for end in (cell.low, cell.high, *cell.values) if end is not None]
    if panel.noise:
        room = 2 * (panel.noise.std or 0)
        ends += [panel.noise.mean - room, panel.noise.mean + room]
        ax.axvspan(panel.noise.mean - room, panel.noise.mean + room, color=COLOUR["band"], linewidth=0)
        ax.axvline(panel.noise.mean, color=COLOUR["muted"], linewidth=0.8, linestyle=(0, (2, 2)))
    if ends:
        margin = (max(ends) - min(ends)) * 0.08 or abs(max(ends)) * 0.1 or 1.0
        ax.set_xlim(min(ends) - margin, max(ends) + margin)
    for i, cell in enumerate(cells):
        if cell.value is None:
            colour = COLOUR["worse" if cell.state == "failed" else "muted"]
            ax.text(0.5, i, cell.state, transform=ax.get_yaxis_transform(), ha="center", va="center",
                    fontsize=SMALL, style="italic", color=colour)  # fmt: skip
            continue
        colour, size, face = _dot(cell)
        ax.plot([cell.low, cell.high], [i, i], color=colour, linewidth=1.4)
        if len(cell.values) > 1:
            ax.plot(cell.values, [i] * len(cell.values), "|", color=colour, markersize=8, markeredgewidth=1)
        ax.plot([cell.value], [i], "D" if cell.mark == "baseline" else "o", color=colour, markersize=size,
                markerfacecolor=face, markeredgewidth=1.3)  # fmt: skip
    if ends:
        _ticks(ax)
    else:
        ax.set_xticks([])
    ax.spines["left"].set_visible(False)
    ax.set_title(wrapped(panel.title, 20, 1), fontsize=SMALL, color=COLOUR["ink"], pad=6)
    ax.set_xlabel("better →" if panel.higher_is_better else "← better", labelpad=1)


def _dot(cell: Judged) -> tuple[str, float, str]:
    """Colour, size and filling of a point."""
    if cell.mark == "baseline":
        return COLOUR["ink"], 5.0, COLOUR["ink"]
    if cell.mark not in SIGNAL:
        return COLOUR["muted"], 4.5, COLOUR["panel"]
    colour = COLOUR["better" if cell.mark in BETTER else "worse"]
    return colour, 6.0, colour if cell.mark in SURE else COLOUR["panel"]


def _ticks(ax: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    ax.grid(axis="x", color=COLOUR["rule"], linewidth=0.5, alpha=0.6)
    ax.set_axisbelow(True)


# --- ours beside the paper's ------------------------------------------------------------------------------------

_TICKS = (-100, -30, -10, -2, 0, 2, 10, 30, 100)


def _noise_axis(ax: Any, ends: Sequence[float]) -> None:
    """Units of noise: straight between -2 and 2, where the noise is, logarithmic outside."""
    low, high = min([-4.0, *ends]), max([4.0, *ends])
    ax.set_xscale("symlog", linthresh=2, linscale=0.7)
    ax.set_xlim(low * 1.35, high * 1.35)
    shown = [tick for tick in _TICKS if low * 1.35 <= tick <= high * 1.35]
    ax.set_xticks(shown, [f"{tick:+d}".replace("-", "−") if tick else "0" for tick in shown])
    ax.minorticks_off()
    ax.axvspan(-2, 2, color=COLOUR["band"], linewidth=0)
    ax.axvline(0, color=COLOUR["muted"], linewidth=0.8, linestyle=(0, (2, 2)))
    ax.grid(axis="x", color=COLOUR["rule"], linewidth=0.5, alpha=0.6)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)


def paired(name: str, title: str, rows: Sequence[tuple[str, float, float | None, float | None]], ours: str) -> str:
    """label, the paper's change, ours by the verdict column, ours by the mean of the metrics: in units of noise,
    positive when better. ours: what the verdict column is called."""
    top, bottom = 30.0, 36.0
    height = top + bottom + _ROW * len(rows)

    def fill(figure: Any) -> None:
        left = _LABELS + 6
        ax = figure.add_axes((left / WIDTH, bottom / height, (WIDTH - left - 10) / WIDTH, _ROW * len(rows) / height))
        _noise_axis(ax, [x for row in rows for x in row[1:] if isinstance(x, float)])
        for i, (label, paper, likelihood, metric) in enumerate(rows):
            if likelihood is not None:
                ax.plot([paper, likelihood], [i, i], color=COLOUR["rule"], linewidth=1)
            _row_label(figure, label, _y(i, top, height), height)
            for x, (marker, colour, size, filled, _) in zip((metric, likelihood, paper), _sides(ours), strict=True):
                if x is not None:
                    ax.plot([x], [i], marker, color=COLOUR[colour], markersize=size, markeredgewidth=1.3,
                            markerfacecolor=COLOUR[colour if filled else "panel"])  # fmt: skip
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks([])
        ax.set_xlabel("change in σ; better →", labelpad=2)
        for k, (marker, colour, size, filled, said) in enumerate(reversed(_sides(ours))):
            x = (8 + k * 108) / WIDTH
            figure.text(x + 8 / WIDTH, 1 - 11 / height, said, va="center", fontsize=SMALL)
            key = figure.add_axes((x - 5 / WIDTH, 1 - 16 / height, 10 / WIDTH, 10 / height))
            key.axis("off")
            key.plot([0], [0], marker, color=COLOUR[colour], markersize=size, markeredgewidth=1.3,
                     markerfacecolor=COLOUR[colour if filled else "panel"])  # fmt: skip

    return draw(name, title, height, fill)


def _sides(ours: str) -> tuple[tuple[str, str, float, bool, str], ...]:
    """marker, colour, size, filled, what it says: drawn in this order."""
    return (
        ("^", "c3", 5.0, True, "ours, metrics"),
        ("o", "c1", 6.0, True, f"ours, {ours}"),
        ("D", "ink", 5.5, False, "the paper"),
    )


def gains(name: str, title: str, rows: Sequence[tuple[str, float | None, bool, str]]) -> str:
    """Bars of what pre-training brought. label, gain in units of noise (None: no unit), whether it is signal, what to
    say in place of a bar."""
    top, bottom, row = 6.0, 34.0, 17.0
    height = top + bottom + row * len(rows)

    def fill(figure: Any) -> None:
        left = _LABELS + 6
        ax = figure.add_axes((left / WIDTH, bottom / height, (WIDTH - left - 10) / WIDTH, row * len(rows) / height))
        _noise_axis(ax, [gain for _, gain, _, _ in rows if gain is not None])
        for i, (label, gain, signal, instead) in enumerate(rows):
            _row_label(figure, label, 1 - (top + row * (i + 0.5)) / height, height, lines=1)
            if gain is None:
                ax.text(1.0, i, instead, transform=ax.get_yaxis_transform(), ha="right", va="center",
                        fontsize=SMALL, style="italic", color=COLOUR["muted"])  # fmt: skip
                continue
            colour = COLOUR[("better" if gain > 0 else "worse") if signal else "muted"]
            ax.barh(i, gain, height=0.6, color=colour if signal else COLOUR["panel"], edgecolor=colour, linewidth=1)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks([])
        ax.set_xlabel("gain in σ; better →", labelpad=2)

    return draw(name, title, height, fill)


# --- losses -----------------------------------------------------------------------------------------------------


def windows(steps: Sequence[float], values: Sequence[float], points: int = 60) -> tuple[list[float], list[float], int]:
    """A long curve as at most about `points` means over consecutive windows: middle steps, means, window length.

    >>> windows([1, 2, 3, 4, 5], [1.0, 3.0, 5.0, 7.0, 9.0], points=2)
    ([2.0, 4.5], [3.0, 8.0], 3)
    """
    k = max(1, math.ceil(len(values) / points))
    middles, means = [], []
    for i in range(0, len(values), k):
        part = values[i : i + k]
        middles.append(float(steps[i] + steps[i + len(part) - 1]) / 2)
        means.append(math.fsum(part) / len(part))
    return middles, means, k


def curves(name: str, title: str, found: Sequence[Curve], ylabel: str) -> str:
    """Lines that carry their names at their ends. The steep beginning may lie above the frame."""
    left, right, top, bottom, height = 38.0, 118.0, 8.0, 34.0, 206.0
    last = max(curve.steps[-1] for curve in found)
    found = [
        curve if curve.steps[-1] > 0.9 * last else replace(curve, label=f"{curve.label}, ended early")
        for curve in found
    ]

    def fill(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        ax = figure.add_axes(
            (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
        )
        for k, curve in enumerate(found):
            ax.plot(curve.steps, curve.values, color=COLOUR[LINES[k % 6]], linewidth=1.5, linestyle=_dash(k),
                    marker="o" if len(curve.values) < 12 else None, markersize=3)  # fmt: skip
        low, high = _frame(found)
        ax.set_ylim(low, high)
        ax.set_xlim(0, last * 1.005)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.tick_params(axis="y", labelcolor=COLOUR["muted"], labelsize=SMALL)
        ax.grid(color=COLOUR["rule"], linewidth=0.5, alpha=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel("step", labelpad=1)
        ax.set_ylabel(ylabel, labelpad=3)
        end_labels(ax, found, (low, high), height - top - bottom)

    return draw(name, title, height, fill)


def _dash(k: int) -> Any:
    return "solid" if k < len(LINES) else (0, (3, 1.5))


def _frame(found: Sequence[Curve]) -> tuple[float, float]:
    """From the lowest point to the highest one after the first tenth; curves that ended early have no say."""
    last = max(curve.steps[-1] for curve in found)
    whole = [curve for curve in found if curve.steps[-1] > 0.9 * last]
    later = [value for curve in whole for value in curve.values[min(len(curve.values) - 1, len(curve.values) // 10) :]]
    low, high = min(later), max(later)
    margin = (high - low) * 0.06 or 0.5
    return low - margin, high + margin


def end_labels(ax: Any, found: Sequence[Curve], frame: tuple[float, float], points: float) -> None:
    """Names right of the frame, in the order of the curves' ends, pushed apart until none touches another."""
    scale = points / (frame[1] - frame[0])
    labels = [wrapped(curve.label, 20, 3) for curve in found]
    order = sorted(range(len(found)), key=lambda k: (-found[k].values[-1], k))
    heights = [11.5 * (1 + labels[k].count("\n")) for k in order]
    wanted = [points - (min(max(found[k].values[-1], frame[0]), frame[1]) - frame[0]) * scale for k in order]
    for k, middle in zip(order, _apart(wanted, heights, points), strict=True):
        colour, end = COLOUR[LINES[k % 6]], min(found[k].values[-1], frame[1])
        y = frame[0] + (points - middle) / scale
        low, high = ax.get_xlim()
        ax.plot([found[k].steps[-1], high + (high - low) * 0.05], [end, y], color=colour, linewidth=0.8,
                linestyle=(0, (1, 1)), clip_on=False)  # fmt: skip
        ax.text(high + (high - low) * 0.06, y, labels[k], va="center", fontsize=SMALL, linespacing=1.05)


def _apart(wanted: Sequence[float], heights: Sequence[float], room: float) -> list[float]:
    """Middles of labels from the top down, near where they are wanted, none over another, inside the room if they fit.

    >>> _apart([50.0, 51.0], [10.0, 10.0], 100.0), _apart([99.0, 99.0], [10.0, 10.0], 100.0)
    ([50.0, 60.0], [85.0, 95.0])
    """
    placed: list[float] = []
    edge = 0.0
    for middle, tall in zip(wanted, heights, strict=True):
        placed.append(max(middle, edge + tall / 2))
        edge = placed[-1] + tall / 2
    edge = max(room, math.fsum(heights))
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], edge - heights[i] / 2)
        edge = placed[i] - heights[i] / 2
    return placed
