"""Files of benchmarks, row by row: what a row says before a task has judged it.

    for record in table(Path("RTE/dev.tsv")):
        record.text("sentence1"), record.label("label", ("entailment", "not_entailment"))

Read are .tsv (nothing is quoted, only a newline ends a row), .csv (quoted), .jsonl, .json (a list of objects, or an
object a line) and .parquet (page checksums checked), the first four packed with gzip or zstd too. Every mistake ends in
one line that names file, row and field.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import zstandard

from t5study.ground.errors import UserError

TABLES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
PACKED = (".gz", ".zst")
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: JSON can spell one, UTF-8 cannot
_LINE = 1 << 26  # bytes of one line
_DOCUMENT = 1 << 30  # bytes of a file that is one JSON value


# --- a row before it is judged ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """One row of a file before it is judged: where it stood and its fields. number: of its line, from 1; in a list or a
    parquet file, of the row from 0."""

    file: Path
    number: int
    fields: Mapping[str, Any]

    def wrong(self, name: str, message: str) -> NoReturn:
        """UserError in one line: file, row, field, message."""
        raise UserError(f"{self.file}: row {self.number}: field {name}: {message}")

    def named(self, *names: str) -> str:
        """The first of these names under which the row has a value, or the first of them all."""
        return next((name for name in names if self.fields.get(name) is not None), names[0])

    def get(self, *names: str) -> Any:
        """The first of these fields that has a value, or None."""
        return self.fields.get(self.named(*names))

    def text(self, *names: str, empty: bool = False) -> str:
        """The first of these fields that has a value, as it stands. UserError if none has, it is no text, or it is
        blank where it must not be."""
        name = self.named(*names)
        value = self.fields.get(name)
        if value is None:
            there = ", ".join(map(repr, self.fields))[:120] or "nothing"
            self.wrong(name, f"missing, found {there}; is this the file of another task?")
        if not isinstance(value, str):
            self.wrong(name, f"found {short(value)}; give a text")
        if not empty and not value.strip():
            self.wrong(name, "found an empty text; get a fresh copy of the file, or remove the row")
        if _HALF.search(value):
            self.wrong(name, "found half of a surrogate pair; get a fresh copy of the file")
        return value

    def label(self, labels: Sequence[str], *names: str, numbered: bool = False) -> str:
        """The label in the first of these fields that has a value: by its name, by its number (the hub's integers) or
        as a truth value; by a number in a text too where the task's own files are `numbered`. UserError for one that
        is none of the labels, and for the hidden -1."""
        name = self.named(*names)
        value = self.fields.get(name)
        if value is None:
            self.wrong(name, "missing: rows without labels are for the test split, in a file whose name says so")
        if isinstance(value, str) and value in labels:
            return value
        if isinstance(value, str) and (value == "-1" or (numbered and value.isdecimal())):
            value = int(value)
        if isinstance(value, bool) and "True" in labels:
            return str(value)
        if isinstance(value, int) and 0 <= value < len(labels):
            return labels[value]
        if value == -1:
            self.wrong(name, "found -1, a hidden test label; it can be neither learnt from nor scored")
        self.wrong(name, f"found {short(value)}; give one of {', '.join(labels)}; is this the file of another task?")

    def has_label(self, *names: str) -> bool:
        """Whether the first of these fields that is there has a label that is not hidden."""
        return self.get(*names) not in (None, -1, "-1", "")


def short(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


# --- files ------------------------------------------------------------------------------------------------------


def table(file: Path, columns: Sequence[str] = (), ragged: bool = False) -> Iterator[Record]:
    """The rows of a file. columns: the names of a .tsv or .csv that has no header. ragged: leave out lines that do not
    fit the header, where it is known to be broken (TFDS does so for QQP); else they are UserErrors."""
    kind = Path(file.name.removesuffix(".gz").removesuffix(".zst")).suffix.lower()
    if kind == ".parquet":
        return _parquet(file)
    if kind == ".jsonl":
        return _json_lines(file)
    if kind == ".json":
        return _json_list(file)
    if kind == ".csv":
        return _csv(file, columns)
    if kind == ".tsv":
        return _tsv(file, columns, ragged)
    raise UserError(f"{file}: found a file of another kind; give a {', '.join(TABLES)} file")


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of every line of a text file, blank ones too. Only a newline ends a line: U+2028 is text. A
    byte-order mark at the start, and a carriage return at the end of a line, are dropped. UserError for bytes that are
    not UTF-8 and for what cannot be read."""
    with _opened(file) as stream:
        number = 0
        while raw := _read(file, stream.readline, _LINE):
            number += 1
            yield number, _decoded(file, number, raw).removesuffix("\n").removesuffix("\r")


def document(file: Path) -> Any:
    """The one JSON value that a file holds (as SQuAD's do). UserError if it is none."""
    with _opened(file) as stream:
        return _json(file, 1, _decoded(file, 1, _read(file, stream.read, _DOCUMENT)))


def _tsv(file: Path, columns: Sequence[str], ragged: bool) -> Iterator[Record]:
    header = list(columns)
    for number, line in texts(file):
        cells = line.split("\t")
        if not header:
            header = cells
        elif len(cells) == len(header):
            yield Record(file, number, dict(zip(header, cells, strict=True)))
        elif line and not ragged:
            raise UserError(f"{file}: row {number}: found {len(cells)} columns, not {len(header)}; get a fresh copy")


def _csv(file: Path, columns: Sequence[str]) -> Iterator[Record]:
    with _opened(file) as stream:
        # "utf-8-sig" drops a byte-order mark; newline="" leaves line ends inside quotes as they are
        rows = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), strict=True)
        header, number = list(columns), 0
        while True:
            try:
                cells = next(rows, None)
            except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
                raise UserError(f"{file}: row {number + 1}: found no CSV ({error}); get a fresh copy") from None
            if cells is None:
                return
            number += 1
            if not header:
                header = cells
            elif cells and len(cells) != len(header):
                raise UserError(
                    f"{file}: row {number}: found {len(cells)} columns, not {len(header)}; get a fresh copy"
                )
            elif cells:
                yield Record(file, number, dict(zip(header, cells, strict=True)))


def _json_lines(file: Path) -> Iterator[Record]:
    for number, line in texts(file):
        if line.strip():
            yield Record(file, number, _fields(file, number, _json(file, number, line)))


def _json_list(file: Path) -> Iterator[Record]:
    """A list of objects; or an object a line, which some call .json too."""
    first = next((line.lstrip() for _, line in texts(file) if line.strip()), "")
    if not first.startswith("["):
        yield from _json_lines(file)
        return
    for number, value in enumerate(document(file)):
        yield Record(file, number, _fields(file, number, value))


def _parquet(file: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches():
            for fields in batch.to_pylist():
                yield Record(file, number, fields)
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read ({str(error).splitlines()[0]}); get a fresh copy") from None


# --- bytes ------------------------------------------------------------------------------------------------------


def _opened(file: Path) -> BinaryIO:
    try:
        if file.suffix == ".gz":
            return cast(BinaryIO, gzip.open(file, "rb"))
        if file.suffix == ".zst":
            raw = zstandard.ZstdDecompressor().stream_reader(open(file, "rb"), read_across_frames=True, closefd=True)
            return io.BufferedReader(raw)  # type: ignore[arg-type] # it has all that a raw stream needs
        return open(file, "rb")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give a file that can") from None


def _read(file: Path, read: Callable[[int], bytes], most: int) -> bytes:
    try:
        raw = read(most + 1)
    except (EOFError, zlib.error, zstandard.ZstdError, OSError) as error:
        raise UserError(f"{file}: found damaged data ({error}); get a fresh copy") from None
    if len(raw) > most:
        raise UserError(f"{file}: found more than {most >> 20} MiB in one piece; is this the file of a benchmark?")
    return raw


def _decoded(file: Path, number: int, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: row {number}: found bytes that are not UTF-8; save it as UTF-8 ({error.reason})"
        ) from None
    if "\0" in text:
        raise UserError(f"{file}: row {number}: found a NUL character; get a fresh copy")
    return text


def _json(file: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: row {number}: found invalid JSON ({error.msg}); get a fresh copy") from None
    except RecursionError:
        raise UserError(f"{file}: row {number}: found JSON nested too deep; get a fresh copy") from None


def _fields(file: Path, number: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{file}: row {number}: found {short(value)}; a row is one JSON object")
    return value
