"""Your own task: one JSON-lines or TSV file with an input, a target and a metric name. No code.

    {"metric": "accuracy"}
    {"input": "tone: what a lovely day", "target": "glad"}
    {"input": "tone: my tea is cold", "target": "sad"}

or, with a tab between the columns and nothing quoted,

    # metric: accuracy
    input<TAB>target
    tone: what a lovely day<TAB>glad

A row may have a "split" ("train" or "validation"), an "id", and "references" (more acceptable answers; in TSV a JSON
list). Without splits one input in ten is for validation, by a hash of the input, so that equal inputs lie on one side
and adding rows moves none of the others. Every mistake ends in one line that names file, line and field.
"""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import xxhash

from t5study.ground.errors import UserError
from t5study.metrics import metric as metrics
from t5study.metrics.numbers import as_number
from t5study.tasks.task import SPLITS, Row, Rows, Task, make_task

SUFFIXES = (".jsonl", ".tsv", ".jsonl.gz", ".tsv.gz")
SETTINGS = ("metric", "labels", "name", "validation", "input_length", "target_length")
FIELDS = ("input", "target", "id", "split", "references")
_MOST_LABELS = 100


@dataclass(frozen=True)
class _Line:
    """One row of a file before it is judged: where it stood and its fields."""

    file: Path
    number: int
    fields: dict[str, Any]

    def wrong(self, field: str, message: str) -> NoReturn:
        raise UserError(f"{self.file}: line {self.number}: field {field}: {message}")


def task_from_file(path: Path, metric: str | None = None) -> Task:
    """The task in a file; its settings line wins over `metric`. UserError names file, line, field and what to do."""
    settings, lines = _read(path)
    metric = settings.get("metric", metric)
    if metric is None:
        example = "'# metric: accuracy'" if ".tsv" in path.suffixes else '\'{"metric": "accuracy"}\''
        raise UserError(f"{path}: field metric: found none; put {example} on the first line or give --metric")
    try:
        measure, _ = metrics.find(metric)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    rows = [(_row(line), _split(line)) for line in lines]
    if settings.get("validation"):
        beside = path.parent / settings["validation"]
        other, more = _read(beside)
        if other:
            raise UserError(f"{beside}: line 1: found settings; keep them in {path.name} alone")
        if any(split for _, split in rows) or any(_split(line) for line in more):
            raise UserError(f"{path}: field split: found beside the setting validation; choose one of the two")
        rows = [(row, "train") for row, _ in rows] + [(_row(line), "validation") for line in more]
        lines += more
    _same_or_none(lines, rows)
    labels = _labels(path, metric, measure, settings, lines, rows)
    if measure is metrics.METRICS["correlation"]:
        for line, (row, _) in zip(lines, rows, strict=True):
            if as_number(row.target) is None:
                line.wrong("target", f"found {_short(row.target)}, which is no number; correlations need numbers")
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row, split in rows:
        splits[split or hashed_split(row.input)].append(row)
    for split, found in splits.items():
        if not found:
            raise UserError(f"{path}: found no {split} rows among {len(rows)}; give more rows, or a split in each")
    _check_apart(lines, rows)
    return make_task(
        settings.get("name") or path.name.partition(".")[0],
        Rows({split: tuple(found) for split, found in splits.items()}),
        metric=metric,
        labels=labels,
        input_length=settings.get("input_length", 512),
        target_length=settings.get("target_length", 128),
    )


def hashed_split(text: str) -> str:
    """One input in ten is for validation, whatever else the file holds."""
    return "validation" if xxhash.xxh3_64_intdigest(text.encode()) % 10 == 0 else "train"


# --- reading ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], list[_Line]]:
    """Settings and rows of one file."""
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: found a file of another kind; give a {', '.join(SUFFIXES)} file")
    settings, lines = (_read_tsv if ".tsv" in path.suffixes else _read_jsonl)(path)
    for name, value in settings.items():
        _check_setting(path, name, value)
    if not lines:
        raise UserError(f"{path}: found no rows; give one a line, with input and target")
    return settings, lines


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line) of every line that is not blank. Only a newline ends a line: U+2028 is text."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}: line {number}: found bytes that are not UTF-8 at {error.start}; save it as UTF-8"
                    ) from None
                if "\0" in text:
                    raise UserError(f"{path}: line {number}: found a NUL character; save the file as UTF-8 text")
                if text.strip():
                    yield number, text
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a task file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: found damaged gzip data ({error}); pack the file again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file that can") from None


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the same key twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is not JSON")


def _json(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {number}: found invalid JSON ({error.msg} at column {error.colno}); mend or remove the line"
        ) from None
    except (ValueError, RecursionError) as error:
        told = "nesting too deep" if isinstance(error, RecursionError) else error
        raise UserError(f"{path}: line {number}: found {told}; mend or remove the line") from None


def _read_jsonl(path: Path) -> tuple[dict[str, Any], list[_Line]]:
    settings: dict[str, Any] = {}
    lines: list[_Line] = []
    for i, (number, text) in enumerate(_texts(path)):
        fields = _json(path, number, text)
        if not isinstance(fields, dict):
            raise UserError(f"{path}: line {number}: found a {_kind(fields)}; give one JSON object a line")
        if i == 0 and "metric" in fields and not {"input", "target"} & set(fields):
            settings = fields
        else:
            lines.append(_Line(path, number, fields))
    return settings, lines


def _read_tsv(path: Path) -> tuple[dict[str, Any], list[_Line]]:
    settings: dict[str, Any] = {}
    lines: list[_Line] = []
    header: list[str] = []
    for number, text in _texts(path):
        if not header and text.startswith("#"):
            name, colon, value = (part.strip() for part in text[1:].partition(":"))
            if not colon:
                raise UserError(f"{path}: line {number}: found {text[:40]!r}; write settings as '# metric: accuracy'")
            settings[name] = _tsv_setting(name, value)
        elif not header:
            header = text.split("\t")
            if missing := {"input", "target"} - set(header):
                raise UserError(
                    f"{path}: line {number}: found columns {', '.join(map(repr, header))[:120]}; name the columns in "
                    f"the first line, {' and '.join(sorted(missing))} among them"
                )
            if len(set(header)) < len(header):
                raise UserError(f"{path}: line {number}: found two columns of one name; rename one")
        else:
            cells = text.split("\t")
            if len(cells) != len(header):
                raise UserError(
                    f"{path}: line {number}: found {len(cells)} columns where the first line names {len(header)}; "
                    "put one tab between columns and none inside"
                )
            fields: dict[str, Any] = dict(zip(header, cells, strict=True))
            if fields.get("references"):
                fields["references"] = _json(path, number, fields["references"])
            lines.append(_Line(path, number, {name: value for name, value in fields.items() if value != ""}))
    return settings, lines


def _tsv_setting(name: str, value: str) -> Any:
    if name == "labels":
        return [label.strip() for label in value.split(",")]
    return int(value) if name.endswith("_length") and value.isdecimal() else value


def _check_setting(path: Path, name: str, value: Any) -> None:
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(SETTINGS)}"
        raise UserError(f"{path}: line 1: field {name}: unknown setting; {hint}")
    if name == "labels":
        texts = isinstance(value, list) and all(
            isinstance(label, str) and label.strip() == label != "" for label in value
        )
        right, wanted = texts and len(set(value)) == len(value) > 1, "two or more different texts"
    elif name.endswith("_length"):
        right, wanted = type(value) is int and 2 <= value <= 65_536, "a whole number of tokens from 2 to 65536"
    else:
        right, wanted = isinstance(value, str) and value != "", "a text"
    if not right:
        raise UserError(f"{path}: line 1: field {name}: found {value!r}; give {wanted}")


# --- judging ----------------------------------------------------------------------------------------------------


def _row(line: _Line) -> Row:
    text, target = _text(line, "input"), _text(line, "target").strip()
    references = line.fields.get("references", [])
    if not isinstance(references, list) or not all(isinstance(one, str) and _whole(one) for one in references):
        line.wrong("references", f"found {_short(references)}; give a list of texts")
    if references and target not in references:
        references = [target, *references]
    name = line.fields.get("id", f"{line.file.name.partition('.')[0]}-{line.number}")
    if isinstance(name, bool) or not isinstance(name, str | int):
        line.wrong("id", f"found {_short(name)}; give a text or a whole number")
    return Row(str(name), text.strip(), target, tuple(references))


def _text(line: _Line, field: str) -> str:
    if field not in line.fields:
        near = difflib.get_close_matches(field, [name for name in line.fields if name not in FIELDS], n=1)
        others = ", ".join(map(repr, line.fields))[:120] or "nothing"
        line.wrong(field, f"missing, found {others}; " + (f"rename {near[0]!r}" if near else f"add {field}"))
    value = line.fields[field]
    if not isinstance(value, str):
        line.wrong(field, f"found the {_kind(value)} {_short(value)}; write it as text, in quotes")
    if not value.strip():
        line.wrong(field, "found an empty text; remove the row or fill it")
    if not _whole(value):
        line.wrong(field, "found half of a surrogate pair; write the character itself")
    return value


def _whole(text: str) -> bool:
    """No lone surrogate: JSON can spell one, UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _split(line: _Line) -> str:
    split = line.fields.get("split", "")
    if split and split not in SPLITS:
        line.wrong("split", f"found {_short(split)}; give train or validation")
    return split


def _labels(
    path: Path,
    metric: str,
    measure: metrics.Metric,
    settings: dict[str, Any],
    lines: list[_Line],
    rows: list[tuple[Row, str]],
) -> tuple[str, ...]:
    """The labels a file names, or, for a metric of classes, those its targets show. A target outside them is named."""
    named = tuple(settings.get("labels", ()))
    if named:
        for line, (row, _) in zip(lines, rows, strict=True):
            if row.target not in named:
                line.wrong("target", f"found {_short(row.target)}; give one of {', '.join(named)[:200]}")
    elif not measure.labels and measure is not metrics.METRICS["accuracy"]:
        return ()
    labels = named or tuple(sorted({row.target for row, _ in rows}))
    if len(labels) < 2:
        raise UserError(
            f"{path}: field target: found {_short(rows[0][0].target)} in every row; give rows of two labels or more "
            "(hidden test labels cannot be scored)"
        )
    if measure.labels == 2 and (not named or len(named) != 2):
        raise UserError(
            f"{path}: field labels: found {', '.join(labels)[:80]}; {metric} needs two, named in the order negative, "
            'positive, such as {"metric": "f1", "labels": ["no", "yes"]}'
        )
    if named and not measure.labels and measure is not metrics.METRICS["accuracy"]:
        raise UserError(f"{path}: field labels: found with {metric}, which takes any text; remove it")
    if len(labels) > _MOST_LABELS and not named:
        if measure.labels:
            raise UserError(
                f"{path}: field target: found {len(labels)} different targets; {metric} is for classes, "
                "so name the labels or choose squad, rouge or bleu"
            )
        return ()
    return labels


def _same_or_none(lines: list[_Line], rows: list[tuple[Row, str]]) -> None:
    """Ids are told apart, and either every row has a split or none has."""
    seen: dict[str, _Line] = {}
    for line, (row, split) in zip(lines, rows, strict=True):
        first = seen.setdefault(row.id, line)
        if first is not line:
            line.wrong(
                "id", f"found {_short(row.id)} again, first in line {first.number} of {first.file.name}; rename it"
            )
        if bool(split) != bool(rows[0][1]):
            told = "found" if split else "missing"
            line.wrong("split", f"{told}, unlike line {lines[0].number}; give all rows one or none")


def _check_apart(lines: list[_Line], rows: list[tuple[Row, str]]) -> None:
    """A validation input that is also trained on measures memory."""
    trained = {row.input: line for line, (row, split) in zip(lines, rows, strict=True) if split == "train"}
    for line, (row, split) in zip(lines, rows, strict=True):
        if split == "validation" and row.input in trained:
            twin = trained[row.input]
            line.wrong("input", f"found in line {twin.number} of {twin.file.name} for training too; remove one of them")


# --- telling ----------------------------------------------------------------------------------------------------


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), "null")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
