"""Commands of the search itself: study plan, run, rounds, status, report."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from t5study.commands.asked import words_of

if TYPE_CHECKING:
    from t5study.study.asked import Asked
    from t5study.study.decide import Until
    from t5study.study.engine import Engine

_SCALE = "laptop"


def plan(args: argparse.Namespace) -> None:
    from t5study.ground.errors import UserError
    from t5study.study import planned

    if args.peak is None and (args.devices or args.utilisation or args.memory):
        raise UserError("--devices, --utilisation, --memory: found without --peak; give the TFLOP/s of a device too")
    given = args.peak and planned.Given(args.peak, args.utilisation or 0.4, args.devices or 1, args.memory)
    how = (args.workers, args.tables, given, args.price_per_hour)
    if args.budget:
        print(planned.fitted(_asked(args), args.out, args.budget, *how, args.scale, precision=args.precision))
    else:
        keep = args.out is not None
        print(planned.plan(_asked(args), _folder(args), *how, keep=keep, precision=args.precision))


def run(args: argparse.Namespace) -> None:
    from t5study.study import report, runner

    runner.run_tables(_asked(args), _folder(args), tables=args.tables, engine=_engine(args))
    print(f"report: {report.write_report(_folder(args))}")


def rounds(args: argparse.Namespace) -> None:
    from t5study.study import report, search
    from t5study.study.own import for_rounds

    asked = replace(_asked(args), own=for_rounds(args.tables))
    print(search.run_rounds(asked, _folder(args), until=_until(args), engine=_engine(args)))
    print(f"report: {report.write_report(_folder(args))}")


def _until(args: argparse.Namespace) -> Until | None:
    from t5study.ground.errors import UserError
    from t5study.study.decide import Until

    if args.until_decided:
        return Until(args.most_seeds or Until.most_seeds, args.budget)
    if args.most_seeds or args.budget is not None:
        raise UserError("--most-seeds, --budget: found without --until-decided, which they are for; give it too")
    return None


def status(args: argparse.Namespace) -> None:
    import json

    from t5study.study import promised
    from t5study.study import status as room

    found = room.look(args.folder)
    if args.json:
        print(json.dumps(room.as_json(found) | promised.told(args.folder), indent=1, ensure_ascii=False))
    else:
        print("\n".join([room.text(found), *promised.lines(args.folder)]))


def report(args: argparse.Namespace) -> None:
    from t5study.study import report as room

    print(f"report: {room.write_report(args.out)}")


def _folder(args: argparse.Namespace) -> Path:
    return args.out or Path(f"study-{args.scale or _SCALE}")


def _engine(args: argparse.Namespace) -> Engine:
    from t5study.study.engine import Engine

    return Engine(args.engine, args.workers, args.threads, args.ranks, tuple(args.slurm or ()), args.precision)


def _asked(args: argparse.Namespace) -> Asked:
    from t5study.study.asked import Asked

    return Asked(
        args.scale or _SCALE,
        args.text,
        words_of(args.task) if args.task else None,
        args.metric,
        args.benchmarks,
        args.data,
        args.split_missing,
        args.corpus,
    )
