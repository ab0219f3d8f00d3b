"""The question a study is asked: which scale, which text, which tasks. And the folder that is for one question.

    question = ask(Asked("laptop"))       the embedded corpus and its six tasks
    question.claim(out)

A folder answers one question; asking another there is refused, naming what differs. More tables, the rounds after the
tables, or one more named text to pre-train on, are the same question. The precision is a machine's, and no part of it;
a folder keeps to one all the same, because a table of two would compare roundings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.fingerprint import canonical
from t5study.ground.machine import Machine, cores
from t5study.ground.store import Store, read_json, write_json
from t5study.study import scales
from t5study.study.asked import Asked
from t5study.study.baseline import BASELINE
from t5study.study.benchmarks import find_studied
from t5study.study.experiment import STUDY, Experiment
from t5study.study.material import Chosen, Corpus, EmbeddedRows, GivenRows
from t5study.study.own import Own, load, refuse_changed
from t5study.study.plans import Last, stages_of
from t5study.study.setting import Setting, absent
from t5study.study.table import Table, in_order
from t5study.study.tables.declared import EVERY
from t5study.study.wanted import PLAN
from t5study.tasks.task import Task

ASKED = "study.json"
EMBEDDED = "pydocs"
FORMAT = 1


@dataclass(frozen=True)
class Question:
    """setting: what all runs share. asked: as it was typed; where benchmarks lie is no part of the question. own:
    tables of one's own, of which the baseline alone is."""

    setting: Setting
    asked: Asked
    own: Own | None = None

    @property
    def scale(self) -> scales.Scale:
        return self.setting.scale

    @property
    def corpus_name(self) -> str:
        return " ".join(self.asked.text) if self.asked.text else EMBEDDED

    def at(self, scale: str) -> Question:
        """The same at another scale."""
        setting = replace(self.setting, scale=scales.find(scale))
        return replace(self, setting=setting, asked=replace(self.asked, scale=scale))

    @property
    def tables(self) -> tuple[Table, ...]:
        """All that can be run here: those declared, if the baseline is the paper's, and one's own."""
        declared = EVERY if self.setting.baseline == BASELINE else ()
        return (*declared, *(self.own.tables if self.own else ()))

    def stages(self, experiment: Experiment) -> tuple[Last, ...]:
        """The last stages of an experiment: one, or one a benchmark; () if it cannot be run."""
        return stages_of(experiment, self.setting)

    def absent(self, experiment: Experiment) -> str:
        """Why an experiment cannot be run here, "" if it can."""
        return absent(experiment, self.setting)

    # --- its folder ---------------------------------------------------------------------------------------------

    def compare(self, out: Path, precision: str | None = None) -> dict[str, Any]:
        """What the folder has been asked so far, {} if nothing. precision: that training is to be in, None for the
        folder's. UserError if that was another question, or another precision."""
        path = out / ASKED
        if not path.exists():
            if out.exists() and (not out.is_dir() or any(path.name != PLAN for path in out.iterdir())):
                raise UserError(f"{out}: found something that is no study; choose another --out")
            return {}
        asked = read_json(path)
        if not isinstance(asked, dict) or asked.get("format") != FORMAT or not isinstance(asked.get("question"), dict):
            raise UserError(f"{path}: found a study of another format; choose another --out, or delete {out}")
        there, now = asked["question"], self._value()
        if before := there.get("texts", {}):  # these have to be as they were; others may be added
            now["texts"] = {name: text for name, text in now.get("texts", {}).items() if name in before}
        else:
            now.pop("texts", None)
        if difference := _difference(there, now):
            raise UserError(f"{out}: was asked another question ({difference}); choose another --out, or delete it")
        if self.own:
            refuse_changed(self.own, asked.get("own", {}), out)
        if precision not in (None, begun := asked.get("precision")):
            way = f"with {begun}" if begun else "without it, in what its machine has"
            raise UserError(
                f"--precision: found {precision}, but {out} was begun {way}; leave it out, or choose another --out"
            )
        return asked

    def claim(
        self,
        out: Path,
        *,
        rounds: bool = False,
        tables: Sequence[str] = (),
        most_seeds: int = 0,
        own_rounds: bool = False,
        precision: str | None = None,
    ) -> dict[str, Any]:
        """Writes down what the folder is asked, beside what it was asked before; returns all of it. most_seeds: of
        rounds that are played until they are decided. own_rounds: they go through a file's tables. precision: of
        training, None for that of before. UserError if it was asked another question, or another precision."""
        before, typed = self.compare(out, precision), self.asked
        several = (
            {"benchmarks": list(typed.benchmarks), "split_missing": typed.split_missing} if typed.benchmarks else {}
        )
        most_seeds = max(most_seeds, before.get("most_seeds", 0))
        several |= {"most_seeds": most_seeds} if most_seeds else {}
        own_rounds = own_rounds if rounds else before.get("own_rounds", False)
        several |= {"own_rounds": True} if own_rounds else {}
        precision = precision or before.get("precision")
        several |= {"precision": precision} if precision else {}
        corpora = {"corpora": [list(one) for one in typed.corpora]} if typed.corpora else {}
        asked = {
            "format": FORMAT,
            "question": self._value(),
            "scale": self.scale.name,
            "text": list(typed.text) if typed.text else None,
            "tasks": list(typed.tasks) if typed.tasks else None,
            "metric": typed.metric,
            **several,
            **corpora,
            **({"own": self.own.told} if self.own else {}),
            "rounds": rounds or before.get("rounds", False),
            "tables": sorted({*before.get("tables", ()), *tables}, key=in_order),
        }
        if asked != before:
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / ASKED, asked)
        return asked

    def _value(self) -> dict[str, Any]:
        """All that answers depend on, by name."""
        several = self.setting.benchmarks
        members = [[one.benchmark.name, one.benchmark.members, one.trained] if one.tasks else [] for one in several]
        texts = {name: canonical(corpus.value) for name, corpus in self.setting.texts}
        named = ({"benchmarks": canonical(members)} if several else {}) | ({"texts": texts} if texts else {})
        baseline = self.setting.baseline
        named |= {"baseline": canonical(baseline)["fields"]} if baseline != BASELINE else {}
        return named | {
            "scale": canonical(self.scale)["fields"],
            "text": canonical(self.setting.corpus.value),
            "tasks": [canonical(task) for task in self.setting.tasks],
        }

    def load_tasks(self, store: Store) -> list[Task]:
        """The tasks, once their rows are in the store. Read and checked once a process: what is in a store stays."""
        return list(_loaded(self.setting.tasks, store.root))


@lru_cache(maxsize=4)
def _loaded(tasks: tuple[Chosen, ...], root: Path) -> tuple[Task, ...]:
    return tuple(task.load(Store(root)) for task in tasks)


def ask(asked: Asked) -> Question:
    """Reads no text and renders no embedded task; own task files and benchmarks are read and checked. UserError for
    every mistake."""
    found = scales.find(asked.scale)
    if asked.benchmarks and asked.tasks:
        raise UserError("--benchmarks: found --task beside it; give one of them, as a study has one set of columns")
    if not asked.benchmarks and (asked.data or asked.split_missing):
        raise UserError("--benchmarks: missing, though --data or --split-missing is there; give some, or: all")
    if asked.benchmarks:
        studied = find_studied(asked.benchmarks, asked.data, asked.split_missing)
        chosen = tuple(dict.fromkeys(task for one in studied for task in one.tasks))
    else:
        studied, chosen = (), _chosen(asked.tasks, asked.metric)
    own = load(asked.own) if asked.own else None
    baseline = own.baseline if own else BASELINE
    return Question(Setting(found, _corpus(asked.text), chosen, studied, _texts(asked.corpora), baseline), asked, own)


def _texts(corpora: Sequence[tuple[str, str]] | None) -> tuple[tuple[str, Corpus], ...]:
    """Named texts, in the order of their names: which came first on a command line is no part of the question."""
    patterns: dict[str, list[str]] = {}
    for name, pattern in corpora or ():
        if name == STUDY:
            raise UserError(f"--corpus: found the name {STUDY}, which is that of --text; give another")
        patterns.setdefault(name, []).append(pattern)
    return tuple((name, _corpus(patterns[name])) for name in sorted(patterns))


def _corpus(text: Sequence[str] | None) -> Corpus:
    from t5study.corpus import pydocs
    from t5study.corpus.read import text_files

    source = text_files(list(text)) if text else pydocs.here()
    return Corpus(source.value, source)


def _chosen(tasks: Sequence[str] | None, metric: str | None) -> tuple[Chosen, ...]:
    from t5study import pydocs
    from t5study.tasks import pydocs as benchmark
    from t5study.tasks.addresses import find

    embedded = EmbeddedRows(pydocs.versions(), pydocs.READING, benchmark.RENDERING)
    if not tasks:
        return tuple(Chosen(embedded, name) for name in benchmark.TASKS)
    found, headings = [], dict[str, str]()
    for address in tasks:
        module, _, name = address.partition("/")
        if module == EMBEDDED and name in benchmark.TASKS:
            found.append(Chosen(embedded, name))
            column = name
        else:
            task = find(address, metric)
            found.append(Chosen(GivenRows(task.value, address, metric)))
            column = task.column
        if column in headings:
            raise UserError(
                f"{address}: its column would be called {column!r}, as that of {headings[column]} is; "
                "give one of them another name in its settings"
            )
        if column == "mean" or column.endswith(" nats"):
            raise UserError(
                f"{address}: its column would be called {column!r}, as one of ours is; give it another name"
            )
        headings[column] = address
    return tuple(found)


def _difference(there: Any, here: Any, where: str = "") -> str:
    """The first place in which two canonical values differ, for people; "" if there is none."""
    if there == here:
        return ""
    if where == "text":
        return "other text, or other versions of the packages it is in"
    if where == "baseline" and (there is None or here is None):
        return "another baseline; give --tables the file that it is in"
    if where.startswith("texts."):
        name = where.removeprefix("texts.")
        return f"other text, or none, of the name {name}; give --corpus {name}=PATTERN as before"
    if isinstance(there, dict) and isinstance(here, dict) and "float" not in here:
        for name in [*here, *(name for name in there if name not in here)]:
            if there.get(name) != here.get(name):
                return _difference(there.get(name), here.get(name), f"{where}.{name}" if where else name)
    if where == "tasks":
        return "other tasks, or other rows in them"
    return f"{where}: {_short(there)} there, {_short(here)} now"


def _short(value: Any) -> str:
    if isinstance(value, dict) and "float" in value:
        return f"{float.fromhex(value['float']):g}"
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


# --- where it is worked on ----------------------------------------------------------------------------------------


def workers_here(machine: Machine, asked: int | None, ranks: int = 1, gpus: int = 1) -> int:
    """How many runs side by side: as asked, else one for every core that its threads and ranks take (one for every GPU
    that its ranks take), as far as memory goes at 1 GiB a rank."""
    import psutil

    if asked:
        return asked
    room = int(psutil.virtual_memory().available / 2**30)
    return max(1, gpus // ranks if machine.device == "cuda" else min(cores() // machine.threads, room) // ranks)
