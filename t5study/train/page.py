"""A run's own page: its loss, gradients and speed as one static file, FOLDER/page.html, with nothing beside it."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from t5study.ground.store import write_text
from t5study.train.speeds import read_speed_rows, read_speeds, speed, told
from t5study.train.watch import Follower

PAGE = "page.html"
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "figure{margin:1rem 0}svg{width:100%;height:auto}"
)


def write_page(folder: Path) -> Path:
    """Writes the page of a run, done or under way. UserError if the folder is no run's."""
    follower = Follower(folder)
    state, rows = follower.state(), follower.rows
    good = [row for row in rows if "loss" in row]
    bad = [row["skipped"] for row in rows if "skipped" in row] + [n for row in rows for n in row.get("rewound", ())]
    plots = []
    if good:
        steps = [row["step"] for row in good]
        loss = [row["loss"] for row in good]
        plots.append(_plot("loss, nats a target token", steps, loss, smooth=True))
        plots.append(_plot("L2 norm of the gradient", steps, [row["grad_norm"] for row in good], smooth=True))
    if speeds := [row for row in read_speed_rows(folder) if row["seconds"] > 0]:
        fast = [row["tokens"] / row["seconds"] for row in speeds]
        at = [row["step"] for row in speeds]
        plots.append(_plot("tokens a second, source and target", at, fast))
        if used := {row["step"]: 100 * row["utilisation"] for row in speeds if row["utilisation"] is not None}:
            plots.append(_plot("model FLOPs, % of the peak", list(used), list(used.values())))
        plots.append(
            _plot("waiting for data, % of the time", at, [100 * row["waited"] / row["seconds"] for row in speeds])
        )
    listed = "".join(
        f"<li>step {int(n['step']):,}: {escape(str(n['found']))}, examples {int(n['examples'][0]):,} to "
        f"{int(n['examples'][1]) - 1:,}</li>"
        for n in bad
    )
    parts = [
        f"<h1>{escape(state.name)}</h1><p>{escape(' · '.join(state.parts))}</p>",
        f"<p>{escape(' · '.join(_whole(folder)))}</p>",
        *plots,
        f"<h2>Steps whose examples were left out</h2><ul>{listed}</ul>" if listed else "",
    ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(state.name)}</title>'
    write_text(folder / PAGE, f"{head}<style>{_STYLE}</style>\n{chr(10).join(parts)}\n</html>\n")
    return folder / PAGE


def _whole(folder: Path) -> list[str]:
    """The speed of the run up to its last checkpoint, for people."""
    found = speed(read_speeds(folder))
    if not found["tokens_per_second"]:
        return []
    parts = [f"{found['tokens_per_second']:,.0f} tokens/s in all", *told(found["waiting"], found["utilisation"])]
    return parts + ([f"peak {found['peak'] / 1e9:,.0f} GFLOP/s"] if found["peak"] else [])


def _plot(title: str, steps: list[int], values: list[float], smooth: bool = False) -> str:
    """A line over the steps as SVG; a running mean over a fiftieth of them on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes: Any = figure.subplots()
    axes.plot(steps, values, color="#9db8d2" if smooth else "#20639b", linewidth=0.8)
    width = max(1, len(values) // 50)
    if smooth and width > 1:
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, color="#20639b", linewidth=1.5)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return f'<figure role="img" aria-label="{escape(title)}">{text[text.index("<svg") :]}</figure>'
