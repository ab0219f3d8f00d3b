"""Where a benchmark's rows come from: its own distribution files, or the hub's parquet, in a folder of this machine.

    home = Home("glue/rte", ("glue/RTE", "RTE"), {"train": ("train.tsv",), "validation": ("dev.tsv",)}, "https://...")
    rows = read_rows(home, data, render)        # render(record, split) -> the rows of a record

Nothing is fetched here and nothing is written: `t5study data get` does that. Folders and files are found without
regard to case. Of a split the official file is read if it is there, else every file whose name says that it is of the
split ("train-00000-of-00002.parquet", "dev_first_half.tsv", "validation/0000.parquet"), in the order of their names.

How the files are read is in records.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from t5study.ground.errors import Missing, UserError
from t5study.tasks.records import PACKED, TABLES, Record, table
from t5study.tasks.task import DATA, TEST, Row, Rows

_INNER = ("plain_text", "data")  # folders that the hub puts between a benchmark and its files
_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("dev", "val", "valid", "validation"),
    TEST: ("test",),
}


# --- from a task's home to its rows -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Home:
    """Where a task's files lie under the folder of the benchmarks.

    folders: what its folder may be called ("glue/CoLA", "CoLA"); the first that is there is taken. official: split ->
    its files by their own names; a split that is not named here has no rows. where: where to get them. words: split ->
    the words that name it, where they are not the usual ones. without: files with one of these words are others'.
    reads: file endings that are read. notes: split -> why it has no rows and what to do instead.
    """

    task: str
    folders: tuple[str, ...]
    official: Mapping[str, tuple[str, ...]]
    where: str
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    without: tuple[str, ...] = ()
    reads: tuple[str, ...] = TABLES
    notes: Mapping[str, str] = field(default_factory=dict[str, str])

    def folder(self, data: Path | None) -> Path:
        """The task's folder. UserError if there is none, or no `data`: what to put where, and where to get it."""
        wanted = f"{self.folders[0]}/{next(iter(self.official.values()))[0]}"
        if data is None:
            raise UserError(
                f"task {self.task}: needs {wanted} from {self.where}; give its folder with --data or {DATA}"
            )
        if not data.is_dir():
            raise UserError(f"{data}: no such folder; give the folder that has {wanted} with --data")
        for name in self.folders:
            if (found := _inside(data, name)) is not None and found.is_dir():
                return found
        raise Missing(f"{data}: found no folder {self.folders[0]}; put {wanted} there, from {self.where}")

    def files(self, folder: Path, split: str) -> list[Path]:
        """The files of one split: the official one, or all that are named after the split; [] if there are none. Files
        that call themselves unlabelled are for the test split alone."""
        if split not in self.official:
            return []
        for name in self.official[split]:
            for packed in ("", *PACKED):
                if (found := _inside(folder, name + packed)) is not None and found.is_file():
                    return [found]
        words = self.words.get(split, _WORDS[split])
        found = _named(folder, words)
        for inner in () if found else (*words, *_INNER):
            if (below := _inside(folder, inner)) is not None and below.is_dir():
                found += _named(below, words) if inner in _INNER else _listed(below)
        return [
            path
            for path in found
            if path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(self.reads)
            and not set(_parts(path)) & set(self.without)
            and (split == TEST or "unlabel" not in path.name.lower())
        ]

    def missing(self, folder: Path, split: str) -> str:
        """What to do about a split that has no rows."""
        if split not in self.official:
            return self.notes.get(split, f"it has no {split} split")
        return f"put {self.official[split][0]} into {folder}, from {self.where}"


def read_rows(
    home: Home,
    data: Path | None,
    render: Callable[[Record, str], Iterable[Row]],
    records: Callable[[Path, str], Iterator[Record]] | None = None,
) -> Rows:
    """All rows of a task. render: a record and its split -> its rows. records: a file and its split -> its records
    (default: `table`). UserError if no split has a row, or two rows of one have the same id."""
    folder = home.folder(data)
    splits: dict[str, tuple[Row, ...]] = {}
    for split in home.official:
        rows: list[Row] = []
        seen: dict[str, Record] = {}
        for file in home.files(folder, split):
            for record in records(file, split) if records else table(file):
                for row in render(record, split):
                    if (first := seen.get(row.id)) is not None:
                        there = f"row {first.number} of {first.file.name}"
                        record.wrong("id", f"found {row.id!r} again, first in {there}; remove one of the two")
                    seen[row.id] = record
                    rows.append(row)
        splits[split] = tuple(rows)
    if not any(splits.values()):
        wanted = " and ".join(dict.fromkeys(names[0] for names in home.official.values()))
        raise Missing(f"{folder}: found no rows of {home.task}; put {wanted} there, from {home.where}")
    missing = {split: home.missing(folder, split) for split in _WORDS if not splits.get(split)}
    return Rows(splits, missing)


# --- names ------------------------------------------------------------------------------------------------------


def _inside(folder: Path, name: str) -> Path | None:
    """What is called `name` ("glue/CoLA") under a folder, in whatever case; the exact name first."""
    for part in name.split("/"):
        if (folder / part).exists():
            folder = folder / part
        elif alike := [path for path in _listed(folder) if path.name.lower() == part.lower()]:
            folder = alike[0]
        else:
            return None
    return folder


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _parts(path: Path) -> list[str]:
    return re.split(r"[-_.]", path.name.lower())


def _named(folder: Path, words: Sequence[str]) -> list[Path]:
    return [path for path in _listed(folder) if path.is_file() and set(_parts(path)) & set(words)]
