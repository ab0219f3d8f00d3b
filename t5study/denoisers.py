"""The mixture of denoisers: every row corrupted in one of several ways (UL2: Tay et al. 2022, section 3.1.2).

    MixtureOfDenoisers()                                        UL2's seven, each as often
    MixtureOfDenoisers((Denoiser("R", 0.15, 3), Denoiser("X", 0.5, 12), Denoiser("S", 0.75, None, weight=2)))

An objective like those of objectives.py, which says what such a value has.

    B  rows    L  raw positions    S  source positions    T  target positions    D  denoisers
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from t5study import kernels
from t5study.ground.errors import UserError
from t5study.ground.pairs import Ids, Lengths, Pairs
from t5study.ground.seeds import splitmix

MODES = ("R", "S", "X")  # regular, sequential, extreme
_WHICH = np.uint64(0x6C62272E07BB0142)  # sets the draw of a denoiser apart from those of its noise


@dataclass(frozen=True)
class Denoiser:
    """One member of a mixture. mode: one of MODES. rate: the part of the tokens that is hidden. mean_span: mean length
    of the hidden runs; None for one run that ends the text. weight: how often it comes, beside the others."""

    mode: str
    rate: float
    mean_span: float | None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"objective: mode: found {self.mode!r}; give one of {', '.join(MODES)}")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise UserError(f"objective: weight: found {self.weight}; give a number above 0")
        if not 0 < self.rate < 1:
            raise UserError(f"objective: rate: found {self.rate}; give a number above 0 and below 1")
        if self.mean_span is not None and not (math.isfinite(self.mean_span) and self.mean_span >= 1):
            raise UserError(f"objective: mean_span: found {self.mean_span}; give a number of at least 1")

    def hidden(self, raw: int) -> tuple[int, int]:
        """(tokens, runs) that are hidden of so many, as the kernels count."""
        n = max(raw, 2)
        tokens = min(max(round(n * self.rate), 1), n - 1)
        if self.mean_span is None:
            return tokens, 1
        return tokens, min(max(round(tokens / self.mean_span), 1), tokens, n - tokens)

    def noise(self, length_B: np.ndarray, width: int, key_B: np.ndarray) -> np.ndarray:
        """Which tokens of rows of these lengths are hidden: bool (B, width)."""
        noise_BL = np.zeros((len(length_B), width), np.bool_)
        if self.mean_span is not None:
            kernels.span_noise(noise_BL, length_B, key_B, self.rate, self.mean_span)
            return noise_BL
        place_L, hidden_B = np.arange(width), np.array([self.hidden(int(n))[0] for n in length_B], dtype=np.int64)
        return (place_L >= (length_B - hidden_B)[:, None]) & (place_L < length_B[:, None])


UL2 = (
    Denoiser("R", 0.15, 3),
    Denoiser("R", 0.15, 8),
    Denoiser("S", 0.25, None),
    Denoiser("X", 0.5, 3),
    Denoiser("X", 0.5, 8),
    Denoiser("X", 0.15, 64),
    Denoiser("X", 0.5, 64),
)


@dataclass(frozen=True)
class MixtureOfDenoisers:
    """Every row is corrupted by a denoiser of its own, drawn by weight; all replace runs by sentinels, as span
    corruption does (UL2: Tay et al. 2022, section 3.1.2).

    modes: whether inputs begin with a token that says which kind of denoiser it was. That is one of the vocabulary's
    last three sentinels, so that no vocabulary has to be made anew; runs beyond the sentinels that are left stay
    unhidden. All rows are of one raw length, so those of which much is hidden have shorter inputs; packing fills up.
    """

    denoisers: tuple[Denoiser, ...] = UL2
    modes: bool = True

    concatenates = True

    def __post_init__(self) -> None:
        if not self.denoisers:
            raise UserError("objective: denoisers: found none; give at least one")

    @property
    def label(self) -> str:
        name = "mixture of denoisers" if self.denoisers == UL2 else f"mixture of {len(self.denoisers)} denoisers"
        return name if self.modes else f"{name}, no mode tokens"

    def lengths(self, input_length: int) -> Lengths:
        """
        >>> MixtureOfDenoisers().lengths(512)
        Lengths(raw=510, inputs=512, targets=341)
        """
        raw = Lengths.whole(input_length) - self.modes
        asked = [sum(denoiser.hidden(raw)) + 1 for denoiser in self.denoisers]
        return Lengths(raw, input_length, max(asked))

    def drawn(self, key_B: np.ndarray) -> np.ndarray:
        """The number of each row's denoiser."""
        upto = np.cumsum([denoiser.weight for denoiser in self.denoisers])
        part_B = (splitmix(key_B ^ _WHICH) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.searchsorted(upto / upto[-1], part_B, side="right")

    def pairs(self, raw_BL: np.ndarray, length_B: np.ndarray, key_B: np.ndarray, ids: Ids, lengths: Lengths) -> Pairs:
        spare = len(MODES) * self.modes
        if ids.sentinels <= spare:
            raise UserError(f"objective: found a vocabulary of {ids.sentinels} sentinels; mode tokens take {spare}")
        length_B, which_B = np.asarray(length_B, dtype=np.int32), self.drawn(key_B)
        noise_BL = np.zeros(raw_BL.shape, np.bool_)
        for k, denoiser in enumerate(self.denoisers):
            rows = np.flatnonzero(which_B == k)
            noise_BL[rows] = denoiser.noise(length_B[rows], raw_BL.shape[1], key_B[rows])
        # For `hide` the sentinels that stand for modes are none, but they keep their ids.
        left = Ids(size=ids.size, sentinels=ids.sentinels - spare)
        room = Lengths(lengths.raw, lengths.inputs - self.modes, lengths.targets)
        runs = kernels.UNIQUE, kernels.RUNS, True, left.size, left.sentinels
        pairs = kernels.run(kernels.hide, raw_BL, length_B, key_B, room, noise_BL, *runs)
        if not self.modes:
            return pairs
        mode_D = [ids.sentinel(ids.sentinels - spare + MODES.index(denoiser.mode)) for denoiser in self.denoisers]
        mode_B = np.array(mode_D, dtype=np.int32)[which_B]
        source_BS = np.concatenate([mode_B[:, None], pairs.source_BS], axis=1)
        return Pairs(source_BS, pairs.source_length_B + 1, pairs.target_BT, pairs.target_length_B)


def Ul2(modes: bool = True) -> MixtureOfDenoisers:
    """UL2's seven denoisers, each as often as any other."""
    return MixtureOfDenoisers(UL2, modes)
