"""How far off the plan was, for the report's costs: what was promised of each kind of stage, and what it took."""

from __future__ import annotations

from dataclasses import dataclass

from t5study.ground.journal import duration
from t5study.study.report_input import Study

_MEASURES = {"processor_s": "Seconds are of the processor", "seconds": "Seconds are those that passed"}


@dataclass(frozen=True)
class Promised:
    """said: where the estimate is from. rows: (kind of stage, how many, promised, took, error), the last of all."""

    said: str
    rows: tuple[tuple[str, str, str, str, str], ...]


def promised(study: Study) -> Promised | None:
    """None where nothing was promised, or costs.json does not tell."""
    told = study.costs.get("estimate")
    if not isinstance(told, dict):
        return None
    try:
        rows = tuple(
            (
                str(one["kind"]),
                f"{one['stages']:,}",
                duration(one["promised_s"]),
                duration(one["took_s"]),
                "–" if one["error"] is None else f"{100 * one['error']:+.0f} %",
            )
            for one in [*told["kinds"], told["all"]]
        )
        sources = ", ".join(map(str, told["sources"]))
        said = f"What was promised before it ran ({sources}), and what it took. {_MEASURES[told['measure']]}."
    except (KeyError, TypeError, ValueError):  # written by hand
        return None
    return Promised(said, rows)
