"""A made-up study folder, as the study writes it: for tests of what reads one, and to look at a report by hand.

    python tests/study_folder.py /tmp/made-up && t5study study report --out /tmp/made-up

Row labels and the paper's figures are those of tests/paper/*.csv; our numbers are drawn from a fixed seed. It has what
a real study can have: repeated baselines, several seeds, a run that failed, a row that was not run, a row of whose two
seeds one failed, ties, unreadable answers, a column whose baselines all agree, and labels that HTML and Markdown
would read as their own.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from t5study.study.noise import gain as pretraining_gain
from t5study.study.noise import spread
from t5study.study.scores import PAPER_COLUMNS, Absent, Cell, Column, Failed, Measured, cell_json, mean_cell

PAPER = Path(__file__).parent / "paper"
TABLES = ("1", "4", "5", "6", "7")
CAPTIONS = {
    "1": "The baseline, its noise, and the same model without pre-training",
    "4": "Three disparate pre-training objectives",
    "5": "Variants of the BERT-style objective: what stands in the gaps, and what is to be said",
    "6": "Corruption rate of the i.i.d. objective",
    "7": "Mean length of the corrupted spans at a rate of 15%",
}

# A row's experiment: name -> (objective's label, how much worse its likelihood is than the baseline's, seeds).
EXPERIMENTS: dict[str, tuple[str, float, tuple[int, ...]]] = {
    "baseline": ("replace spans 15%", 0.0, (0, 1, 2)),
    "none": ("no pre-training", 0.62, (0,)),
    "prefix": ("prefix LM", 0.115, (0,)),
    "bert": ("BERT-style 15%", 0.012, (0, 1)),
    "deshuffle": ("deshuffling", 0.34, (0,)),
    "mass": ("MASS-style 15%", 0.009, (0,)),
    "drop": ("drop tokens 15%", 0.0, (0,)),
    "r10": ("replace spans 10%", 0.034, (0,)),
    "r25": ("replace spans 25%", -0.052, (0, 1)),
    "r50": ("replace spans 50%", 0.0, ()),
    "s2": ("span corruption 15%, mean length 2", -0.008, (0,)),
    "s3": ("span corruption 15%, mean length 3", -0.034, (0, 1)),
    "s5": ("span corruption 15%, mean length 5", -0.036, (0,)),
    "s10": ("span corruption 15%, mean length 10", 0.058, (0,)),
    "s3r25": ("span corruption 25%, mean length 3", -0.074, (0, 1)),
    "s5r25": ("span corruption 25%, mean length 5", -0.081, (0,)),
}
ROWS = {
    "1": ("baseline", "none"),
    "4": ("prefix", "bert", "deshuffle"),
    "5": ("bert", "mass", "baseline", "drop"),
    "6": ("r10", "baseline", "r25", "r50"),
    "7": ("baseline", "s2", "s3", "s5", "s10"),
}
TASKS = (
    ("package", "accuracy", 44.0, 300),
    ("intact", "matthews", 7.0, 300),
    ("entails", "accuracy", 55.0, 300),
    ("answer", "exact_match", 0.0, 300),
    ("summarize", "rouge1", 11.0, 200),
    ("my <b>own</b> & 試|験", "bleu", 2.5, 150),
)
PUBLISHED = [
    {
        "source": "a later paper (2022)",
        "table": "Table 9",
        "row": "spans_3 | 15%",
        "column": "XNLI acc",
        "value": 78.305,
    }
]
HOSTILE = "</script><script>alert('&')</script> | *span* `3` 25%"  # a label nobody should be able to run
VERDICT = "mean nats"


def columns() -> list[Column]:
    """Metric columns by task, their mean, likelihood columns, their mean."""
    metric = [Column(name, f"pydocs/{name}", metric, "metric", True, "%") for name, metric, _, _ in TASKS]
    nats = [Column(f"{name} nats", f"pydocs/{name}", "nats", "likelihood", False, "nats/token") for name, *_ in TASKS]
    return [
        *metric,
        Column("mean", "mean", "mean", "metric", True, "%"),
        *nats,
        Column(VERDICT, "mean", "nats", "likelihood", False, "nats/token"),
    ]


def fingerprint(name: str, seed: int) -> str:
    return xxhash.xxh3_128_hexdigest(f"{name} {seed}".encode())


def cells(name: str, seed: int) -> dict[str, Cell]:
    """The cells of one run. `drop` failed in pre-training; the second seed of `s3` in the fine-tuning of one task."""
    if name == "drop":
        return {column.name: Failed("step 37: the loss is nan") for column in columns()}
    chance = np.random.default_rng([len(name), seed, *name.encode()])
    worse = EXPERIMENTS[name][1]
    metric: dict[str, Cell] = {}
    nats: dict[str, Cell] = {}
    shared = chance.normal(0, 0.013)
    for k, (task, _, usual, n) in enumerate(TASKS):
        value = max(0.0, usual - 14 * worse + chance.normal(0, 0.9)) if usual else 0.0
        around = 0.9 * math.sqrt(n) / 6
        unreadable = int(chance.integers(0, 12)) if usual and k != 4 else 0
        metric[task] = Measured(value, n, unreadable, 400, max(0.0, value - around), value + around)
        loss = 1.9 + 0.45 * k + worse * (0.6 + 0.2 * k) + shared + chance.normal(0, 0.012)
        nats[f"{task} nats"] = Measured(loss, n, 0, 500, loss - 0.05 - 0.01 * k, loss + 0.055 + 0.01 * k)
    if (name, seed) == ("s3", 1):
        metric["entails"] = Failed("decoding ran out of memory")
        metric["intact"] = Absent("not asked for")
    return {**metric, "mean": mean_cell(list(metric.values())), **nats, VERDICT: mean_cell(list(nats.values()))}


def runs() -> dict[str, dict[str, Any]]:
    """Every run by its fingerprint, as in scores.json."""
    found = {}
    for name, (label, _, seeds) in EXPERIMENTS.items():
        for seed in seeds:
            key = fingerprint(name, seed)
            found[key] = {
                "experiment": {
                    "objective": "replace spans 15%" if name == "none" else label,
                    "architecture": "encoder_decoder",
                    "corpus": "study",
                    "pretraining": 0.0 if name == "none" else 1.0,
                    "finetuning": 1.0,
                    "mixing": "ExamplesProportional(limit=524288)",
                    "tuning": "all",
                    "seed": seed,
                },
                "label": label,
                "seed": seed,
                "cells": {column: cell_json(cell) for column, cell in cells(name, seed).items()},
                "pretrain": None if name == "none" else f"pretrain/{key}",
                "finetune": f"finetune/{key}",
                "tokens": {"pretrain": 0 if name == "none" else 4_128_768, "finetune": 1_048_576},
                "parameters": 2_132_480,
                "first_loss": 8.31 + 0.001 * seed,
            }
    return found


def paper_rows(number: str) -> dict[str, dict[str, float]]:
    """Row label (with its star) -> the paper's figures, from the transcription."""
    rows: dict[str, dict[str, float]] = {}
    with open(PAPER / f"table_{number}.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["row"], {})[row["column"]] = float(row["value"])
    return rows


def tables() -> list[dict[str, Any]]:
    told = []
    for number in TABLES:
        rows = paper_rows(number)
        deviation = rows.pop("Baseline standard deviation", None)
        told.append(
            {
                "number": number,
                "caption": CAPTIONS[number],
                "axes": ["pretraining" if number == "1" else "objective"],
                "rows": [
                    {
                        "label": label.removesuffix(" *"),
                        "starred": label.endswith(" *"),
                        "paper": figures,
                        "erratum": "made up: printed as 19.33 where 19.32 is meant" if name == "s10" else None,
                        "runs": [fingerprint(name, seed) for seed in EXPERIMENTS[name][2]],
                    }
                    | ({"published": PUBLISHED} if name == "s3" else {})
                    for (label, figures), name in zip(rows.items(), ROWS[number], strict=True)
                ],
                "deviation": deviation,
            }
        )
    return told


def _values(found: dict[str, dict[str, Any]], name: str, column: str) -> list[float]:
    return [found[fingerprint(name, seed)]["cells"][column]["value"] for seed in EXPERIMENTS[name][2]]


def noise(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation (ddof 1) of the three baseline runs."""
    return {column.name: vars(spread(_values(found, "baseline", column.name))) for column in columns()}


def gain(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    told = {}
    for column in columns():
        with_it, without = (_values(found, name, column.name) for name in ("baseline", "none"))
        brought = pretraining_gain(with_it, without, column.higher_is_better)
        told[column.name] = {**vars(brought), "above_noise": brought.above_noise}
    return told


def rounds() -> list[dict[str, Any]]:
    def candidate(name: str, paper: dict[str, float] | None = None, label: str = "") -> dict[str, Any]:
        keys = [fingerprint(name, seed) for seed in EXPERIMENTS[name][2]]
        return {"label": label or EXPERIMENTS[name][0], "runs": keys, "paper": paper}

    paper = {
        name: figures
        for number in TABLES
        for name, (label, figures) in zip(ROWS[number], paper_rows(number).items(), strict=False)
        if label != "Baseline standard deviation"
    }

    def told(
        number: int, title: str, table: str, names: tuple[str, ...], winner: str, ties: list[str], say: str
    ) -> Any:
        return {
            "number": number,
            "title": title,
            "table": table,
            "candidates": [candidate(name, paper.get(name)) for name in names],
            "winner": EXPERIMENTS[winner][0],
            "ties": [EXPERIMENTS[name][0] for name in ties],
            "goes_on": EXPERIMENTS[winner][0],
            "verdict": say,
        }

    told_of = {
        1: "BERT-style 15% wins: prefix LM and deshuffling are more than two standard deviations behind on mean nats.",
        2: "A tie: BERT-style 15% and MASS-style 15% lie within two standard deviations of replace spans 15%.",
        3: "replace spans 25% wins by more than two standard deviations; replace spans 50% was not run.",
        4: "A tie between mean lengths 3 and 5 at a rate of 25%; length 3 goes on.",
    }
    story = [
        told(1, "Which objective?", "4", ROWS["4"], "bert", [], told_of[1]),
        told(2, "Which corruption strategy?", "5", ROWS["5"], "baseline", ["bert", "mass"], told_of[2]),
        told(3, "Which corruption rate?", "6", ROWS["6"], "r25", [], told_of[3]),
        told(4, "Which span length?", "7", ("r25", "s3r25", "s5r25"), "s3r25", ["s5r25"], told_of[4]),
    ]
    last = story[-1]
    last["candidates"][1]["label"] = last["winner"] = last["goes_on"] = HOSTILE
    return story


def scores() -> dict[str, Any]:
    """scores.json as a dict."""
    found = runs()
    return {
        "format": 1,
        "scale": {
            "name": "laptop", "shape": {"d_model": 128, "encoder_layers": 2}, "pieces": 4096, "max_tokens": None,
            "source_length": 128, "pretrain_rows": 32, "pretrain_steps": 1000, "finetune_steps": 500, "seeds": 3,
        },
        "corpus": {"name": "pydocs", "documents": 48_211, "tokens": 5_310_442, "digest": "9f" * 16},
        "vocab": {"pieces": 4096, "asked": 4096, "digest": "ab" * 16},
        "tasks": [
            {
                "name": f"pydocs/{name}",
                "column": name,
                "metric": metric,
                "digest": xxhash.xxh3_128_hexdigest(name.encode()),
                "train_rows": 4000,
                "validation_rows": n,
            }
            for name, metric, _, n in TASKS
        ],
        "columns": [vars(column) for column in columns()],
        "verdict_column": VERDICT,
        "runs": found,
        "noise": noise(found),
        "gain": gain(found),
        "tables": tables(),
        "rounds": rounds(),
    }  # fmt: skip


def costs(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    each = {
        key: {
            "pretrain_s": 0.0 if run["pretrain"] is None else 41.5 + k,
            "finetune_s": 20.25 + k / 2,
            "tokens_per_s": 98_000.0 - 500 * k,
        }
        for k, (key, run) in enumerate(found.items())
    }
    return {
        "machine": "A made-up processor, 2 cores, 8 GiB, Python 3.11.7, torch 2.13.0",
        "runs": each,
        "total_s": 812.4,
    }


def write_study(out: Path, told: dict[str, Any] | None = None, journals: bool = True) -> dict[str, Any]:
    """Writes the folder and returns what its scores.json says."""
    told = told or scores()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in [
        ("scores.json", told),
        ("costs.json", costs(told["runs"])),
        (
            "study.json",
            {"scale": "laptop", "text": None, "tasks": None, "metric": None, "rounds": True, "tables": []},
        ),
    ]:
        (out / name).write_text(json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True), encoding="utf-8")
    if journals:
        for key, run in told["runs"].items():
            _journals(out / "store", key, run)
    return told


def _journals(store: Path, key: str, run: dict[str, Any]) -> None:
    chance = np.random.default_rng(list(key.encode()))
    worse = next(worse for label, worse, _ in EXPERIMENTS.values() if label == run["label"])
    failed = run["cells"][VERDICT]["state"] == "failed"
    if run["pretrain"]:
        last = 37 if failed else 1000
        steps = np.arange(1, last + 1)
        loss = 8.3 * steps**-0.12 + worse + chance.normal(0, 0.12, last)
        rows = [
            {"step": int(s), "loss": float(x), "tokens": 4096, "target_tokens": 800, "rate": 0.01}
            for s, x in zip(steps, loss, strict=True)
        ]
        _lines(store / run["pretrain"] / "journal.jsonl", rows)
    if failed:
        return
    steps = np.arange(1, 501)
    loss = 2.0 + worse + 4 * np.exp(-steps / 60) + chance.normal(0, 0.2, 500)
    _lines(
        store / run["finetune"] / "journal.jsonl",
        [{"step": int(s), "loss": float(x), "tokens": 2048} for s, x in zip(steps, loss, strict=True)],
    )
    _lines(store / run["finetune"] / "evaluations.jsonl", [_evaluation(run, step) for step in range(100, 501, 100)])


def _evaluation(run: dict[str, Any], step: int) -> dict[str, Any]:
    """A checkpoint's scores, as fine-tuning writes them."""
    told = {}
    for name, metric, _, n in TASKS:
        answers, nats = run["cells"][name], run["cells"][f"{name} nats"]["value"]
        told[f"pydocs/{name}"] = {
            "task": f"pydocs/{name}",
            "metric": metric,
            "metrics": {metric: answers.get("value", 0.0) * (0.5 + step / 1000)},
            "nats_per_token": nats + 1.3 * math.exp(-step / 110) - 1.3 * math.exp(-500 / 110),
            "intervals": {},
            "n": n,
            "unreadable": 0,
        }
    return {"step": step, "tasks": told}


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    assert set(PAPER_COLUMNS) == set(tables()[0]["rows"][0]["paper"])
    write_study(Path(sys.argv[1]))
