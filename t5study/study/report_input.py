"""What a report is made from: a study's folder, read and checked field by field.

scores.json carries all that is compared. costs.json (how long it took, on which machine) and study.json (what was
asked) may be missing; a report then says so. Whatever scores.json lacks is one UserError that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError
from t5study.ground.store import digest_file, read_json
from t5study.study.report_fields import REMEDY, Field, object_in
from t5study.study.scores import Absent, Cell, Column, Failed, Measured
from t5study.study.table import Published

FORMAT = 1
Figures = dict[str, float]


@dataclass(frozen=True)
class Run:
    """One pre-training and fine-tuning. pretrain, finetune: folders under store/ (None: there was none). finetunes: all
    of them, where there is one a benchmark. trainable: of the parameters, those that the last step of fine-tuning moved
    (None: unknown)."""

    fingerprint: str
    label: str
    seed: int
    experiment: Mapping[str, Any]
    cells: Mapping[str, Cell]
    pretrain: str | None
    finetune: str | None
    tokens: Mapping[str, float]
    parameters: int | None
    trainable: int | None
    first_loss: float | None
    finetunes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudiedBenchmark:
    """A benchmark as the study ran it. groups: what its average is over, () if it could not be run. notes: (task, what
    is not official about it). absent: why it could not be run."""

    name: str
    column: str
    groups: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, str], ...]
    absent: str | None


@dataclass(frozen=True)
class TableRow:
    """A row of the paper's table, its figures as printed, and our runs of it. absent: why there can be none. published:
    figures of later papers, of other baselines and tasks than the paper's. parameters, cost: a step's, beside the
    baseline's (None: the table is not about them)."""

    label: str
    starred: bool
    paper: Figures | None
    erratum: str | None
    runs: tuple[str, ...]
    absent: str = ""
    published: tuple[Published, ...] = ()
    parameters: float | None = None
    cost: float | None = None


@dataclass(frozen=True)
class StudyTable:
    """A table of the paper as this study ran it."""

    number: str
    caption: str
    axes: tuple[str, ...]
    rows: tuple[TableRow, ...]
    deviation: Figures | None


@dataclass(frozen=True)
class Candidate:
    """What a round tried."""

    label: str
    runs: tuple[str, ...]
    paper: Figures | None


@dataclass(frozen=True)
class Round:
    """A round of the search. ties: labels that cannot be told from the winner (it is not among them)."""

    number: int
    title: str
    table: str
    candidates: tuple[Candidate, ...]
    winner: str | None
    ties: tuple[str, ...]
    goes_on: str | None
    verdict: str


@dataclass(frozen=True)
class Noise:
    """A column over the repeated baselines. std: n - 1 in the denominator, None for a single run."""

    runs: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class Gain:
    """What pre-training brought to a column, positive when better. noise: what it had to exceed."""

    gain: float
    noise: float | None
    above_noise: bool


@dataclass(frozen=True)
class Study:
    """A study's folder. costs, asked: {} where the file is missing. digest: xxh3 of scores.json."""

    folder: Path
    scale: Mapping[str, Any]
    corpus: Mapping[str, Any]
    vocab: Mapping[str, Any]
    tasks: tuple[Mapping[str, Any], ...]
    columns: tuple[Column, ...]
    verdict_column: str
    runs: Mapping[str, Run]
    noise: Mapping[str, Noise]
    gain: Mapping[str, Gain]
    tables: tuple[StudyTable, ...]
    rounds: tuple[Round, ...]
    digest: str
    benchmarks: tuple[StudiedBenchmark, ...] = ()
    costs: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scale_name(self) -> str:
        """laptop, evening, ..."""
        return str(self.scale.get("name", "unnamed"))

    @property
    def at_paper_scale(self) -> bool:
        """Whether absolute figures may stand against the paper's (law 5)."""
        return self.scale_name.lower() == "paper"

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    def of_kind(self, kind: str) -> tuple[Column, ...]:
        """The columns of greedy answers ("metric") or of the targets' likelihood ("likelihood"), in order."""
        return tuple(column for column in self.columns if column.kind == kind)

    @property
    def compared(self) -> tuple[Column, ...]:
        """The columns that the paper has, too: those of its benchmarks."""
        own = {one.column for one in self.benchmarks}
        return tuple(column for column in self.columns if column.name in own)

    def mean_column(self, kind: str) -> Column | None:
        """The mean over tasks of that kind: "mean" or "mean nats"."""
        return next((c for c in self.of_kind(kind) if c.name in ("mean", "mean nats", self.verdict_column)), None)


# --- the folder -------------------------------------------------------------------------------------------------


def read_study(folder: Path) -> Study:
    """Reads and checks a study's folder. UserError if scores.json is missing, damaged or of another format."""
    path = folder / "scores.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; give --out a study's folder, or run `t5study study rounds` to make one")
    top = Field(read_json(path), path)
    if top["format"].value != FORMAT:
        raise UserError(f"{path}: field format: found {top['format'].value!r}, this version reads {FORMAT}; {REMEDY}")
    columns = tuple(_column(each) for each in top["columns"])
    names = {column.name for column in columns}
    verdict = top["verdict_column"]
    if verdict.text() not in names:
        raise verdict.wrong("the name of a column")
    runs = {key: _run(key, each, names) for key, each in top["runs"].items()}
    return Study(
        folder=folder,
        scale=top["scale"].map(),
        corpus=top["corpus"].map_of(texts=("name", "digest"), wholes=("documents", "tokens")),
        vocab=top["vocab"].map_of(texts=("digest",), wholes=("pieces",)),
        tasks=tuple(
            each.map_of(("name", "column", "metric", "digest"), ("train_rows", "validation_rows"))
            for each in top["tasks"]
        ),
        columns=columns,
        verdict_column=verdict.text(),
        runs=runs,
        noise={key: _noise(each) for key, each in top["noise"].items() if each.value is not None},
        gain={key: _gain(each) for key, each in top["gain"].items() if each.value is not None},
        tables=tuple(_table(each, runs) for each in top["tables"]),
        rounds=tuple(_round(each, runs) for each in top["rounds"]),
        digest=digest_file(path),
        benchmarks=tuple(_benchmark(each) for each in told) if (told := top.get("benchmarks")) else (),
        costs=object_in(folder / "costs.json"),
        asked=object_in(folder / "study.json"),
    )


def _column(told: Field) -> Column:
    kind = told["kind"]
    if kind.value not in ("metric", "likelihood"):
        raise kind.wrong('"metric" or "likelihood"')
    return Column(
        name=told["name"].text(),
        task=told["task"].text(),
        metric=told["metric"].text(),
        kind=kind.value,
        higher_is_better=told["higher_is_better"].truth(),
        unit=told["unit"].text(),
    )


def _benchmark(told: Field) -> StudiedBenchmark:
    absent = told.get("absent")
    return StudiedBenchmark(
        name=told["name"].text(),
        column=told["column"].text(),
        groups=tuple(group.texts() for group in told["groups"]),
        notes=tuple((note[0].text(), note[1].text()) for note in told["notes"]),
        absent=absent.text() if absent else None,
    )


def _run(key: str, told: Field, names: set[str]) -> Run:
    cells = {name: _cell(told["cells"][name]) for name in sorted(names)}
    tokens, first, parameters = told.get("tokens"), told.get("first_loss"), told.get("parameters")
    trainable = told.get("trainable")
    pretrain, finetune, several = told.get("pretrain"), told.get("finetune"), told.get("finetunes")
    return Run(
        fingerprint=key,
        label=told["label"].text(),
        seed=told["seed"].whole(),
        experiment=told["experiment"].map(),
        cells=cells,
        pretrain=pretrain.text() if pretrain else None,
        finetune=finetune.text() if finetune else None,
        tokens={name: each.number() for name, each in tokens.items() if each.value is not None} if tokens else {},
        parameters=parameters.whole() if parameters else None,
        trainable=trainable.whole() if trainable else None,
        first_loss=first.number() if first else None,
        finetunes=several.texts() if several else (finetune.text(),) if finetune else (),
    )


def _cell(told: Field) -> Cell:
    state = told["state"]
    if state.value == "absent":
        return Absent(told["reason"].text())
    if state.value == "failed":
        return Failed(told["reason"].text())
    if state.value != "measured":
        raise state.wrong('"measured", "absent" or "failed"')
    return Measured(
        value=told["value"].number(),
        n=told["n"].whole(),
        unreadable=told["unreadable"].whole(),
        step=told["step"].whole(),
        low=told["low"].number(),
        high=told["high"].number(),
    )


def _noise(told: Field) -> Noise:
    std = told.get("std")
    return Noise(told["runs"].whole(), told["mean"].number(), std.number() if std else None)


def _gain(told: Field) -> Gain:
    noise = told.get("noise")
    return Gain(told["gain"].number(), noise.number() if noise else None, told["above_noise"].truth())


def _keys(told: Field, runs: Mapping[str, Run]) -> tuple[str, ...]:
    for each in told:
        if each.text() not in runs:
            raise each.wrong("the fingerprint of a run")
    return told.texts()


def _table(told: Field, runs: Mapping[str, Run]) -> StudyTable:
    deviation = told.get("deviation")
    rows = []
    for row in told["rows"]:
        paper, erratum, absent = row.get("paper"), row.get("erratum"), row.get("absent")
        published, beside = row.get("published"), row.get("relative")
        rows.append(
            TableRow(
                label=row["label"].text(),
                starred=row["starred"].truth(),
                paper=paper.figures() if paper else None,
                erratum=erratum.text() if erratum else None,
                runs=_keys(row["runs"], runs),
                absent=absent.text() if absent else "",
                published=tuple(_published(each) for each in published) if published else (),
                parameters=beside["parameters"].number() if beside else None,
                cost=beside["cost"].number() if beside else None,
            )
        )
    return StudyTable(
        number=told["number"].text(),
        caption=told["caption"].text(),
        axes=told["axes"].texts(),
        rows=tuple(rows),
        deviation=deviation.figures() if deviation else None,
    )


def _published(told: Field) -> Published:
    texts = (told[name].text() for name in ("source", "table", "row", "column"))
    return Published(*texts, value=told["value"].number())


def _round(told: Field, runs: Mapping[str, Run]) -> Round:
    candidates = []
    for each in told["candidates"]:
        paper = each.get("paper")
        candidates.append(
            Candidate(each["label"].text(), _keys(each["runs"], runs), paper.figures() if paper else None)
        )
    winner, goes_on = told.get("winner"), told.get("goes_on")
    won = winner.text() if winner else None
    return Round(
        number=told["number"].whole(),
        title=told["title"].text(),
        table=told["table"].text(),
        candidates=tuple(candidates),
        winner=won,
        ties=tuple(label for label in told["ties"].texts() if label != won),
        goes_on=goes_on.text() if goes_on else None,
        verdict=told["verdict"].text(),
    )
