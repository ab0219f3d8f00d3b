"""Adafactor as T5 has it (Shazeer and Stern 2018; mesh_tensorflow/optimize.py, t5/models/gin/defaults.gin).

For the t-th update (t = 1, 2, ...) of a weight p with gradient g:

    b2 = 1 - t^-0.8
    v  = b2 v + (1 - b2) (g^2 + 1e-30)           a running mean of the squared gradient
    u  = g / sqrt(v)
    u  = u / max(1, RMS(u))                      its size is clipped at 1
    p  = p - rate * max(RMS(p), 1e-3) * u        the step is relative to the weight's own size

No momentum, no weight decay. A weight whose two largest sides are both at least 128 keeps of v only the means over
each of the two (`rows` and `columns`; v is then rows x columns / mean(rows)), so the state of a large matrix is two
vectors. The others, the relative-bias table and every matrix of a very small model among them, keep all of v.

A bfloat16 weight has 8 bits: at RMS 0.05 its neighbours are 0.0002 apart, and an update of a thousandth of its size
would mostly round to nothing. So it is rounded at random, up as often as the remainder asks for, which is right on
average; the draws are a function of (seed, update, name of the weight).

Two ways to the same numbers. On a CPU, loops compiled by numba read a gradient twice or three times and write
nothing in between: in torch's own operators every line above is a pass over memory. Elsewhere (a GPU, a weight of
three sides) torch's _foreach operators, one launch for many weights, without waiting for the device.

    R  rows of a matrix    C  columns
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from t5study.ground import seeds

# Sums may be taken in any order (that is what lets them run eight lanes wide), and division by zero is IEEE's, not an
# exception; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz"}
_loop = njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
# A loop called by a loop is inlined into it. Called, it would be compiled twice, on its own and within its caller, with
# sums in other orders; the process that compiles them would link the first and one that loads them from numba's cache
# the second: runs would differ in a last digit.
_part = njit(forceinline=True, error_model="numpy", fastmath=_FAST)

_AT_ONCE = 1 << 26  # numbers whose updates torch's operators make in one go: 256 MiB
_BLOCK = 4096  # numbers summed in float32 before they join a float64 sum


@dataclass(frozen=True)
class Rule:
    """decay: b2 = 1 - t^-decay. epsilon: added to squared gradients. clip: the largest RMS of an update. smallest:
    the least RMS a weight is given when its step is measured. min_dim_to_factor: see above."""

    decay: float = 0.8
    epsilon: float = 1e-30
    clip: float = 1.0
    smallest: float = 1e-3
    min_dim_to_factor: int = 128

    def sides(self, shape: Iterable[int]) -> tuple[int, int] | None:
        """The two dimensions whose means are kept, in ascending order, or None if all of v is."""
        shape = list(shape)
        if len(shape) < 2:
            return None
        smaller, larger = sorted(range(len(shape)), key=lambda i: shape[i])[-2:]
        if shape[smaller] < self.min_dim_to_factor:
            return None
        return min(smaller, larger), max(smaller, larger)


class _Looped(NamedTuple):
    """A weight that a loop updates: the updates that came before its first, the address it had, and arrays on its own
    and its state's memory."""

    done: int
    parameter: nn.Parameter
    address: int
    value: np.ndarray
    state: list[np.ndarray]


class AdafactorOptimizer:
    """The state of Adafactor for some named weights, and the update."""

    def __init__(self, rule: Rule, weights: Mapping[str, nn.Parameter], native: bool | None = None, seed: int = 0):
        """native: False for torch operators throughout, to compare; by default loops where they can be used. seed: of
        how bfloat16 weights are rounded."""
        self.rule, self.native, self.seed, self.count = rule, native, seed, 0
        self.weights: dict[str, nn.Parameter] = {}
        self.state: dict[str, dict[str, Tensor]] = {}
        self._looped: dict[str, _Looped] = {}
        self._others: dict[int, list[str]] = {}  # by the updates that came before their first
        self.admit(weights, 0)

    def admit(self, weights: Mapping[str, nn.Parameter], done: int) -> None:
        """Takes in more weights, after `done` updates of the others. For them t is 1 at the next."""
        for name, p in weights.items():
            self.weights[name] = p
            sides = self.rule.sides(p.shape)
            if sides is None:
                state = {"square": torch.zeros(p.shape, device=p.device)}
            else:
                state = {
                    "rows": torch.zeros(_without(p.shape, sides[1]), device=p.device),
                    "columns": torch.zeros(_without(p.shape, sides[0]), device=p.device),
                }
            self.state[name] = state
            fits = p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous()
            if self.native is not False and fits and (sides is None or p.ndim == 2):
                value = p.detach() if sides else p.detach().view(-1)
                arrays = [s.view(-1).numpy() for s in state.values()]
                self._looped[name] = _Looped(done, p, p.data_ptr(), value.numpy(), arrays)
            else:
                self._others.setdefault(done, []).append(name)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients that are there; a weight without one stays as it is, its state too."""
        self.count += 1
        for name in self._looped:
            self._step_by_loop(name, rate)
        for done, names in self._others.items():
            for some in self._grouped(names):
                self._step_by_torch(some, rate, self._new(done))

    def _grouped(self, names: Iterable[str]) -> Iterator[list[str]]:
        """Weights a few at a time: an update in the making is as large as its weights."""
        group: list[str] = []
        for name in names:
            if group and sum(self.weights[one].numel() for one in (*group, name)) > _AT_ONCE:
                yield group
                group = []
            group.append(name)
        if group:
            yield group

    @torch.no_grad()
    def step_one(self, name: str, rate: float) -> None:
        """One weight's part in the update that `count` says: the same bytes, whenever the weights take their turns."""
        if name in self._looped:
            self._step_by_loop(name, rate)
            return
        done = next(done for done, names in self._others.items() if name in names)
        self._step_by_torch([name], rate, self._new(done))

    def _step_by_loop(self, name: str, rate: float) -> None:
        done, parameter, address, value, state = self._looped[name]
        if parameter.grad is None:
            return
        if parameter.data_ptr() != address:
            raise RuntimeError("a weight was given other memory after its optimiser was built")
        grad, new = parameter.grad.contiguous().numpy(), self._new(done)
        settings = (self.rule.epsilon, rate, self.rule.clip, self.rule.smallest)
        if len(state) == 1:
            _whole(value, grad.reshape(-1), state[0], new, *settings)
        else:
            _factored(value, grad, state[0], state[1], new, *settings)

    def _new(self, done: int) -> float:
        """What share of v this update's gradient makes, for weights whose first update `done` others came before."""
        return (self.count - done) ** -self.rule.decay

    def _step_by_torch(self, some: Iterable[str], rate: float, new: float) -> None:
        """The same for weights that no loop takes."""
        names = [name for name in some if self.weights[name].grad is not None]
        if not names:
            return
        values = [self.weights[name].detach().float() for name in names]  # of fp32 ones themselves
        grads = [grad.float() for name in names if (grad := self.weights[name].grad) is not None]
        updates = list(torch._foreach_mul(grads, grads))
        torch._foreach_add_(updates, self.rule.epsilon)
        whole = [i for i, name in enumerate(names) if "square" in self.state[name]]
        if whole:
            means = [self.state[names[i]]["square"] for i in whole]
            torch._foreach_lerp_(means, [updates[i] for i in whole], new)
            scaled = torch._foreach_rsqrt(means)
            torch._foreach_mul_(scaled, [grads[i] for i in whole])
            for i, update in zip(whole, scaled, strict=True):
                updates[i] = update
        for i, name in enumerate(names):
            if "rows" in self.state[name]:
                updates[i] = self._factored_update(name, grads[i], updates[i], new)
        root = torch.tensor([value.numel() ** 0.5 for value in values], device=grads[0].device)
        update_rms = torch.stack(torch._foreach_norm(updates)) / root
        weight_rms = torch.stack(torch._foreach_norm(values)) / root
        scale = -rate * weight_rms.clamp(min=self.rule.smallest) / (update_rms / self.rule.clip).clamp(min=1.0)
        torch._foreach_mul_(updates, list(scale.unbind()))
        torch._foreach_add_(values, updates)
        for name, value in zip(names, values, strict=True):
            weight = self.weights[name]
            if weight.dtype == torch.bfloat16:
                random = torch.Generator(weight.device)
                random.manual_seed(seeds.key(self.seed, "rounding", self.count, name))
                weight.detach().copy_(rounded(value, random))

    def _factored_update(self, name: str, grad: Tensor, square: Tensor, new: float) -> Tensor:
        sides = self.rule.sides(grad.shape)
        assert sides is not None
        first, second = sides
        rows, columns = self.state[name]["rows"], self.state[name]["columns"]
        rows.lerp_(square.mean(second), new)
        columns.lerp_(square.mean(first), new)
        by_row = (rows / rows.mean(first, keepdim=True)).rsqrt().unsqueeze(second)
        return grad * by_row * columns.rsqrt().unsqueeze(first)

    # --- to and from a checkpoint ---------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        """All that the next update depends on beside weights and gradients: "step" and, by weight, the means."""
        return {"step": torch.tensor(self.count), **by_name(self.state)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `state_tensors` gave, whose names and shapes the caller has checked."""
        self.count = int(tensors["step"])
        for key, own in by_name(self.state).items():
            own.copy_(tensors[key])


def by_name(state: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The means of all weights under the names that a checkpoint has for them."""
    return {f"{name}/{part}": tensor for name, parts in state.items() for part, tensor in parts.items()}


def rounded(value: Tensor, random: torch.Generator) -> Tensor:
    """float32 numbers as bfloat16, each one of its two neighbours: the further one as likely as the number is near it,
    so that the mean over draws is the number itself. What bfloat16 has already stays; so does what is not finite.

    bfloat16 is float32 without its lower 16 bits: a random number of 16 bits is added to them and they are cut off.
    """
    bits = value.view(torch.int32)
    drawn = torch.randint(1 << 16, value.shape, generator=random, device=value.device, dtype=torch.int32)
    found = ((bits + drawn) & -(1 << 16)).view(torch.float32)
    return torch.where(found.isfinite() & value.isfinite(), found, value).to(torch.bfloat16)


def _without(shape: torch.Size, dim: int) -> list[int]:
    return [size for i, size in enumerate(shape) if i != dim]


# --- the loops ----------------------------------------------------------------------------------------------------


@_loop
def _whole(p, g, square, new, epsilon, rate, clip, smallest):
    """One update of a weight that keeps all of v. Arrays are flat float32."""
    n = len(p)
    updates, weights = 0.0, 0.0
    for a in range(0, n, _BLOCK):
        b = min(a + _BLOCK, n)
        u, w = _squares(p[a:b], g[a:b], square[a:b], np.float32(new), np.float32(epsilon))
        updates += u
        weights += w
    _move(p, g, square, np.float32(_scale(n, updates, weights, rate, clip, smallest)))


@_part
def _squares(p, g, square, new, epsilon):
    """Brings v up to date; sums of the squared update before clipping, and of the squared weight."""
    u, w = np.float32(0), np.float32(0)
    for i in range(len(p)):
        x = g[i] * g[i]
        v = square[i] + new * (x + epsilon - square[i])
        square[i] = v
        u += x / v
        w += p[i] * p[i]
    return u, w


@_part
def _move(p, g, square, scale):
    for i in range(len(p)):
        p[i] -= scale * g[i] / np.sqrt(square[i])


@_part
def _scale(n, updates, weights, rate, clip, smallest):
    return rate * max(math.sqrt(weights / n), smallest) / max(1.0, math.sqrt(updates / n) / clip)


@_loop
def _factored(p_RC, g_RC, rows_R, columns_C, new, epsilon, rate, clip, smallest):
    """One update of a matrix that keeps v's means over columns (`rows_R`) and over rows (`columns_C`)."""
    n_rows, n_columns = p_RC.shape
    new32, epsilon32 = np.float32(new), np.float32(epsilon)
    sum_C = np.zeros(n_columns, np.float64)
    some_C = np.zeros(n_columns, np.float32)
    weights, total = 0.0, 0.0
    for i in range(n_rows):
        row, w = _row_squares(p_RC[i], g_RC[i], some_C)
        weights += w
        rows_R[i] += new32 * (row / np.float32(n_columns) + epsilon32 - rows_R[i])
        total += rows_R[i]
        if i % 64 == 63 or i == n_rows - 1:  # float32 would lose digits over many rows
            for j in range(n_columns):
                sum_C[j] += some_C[j]
                some_C[j] = 0
    mean = np.float32(total / n_rows)
    factor_C = some_C
    for j in range(n_columns):
        columns_C[j] += new32 * (np.float32(sum_C[j] / n_rows) + epsilon32 - columns_C[j])
        factor_C[j] = np.float32(1) / np.sqrt(columns_C[j])
    updates = 0.0
    for i in range(n_rows):
        updates += _row_update(g_RC[i], factor_C) * (mean / rows_R[i])
    scale = np.float32(_scale(n_rows * n_columns, updates, weights, rate, clip, smallest))
    for i in range(n_rows):
        _move_row(p_RC[i], g_RC[i], factor_C, scale * np.sqrt(mean / rows_R[i]))


@_part
def _row_squares(p_C, g_C, sum_C):
    row, w = np.float32(0), np.float32(0)
    for j in range(len(p_C)):
        x = g_C[j] * g_C[j]
        row += x
        sum_C[j] += x
        w += p_C[j] * p_C[j]
    return row, w


@_part
def _row_update(g_C, factor_C):
    u = np.float32(0)
    for j in range(len(g_C)):
        x = g_C[j] * factor_C[j]
        u += x * x
    return u


@_part
def _move_row(p_C, g_C, factor_C, scale):
    for j in range(len(p_C)):
        p_C[j] -= scale * (g_C[j] * factor_C[j])
