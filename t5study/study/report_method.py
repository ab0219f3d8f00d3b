"""The report's method: settings, what differs from the paper and why, and the commands that do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t5study.study.asked import Asked
from t5study.study.findings import model_size
from t5study.study.report_input import Study
from t5study.study.report_numbers import count, listed, plural
from t5study.study.report_text import text_name


def settings(value: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested settings, flat and readable.

    >>> settings({"shape": {"d_model": 128}, "max_tokens": None})
    [('shape d model', '128'), ('max tokens', 'no limit')]
    """
    told = []
    for key, each in value.items():
        name = f"{before} {key}".strip().replace("_", " ")
        if isinstance(each, Mapping):
            told += settings(each, name)
        else:
            whole = isinstance(each, int) and not isinstance(each, bool)
            told.append((name, "no limit" if each is None else f"{each:,}" if whole else str(each)))
    return told


def differences(study: Study) -> list[tuple[str, str, str, str]]:
    """What, the paper, here, why."""
    runs = [run for run in study.runs.values() if run.pretrain]
    tokens = max((run.tokens.get("pretrain", 0) for run in runs), default=0)
    size = model_size(study)
    noise = study.noise.get(study.verdict_column)
    model = f"{count(size)} parameters" if size else "see the scale"
    read = f"{count(tokens)} tokens" if tokens else "see the scale"
    told = [
        ("Text", "C4, 745 GB", f"{text_name(study)}, {count(study.corpus.get('tokens', 0))} tokens", _GIVEN),
        ("Model", "220 million parameters", model, "compute"),
        ("Pre-training", "34.4 billion tokens", read, "compute"),
        ("Vocabulary", "32,000 pieces, four languages", f"{study.vocab.get('pieces', 0):,} pieces", "text and model"),
        ("Tasks", "GLUE, SuperGLUE, SQuAD, CNN/DM, WMT", _tasks(study), _GIVEN),
        (
            "Fine-tuning",
            "seven runs a model; GLUE and SuperGLUE each one mixture",
            _finetuning(study),
            "as the paper" if study.benchmarks else "compute",
        ),
        ("Score", "the tasks' metrics", f"metrics and likelihood; verdicts on {study.verdict_column}", _SENSITIVE),
        ("Noise", "ten baseline runs", plural(noise.runs if noise else 1, "baseline run"), "compute"),
    ]
    if own := study.asked.get("own"):
        told.append(("Tables", "1, 2, 4 to 15", f"those of {own.get('address')}, xxh3 {own.get('digest')}", _GIVEN))
    if study.rounds:
        told.append(("Search", "each factor against the baseline, then a choice", "rounds; each choice goes on", _RULE))
    return told


def _tasks(study: Study) -> str:
    if not study.benchmarks:
        return listed(str(task["column"]) for task in study.tasks)
    there = [one.column for one in study.benchmarks if one.groups]
    return f"{listed(there)}{', not all of them official (see below)' * any(one.notes for one in study.benchmarks)}"


def _finetuning(study: Study) -> str:
    if not study.benchmarks:
        return "one mixture of all tasks"
    runs = sum(bool(one.groups) for one in study.benchmarks)
    return f"{plural(runs, 'run')} a model, one a benchmark; members of a benchmark in proportion to the rows there are"


def unofficial(study: Study) -> list[tuple[str, str, str]]:
    """(column, task, what is not official about it) of every benchmark; of one that could not be run, why."""
    told = []
    for one in study.benchmarks:
        if one.absent:
            told.append((one.column, "", f"not measured: {one.absent}"))
        told += [(one.column, task, note) for task, note in one.notes]
    return told


_GIVEN = "what this study was given"
_SENSITIVE = "with little compute, answers stay noise longer than likelihood does"
_RULE = "the paper's order, but by a rule"


def rerun(study: Study) -> list[tuple[str, str]]:
    """(what for, command line), for the folder that holds the study's."""
    out, own = study.folder.resolve().name, study.asked.get("own") or {}
    precision = study.asked.get("precision")
    flags = [*_asked(study).words(), "--out", out, *(["--precision", str(precision)] if precision else [])]
    numbers = [str(number) for number in study.asked.get("tables") or [table.number for table in study.tables]]
    address = [str(own["address"])] if own else []
    tables = [*(number for number in numbers if number not in own.get("tables", ())), *address]
    most = study.asked.get("most_seeds")
    decided = ["--until-decided", "--most-seeds", str(most)] if most else []
    decided += ["--tables", *address] if own and study.asked.get("own_rounds") else []
    again = _line("rounds", *flags, *decided) if study.rounds else _line("run", *flags, "--tables", ",".join(tables))
    told = [
        ("All of it again; what is done is not done twice", again),
        ("What is missing, and what it would cost on this machine", _line("plan", *flags)),
        ("Every row of a table, here Table 6", _line("run", *flags, "--tables", "6")),
    ]
    example = next((run for run in study.runs.values() if run.finetune), None)
    if example:
        folder = " ".join(shlex.quote(f"{out}/store/{one}") for one in example.finetunes)
        said = (
            f"A single run's cells, here of {example.label}, seed {example.seed}: remove its folder (the list of runs "
            "names every one's; remove the pre-training too to repeat that), then run again"
        )
        told.append((said, f"rm -r {folder} && {again}"))
    told.append(("This page", _line("report", "--out", out)))
    return told


def _asked(study: Study) -> Asked:
    """As study.json has it, which does not say where the benchmarks' files lie."""
    typed = {name: study.asked.get(name) for name in ("text", "tasks", "metric", "benchmarks", "corpora")}
    scale = str(study.asked.get("scale") or study.scale_name)
    data = Path("DATA") if typed["benchmarks"] else None
    return Asked(scale, data=data, split_missing=bool(study.asked.get("split_missing")), **typed)


def _line(command: str, *words: str) -> str:
    return shlex.join(["t5study", "study", command, *words])
