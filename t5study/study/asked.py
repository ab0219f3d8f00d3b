"""What a study is asked, as it was typed: the value that plan, run, rounds and every worker elsewhere begin from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """scale: its name. text: files or patterns, None for the embedded corpus. tasks: addresses or files, None for the
    embedded ones. metric: of task files that name none. benchmarks: of the paper, in place of tasks; data: the folder
    of their files; split_missing: whether a split that is not there is cut out of the one that is. corpora: further
    texts to pre-train on, as (name, pattern), a name as often as it has patterns. own: a file with tables of one's own,
    FILE.py:NAME."""

    scale: str = "laptop"
    text: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    metric: str | None = None
    benchmarks: Sequence[str] | None = None
    data: Path | None = None
    split_missing: bool = False
    corpora: Sequence[tuple[str, str]] | None = None
    own: str | None = None

    def __post_init__(self) -> None:
        for name in ("text", "tasks", "benchmarks", "corpora"):
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(given) if given else None)

    def words(self) -> list[str]:
        """The flags that ask it of plan, run and rounds. Not `own`, which is a part of --tables.

        >>> " ".join(Asked("evening", text=["my text/*.txt"], corpora=[("letters", "l/*.txt")]).words())
        '--scale evening --text my text/*.txt --corpus letters=l/*.txt'
        """
        words = ["--scale", self.scale]
        for flag, values in (("--text", self.text), ("--task", self.tasks)):
            words += [flag, *values] if values else []
        words += ["--metric", self.metric] if self.metric else []
        words += ["--benchmarks", *self.benchmarks] if self.benchmarks else []
        words += ["--data", str(self.data)] if self.data else []
        words += ["--split-missing"] if self.split_missing else []
        for name, pattern in self.corpora or ():
            words += ["--corpus", f"{name}={pattern}"]
        return words
