"""Stages, text and tasks small enough to play a study with: importable by worker processes, which the tests are not."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import xxhash

from t5study.corpus.read import text_files
from t5study.ground.errors import UserError
from t5study.ground.machine import Machine
from t5study.ground.store import MANIFEST, Store, read_json, write_json
from t5study.study.asked import Asked
from t5study.study.ensembles import Ensemble
from t5study.study.material import Chosen, Corpus, GivenRows
from t5study.study.question import Question
from t5study.study.scales import SMOKE
from t5study.study.setting import Setting
from t5study.study.stages import COST, RESULT, Place, Stage, build, folder, has, needed
from t5study.study.training import Finetune
from t5study.tasks.addresses import find
from t5study.tasks.task import Row, Rows, Task, keep, make_task


@dataclass(frozen=True)
class NoText:
    """A source that may not be read: for tests of what comes before reading."""

    value: str

    def pages(self) -> Iterator[Any]:
        raise AssertionError("read")


def toy_task(name: str = "parity") -> Task:
    """Whether the last digit is even. 30 rows to train on, 12 to score."""

    def rows(numbers: range) -> tuple[Row, ...]:
        return tuple(Row(str(n), f"parity of {n}", "even" if n % 2 == 0 else "odd") for n in numbers)

    splits = Rows({"train": rows(range(100, 130)), "validation": rows(range(200, 212))})
    return make_task(name, splits, metric="accuracy", labels=("odd", "even"))


def toy_setting(text: str = "some text", names: tuple[str, ...] = ("parity", "sign")) -> Setting:
    """A setting of which nothing is in a store."""
    source = NoText(text)
    rows = tuple(Chosen(GivenRows(toy_task(name).value, f"{name}.jsonl", None)) for name in names)
    return Setting(SMOKE, Corpus(source.value, source), rows)


def toy_question() -> Question:
    return Question(toy_setting(), Asked("smoke", ["some*.txt"], ["parity.jsonl", "sign.jsonl"]))


# --- a store as if everything had been run ------------------------------------------------------------------------


def put(store: Store, stage: Stage, result: dict[str, Any], **files: dict[str, Any]) -> None:
    """A finished stage with these numbers. Nothing is synced: no test pulls the plug."""
    path = folder(store, stage)
    path.mkdir(parents=True, exist_ok=True)
    if isinstance(stage, GivenRows):
        keep(toy_task(stage.value.name), path)
    written = {f"{name}.json": value for name, value in files.items()} | {RESULT: result, COST: {"seconds": 2.0}}
    for name, value in {
        **written,
        MANIFEST: {"files": {name: {"xxh3": digest(value)} for name, value in written.items()}},
    }.items():
        (path / name).write_text(json.dumps(value))


def digest(value: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value).encode())


def put_run(store: Store, stage: Finetune | Ensemble, nats: float, accuracy: float = 50.0) -> None:
    """A finished run, with all before it: every task has these scores."""

    def score(value: float) -> dict[str, Any]:
        return {"value": value, "step": 3, "low": value - 0.1, "high": value + 0.1, "n": 12, "unreadable": 0}

    trained = {"first_loss": 5.5, "last_loss": 4.0, "tokens": 1000, "target_tokens": 300, "parameters": 12345}
    for one in needed([stage]).values():
        if has(store, one):
            continue
        if isinstance(one, Finetune | Ensemble):
            scores = {"metric": score(accuracy), "nats": score(nats), "metrics": {"accuracy": accuracy}}
            put(store, one, {**trained, "tasks": {task.rows.value.name: scores for task in one.tasks}})  # type: ignore
        elif one.kind == "tokens":
            put(store, one, {}, tokens={"documents": 7, "tokens": 99})
        elif one.kind == "vocabulary":
            put(store, one, {"pieces": 300, "asked": 300, "digest": "ab"})
        else:
            put(store, one, trained)


# --- small enough to be run in a test's own process ---------------------------------------------------------------


class Quiet:
    """Progress that nobody looks at."""

    def update(self, step: int, *, tokens: int = 0, loss: float | None = None) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


def real_setting(folder: Path, texts: bool = False) -> Setting:
    """Text and one or two tasks (the second asks for texts) that SMOKE can be run on."""
    words = re.findall("[a-z]+", "the quick brown fox jumps over a lazy dog and sleeps under old trees by the river")
    lines = [" ".join(words[(i * k + k) % len(words)] for k in range(1, 12)) + "." for i in range(400)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (folder / "parity.jsonl").write_text(
        json.dumps({"metric": "accuracy"})
        + "".join(
            "\n" + json.dumps({"input": f"{words[n % 16]} {n}", "target": "even" if n % 2 == 0 else "odd"})
            for n in range(60)
        )
    )
    (folder / "copy.jsonl").write_text(
        json.dumps({"metric": "bleu"})
        + "".join(
            "\n" + json.dumps({"input": f"copy {n}: {line}", "target": line}) for n, line in enumerate(lines[:60])
        )
    )
    source = text_files([str(folder / "text.jsonl")])
    paths = [folder / "parity.jsonl", *([folder / "copy.jsonl"] if texts else [])]
    tasks = [Chosen(GivenRows(find(str(path)).value, str(path), None)) for path in paths]
    return Setting(SMOKE, Corpus(source.value, source), tuple(tasks))


def build_all(store: Store, stages: Iterable[Stage]) -> dict[str, Stage]:
    """Builds what is missing of some stages, one after another, here; returns all that they need."""
    found = needed(stages)
    for stage in found.values():
        if not has(store, stage):
            build(stage, Place(store, Machine(), Quiet()))
    return found


# --- stages that behave badly -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Toy(Stage):
    """Writes its name; or fails, dies or dawdles. after: its parents. mode: what it does.

    "dies once" kills its process the first time it is built, "dies" every time, "wrong" is a user's mistake, "broken"
    a bug, "waits" takes until the file `go` is there.
    """

    name: str
    mode: str = ""
    after: tuple[Toy, ...] = ()
    training: bool = True
    weight: float = 1.0
    go: str = field(default="", compare=False, metadata={"fingerprint": False})
    kind: ClassVar[str] = "toy"

    @property
    def label(self) -> str:
        return self.name

    @property
    def parents(self) -> tuple[Stage, ...]:
        return self.after

    @property
    def steps_of_training(self) -> int:
        return 10 if self.training else 0

    @property
    def work(self) -> float:
        return self.weight

    def build(self, work: Path, place: Place) -> None:
        if self.mode == "wrong":
            raise UserError(f"{self.name}: found nonsense; give sense")
        if self.mode == "broken":
            raise RuntimeError("a bug")
        if self.mode == "dies" or (self.mode == "dies once" and not (work / "been").exists()):
            (work / "been").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "waits":
            (work / "waiting").touch()
            until = time.monotonic() + 300
            while not Path(self.go).exists() and time.monotonic() < until:
                time.sleep(0.01)
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        write_json(work / RESULT, {"name": self.name, "process": os.getpid(), "last_loss": 1.5, "gpus": gpus})


def toy_result(store: Store, toy: Toy) -> dict[str, Any]:
    """What a finished toy wrote."""
    return read_json(folder(store, toy) / RESULT)
