"""Dropout as mesh has it: one mask a row, shared along the sequence; the attention weights' is shared by all queries.

So a mask is as wide as the model, not as wide as the text: drawing it costs nothing, and applying it is one factor in
a loop that runs anyway. In attention, dropping a key's weight for every query is dropping the key's value.

The bits are counted, not drawn in turn: a function of (seed, step, row of the step's whole batch, site, place). Two
micro-batches get the masks that the whole batch would have got, and a step that is run again gets them again.

    B  rows    W  width of a site: d_model, d_ff, or positions * heads
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from t5study.ground import seeds
from t5study.ground.errors import UserError
from t5study.model.shapes import Shape

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Dropout:
    """rate: the share of numbers set to 0 (to the nearest 1/65536); the others are divided by 1 - rate.
    first_row: where in the step's whole batch this micro-batch begins."""

    rate: float
    seed: int
    step: int
    first_row: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise UserError(f"dropout: found {self.rate}; give a number from 0 to below 1")

    @property
    def threshold(self) -> int:
        """Of 65536 equally likely draws, how many drop."""
        return min(round(self.rate * 65536), 65535)

    @property
    def scale(self) -> float:
        """What is kept is multiplied by this."""
        return 65536 / (65536 - self.threshold)

    def masks(self, rows: int, sites: dict[str, int], device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """A (rows, width) float32 mask of 0 and `scale` for each site, given its width.

        The place w of a site gets the same bits however wide the site is.
        """
        row_B = self.first_row + np.arange(rows, dtype=np.uint64)
        key_B = seeds.keys(self.seed, f"dropout {self.step}", row_B)
        mask_BW = np.empty((rows, sum(sites.values())), np.float32)
        width_S = np.array(list(sites.values()), np.int64)
        name_S = np.array([seeds.key(0, name) for name in sites], np.uint64)
        _fill(mask_BW, key_B, name_S, width_S, self.threshold, np.float32(self.scale))
        parts = torch.from_numpy(mask_BW).to(device, non_blocking=True).split(list(sites.values()), dim=1)
        return dict(zip(sites, parts, strict=True))


@njit(cache=True, nogil=True)
def _fill(mask_BW, key_B, name_S, width_S, threshold, scale):
    for b in range(mask_BW.shape[0]):
        w = 0
        for s in range(len(name_S)):
            state = key_B[b] ^ name_S[s]
            end = w + width_S[s]
            while w < end:
                state += _GOLDEN
                bits = state
                bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
                bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
                bits = bits ^ (bits >> np.uint64(31))
                for _ in range(min(4, end - w)):  # four draws of 16 bits
                    mask_BW[b, w] = scale if np.int64(bits & np.uint64(0xFFFF)) >= threshold else np.float32(0)
                    bits = bits >> np.uint64(16)
                    w += 1


def sites(shape: Shape, source: int, target: int, architecture: str = "encoder_decoder") -> dict[str, int]:
    """Where mesh drops, and how wide: after each embedding, on attention's weights, on the feed-forward's and the
    adapter's hidden layer, on what a sub-layer adds, and after each stack's final norm. source, target: positions in a
    row, of a language model's joined sequence in `target`.

    Two stacks of the same weights have masks of their own, as mesh draws them anew wherever a layer is called.
    """
    alone = architecture in ("language_model", "prefix_lm")
    stacks = [] if alone else [("encoder", shape.encoder_layers, source)]
    found = {}
    for stack, layers, own in (*stacks, ("decoder", shape.decoder_layers, target)):
        found[f"{stack}.embedding"] = shape.d_model
        for i in range(layers):
            name = f"{stack}.layers.{i}"
            found[f"{name}.attention.weights"] = own * shape.heads
            found[f"{name}.attention"] = shape.d_model
            if stack == "decoder" and not alone:
                found[f"{name}.cross.weights"] = source * shape.heads
                found[f"{name}.cross"] = shape.d_model
            found[f"{name}.feed.hidden"] = shape.d_ff
            found[f"{name}.feed"] = shape.d_model
            if shape.adapter:
                found[f"{name}.adapter.hidden"] = shape.adapter
                found[f"{name}.adapter"] = shape.d_model
        found[f"{stack}.norm"] = shape.d_model
    return found
