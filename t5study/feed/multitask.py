"""Multi-task training: which tasks stand in one mixture with the text itself, and what is known of their rates.

    multitask()                         every task of the seven benchmarks, and the unlabeled task (section 3.5.2)
    multitask(left_out="glue")          leave-one-out: a benchmark is left out as a whole; there are seven of them
    multitask(unlabeled=False)          supervised-only (section 3.5.3)
    multitask_mixing(Temperature(2, 2**21))      RTE, which both benchmarks have, counts half in each

    scaled(ExamplesProportional(2**19), sizes, names)            a limit for sets of other sizes than the paper's
    Final("base")                       how T5-Base itself was pre-trained on text and tasks (section 3.7)

The unlabeled task is pre-training's objective on text: a DocumentSource beside the tasks' PairSources. It has no size
of its own (no text is read twice), so it is given one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from t5study.feed.mixing import Equal, ExamplesProportional, Rule, Temperature
from t5study.feed.named import Adjusted, Mixing
from t5study.ground.errors import UserError
from t5study.tasks.benchmarks import BENCHMARKS, find_benchmark

UNLABELED = "unlabeled"
UNLABELED_SIZE = 1_000_000  # the official default of co-training
TWICE = ("glue/rte", "superglue/rte")  # the same rows under two prompts
# Section 3.7: so large a part of text as each of the final models was given, so that the larger ones do not overfit.
FINAL_SIZES = {"small": 710_000, "base": 2_620_000, "large": 8_660_000, "3b": 33_500_000, "11b": 133_000_000}
UNLIMITED = 2**40  # no task has so many rows; as the size of the unlabeled task, the rule's limit alone decides
LARGEST_LIMIT = 2**21  # of Table 11's


def multitask(left_out: str = "", unlabeled: bool = True) -> tuple[str, ...]:
    """Names of the members, in the order of the tables' columns, the unlabeled task last. left_out: a benchmark's
    name or column. UserError if there is no such benchmark.

    >>> len(multitask()), len(multitask(left_out="glue")), multitask(left_out="glue")[-1]
    (23, 15, 'unlabeled')
    """
    gone = find_benchmark(left_out) if left_out else None
    members = [name for one in BENCHMARKS.values() if one != gone for name, _ in one.training]
    return (*members, UNLABELED) if unlabeled else tuple(members)


def leave_one_out() -> dict[str, tuple[str, ...]]:
    """The seven mixtures of Table 12's leave-one-out row, by the benchmark that is missing.

    >>> list(leave_one_out())
    ['glue', 'cnndm', 'squad', 'superglue', 'ende', 'enfr', 'enro']
    """
    return {name: multitask(left_out=name) for name in BENCHMARKS}


def multitask_mixing(rule: Mixing, unlabeled_size: float = UNLABELED_SIZE) -> Adjusted:
    """A rule for all tasks at once: the unlabeled task counts as `unlabeled_size` examples (which a rule's limit cuts
    like any other's), and each RTE half.

    >>> mixing = multitask_mixing(ExamplesProportional(2**19))
    >>> mixing.rates([2490, 2490, 10**9], ["glue/rte", "superglue/rte", "unlabeled"]).round(5).tolist()
    [0.00236, 0.00236, 0.99527]
    """
    return Adjusted(rule, sizes=((UNLABELED, unlabeled_size),), factors=tuple((name, 0.5) for name in TWICE))


@dataclass(frozen=True)
class Final(Rule):
    """How a final model of section 3.7 was pre-trained on text and tasks (`final_mixing`), as one value. size: "small",
    "base", "large", "3b", "11b"."""

    size: str

    def __post_init__(self) -> None:
        final_mixing(self.size)

    @property
    def label(self) -> str:
        return f"mixed as for the final {self.size} model"

    def weights(self, sizes_M: np.ndarray, names: Sequence[str]) -> np.ndarray:
        return final_mixing(self.size).weights(sizes_M, names)


def scaled(
    rule: ExamplesProportional | Temperature | Equal | Final, sizes: Sequence[int], names: Sequence[str]
) -> ExamplesProportional | Temperature | Equal | Adjusted:
    """A rule of the paper for the sets that are here, which may be parts of the official ones, or others.

    A limit counts examples of the official sets. It is multiplied by the rows here over those of the official sets of
    these names, none counted above the largest limit of Table 11; where one name is of no official set, over those of
    all seven benchmarks. On the official files that is 1, elsewhere it leaves the unlabeled task about the share it had
    in the paper. So are the final models' virtual size of the text and their caps. sizes, names: of the supervised
    members.

    >>> cola, sst2 = 8_551, 67_349
    >>> scaled(ExamplesProportional(2**16), [cola, sst2], ["glue/cola", "glue/sst2"]).limit == 2**16
    True
    >>> scaled(ExamplesProportional(2**16), [cola // 100, sst2 // 100], ["glue/cola", "glue/sst2"]).limit
    654
    >>> scaled(Final("base"), [cola // 100, sst2 // 100], ["glue/cola", "glue/sst2"]).sizes
    (('unlabeled', 26165),)
    """
    if isinstance(rule, Equal):
        return rule
    if isinstance(rule, Final):
        final = final_mixing(rule.size)
        part = _part_here(sizes, names, dict(final.caps))
        virtual, caps = (
            tuple((name, max(1, round(size * part))) for name, size in told) for told in (final.sizes, final.caps)
        )
        return replace(final, sizes=virtual, caps=caps)
    return replace(rule, limit=max(1, round(rule.limit * _part_here(sizes, names, {}))))


def _part_here(sizes: Sequence[int], names: Sequence[str], caps: Mapping[str, float]) -> float:
    """Rows here over those of the official sets, none counted above its cap, or above the largest limit."""

    def rows(told: Mapping[str, float]) -> float:
        return sum(min(size, caps.get(name, LARGEST_LIMIT)) for name, size in told.items())

    official = dict(member for one in BENCHMARKS.values() for member in one.training)
    known = {name: official[name] for name in names} if official.keys() >= set(names) else official
    return rows(dict(zip(names, sizes, strict=True))) / rows(known)


def final_mixing(size: str) -> Adjusted:
    """How the final models of section 3.7 were pre-trained on text and tasks: examples-proportional with a virtual
    size for the text, English to German and to French cut at a million. UserError for a size there was none of.

    >>> final_mixing("small").rates([1, 40_853_137], ["unlabeled", "wmt/enfr"]).round(3).tolist()
    [0.415, 0.585]
    """
    if size not in FINAL_SIZES:
        raise UserError(f"mixing: found {size!r}; give one of {', '.join(FINAL_SIZES)}")
    return Adjusted(
        ExamplesProportional(UNLIMITED),
        sizes=((UNLABELED, FINAL_SIZES[size]),),
        caps=(("wmt/ende", 1_000_000), ("wmt/enfr", 1_000_000)),
        factors=tuple((name, 0.5) for name in TWICE),
    )
