"""SuperGLUE: eight tasks, DPR, which joins WSC in training, and two diagnostic sets, in T5's texts.

    copa choice1: It rained. choice2: It was dry. premise: The grass is wet. question: cause   ->   choice1

Texts stand under their keys in alphabetical order, but for MultiRC. WSC and DPR are asked in the pronoun form, where
the answer is a noun and no label; WSC is trained on its positive rows alone. ReCoRD has a training row for each answer
of a query, and one row a query with all of its answers for evaluation. Rows come from SuperGLUE's own JSON lines or
from the hub's parquet (super_glue, definite_pronoun_resolution), DPR's also from its authors' text files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.tasks import pronouns
from t5study.tasks.glue import record_id, rendered
from t5study.tasks.records import TABLES, Record, short, table, texts
from t5study.tasks.sources import Home, read_rows
from t5study.tasks.task import TEST, Factory, Row, Task, make_task

WHERE = "super.gluebenchmark.com/tasks or `t5study data get superglue`"
DPR_WHERE = "www.hlt.utdallas.edu/~vince/data/emnlp12 or `t5study data get dpr`"
INPUT_LENGTH, TARGET_LENGTH = 512, 62  # t5 gin/sequence_lengths/super_glue_v102_proportional.gin
BOOLEAN = ("False", "True")
_FILES = {"train": ("train.jsonl",), "validation": ("val.jsonl",), TEST: ("test.jsonl",)}

RowsOf = Callable[[Record, str], Iterator[Row]]


# --- choices among labels ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Choice:
    """Rows of a task whose answer is one of its labels. keys: of its texts, in their order -> the fields that they may
    stand in. diagnostic: rows whose label is hidden are for the test split alone."""

    prefix: str
    keys: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    diagnostic: bool = False

    def __call__(self, record: Record, split: str) -> Iterator[Row]:
        told = {key: record.text(*names) for key, names in self.keys.items()}
        name, shown = record_id(record, "idx"), rendered(self.prefix, told)
        if split == TEST:
            yield Row(name, shown, "")
        elif not self.diagnostic or record.has_label("label"):
            yield Row(name, shown, record.label(self.labels, "label"))


def _keys(*names: str, **others: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names} | {name: (name, other) for name, other in others.items()}


# --- MultiRC ----------------------------------------------------------------------------------------------------


def multirc(record: Record, split: str) -> Iterator[Row]:
    """A row an answer, grouped by question. A line of SuperGLUE's own file is a paragraph with its questions and their
    answers; the hub's rows are answers. `<br>` becomes a space, `<b>` and `</b>` go (t5 preprocessors.py, glue)."""
    for answer in _answers(record) if "passage" in record.fields else [record]:
        index = _index(answer, "paragraph", "question", "answer")
        told = {
            "question": answer.text("question"),
            "answer": answer.text("answer", empty=True),  # three of the official training answers are empty
            "paragraph": answer.text("paragraph"),
        }
        shown = re.sub("</?b>", "", rendered("multirc", told).replace("<br>", " "))
        target = "" if split == TEST else answer.label(BOOLEAN, "label")
        yield Row("/".join(index), shown, target, group="/".join(index[:2]))


def _answers(record: Record) -> Iterator[Record]:
    passage = _object(record, "passage", record.fields["passage"])
    for question in _objects(record, "questions", passage.get("questions")):
        answers = _objects(record, "answers", question.get("answers"))
        for answer in answers:
            fields: dict[str, Any] = {
                "paragraph": passage.get("text"),
                "question": question.get("question"),
                "answer": answer.get("text"),
                "label": answer.get("label"),
            }
            index = {
                "paragraph": record.fields.get("idx"),
                "question": question.get("idx"),
                "answer": answer.get("idx"),
            }
            yield Record(record.file, record.number, {**fields, "idx": index})


# --- ReCoRD -----------------------------------------------------------------------------------------------------


def record(record: Record, split: str) -> Iterator[Row]:
    """For training a row for each answer of a query, else one row a query with all of its answers. A line of
    SuperGLUE's own file is a passage with its entities' places and its queries; the hub's rows are queries. Entities
    and answers are told once each, in alphabetical order (TFDS super_glue)."""
    for query in _queries(record) if isinstance(record.get("passage"), dict) else [record]:
        index = "/".join(_index(query, "passage", "query"))
        entities = _told(query, "entities")
        told = {"query": query.text("query"), "entities": ", ".join(entities)}
        shown = rendered("record", told | {"passage": _without_highlights(query.text("passage"))})
        if split == TEST:
            yield Row(index, shown, "", group=index)
            continue
        answers = _told(query, "answers")
        if split == "train":
            yield from (Row(f"{index}/{i}", shown, answer, group=index) for i, answer in enumerate(answers))
        else:
            yield Row(index, shown, answers[0], tuple(answers), index)


def _queries(record: Record) -> Iterator[Record]:
    passage = _object(record, "passage", record.fields["passage"])
    whole = Record(record.file, record.number, {"passage": passage.get("text")}).text("passage")
    entities = []
    for place in _objects(record, "entities", passage.get("entities")):
        start, end = place.get("start"), place.get("end")
        if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end < len(whole):
            record.wrong("entities", f"found {short(place)}, which lies not in the passage of {len(whole)} characters")
        entities.append(whole[start : end + 1])
    for query in _objects(record, "qas", record.fields.get("qas")):
        answers = [answer.get("text") for answer in query.get("answers") or []]
        index = {"passage": record.fields.get("idx"), "query": query.get("idx")}
        fields = {"passage": whole, "query": query.get("query"), "entities": entities, "answers": answers, "idx": index}
        yield Record(record.file, record.number, fields)


def _told(query: Record, name: str) -> list[str]:
    found = query.get(name)
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one for one in found):
        query.wrong(name, f"found {short(found)}; give a list of one text or more")
    return sorted(set(found))


def _without_highlights(passage: str) -> str:
    """Summary lines begin with "@highlight": they become sentences of the passage (t5 preprocessors.py, record).

    >>> _without_highlights("It rained\\n@highlight\\nIt was wet!\\n@highlight\\nAll day")
    'It rained. It was wet! All day'
    """
    return re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", passage).replace("\n@highlight\n", ". ")


# --- WSC and DPR ------------------------------------------------------------------------------------------------


def wsc(record: Record, split: str) -> Iterator[Row]:
    """The pronoun form of a WSC row: in training the positive rows alone, their target being the referent; else all of
    them, the candidate beside whether it is the referent."""
    spans = record.get("target")
    fields = record.fields if spans is None else {**record.fields, **_object(record, "target", spans)}
    row = Record(record.file, record.number, fields)
    text, pronoun = row.text("text"), row.text("span2_text")
    first, second = (_whole(row, name) for name in ("span1_index", "span2_index"))
    candidate = pronouns.mend_span(text, row.text("span1_text"), first)
    if not pronouns.stands_in(candidate, text):
        row.wrong("span1_text", f"found {short(candidate)}, whose words are not in the text; get a fresh copy")
    try:
        shown = pronouns.mark_wsc(text, pronouns.mend_span(text, pronoun, second), second)
    except pronouns.NoPronoun as error:
        row.wrong("span2_text", f"{error}; get a fresh copy")
    name, shown = record_id(row, "idx"), f"{pronouns.PREFIX} {shown}"
    if split == TEST:
        yield Row(name, shown, "", (candidate,))
        return
    label = row.label(BOOLEAN, "label")
    if split != "train":
        yield Row(name, shown, candidate, (candidate, label))
    elif label == "True":
        yield Row(name, shown, candidate)


def dpr(record: Record, split: str) -> Iterator[Row]:
    """The pronoun form of a DPR row. Its answer is the right one of two candidates, as it is written."""
    sentence, pronoun = record.text("sentence"), record.text("pronoun")
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or len(candidates) < 2 or not all(isinstance(one, str) for one in candidates):
        record.wrong("candidates", f"found {short(candidates)}; give two texts")
    try:
        shown = pronouns.mark_dpr(sentence, pronoun)
    except pronouns.NoPronoun as error:
        record.wrong("pronoun", f"{error}; get a fresh copy")
    yield Row(record_id(record, "idx"), f"{pronouns.PREFIX} {shown}", record.label(candidates, "label"))


def dpr_records(file: Path, split: str) -> Iterator[Record]:
    """DPR's own files: a sentence, its pronoun, the candidates with a comma between, the right one, an empty line."""
    if not file.name.removesuffix(".gz").removesuffix(".zst").lower().endswith(".txt"):
        yield from table(file)
        return
    block: list[str] = []
    for number, line in [*texts(file), (0, "")]:
        if line.strip():
            block.append(line.strip())
        elif block:
            first = number - len(block) if number else 0
            if len(block) != 4:
                raise UserError(
                    f"{file}: row {first or 'last'}: found {len(block)} lines in one piece, not four "
                    "(sentence, pronoun, candidates, answer); get a fresh copy"
                )
            sentence, pronoun, candidates, answer = block
            both = [candidate.strip() for candidate in candidates.split(",")]
            fields = {"sentence": sentence, "pronoun": pronoun, "candidates": both, "label": answer}
            yield Record(file, first, fields)
            block = []


# --- small readers ----------------------------------------------------------------------------------------------


def _whole(record: Record, name: str) -> int:
    value = record.get(name)
    if type(value) is not int:
        record.wrong(name, f"found {short(value)}; give a whole number")
    return value


def _index(record: Record, *names: str) -> list[str]:
    index = _object(record, "idx", record.fields.get("idx"))
    for name in names:
        if type(index.get(name)) is not int:
            record.wrong("idx", f"found {short(index.get(name))} for {name}; give a whole number")
    return [str(index[name]) for name in names]


def _object(record: Record, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        record.wrong(name, f"found {short(value)}; give an object; is this the file of another task?")
    return value


def _objects(record: Record, name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        record.wrong(name, f"found {short(value)}; give a list of one object or more")
    return value


# --- the tasks --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SuperGlue:
    """One task. folders: names of its folder. rows_of: a record and its split -> its rows."""

    name: str
    folders: tuple[str, ...]
    rows_of: RowsOf
    metric: str = "accuracy"
    labels: tuple[str, ...] = ()
    column: str = ""
    official: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _FILES)
    notes: Mapping[str, str] = field(default_factory=dict[str, str])

    def load(self, data: Path | None = None) -> Task:
        """The task with its rows. UserError as `read_rows` has it."""
        above = ("superglue", "super_glue")
        folders = tuple(f"{folder}/{name}" for folder in above for name in self.folders) + self.folders
        dpr_here = self.name == "dpr"
        home = Home(
            f"superglue/{self.name}",
            folders,
            self.official,
            DPR_WHERE if dpr_here else WHERE,
            words={} if self.official is _FILES else {"validation": ("test",)},
            reads=(*TABLES, ".txt") if dpr_here else TABLES,
            notes=self.notes,
        )
        rows = read_rows(home, data, self.rows_of, dpr_records if dpr_here else None)
        lengths = {"input_length": INPUT_LENGTH, "target_length": TARGET_LENGTH}
        column = self.column or self.name
        return make_task(home.task, rows, metric=self.metric, column=column, labels=self.labels, **lengths)


_CB = ("entailment", "contradiction", "neutral")
_CHOICES = ("choice1", "choice2")
_ENTAILMENT = ("entailment", "not_entailment")
_PREMISE = _keys("hypothesis", "premise")
_ON_RTE = {"train": "it is for evaluation only: train on superglue/rte"}
_AXB = {"validation": ("AX-b.jsonl",), TEST: ("AX-b.jsonl",)}
_AXG = {"validation": ("AX-g.jsonl",), TEST: ("AX-g.jsonl",)}
_DPR = {"train": ("train.c.txt",), "validation": ("test.c.txt",)}

_boolq = _Choice("boolq", _keys("passage", "question"), BOOLEAN)
_cb = _Choice("cb", _PREMISE, _CB)
_copa = _Choice("copa", _keys("choice1", "choice2", "premise", "question"), _CHOICES)
_rte = _Choice("rte", _PREMISE, _ENTAILMENT)
_wic = _Choice("wic", _keys("sentence1", "sentence2", "word"), BOOLEAN)
_axb = _Choice("rte", _keys(hypothesis="sentence2", premise="sentence1"), _ENTAILMENT, diagnostic=True)
_axg = _Choice("rte", _PREMISE, _ENTAILMENT, diagnostic=True)

_ALL = (
    _SuperGlue("boolq", ("BoolQ",), _boolq, labels=BOOLEAN),
    _SuperGlue("cb", ("CB",), _cb, "cb", _CB),
    _SuperGlue("copa", ("COPA",), _copa, labels=_CHOICES),
    _SuperGlue("multirc", ("MultiRC",), multirc, "multirc", BOOLEAN),
    _SuperGlue("record", ("ReCoRD",), record, "record"),
    _SuperGlue("rte", ("RTE",), _rte, labels=_ENTAILMENT, column="rte (SuperGLUE)"),
    _SuperGlue("wic", ("WiC",), _wic, labels=BOOLEAN),
    _SuperGlue("wsc", ("WSC", "wsc.fixed"), wsc, "referent"),
    _SuperGlue("dpr", ("DPR", "definite_pronoun_resolution"), dpr, official=_DPR),
    _SuperGlue("axb", ("AX-b", "axb"), _axb, labels=_ENTAILMENT, official=_AXB, notes=_ON_RTE),
    _SuperGlue("axg", ("AX-g", "axg"), _axg, labels=_ENTAILMENT, official=_AXG, notes=_ON_RTE),
)

TASKS: dict[str, Factory] = {one.name: one.load for one in _ALL}
