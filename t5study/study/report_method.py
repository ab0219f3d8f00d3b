"""The report's method: settings, what differs from the paper and why, and the commands that do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

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
    out = study.folder.resolve().name
    asked = [f"--scale {shlex.quote(str(study.asked.get('scale') or study.scale_name))}"]
    for flag, key in _FLAGS:
        asked += _flag(flag, study.asked.get(key))
    asked += [f"--corpus {shlex.quote(f'{name}={pattern}')}" for name, pattern in study.asked.get("corpora") or ()]
    if study.asked.get("benchmarks"):
        asked.append("--data DATA" + " --split-missing" * bool(study.asked.get("split_missing")))
    asked.append(f"--out {shlex.quote(out)}")
    flags = " ".join(asked)
    tables = study.asked.get("tables") or [table.number for table in study.tables]
    own = study.asked.get("own") or {}
    tables = [str(number) for number in tables if number not in own.get("tables", ())]
    tables = ",".join([*tables, *([shlex.quote(str(own["address"]))] if own else [])])
    most = study.asked.get("most_seeds")
    decided = f" --until-decided --most-seeds {most}" if most else ""
    decided += f" --tables {shlex.quote(str(own['address']))}" if own and study.asked.get("own_rounds") else ""
    again = f"t5study study rounds {flags}{decided}" if study.rounds else f"t5study study run {flags} --tables {tables}"
    told = [
        ("All of it again; what is done is not done twice", again),
        ("What is missing, and what it would cost on this machine", f"t5study study plan {flags}"),
        ("Every row of a table, here Table 6", f"t5study study run {flags} --tables 6"),
    ]
    example = next((run for run in study.runs.values() if run.finetune), None)
    if example:
        folder = " ".join(shlex.quote(f"{out}/store/{one}") for one in example.finetunes)
        said = (
            f"A single run's cells, here of {example.label}, seed {example.seed}: remove its folder (the list of runs "
            "names every one's; remove the pre-training too to repeat that), then run again"
        )
        told.append((said, f"rm -r {folder} && {again}"))
    told.append(("This page", f"t5study study report --out {shlex.quote(out)}"))
    return told


_FLAGS = (("--text", "text"), ("--task", "tasks"), ("--metric", "metric"), ("--benchmarks", "benchmarks"))


def _flag(flag: str, value: Any) -> list[str]:
    if not value:
        return []
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    return [" ".join([flag, *(shlex.quote(str(each)) for each in values)])]
