"""GLUE: nine tasks and the diagnostic set, in the texts that T5 was trained on.

    mrpc sentence1: A cat sat. sentence2: A cat was sitting.   ->   equivalent

An input is the task's prefix and then "key: text" for each of its texts, keys in alphabetical order; a target is the
label's name (t5 preprocessors.py, glue). STS-B's target is its score to the nearest 0.2. WNLI is never trained on, as
in the paper (its sentences are in WSC's training set); for evaluation it is brought into the pronoun form. Rows come
from GLUE's own files, or from the hub's parquet (nyu-mll/glue); test rows have no targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from t5study.metrics.numbers import as_number
from t5study.tasks import pronouns
from t5study.tasks.records import Record, short, table
from t5study.tasks.sources import Home, read_rows
from t5study.tasks.task import TEST, Factory, Row, Task, make_task

WHERE = "gluebenchmark.com/tasks or `t5study data get glue`"
INPUT_LENGTH, TARGET_LENGTH = 512, 84  # t5 gin/sequence_lengths/glue_v002_proportional.gin
_TEXTS = {  # key -> the columns that it may stand in: the hub's, GLUE's own, the plain lists'
    "sentence": ("sentence", "text_a"),
    "sentence1": ("sentence1", "text_a"),
    "sentence2": ("sentence2", "text_b"),
    "question": ("question", "text_a"),
    "question1": ("question1", "text_a"),
    "question2": ("question2", "text_b"),
    "premise": ("premise", "sentence1", "text_a"),
    "hypothesis": ("hypothesis", "sentence2", "text_b"),
}
_LABEL = ("gold_label", "Quality", "is_duplicate", "score", "label", "Label")
_FILES = {"train": ("train.tsv",), "validation": ("dev.tsv",), TEST: ("test.tsv",)}
_NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class _Glue:
    """One task. keys: of its texts. labels: in the order of their numbers, which its own files have in place of names
    if they are `numbered`. texts: where a key stands otherwise than usual. words, without, notes: as in Home."""

    name: str
    prefix: str
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    folders: tuple[str, ...]
    official: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _FILES)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    without: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    numbered: bool = False

    def load(self, data: Path | None = None) -> Task:
        """The task with its rows. UserError as `read_rows` has it."""
        folders = tuple(f"glue/{name}" for name in self.folders) + self.folders
        home = Home(f"glue/{self.name}", folders, self.official, WHERE, self.words, self.without, notes=self.notes)
        rows = read_rows(home, data, self.rows_of, self.records)
        lengths = {"input_length": INPUT_LENGTH, "target_length": TARGET_LENGTH}
        return make_task(home.task, rows, metric=self.metric, column=self.name, labels=self.labels, **lengths)

    def records(self, file: Path, split: str) -> Iterator[Record]:
        """CoLA's labelled files have no header, nor has STS-B as CSV. QQP has broken lines, which T5's reader (TFDS)
        leaves out."""
        columns: tuple[str, ...] = ()
        if self.name == "cola" and ".tsv" in file.suffixes and split != TEST:
            columns = ("source", "label", "mark", "sentence")
        if self.name == "stsb" and ".csv" in file.suffixes:
            columns = ("sentence1", "sentence2", "score")
        return table(file, columns, ragged=self.name == "qqp")

    def rows_of(self, record: Record, split: str) -> Iterator[Row]:
        """The row of a record; none where the diagnostic set hides the label that a labelled split needs."""
        name = record_id(record, "index", "idx", "id")
        pair = len(self.keys) > 1  # one of two may be empty: QQP has such questions
        texts = {key: record.text(*self.texts.get(key, _TEXTS[key]), empty=pair) for key in self.keys}
        if not any(text.strip() for text in texts.values()):
            record.wrong(self.keys[0], "found an empty text, and an empty one beside it; get a fresh copy of the file")
        if self.name == "wnli":
            yield _wnli(record, name, texts, split)
        elif split == TEST:
            yield Row(name, rendered(self.prefix, texts), "")
        elif self.name == "stsb":
            yield Row(name, rendered(self.prefix, texts), _similarity(record))
        elif self.name != "ax" or record.has_label(*_LABEL):
            yield Row(name, rendered(self.prefix, texts), record.label(self.labels, *_LABEL, numbered=self.numbered))


def rendered(prefix: str, texts: Mapping[str, str]) -> str:
    """A task's prefix and its texts under their keys, in the order they are given.

    >>> rendered("mnli", {"hypothesis": "It rains.", "premise": "It is wet."})
    'mnli hypothesis: It rains. premise: It is wet.'
    """
    return " ".join([prefix, *(f"{key}: {text}" for key, text in texts.items())])


def record_id(record: Record, *names: str) -> str:
    """What the benchmark calls the row, else its file and number."""
    given = record.get(*names)
    return str(given) if given is not None else f"{record.file.name.partition('.')[0]}-{record.number}"


def similarity(score: float) -> str:
    """A score to the nearest 0.2, to one decimal: halves go to the even fifth, in float32 (t5 preprocessors.py, stsb).

    >>> [similarity(score) for score in (0.5, 2.5, 3.7, 1.5, 5.0)]
    ['0.4', '2.4', '3.6', '1.6', '5.0']
    """
    return f"{np.round(np.float32(score) * np.float32(5)) / np.float32(5):.1f}"


def _similarity(record: Record) -> str:
    name = record.named(*_LABEL)
    told = record.get(name)
    score = as_number(str(told)) if told is not None else None
    if score == -1:
        record.wrong(name, "found -1, a hidden test label; it can be neither learnt from nor scored")
    if score is None or not 0 <= score <= 5:
        record.wrong(name, f"found {short(told)}; give a number from 0 to 5; is this the file of another task?")
    return similarity(score)


def _wnli(record: Record, name: str, texts: Mapping[str, str], split: str) -> Row:
    try:
        marked, noun = pronouns.convert_wnli(texts["sentence1"], texts["sentence2"])
    except pronouns.NoPronoun as error:
        record.wrong("sentence1", f"{error}; is this the file of another task?")
    if split == TEST:
        return Row(name, f"{pronouns.PREFIX} {marked}", "", (noun,))
    return Row(
        name, f"{pronouns.PREFIX} {marked}", noun, (noun, record.label(("False", "True"), "label", numbered=True))
    )


_ENTAILMENT = ("entailment", "not_entailment")
_MATCHED = {"train": ("train.tsv",), "validation": ("dev_matched.tsv",), TEST: ("test_matched.tsv",)}
_MISMATCHED = {"validation": ("dev_mismatched.tsv",), TEST: ("test_mismatched.tsv",)}
_EVALUATED = {"validation": ("dev.tsv",), TEST: ("test.tsv",)}
_AX = {"validation": ("diagnostic-full.tsv",), TEST: ("diagnostic.tsv", "AX.tsv")}
_PAIR = ("sentence1", "sentence2")
_PREMISE = ("hypothesis", "premise")
_ON_MNLI = {"train": "it is for evaluation only: train on glue/mnli_matched"}
_ON_WSC = {"train": "it is for evaluation only, as in the paper: train on superglue/wsc and superglue/dpr"}

_DIAGNOSTIC = {"premise": ("premise", "Premise", "sentence1"), "hypothesis": ("hypothesis", "Hypothesis", "sentence2")}

_ALL = (
    _Glue("cola", "cola", ("sentence",), ("unacceptable", "acceptable"), "matthews", ("CoLA",), numbered=True),
    _Glue("sst2", "sst2", ("sentence",), ("negative", "positive"), "accuracy", ("SST-2", "sst2"), numbered=True),
    _Glue(
        *("mrpc", "mrpc", _PAIR, ("not_equivalent", "equivalent"), "f1_accuracy", ("MRPC",)),
        texts={"sentence1": ("sentence1", "#1 String", "text_a"), "sentence2": ("sentence2", "#2 String", "text_b")},
        numbered=True,
    ),
    _Glue("stsb", "stsb", _PAIR, (), "correlations", ("STS-B", "stsb")),
    _Glue(
        *("qqp", "qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), "f1_accuracy", ("QQP",)),
        numbered=True,
    ),
    _Glue(
        *("mnli_matched", "mnli", _PREMISE, _NLI, "accuracy", ("MNLI", "mnli_matched"), _MATCHED),
        without=("mismatched",),
    ),
    _Glue(
        *("mnli_mismatched", "mnli", _PREMISE, _NLI, "accuracy", ("MNLI", "mnli_mismatched"), _MISMATCHED),
        without=("matched",),
        notes=_ON_MNLI,
    ),
    _Glue(
        *("qnli", "qnli", ("question", "sentence"), _ENTAILMENT, "accuracy", ("QNLI",)),
        texts={"sentence": ("sentence", "text_b")},
    ),
    _Glue("rte", "rte", _PAIR, _ENTAILMENT, "accuracy", ("RTE",)),
    _Glue("wnli", pronouns.PREFIX, _PAIR, (), "referent", ("WNLI",), _EVALUATED, notes=_ON_WSC),
    _Glue(
        *("ax", "mnli", _PREMISE, _NLI, "accuracy", ("AX", "diagnostic"), _AX),
        texts=_DIAGNOSTIC,
        words={"validation": ("test",)},
        notes=_ON_MNLI,
    ),
)

TASKS: dict[str, Factory] = {one.name: one.load for one in _ALL}
