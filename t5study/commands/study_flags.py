"""Flags of who builds a study's stages: workers here, or jobs of a scheduler."""

from __future__ import annotations

import argparse

from t5study.commands.flags import Parser, Whole, time


def workers(parser: Parser) -> None:
    parser.add_argument(
        "--workers", type=Whole(1, 256), help="runs side by side (default: one a core, one a GPU; with jobs: 16)"
    )


def engine(parser: Parser) -> None:
    parser.add_argument(
        "--engine",
        choices=["local", "slurm", "submitit-local"],
        default="local",
        help="who builds: workers here, a Slurm job for each stage, or such jobs here, to try them out",
    )
    parser.add_argument("--threads", type=Whole(1, 1024), help="threads of a process (default: 1)")
    parser.add_argument(
        "--ranks", type=Whole(1, 1024), default=1, help="processes, each with a GPU of its own, that share one training"
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        action="extend",
        type=option,
        metavar="NAME=VALUE",
        help="of the jobs: partition=gpu gpus_per_node=1 timeout_min=240 mem_gb=32 account=me ...",
    )


def precision(parser: Parser) -> None:
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        help="of a study's training, kept to in its folder (default: fp32 on a CPU, bf16 on a GPU)",
    )


def option(text: str) -> tuple[str, str]:
    """
    >>> option("partition=gpu")
    ('partition', 'gpu')
    """
    name, equals, value = text.partition("=")
    if not (equals and value and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, give NAME=VALUE, as partition=gpu")
    return name, value


def until_decided(parser: Parser) -> None:
    parser.add_argument(
        "--until-decided",
        action="store_true",
        help="further seeds of the candidates that cannot be told from a round's best, until one is left",
    )
    parser.add_argument("--most-seeds", type=Whole(1, 1000), help="seeds of a candidate, at most (default: 10)")
    parser.add_argument(
        "--budget", type=time, metavar="TIME", help="30min, 8h, 2d: no further seed that would end later"
    )
