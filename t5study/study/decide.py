"""Until decided: who is still in the race for the best, and how many seeds the next look needs. Pure functions.

    looks      at 1, 2, 4, 8 ... seeds of every contender: a doubling spends few looks and wastes at most half its seeds
    test       is the best better than this one? Student with one deviation for all candidates, pooled over all that
               were repeated (the paper gives every variant its baseline's, section 3.1.3)
    level      5 % for a whole race: look j has a part 1 / (j (j + 1)) of it, which sums to one however many looks there
               are, and shares it among the comparisons with the best (Bonferroni)
    dropped    whoever is told from the best gets no further seed
    decided    when one is left; if the seeds run out before, those left are tied

What is controlled: that a candidate which is not the best is called the winner, in at most 5 % of races, however often
one looks; if the seeds are normal and equally noisy. Seeds of one candidate alone tell no noise, and then nobody is
dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.05


@dataclass(frozen=True)
class Until:
    """When further seeds end, decided or not. most_seeds: of a candidate (the paper ran its baseline ten times).
    seconds: of this session, None for no end; no look is begun that is not likely to end before."""

    most_seeds: int = 10
    seconds: float | None = None


@dataclass(frozen=True)
class Decision:
    """contenders: labels not told from the best, the best first. means: what each was judged by, at the last look that
    it was in. seeds: of the contenders at the last look. dropped: label -> seeds it had when it was told from the best.
    wanted: seeds that the contenders need for the next look; None where it is decided or there may be no more."""

    contenders: tuple[str, ...]
    means: Mapping[str, float]
    seeds: int
    dropped: Mapping[str, int]
    wanted: int | None

    @property
    def decided(self) -> bool:
        """Whether one is left."""
        return len(self.contenders) == 1


def looks(most: int) -> list[int]:
    """Seeds at each look.

    >>> looks(10), looks(1)
    ([1, 2, 4, 8, 10], [1])
    """
    told = [2**j for j in range(64) if 2**j < most]
    return [*told, most]


def decide(
    values: Mapping[str, Sequence[float | None]],
    most: int,
    repeated: Mapping[str, Sequence[float]] = {},
    higher_is_better: bool = True,
    level: float = LEVEL,
) -> Decision:
    """Plays the looks through on what is there. values: label -> its numbers, seed by seed, None for a seed that
    failed; a candidate without any number is no contender. repeated: numbers of experiments that every study repeats
    (the baseline), by label: they tell the noise from the first look on, and of a candidate its mean.

    >>> race = {"a": [3.0, 3.1], "b": [3.4, 3.5], "c": [9.0]}
    >>> found = decide(race, most=4, repeated={"baseline": [5.0, 5.1, 5.2]}, higher_is_better=False)
    >>> found.contenders, found.seeds, dict(found.dropped), found.wanted
    (('a', 'b'), 2, {'c': 1}, 4)
    """
    sign = 1 if higher_is_better else -1
    left = [label for label, told in values.items() if any(value is not None for value in told)]
    means, dropped, seeds = dict[str, float](), dict[str, int](), 0
    known: dict[str, Sequence[float]] = {}
    for j, n in enumerate(looks(most), 1):
        if not left or (j > 1 and any(len(values[label]) < n for label in left)):
            return Decision(tuple(left), means, seeds, dropped, n if left else None)
        seeds = n
        for label in left:
            at_hand = [value for value in values[label][:n] if value is not None]
            known[label] = max(at_hand or known.get(label) or _first(values[label]), repeated.get(label, ()), key=len)
            means[label] = math.fsum(known[label]) / len(known[label])
        left.sort(key=lambda label: -sign * means[label])  # equals stay in their order
        best, *rest = left
        needed = level / (j * (j + 1) * max(1, len(values) - 1))
        noise = pooled([*({**repeated, **known}).values()])
        for label in rest:
            behind = sign * (means[best] - means[label])
            if chance(behind, len(known[best]), len(known[label]), noise) <= needed:
                dropped[label] = n
        left = [label for label in left if label not in dropped]
        if len(left) == 1:
            return Decision(tuple(left), means, seeds, dropped, None)
    return Decision(tuple(left), means, seeds, dropped, None)


def _first(told: Sequence[float | None]) -> list[float]:
    return [value for value in told if value is not None][:1]


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Deviation within groups, and its degrees of freedom: what all repeated candidates say of one common noise.

    >>> pooled([[1.0, 3.0], [10.0, 12.0], [5.0]])
    (1.4142135623730951, 2)
    """
    squares, freedom = 0.0, 0
    for group in groups:
        if len(group) > 1:
            mean = math.fsum(group) / len(group)
            squares += math.fsum((value - mean) ** 2 for value in group)
            freedom += len(group) - 1
    return (math.sqrt(squares / freedom) if freedom else 0.0), freedom


def chance(behind: float, n: int, m: int, noise: tuple[float, int]) -> float:
    """p, one-sided: how often means of n and m seeds lie so far apart with nothing behind it. 1 where no noise is
    known, or numbers agree to the last digit: no spread is not a spread of zero."""
    std, freedom = noise
    if not freedom or std == 0:
        return 1.0
    return float(stats.t.sf(behind / (std * math.sqrt(1 / n + 1 / m)), freedom))


def sentence(found: Decision, column: str, level: float = LEVEL) -> str:
    """What the race came to, for people.

    >>> race = {"a": [3.0, 3.1], "b": [3.4, 3.5], "c": [9.0]}
    >>> sentence(decide(race, 2, {"baseline": [5.0, 5.1, 5.2]}, higher_is_better=False), "mean nats")
    'A tie on mean nats after 2 seeds: b cannot be told from a, the best with 3.05 (Student, 5 % for the whole race).'
    """
    best, *rest = found.contenders
    how = f"(Student, {100 * level:g} % for the whole race)"
    seeds = f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"
    if found.decided:
        last = max(found.dropped.values(), default=0)
        told = f"every other is told from it after {last} seed{'' if last == 1 else 's'}" if last else "it is alone"
        return f"{best} wins on {column} with {found.means[best]:.4g}: {told} {how}."
    listed = rest[0] if len(rest) == 1 else f"{', '.join(rest[:-1])} and {rest[-1]}"
    return (
        f"A tie on {column} after {seeds}: {listed} cannot be told from {best}, the best with "
        f"{found.means[best]:.4g} {how}."
    )
