"""The embedded benchmark: the paper's families of tasks, made of the documentation inside Python.

Every label is real: it comes from where a docstring stands, or from what its author wrote under a heading. Nothing is
shipped and nothing is fetched; the same installed packages give the same rows, and so the same digests.

    package     GLUE-like        which package does this text document?                        accuracy
    intact      CoLA-like        is this sentence as written, or were its words shuffled?      Matthews correlation
    entails     RTE-like         does this summary belong to this description?                 accuracy
    answer      SQuAD-like       what type, or default, has parameter x?                       exact match, token F1
    summarize   CNN/DM-like      a description -> its summary line                             ROUGE
    describe    WMT-like         a signature -> its summary line                               BLEU

Inputs are short (about 240 characters) and targets a line at most, so that a small model on two cores gets somewhere.
Training and validation rows come from different modules (`pydocs.split`), and a training record that shares a sentence
with a validation record is left out: re-exports and families of functions repeat each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import xxhash

from t5study import pydocs
from t5study.docstrings import Documented, Parameter, plain, prose_of, sentences
from t5study.ground.seeds import stream
from t5study.tasks.task import SPLITS, Factory, Row, Rows, Task, make_task

PACKAGES = ("matplotlib", "numpy", "python", "scipy", "sklearn", "torch")
MOST = {"train": 4000, "validation": 300}
RENDERING = 1  # raise it when rows are rendered otherwise, so that kept rows are made again
_CHARACTERS = 240


@dataclass(frozen=True)
class Item:
    """A record that can be asked about. summary: its first line, a real sentence. prose: the description under it.
    place: what chances are drawn from, so that a record's rows do not depend on other records."""

    record: Documented
    summary: str
    prose: str

    @property
    def place(self) -> str:
        return f"{self.record.package}:{self.record.module}:{self.record.name}"


# --- records -> items -------------------------------------------------------------------------------------------


def items(records: Sequence[Documented]) -> dict[str, list[Item]]:
    """Items by split: one an object with a real summary, no summary twice, no long sentence in both splits."""
    found: dict[str, list[Item]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    by_place = sorted((Item(one, plain(one.summary), prose_of(one.body)) for one in records), key=_order)
    for item in by_place:
        words = item.summary.split()
        usual = 25 <= len(item.summary) <= 110 and len(words) >= 5 and words[0][0].isalpha() and item.summary.isascii()
        if usual and not {item.summary.lower(), item.place} & seen:
            seen |= {item.summary.lower(), item.place}
            found[pydocs.split(item.record.module)].append(item)
    told = {one for item in found["validation"] for one in _all_sentences(item)}
    found["train"] = [item for item in found["train"] if not told & _all_sentences(item)]
    return found


def _order(item: Item) -> tuple[bool, str, str]:
    """Validation first, so that a summary that both sides have stays there."""
    return pydocs.split(item.record.module) != "validation", item.place, item.summary


def _all_sentences(item: Item) -> set[str]:
    told = [item.summary, item.prose, *(plain(parameter.text) for parameter in item.record.parameters)]
    return set().union(*map(sentences, told))


# --- items -> rows: one function a family -------------------------------------------------------------------------


def package_rows(found: Sequence[Item]) -> Iterator[Row]:
    """Which package a text documents."""
    for item in found:
        if item.record.package in PACKAGES and item.prose:
            text = cut(f"{item.summary} {item.prose}")
            yield Row(item.place, f"package text: {text}", item.record.package)


def intact_rows(found: Sequence[Item]) -> Iterator[Row]:
    """Half of the sentences have their words, all but the first, in another order."""
    for item in found:
        first, *words = item.summary.rstrip(".").split()
        if len(set(words)) < 6:
            continue
        chance = stream(0, "intact", item.place)
        label = ("intact", "shuffled")[int(chance.integers(2))]
        if label == "shuffled":
            moved = [words[int(i)] for i in chance.permutation(len(words))]
            words = moved if moved != words else words[::-1]
        yield Row(item.place, f"intact sentence: {' '.join([first, *words])}", label)


def entails_rows(found: Sequence[Item]) -> Iterator[Row]:
    """Half of the summaries belong to another object, of another package."""
    described = [item for item in found if len(item.prose) >= 60]
    for item in described:
        chance = stream(0, "entails", item.place)
        summary, label = item.summary, "entailment"
        if chance.integers(2):
            others = [described[int(i)] for i in chance.integers(0, len(described), 16)]
            others = [other for other in others if other.record.package != item.record.package]
            if not others:
                continue
            summary, label = others[0].summary, "not_entailment"
        yield Row(item.place, f"entails summary: {summary} text: {cut(item.prose, _CHARACTERS - 60)}", label)


def answer_rows(found: Sequence[Item]) -> Iterator[Row]:
    """The type or the default of a parameter, out of its own entry and its neighbours'."""
    for item in found:
        asked = [(p, kind, answer) for p in item.record.parameters for kind, answer in _facts(p)]
        if not asked:
            continue
        parameter, kind, answer = asked[int(stream(0, "answer", item.place).integers(len(asked)))]
        at = item.record.parameters.index(parameter)
        near = item.record.parameters[max(0, at - 1) : at + 2]
        share = _CHARACTERS // len(near)
        context = " ".join(cut(_entry(one), share) for one in near)
        question = f"what {'is the default' if kind == 'default' else 'type'} of {parameter.name}?"
        if answer in context:
            yield Row(item.place, f"answer question: {question} context: {context}", answer)


def _facts(parameter: Parameter) -> Iterator[tuple[str, str]]:
    """("type" | "default", answer) of a parameter that says so in a few words."""
    kind = re.split(r",? optional|,? default|\(default", plain(parameter.type))[0].strip(" ,;")
    if 2 <= len(kind) <= 40 and parameter.name.isidentifier():
        yield "type", kind
    default = plain(parameter.default)
    if 1 <= len(default) <= 30 and parameter.name.isidentifier():
        yield "default", default


def _entry(parameter: Parameter) -> str:
    default = plain(parameter.default)
    kind = plain(parameter.type)
    told = f" = {default}" if default and default not in kind else ""
    return f"{parameter.name} : {kind}{told} . {plain(parameter.text)}"


def summarize_rows(found: Sequence[Item]) -> Iterator[Row]:
    """A description -> the line its author put above it."""
    for item in found:
        if len(item.prose) >= 80 and item.summary.lower().rstrip(".") not in item.prose.lower():
            yield Row(item.place, f"summarize: {cut(item.prose)}", item.summary)


def describe_rows(found: Sequence[Item]) -> Iterator[Row]:
    """A name with its arguments -> what it does, as translation goes from one language to another."""
    for item in found:
        if item.record.kind == "function" and item.record.signature not in ("", "()", "(self)"):
            signature = cut(f"{item.record.name}{plain(item.record.signature)}", 120)
            yield Row(item.place, f"describe {item.record.package}: {signature}", item.summary)


def cut(text: str, characters: int = _CHARACTERS) -> str:
    """The beginning of a text, up to a word's end.

    >>> cut("some words in a row", 12)
    'some words'
    """
    return text if len(text) <= characters else text[: characters + 1].rpartition(" ")[0] or text[:characters]


# --- families -> tasks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """How one family is rendered and scored. labels: of the classes that are drawn in equal numbers."""

    name: str
    metric: str
    rows: Callable[[Sequence[Item]], Iterator[Row]]
    labels: tuple[str, ...] = ()


FAMILIES = (
    Family("package", "accuracy", package_rows, PACKAGES),
    Family("intact", "matthews", intact_rows, ("shuffled", "intact")),
    Family("entails", "accuracy", entails_rows, ("entailment", "not_entailment")),
    Family("answer", "squad", answer_rows),
    Family("summarize", "rouge1", summarize_rows),
    Family("describe", "bleu", describe_rows),
)


def tasks_of(records: Sequence[Documented]) -> dict[str, Task]:
    """All families as tasks. Rows are drawn by a hash of their place, labels in equal numbers, never more than MOST."""
    found = items(records)
    return {family.name: _task(family, found) for family in FAMILIES}


def _task(family: Family, found: dict[str, list[Item]]) -> Task:
    splits: dict[str, tuple[Row, ...]] = {}
    held: set[str] = set()
    for split in reversed(SPLITS):  # validation first: what it has, training may not have
        rows = {row.input: row for row in family.rows(found[split]) if row.input not in held}
        held |= set(rows)
        splits[split] = _balanced(family, list(rows.values()), MOST[split])
    return make_task(f"pydocs/{family.name}", Rows(splits), metric=family.metric, labels=family.labels)


def _balanced(family: Family, rows: list[Row], most: int) -> tuple[Row, ...]:
    """At most `most` rows, of every label the same number, in an order that no other row has a say in."""

    def place(row: Row) -> int:
        return xxhash.xxh3_64_intdigest(f"{family.name} {row.id}".encode())

    groups = [[row for row in rows if row.target == label] for label in family.labels] or [rows]
    each = min(most // len(groups), min(map(len, groups)))
    return tuple(sorted((row for group in groups for row in sorted(group, key=place)[:each]), key=place))


@lru_cache(maxsize=1)
def _here() -> dict[str, Task]:
    """The tasks of this machine's packages, rendered once a process."""
    return tasks_of(pydocs.records())


def _task_here(name: str, data: Path | None = None) -> Task:
    return _here()[name]  # from the installed packages: it needs no folder of benchmarks


TASKS: dict[str, Factory] = {family.name: partial(_task_here, family.name) for family in FAMILIES}
