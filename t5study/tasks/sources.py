"""Where a benchmark's rows come from: its own distribution files, or the hub's parquet, in a folder of this machine.

    folder = benchmark_folder(data, "glue/cola", ("glue/CoLA", "CoLA"), "https://gluebenchmark.com/tasks")
    for file in split_files(folder, "train", official=("train.tsv",)):
        for record in records(file, columns=("source", "label", "mark", "sentence")):
            record.text("sentence")

Nothing is fetched here and nothing is written: `t5study data get` does that. Folders and files are found without
regard to case. Of a split the official file is read if it is there, else every file that its name says is of the
split ("train-00000-of-00002.parquet", "dev_first_half.tsv", "validation/0000.parquet"), in the order of their names.

What is read: .tsv (nothing is quoted, only a newline ends a row), .csv (quoted), .jsonl, .json (a list of objects, or
one object), .parquet (page checksums on), .txt; packed with gzip or zstd too. Every mistake ends in one line that names
file, row and field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from t5study.ground.errors import UserError

SPLIT_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("dev", "val", "valid", "validation"),
    "test": ("test",),
}


@dataclass(frozen=True)
class Record:
    """One row of a file before it is judged: where it stood and its fields. number: of its line from 1, or of the row
    in a parquet file or a list from 0."""

    file: Path
    number: int
    fields: Mapping[str, Any]

    def wrong(self, field: str, message: str) -> NoReturn:
        """UserError in one line: file, line, field, message."""
        raise UserError(f"{self.file}: line {self.number}: field {field}: {message}")


def benchmark_folder(data: Path | None, task: str, names: Sequence[str], where: str) -> Path:
    """The folder of a task under `data`, by the first of its names that is there, whatever their case. UserError if
    there is none, or no `data`: what to put where, and where to get it."""
    raise NotImplementedError


def split_files(folder: Path, split: str, official: Sequence[str] = (), suffixes: Sequence[str] = ()) -> list[Path]:
    """The files of one split: the first of `official` that is there (packed or not), else all whose name says they are
    of the split and that end in one of `suffixes` (default: all that `records` reads). [] if there are none. Files that
    call themselves unlabelled are for the test split alone."""
    raise NotImplementedError


def records(file: Path, columns: Sequence[str] = ()) -> Iterator[Record]:
    """The rows of a file of any format read here. columns: names for a table without a header. UserError for a file
    that cannot be read or a row that does not fit its header."""
    raise NotImplementedError


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """(line number, line) of a text file, packed or not. Only a newline ends a line; a byte-order mark at the start is
    dropped. UserError names the line that is not UTF-8."""
    raise NotImplementedError


def document(file: Path) -> Any:
    """The one JSON value in a file (SQuAD's layout), packed or not. UserError if it is not JSON."""
    raise NotImplementedError
