"""The pace of a study: what its work has taken so far, and what the rest will take at that.

    pace = Pace(); pace.saw("pretrain", seconds=31.0, work=28.0); pace.left(stages, workers=2)

Each kind of stage goes at its own pace; one that has not been seen goes at that of all training. Text and tasks are no
measure of training, so they are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from t5study.ground.store import Store, read_json
from t5study.study.stages import COST

PREPARATION = ("corpus", "vocabulary", "tokens", "tasks")


@dataclass(frozen=True)
class Left:
    """A stage that is not there. work: of all of it. share: what is done of it, of 1. parents: ids."""

    kind: str
    work: float
    share: float = 0.0
    parents: tuple[str, ...] = ()


@dataclass
class Pace:
    """took: kind -> seconds, and the work that was done in them."""

    took: dict[str, tuple[float, float]] = field(default_factory=dict)

    def saw(self, kind: str, seconds: float, work: float) -> None:
        """So much work was done in so many seconds."""
        before = self.took.get(kind, (0.0, 0.0))
        self.took[kind] = before[0] + seconds, before[1] + work

    def left(self, stages: Mapping[str, Left], workers: int) -> float | None:
        """Seconds until all are done: as many as the workers share, or as the longest way to go takes. None until
        training has been timed. Stages by their ids, parents first.

        >>> pace = Pace({"pretrain": (20.0, 10.0)})
        >>> pace.left({"a": Left("pretrain", 5.0), "b": Left("finetune", 1.0, parents=("a",))}, workers=2)
        12.0
        """
        known = {kind: s / w for kind, (s, w) in self.took.items() if kind not in PREPARATION and w > 0}
        if not known:
            return None
        counted = [self.took[kind] for kind in known]
        usual = sum(s for s, _ in counted) / sum(w for _, w in counted)
        seconds = {name: one.work * (1 - one.share) * known.get(one.kind, usual) for name, one in stages.items()}
        way = dict[str, float]()
        for name, one in stages.items():
            way[name] = seconds[name] + max((way.get(parent, 0.0) for parent in one.parents), default=0.0)
        return max(sum(seconds.values()) / workers, max(way.values(), default=0.0))


def seen(store: Store, stages: Iterable[tuple[str, str, float]]) -> Pace:
    """What the stages of these that are in a store have taken. stages: ids, kinds and works."""
    pace = Pace()
    for name, kind, work in stages:
        if (path := store.root / name / COST).is_file():
            pace.saw(kind, read_json(path)["seconds"], work)
    return pace


def total(works: Iterable[float]) -> float:
    """Of all work; 1 where there is none, so that shares of it can be taken."""
    return sum(works) or 1.0
