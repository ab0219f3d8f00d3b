"""Benchmarks: what is fine-tuned on together and averaged into one column of the paper's tables.

    GLUE.average({"glue/cola": 53.84, ...})     the number in the GLUE column
    GLUE.training, GLUE.rates                   what its one mixture is made of, and how often each member comes
    find_benchmark("superglue")                 by name or by column

The paper fine-tunes a pre-trained model seven times (section 2.4: GLUE is one mixture of its data sets, SuperGLUE with
DPR another, the rest alone), so a table has seven columns. An average is taken over groups, and within a group over
its members: MNLI's two validation sets count as one task. A task whose metric is two numbers (MRPC, QQP, STS-B, CB,
MultiRC, ReCoRD) brings their mean as its own value. All 68 rows of the paper's Table 16 were taken through this.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from t5study.ground.errors import UserError


@dataclass(frozen=True)
class Benchmark:
    """name: for commands. column: its heading in the paper's tables. members: addresses of the tasks that are scored,
    in groups; the average is over groups. training: (address, rate) of the tasks that are trained on, with the fixed
    rates of the official mixtures (the sizes of the training sets). source_length, target_length: tokens of a row, EOS
    counted, of the official configurations.

    >>> GLUE.tasks[:2], GLUE.training[0]
    (('glue/cola', 'glue/sst2'), ('glue/cola', 8551))
    >>> ENDE.average({"wmt/ende": 26.98})
    26.98
    """

    name: str
    column: str
    members: tuple[tuple[str, ...], ...]
    training: tuple[tuple[str, int], ...]
    source_length: int
    target_length: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """Addresses of the scored tasks, in order."""
        return tuple(address for group in self.members for address in group)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of all tasks: the scored ones, then those that only train (DPR)."""
        return (*self.tasks, *(address for address, _ in self.training if address not in self.tasks))

    @property
    def rates(self) -> dict[str, int]:
        """The official rate of every task: 0 for those that are only scored."""
        return dict.fromkeys(self.addresses, 0) | dict(self.training)

    def average(self, values: Mapping[str, float]) -> float:
        """The tasks' own values, by address and in per cent -> the benchmark's. UserError if one is missing, since a
        mean over other tasks would be another column.

        >>> MNLI_ALONE = replace(GLUE, members=(("glue/mnli_matched", "glue/mnli_mismatched"), ("glue/rte",)))
        >>> MNLI_ALONE.average({"glue/mnli_matched": 84.0, "glue/mnli_mismatched": 85.0, "glue/rte": 76.0})
        80.25
        """
        if missing := [address for address in self.tasks if address not in values]:
            raise UserError(f"{self.name}: found no score of {', '.join(missing)}; evaluate these, too")
        groups = [math.fsum(values[address] for address in group) / len(group) for group in self.members]
        return math.fsum(groups) / len(groups)


def _alone(name: str, column: str, address: str, size: int, target_length: int) -> Benchmark:
    return Benchmark(name, column, ((address,),), ((address, size),), 512, target_length)


GLUE = Benchmark(
    name="glue",
    column="GLUE",
    members=(
        ("glue/cola",),
        ("glue/sst2",),
        ("glue/mrpc",),
        ("glue/stsb",),
        ("glue/qqp",),
        ("glue/mnli_matched", "glue/mnli_mismatched"),
        ("glue/qnli",),
        ("glue/rte",),
    ),
    training=(
        ("glue/cola", 8_551),
        ("glue/sst2", 67_349),
        ("glue/mrpc", 3_668),
        ("glue/qqp", 363_849),
        ("glue/stsb", 5_749),
        ("glue/mnli_matched", 392_702),
        ("glue/qnli", 104_743),
        ("glue/rte", 2_490),
    ),
    source_length=512,
    target_length=84,
)

# What the site averages on the test sets (Table 14): WNLI is scored there, though never trained on.
GLUE_TEST = replace(GLUE, members=(*GLUE.members, ("glue/wnli",)))

SUPERGLUE = Benchmark(
    name="superglue",
    column="SGLUE",
    members=(
        ("superglue/boolq",),
        ("superglue/cb",),
        ("superglue/copa",),
        ("superglue/multirc",),
        ("superglue/record",),
        ("superglue/rte",),
        ("superglue/wic",),
        ("superglue/wsc",),
    ),
    training=(
        ("superglue/dpr", 1_322),  # joins WSC, whose positives are few
        ("superglue/wsc", 259),  # the positives alone
        ("superglue/boolq", 9_427),
        ("superglue/cb", 250),
        ("superglue/copa", 400),
        ("superglue/multirc", 27_243),  # answers, each an example
        ("superglue/record", 138_854),  # one example a gold answer
        ("superglue/rte", 2_490),
        ("superglue/wic", 5_428),
    ),
    source_length=512,
    target_length=62,
)

SQUAD = _alone("squad", "SQuAD", "squad/v1", 87_599, 97)
CNNDM = _alone("cnndm", "CNNDM", "cnndm/summarize", 287_113, 512)
ENDE = _alone("ende", "EnDe", "wmt/ende", 4_500_966, 512)
ENFR = _alone("enfr", "EnFr", "wmt/enfr", 40_853_137, 512)
ENRO = _alone("enro", "EnRo", "wmt/enro", 610_320, 512)

BENCHMARKS = {one.name: one for one in (GLUE, CNNDM, SQUAD, SUPERGLUE, ENDE, ENFR, ENRO)}  # in the tables' order


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name or column. UserError, with the nearest name, if there is none.

    >>> find_benchmark("SGLUE").name, find_benchmark("EnRo").name
    ('superglue', 'enro')
    """
    wanted = name.strip().lower()
    for one in BENCHMARKS.values():
        if wanted in (one.name, one.column.lower()):
            return one
    near = difflib.get_close_matches(wanted, BENCHMARKS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(BENCHMARKS)}"
    raise UserError(f"benchmark: found {name[:40]!r}; {hint}")
