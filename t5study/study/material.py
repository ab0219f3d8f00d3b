"""What is trained on: the stages before any training, from text and tasks to tokens and rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from t5study.corpus.build import PageSource
from t5study.ground.errors import UserError
from t5study.ground.store import Store, verify, write_json
from t5study.study.stages import IF_SET, RESULT, UNSIGNED, Place, Stage, folder
from t5study.tasks.task import TaskValue

if TYPE_CHECKING:
    from t5study.tasks.task import Task
    from t5study.vocab import Vocab


# --- text -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus(Stage):
    """Documents out of a source of pages. value: the source's own, which says which pages those are."""

    value: Any
    source: PageSource = field(repr=False, compare=False, metadata=UNSIGNED)
    kind: ClassVar[str] = "corpus"

    @property
    def work(self) -> float:
        """The documentation inside Python takes 22 s; text in files goes by its size."""
        files = getattr(self.source, "files", ())
        return 1.0 + 5e-7 * sum(file.size for file in files) if files else 22.0

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.build import build_corpus

        _empty(work)
        build_corpus(self.source, work, seed=0)


@dataclass(frozen=True)
class Vocabulary(Stage):
    """pieces: as many as asked for, or as many as the text can give."""

    corpus: Corpus
    pieces: int
    characters: int
    kind: ClassVar[str] = "vocabulary"

    @property
    def parents(self) -> tuple[Stage, ...]:
        return (self.corpus,)

    @property
    def work(self) -> float:
        return 1.0 + 3e-6 * self.characters

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.build import read_documents
        from t5study.vocab import TextTooSmall, Vocab, train_vocab

        texts = list(_first_characters(read_documents(place.folder(self.corpus)), self.characters))
        try:
            train_vocab(texts, self.pieces, work / "spiece.model")
        except TextTooSmall as small:  # of whoever brings a small text: told in scores.json, and no reason to stop
            train_vocab(texts, small.most, work / "spiece.model")
        vocab = Vocab.load(work / "spiece.model")
        write_json(work / RESULT, {"pieces": vocab.ids.pieces, "asked": self.pieces, "digest": vocab.digest})

    def load(self, store: Store) -> Vocab:
        """The vocabulary, its file checked."""
        from t5study.vocab import Vocab

        verify(folder(store, self))
        return Vocab.load(folder(store, self) / "spiece.model")


@dataclass(frozen=True)
class Tokens(Stage):
    """The first `max_tokens` tokens of a corpus, whose documents are in a drawn order already."""

    corpus: Corpus
    vocabulary: Vocabulary
    max_tokens: int | None
    kind: ClassVar[str] = "tokens"

    @property
    def parents(self) -> tuple[Stage, ...]:
        return (self.corpus, self.vocabulary)

    @property
    def work(self) -> float:
        return 0.3 + 2.5e-7 * (self.max_tokens or 10_000_000)

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.build import read_documents
        from t5study.corpus.tokens import write_tokens_into

        _empty(work)
        documents = read_documents(place.folder(self.corpus))
        write_tokens_into(documents, self.vocabulary.load(place.store), work, max_tokens=self.max_tokens)


# --- tasks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EmbeddedRows(Stage):
    """The rendered rows of all families of the embedded benchmark. They follow from the installed packages and from
    how they are read and rendered, so a second study reads no package again."""

    versions: tuple[tuple[str, str], ...]
    reading: int
    rendering: int
    kind: ClassVar[str] = "tasks"

    @property
    def work(self) -> float:
        return 20.0  # packages are read anew, in another process than the corpus is

    def build(self, work: Path, place: Place) -> None:
        from t5study.tasks import pydocs
        from t5study.tasks.task import keep

        _empty(work)
        for name, task in pydocs.TASKS.items():
            (work / name).mkdir()
            keep(task(), work / name)


@dataclass(frozen=True)
class GivenRows(Stage):
    """The rows of one task that was given by its address: a file, or a task of another benchmark. data: the folder of
    its benchmark's files. completed: a split that these lack was cut out of the other one (tasks/splits.py)."""

    value: TaskValue
    address: str = field(compare=False, metadata=UNSIGNED)
    metric: str | None = field(compare=False, metadata=UNSIGNED)
    data: Path | None = field(default=None, compare=False, metadata=UNSIGNED)
    completed: bool = field(default=False, metadata=IF_SET)
    kind: ClassVar[str] = "tasks"

    @property
    def label(self) -> str:
        return f"task {self.value.name}"

    def build(self, work: Path, place: Place) -> None:
        from t5study.tasks.addresses import find
        from t5study.tasks.splits import complete
        from t5study.tasks.task import keep

        _empty(work)
        task = find(self.address, self.metric, self.data)
        if self.completed:
            task, _ = complete(task)
        if task.value != self.value:
            raise UserError(f"{self.address}: was changed while the study ran; run the same command again")
        keep(task, work)


@dataclass(frozen=True)
class Chosen:
    """A task of a stage of rows. name: of its folder there, "" where the stage is one task."""

    rows: EmbeddedRows | GivenRows
    name: str = ""

    @property
    def address(self) -> str:
        """By which it was chosen."""
        return self.rows.address if isinstance(self.rows, GivenRows) else self.name

    @property
    def label(self) -> str:
        """For people."""
        return self.name or self.rows.label.removeprefix("task ")

    def load(self, store: Store) -> Task:
        """The task, its rows checked."""
        from t5study.tasks.task import kept

        return kept(folder(store, self.rows) / self.name)


# --- small things -------------------------------------------------------------------------------------------------


def _empty(work: Path) -> None:
    """A stage that cannot be resumed begins again."""
    for path in work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _first_characters(texts: Iterable[str], characters: int) -> Iterator[str]:
    """Whole texts until there are so many characters."""
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return
