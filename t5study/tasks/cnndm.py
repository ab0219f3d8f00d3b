"""CNN/Daily Mail as T5 reads it: an article -> its highlights (Hermann et al. 2015; version 3.0.0 of the data).

    summarize: A clock that nobody winds has rung in York . It rang ...  ->  Clock rings in York .⏎No one winds it .

White space in the article is squeezed; the highlights are kept as they are, a sentence a line. (T5's vocabulary reads a
newline as a space, and so an answer has none: that is why ROUGE takes " . " for the end of a sentence.)

Read are CSV (id, article, highlights; a column without a name beside them is fine), the hub's parquet, and the original
files: cnn/stories/*.story and dailymail/stories/*.story with the lists all_train.txt, all_val.txt and all_test.txt,
whose addresses' SHA-1 are the stories' names. Articles without text or without highlights are left out, as in TFDS (114
of the 287,227 for training). The test split is one with targets: give its file the name of a validation file to score
on it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from t5study.ground.errors import UserError
from t5study.tasks.records import Record, table, texts
from t5study.tasks.sources import Home, read_rows
from t5study.tasks.task import Factory, Row, Task, make_task

_SPACE = re.compile(r"[\t\n\f\r ]+")
_ENDS = (".", "!", "?", "'", "`", '"', "\u2019", "\u201d", ")")
_LISTS = {"train": "all_train.txt", "validation": "all_val.txt"}
_STORIES = ("cnn/stories", "dailymail/stories", "stories")

HOME = Home(
    "cnndm/summarize",
    ("summarization/cnn_dailymail", "cnn_dailymail", "cnndm"),
    {"train": ("train.csv",), "validation": ("validation.csv",)},
    "https://huggingface.co/datasets/abisee/cnn_dailymail (3.0.0), or the stories of https://cs.nyu.edu/~kcho/DMQA",
    reads=(".csv", ".jsonl", ".json", ".parquet", ".txt"),
)


def render(record: Record, split: str) -> Iterator[Row]:
    """One article -> its row, or none if the article or its highlights are blank."""
    article, highlights = record.text("article", empty=True), record.text("highlights", empty=True)
    if article.strip() and highlights.strip():
        yield Row(record.text("id"), _SPACE.sub(" ", f"summarize: {article}"), highlights.strip())


def articles(file: Path, split: str) -> Iterator[Record]:
    """The articles of a table, or of the stories that a list of addresses names."""
    if file.name != _LISTS.get(split):
        yield from table(file)
        return
    found = _stories(file.parent)
    for number, address in texts(file):
        name = hashlib.sha1(address.strip().encode()).hexdigest()
        if address.strip() and name not in found:
            wanted = f"{name}.story beside it; put it into cnn/stories or dailymail/stories"
            raise UserError(f"{file}: row {number}: found no {wanted}")
        if address.strip():
            article, highlights = story(found[name])
            yield Record(file, number, {"id": name, "article": article, "highlights": highlights})


def _stories(folder: Path) -> dict[str, Path]:
    """Stories by name, in the folder of the lists or the one above."""
    places = [root / inner for root in (folder, folder.parent) for inner in _STORIES]
    return {
        path.stem: path for place in places if place.is_dir() for path in place.iterdir() if path.suffix == ".story"
    }


def story(file: Path) -> tuple[str, str]:
    """Article and highlights of one original file. Each of its lines is a paragraph; a line without an end gets
    " ." (captions have none); what follows the first "@highlight" are highlights (See et al. 2017, as TFDS has it)."""
    article: list[str] = []
    highlights: list[str] = []
    marked = False
    for _, line in texts(file):
        line = line.strip()
        if line.startswith("@highlight"):
            marked = True
        elif line:
            (highlights if marked else article).append(line if line.endswith(_ENDS) else f"{line} .")
    return " ".join(article), "\n".join(highlights)


def _summarize(data: Path | None = None) -> Task:
    rows = read_rows(HOME, data, render, articles)
    return make_task(HOME.task, rows, metric="rouge", column="CNNDM", input_length=512, target_length=512)


TASKS: dict[str, Factory] = {"summarize": _summarize}
