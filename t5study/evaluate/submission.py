"""Submission: answers to test rows -> the archive that the GLUE or the SuperGLUE site takes.

GLUE: a zip of TSV files with the header index, prediction; classes as numbers where its own files have numbers, as
words elsewhere, STS-B with three decimals from 0 to 5. SuperGLUE: a zip of JSON lines {"idx", "label"}; MultiRC's are
nested by passage and question. (gluebenchmark.com and super.gluebenchmark.com; jiant's writer, which the sites' own
organisers published, has the same names and labels.)

A site takes no blanks: an answer that could not be read is written as the task's first label, and counted.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from t5study.evaluate.evaluation import Prediction
from t5study.evaluate.predictions import Kept
from t5study.ground.errors import UserError
from t5study.ground.store import whole_file
from t5study.metrics.answers import means
from t5study.metrics.numbers import as_number

_OLD = (1980, 1, 1, 0, 0, 0)  # the time of every file in an archive: equal answers make equal bytes

Spell = Callable[[Prediction, Sequence[str]], object]


@dataclass(frozen=True)
class File:
    """name: in the archive, without its ending. task: the address of the task whose answers it takes. spell: an answer
    as the site has it. rows: in the official test set."""

    name: str
    task: str
    spell: Spell
    rows: int


@dataclass(frozen=True)
class Site:
    """files: in the site's order; those whose names are in `further` may be left out."""

    name: str
    ending: str
    files: tuple[File, ...]
    further: tuple[str, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Addresses of all of its tasks."""
        return tuple(file.task for file in self.files)


# --- how answers are spelt ----------------------------------------------------------------------------------------


def _word(one: Prediction, labels: Sequence[str]) -> str:
    return one.answer if one.answer is not None and one.answer in labels else labels[0]


def _number(one: Prediction, labels: Sequence[str]) -> int:
    return labels.index(_word(one, labels))


def _lower(one: Prediction, labels: Sequence[str]) -> str:
    return _word(one, labels).lower()


def _score(one: Prediction, labels: Sequence[str]) -> str:
    value = as_number(one.answer)
    return f"{min(max(0.0 if value is None else value, 0.0), 5.0):.3f}"


def _text(one: Prediction, labels: Sequence[str]) -> str:
    return one.answer or ""


def _referent(one: Prediction, labels: Sequence[str]) -> bool:
    """Whether the answer means the row's candidate."""
    candidate = one.row.references[0] if one.row.references else one.row.target
    return one.answer is not None and means(one.answer, candidate) is True


def _referent_number(one: Prediction, labels: Sequence[str]) -> int:
    return int(_referent(one, labels))


def _referent_word(one: Prediction, labels: Sequence[str]) -> str:
    return str(_referent(one, labels))


GLUE = Site(
    "glue",
    ".tsv",
    (
        File("CoLA", "glue/cola", _number, 1_063),
        File("SST-2", "glue/sst2", _number, 1_821),
        File("MRPC", "glue/mrpc", _number, 1_725),
        File("STS-B", "glue/stsb", _score, 1_379),
        File("QQP", "glue/qqp", _number, 390_965),
        File("MNLI-m", "glue/mnli_matched", _word, 9_796),
        File("MNLI-mm", "glue/mnli_mismatched", _word, 9_847),
        File("QNLI", "glue/qnli", _word, 5_463),
        File("RTE", "glue/rte", _word, 3_000),
        File("WNLI", "glue/wnli", _referent_number, 146),
        File("AX", "glue/ax", _word, 1_104),
    ),
    further=("AX",),
)
SUPERGLUE = Site(
    "superglue",
    ".jsonl",
    (
        File("BoolQ", "superglue/boolq", _lower, 3_245),
        File("CB", "superglue/cb", _word, 250),
        File("COPA", "superglue/copa", _number, 500),
        File("MultiRC", "superglue/multirc", _number, 9_693),
        File("ReCoRD", "superglue/record", _text, 10_000),
        File("RTE", "superglue/rte", _word, 3_000),
        File("WiC", "superglue/wic", _lower, 1_400),
        File("WSC", "superglue/wsc", _referent_word, 146),
        File("AX-b", "superglue/axb", _word, 1_104),
        File("AX-g", "superglue/axg", _word, 356),
    ),
    further=("AX-b", "AX-g"),
)
SITES = {site.name: site for site in (GLUE, SUPERGLUE)}


# --- the archive --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """What of a file went into an archive: rows, and how many of them could not be read."""

    file: str
    rows: int
    unreadable: int


def submit(site: Site, files: Sequence[Kept], path: Path, partial: bool = False) -> list[Written]:
    """Writes the archive, whole or not at all. files: predictions of test rows, one of each task.

    UserError for answers to other rows, for two files of one task, and, unless `partial`, for a task or a row that the
    site wants and that is not there.
    """
    by_task = _by_task(site, files)
    missing = [one.task for one in site.files if one.task not in by_task and one.name not in site.further]
    if missing and not partial:
        raise UserError(
            f"{path}: found no answers to {', '.join(missing)}; `t5study evaluate --split test` makes them, or give "
            "--partial"
        )
    contents, written = {}, []
    for file in site.files:
        if (kept := by_task.get(file.task)) is None:
            continue
        if len(kept.predictions) != file.rows and not partial:
            raise UserError(
                f"{kept.path}: found {len(kept.predictions):,} rows, but the site's {file.name} has {file.rows:,}; "
                "answer the whole official test file, or give --partial"
            )
        contents[file.name + site.ending] = _content(site, file, kept)
        unreadable = sum(one.answer is None for one in kept.predictions)
        written.append(Written(file.name + site.ending, len(kept.predictions), unreadable))
    if path.exists():
        raise UserError(f"{path}: exists already; delete it or choose another name")
    with whole_file(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _OLD)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return written


def _by_task(site: Site, files: Sequence[Kept]) -> dict[str, Kept]:
    found: dict[str, Kept] = {}
    for kept in files:
        if kept.about.task not in site.tasks:
            raise UserError(
                f"{kept.path}: found answers to {kept.about.task}, which the {site.name} site does not have"
            )
        if kept.about.split != "test":
            raise UserError(
                f"{kept.path}: found answers to {kept.about.split} rows; give those of `t5study evaluate --split test`"
            )
        if kept.about.task in found:
            raise UserError(f"{kept.path}: found a second file of {kept.about.task}; give one of each task")
        found[kept.about.task] = kept
    if not found:
        raise UserError(f"{site.name}: found no predictions; give what `t5study evaluate --split test --out` wrote")
    return found


def _content(site: Site, file: File, kept: Kept) -> str:
    spelt = [(_place(kept.path, one), file.spell(one, kept.about.labels)) for one in kept.predictions]
    spelt.sort(key=lambda pair: pair[0])
    if site is GLUE:
        return "".join(
            f"{index}\t{label}\n" for index, label in [("index", "prediction"), *((p[-1], x) for p, x in spelt)]
        )
    lines = _nested(spelt) if file.name == "MultiRC" else [{"idx": place[-1], "label": label} for place, label in spelt]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _place(path: Path, one: Prediction) -> tuple[int, ...]:
    """The row's numbers on the site: its index, or those of passage, question and answer."""
    try:
        return tuple(int(number) for number in one.row.id.split("/"))
    except ValueError:
        raise UserError(
            f"{path}: found row {one.row.id[:40]!r}, whose id is no index; answer the official file"
        ) from None


def _nested(spelt: Sequence[tuple[tuple[int, ...], object]]) -> list[Mapping[str, object]]:
    """MultiRC's lines: passages of questions of answers."""
    passages: dict[int, dict[int, list[dict[str, object]]]] = {}
    for (passage, question, answer), label in spelt:
        passages.setdefault(passage, {}).setdefault(question, []).append({"idx": answer, "label": label})
    return [
        {"idx": at, "passage": {"questions": [{"idx": q, "answers": answers} for q, answers in questions.items()]}}
        for at, questions in passages.items()
    ]
