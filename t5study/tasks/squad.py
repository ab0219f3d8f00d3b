"""SQuAD as T5 reads it: a question and its paragraph -> a span of the paragraph, as text.

    question: Who made the first red clock ?  context: Ann ' s first clock , of 1901 , was red .  ->  Ann

Every ASCII punctuation mark stands between spaces, in questions, paragraphs and answers alike, and white space is
squeezed. Training aims at a question's first answer; a prediction is compared with all of them, as they stand here:
exact match is that of the official script, F1 up to half a point above it, for "24-10" is two words with its spaces.

    squad/v1         SQuAD 1.1 (Rajpurkar et al. 2016); the paper's
    squad/v2         SQuAD 2.0: some questions have no answer, and are answered NO_ANSWER. T5 has no such task: the word
                     is our choice, as Flan's
    squad/xquad_de   the same 1,190 questions of SQuAD in other languages (de, en, ro ...), for evaluation alone

Read are the official files (train-v1.1.json) and the hub's parquet. Where answers begin is looked at only to tell a
damaged file.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.metrics.answers import NO_ANSWER
from t5study.tasks.records import Record, document, short, table
from t5study.tasks.sources import Home, read_rows
from t5study.tasks.task import TEST, Factory, Row, Task, make_task

_MARK = re.compile(f"([{re.escape(string.punctuation)}])")
_SPACE = re.compile(r"[\t\n\f\r ]+")  # what the original's \s is: no-break spaces stay

_WHERE = "https://rajpurkar.github.io/SQuAD-explorer"
XQUAD = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")

V1 = Home(
    "squad/v1",
    ("squad/v1", "squad_v1", "squad"),
    {"train": ("train-v1.1.json",), "validation": ("dev-v1.1.json",), TEST: ("test-v1.1.json",)},
    _WHERE,
    without=("v2",),
)
V2 = Home(
    "squad/v2",
    ("squad/v2", "squad_v2", "squad"),
    {"train": ("train-v2.0.json",), "validation": ("dev-v2.0.json",), TEST: ("test-v2.0.json",)},
    _WHERE,
    without=("v1",),
)


def pad_punctuation(text: str) -> str:
    """Spaces around every ASCII punctuation mark, then white space squeezed (t5 preprocessors.py, squad).

    >>> pad_punctuation("Isn't it 24–10?\\n(yes)")
    "Isn ' t it 24–10 ? ( yes ) "
    """
    return _SPACE.sub(" ", _MARK.sub(r" \1 ", text))


def render(record: Record, split: str, unanswerable: bool = False) -> Iterator[Row]:
    """One question -> its row. unanswerable: a question may have no answer (SQuAD 2.0)."""
    question, context = record.text("question"), record.text("context")
    text = _SPACE.sub(" ", f"question: {pad_punctuation(question)} context: {pad_punctuation(context)}")
    name = record.text("id")
    if split == TEST:
        yield Row(name, text, "")
        return
    answers = tuple(dict.fromkeys(pad_punctuation(answer).strip() for answer in _answers(record, context)))
    if not answers and not (unanswerable and record.get("is_impossible") in (None, True)):
        hint = "give a whole file" if unanswerable else "is this SQuAD 2.0, which is the task squad/v2?"
        record.wrong("answers", f"question {name} has none; {hint}")
    answers = answers or (NO_ANSWER,)
    yield Row(name, text, answers[0], answers)


def _answers(record: Record, context: str) -> list[str]:
    """The answers' texts, out of the official layout (a list of objects) or the hub's (an object of lists)."""
    found = record.get("answers")
    if isinstance(found, Mapping):
        texts, starts = found.get("text", ()), found.get("answer_start", ())
    elif isinstance(found, list) and all(isinstance(one, Mapping) for one in found):
        texts, starts = [one.get("text") for one in found], [one.get("answer_start") for one in found]
    else:
        record.wrong("answers", f"found {short(found)}; give a list of answers")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            record.wrong("answers", f"found {short(text)}; an answer is a text")
    for start in starts:
        if start is not None and not (isinstance(start, int) and 0 <= start < len(context)):
            record.wrong("answers", f"found an answer at {short(start)} in a text of {len(context)} characters")
    return list(texts)


def questions(file: Path, split: str) -> Iterator[Record]:
    """The questions of a file in order, each with its paragraph. Numbers count them from 0."""
    if ".json" not in file.suffixes:
        yield from table(file)
        return
    found = document(file)
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        number = 0
        for paragraph in (one for article in found["data"] for one in _list(file, article, "paragraphs")):
            for question in _list(file, paragraph, "qas"):
                yield Record(file, number, {**_object(file, question), "context": paragraph.get("context")})
                number += 1
    elif isinstance(found, list):
        for number, question in enumerate(found):
            yield Record(file, number, _object(file, question))
    else:
        raise UserError(f"{file}: found no list 'data' of articles; give a file of SQuAD's layout")


def _list(file: Path, value: Any, name: str) -> list[Any]:
    found = _object(file, value).get(name)
    if not isinstance(found, list):
        raise UserError(f"{file}: found {short(found)} for {name!r}; give a file of SQuAD's layout")
    return found


def _object(file: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{file}: found {short(value)} where an object belongs; give a file of SQuAD's layout")
    return value


# --- tasks ------------------------------------------------------------------------------------------------------


def _v1(data: Path | None = None) -> Task:
    rows = read_rows(V1, data, render, questions)
    return make_task(V1.task, rows, metric="squad", column="SQuAD", input_length=512, target_length=97)


def _v2(data: Path | None = None) -> Task:
    rows = read_rows(V2, data, partial(render, unanswerable=True), questions)
    return make_task(V2.task, rows, metric="squad2", column="SQuAD 2", input_length=512, target_length=97)


def _xquad(language: str, data: Path | None = None) -> Task:
    home = Home(
        f"squad/xquad_{language}",
        ("squad/xquad", "xquad"),
        {"validation": (f"xquad.{language}.json",)},
        "https://github.com/google-deepmind/xquad",
        words={"validation": (language,)},
    )
    rows = read_rows(home, data, render, questions)
    return make_task(home.task, rows, metric="squad", column=f"XQuAD {language}", input_length=512, target_length=97)


TASKS: dict[str, Factory] = {
    "v1": _v1,
    "v2": _v2,
    **{f"xquad_{language}": partial(_xquad, language) for language in XQUAD},
}
