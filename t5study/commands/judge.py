"""The commands compare, submission and contamination: what is done with predictions, and with the rows themselves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5study.commands.asked import needs, tasks_of
from t5study.ground.errors import UserError

if TYPE_CHECKING:
    from t5study.evaluate.compare import Comparison
    from t5study.evaluate.predictions import Kept


def compare(args: argparse.Namespace) -> None:
    from t5study.evaluate import compare as room
    from t5study.ground.store import write_json

    first, second = ({one.about.task: one for one in _read([place])} for place in (args.first, args.second))
    shared = [task for task in first if task in second]
    if not shared:
        raise UserError(
            f"{args.second}: has no task that {args.first} has ({', '.join(first)[:120]}); evaluate both on one"
        )
    found = [room.compare(first[task], second[task], args.resamples) for task in shared]
    corrected = room.holm([one.p for one in found])
    found = [replace(one, holm=p) for one, p in zip(found, corrected, strict=True)]
    for one in found:
        print(_told(one))
    if alone := sorted(set(first) ^ set(second)):
        print(f"in one of the two only: {', '.join(alone)}")
    if args.out:
        write_json(args.out, [room.as_json(one) for one in found])


def _told(one: Comparison) -> str:
    counts = one.numbers[one.metric]
    said = [f"{one.metric} {counts.first:.2f} and {counts.second:.2f}"]
    low, high = counts.interval
    said.append(
        f"difference {counts.difference:+.2f} ({low:+.2f} to {high:+.2f}), p {counts.p:.4f}, Holm {one.holm:.4f}"
    )
    if one.mcnemar:
        test = one.mcnemar
        said.append(f"McNemar {test.only_first} against {test.only_second}, p {test.p:.4f}")
    if "nats" in one.numbers:
        nats = one.numbers["nats"]
        low, high = nats.interval
        said.append(f"nats a token {nats.difference:+.4f} ({low:+.4f} to {high:+.4f}), p {nats.p:.4f}")
    return f"{one.task}: {'; '.join(said)}; {one.n} examples"


def submission(args: argparse.Namespace) -> None:
    from t5study.evaluate.submission import SITES, submit

    site = SITES[args.site]
    for one in submit(site, _read(args.predictions), args.out, args.partial):
        told = f", {one.unreadable:,} unreadable, sent as the first label" if one.unreadable else ""
        print(f"{one.file}: {one.rows:,} rows{told}")
    print(f"archive for the {site.name} site: {args.out}")


def contamination(args: argparse.Namespace) -> None:
    needs(args, "task")
    from t5study.corpus.page import Drops
    from t5study.corpus.read import text_files
    from t5study.evaluate import contamination as room
    from t5study.evaluate.cache import rows_of
    from t5study.ground.store import write_json

    if bool(args.text) == bool(args.corpus):
        raise UserError("command line: give either --text or --corpus, what the rows are looked for in")
    rule = room.RULES[args.rule]
    changes = {"n": args.n, "share": args.share, "common": args.common}
    rule = replace(rule, **{name: value for name, value in changes.items() if value is not None})
    tasks = [(task, rows_of(task, args.split)) for task in tasks_of(args)]
    files = text_files(args.text or _corpus(args.corpus))
    drops = Drops()
    found = room.contamination(tasks, files.pages(drops), rule)
    for one in found:
        share = f"{one.dirty:,} of {len(one.ids):,} rows ({100 * one.dirty / len(one.ids):.1f} %) are in the corpus"
        print(
            f"{one.task}: {share} by runs of {one.n} words; {one.short:,} too short to tell{_clean(one, args.scores)}"
        )
        for example in one.examples[:1]:
            print(f"  row {example.id}: {example.run!r}, in {example.document or 'a later document'}")
    if drops.counts:
        print(f"left out of the corpus: {drops}")
    if args.out:
        corpus = {"files": len(files.files), "bytes": sum(file.size for file in files.files)}
        write_json(args.out, {"corpus": corpus, "tasks": [_report(one, args.scores) for one in found]})
        print(f"report: {args.out}")


def _corpus(folder: Path) -> list[str]:
    """The files of text in a folder that `corpus build` wrote. They are named one by one: a pattern would not do."""
    files = sorted(str(path) for path in folder.rglob("*.parquet"))
    if not files:
        raise UserError(f"{folder}: has no .parquet file; give --corpus a folder that `corpus build` wrote")
    return files


def _report(one: Any, scores: Path | None) -> dict[str, Any]:
    rows = [
        {"id": name, "share": None if share != share else float(share), "dirty": bool(dirty)}
        for name, share, dirty in zip(one.ids, one.share_N, one.dirty_N, strict=True)
    ]
    return {**one.summary(), **({"scores": _scores(one, scores)} if scores else {}), "each": rows}


def _clean(one: Any, scores: Path | None) -> str:
    if not scores:
        return ""
    parts = {name: value for name, value in _scores(one, scores).items() if value}
    told = [f"{value['value']:.2f} on the {value['n']:,} {name}" for name, value in parts.items()]
    return f"; {next(iter(parts.values()))['metric']} {', '.join(told)}"


def _scores(one: Any, scores: Path) -> dict[str, Any]:
    """The metric that counts over all rows, the clean ones and the dirty ones, from predictions."""
    from t5study.metrics import metric as metrics

    kept = [each for each in _read([scores]) if each.about.task == one.task]
    if not kept:
        raise UserError(f"{scores}: holds no predictions of {one.task}; evaluate it, too")
    about, dirty = kept[0].about, dict(zip(one.ids, one.dirty_N, strict=True))
    if missing := [each.row.id for each in kept[0].predictions if each.row.id not in dirty]:
        raise UserError(f"{scores}: found row {missing[0][:40]!r}, which the task does not have; evaluate it again")
    parts = {"rows": kept[0].predictions}
    for name, which in (("clean rows", False), ("dirty rows", True)):
        parts[name] = tuple(each for each in kept[0].predictions if bool(dirty[each.row.id]) is which)
    metric, primary = metrics.find(about.metric)
    found = {}
    for name, rows in parts.items():
        answers, groups = [each.answer for each in rows], [each.row.group for each in rows]
        value = metric.score([each.row.answers for each in rows], answers, about.labels, groups) if rows else {}
        found[name] = {"metric": primary, "value": value[primary], "n": len(rows)} if rows else None
    return found


def _read(places: Sequence[Path]) -> list[Kept]:
    """Predictions in files, or in the folders that evaluations were written to."""
    from t5study.evaluate.predictions import read_predictions

    paths = []
    for place in places:
        inside = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
        if not inside:
            raise UserError(f"{place}: has no predictions; give what `t5study evaluate --out` wrote")
        paths += inside
    return [read_predictions(path) for path in paths]
