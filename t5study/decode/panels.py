"""Products of a few rows with a large matrix, on a CPU: compiled loops.

A step of decoding multiplies 1 to some 64 rows with every matrix of the decoder. Libraries are made for square
products: with 4 to 16 rows they reach a third of a core's arithmetic. Here a matrix lies in panels of 16 columns, a
panel's rows behind each other, so that it is read once, in order, tile by tile (tiles.py), and what comes after a
product (norm, scale, ReLU, residual) is done while the tile is at hand. A sum runs over k in order whatever the rows
beside it, so a row's result does not depend on its batch.

int8: a matrix's columns are rounded to 8 bits with a scale each. A row of x is rounded to 16 bits (fewer where sums
would not fit in 32), products and sums are exact: what is lost is what the weights lose. Twice the speed of fp32.

    A  rows    K  columns in    J  columns out    P  panels of 16 columns    N  16 of them    F  d_ff
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t5study.decode.tiles import ROWS, ROWS_INT8, WIDTH, bytes_, exp, floats, loop, part, settle

_TILES = "14fb784f3c249e4d"  # digest of tiles.py, whose parts are compiled into the loops below
_NEAR = 1 << 16  # numbers of the rows that go over all panels together: they stay in a core's own cache
_f = np.float32


@dataclass(frozen=True)
class Panels:
    """A matrix (J, K) laid out. numbers: (P, K, 16) fp32 or (P, K / 2, 16, 2) int8. scale: of each column, fp32."""

    numbers: np.ndarray
    scale: np.ndarray
    columns: int
    width: int

    @staticmethod
    def of(weight_JK: np.ndarray, precision: str) -> Panels:
        columns, width = weight_JK.shape
        panels = -(-columns // WIDTH)
        padded = np.zeros((panels * WIDTH, width + width % 2 if precision == "int8" else width), _f)
        padded[:columns, :width] = weight_JK
        scale = np.ones(len(padded), _f)
        if precision == "int8":
            largest = np.abs(padded).max(1, initial=0)
            scale = np.where(largest == 0, _f(1), largest / _f(127)).astype(_f)  # NaN and infinity stay in it
            rounded = np.nan_to_num(np.rint(padded / scale[:, None])).astype(np.int8)
            numbers = rounded.reshape(panels, WIDTH, -1, 2).transpose(0, 2, 1, 3)
        else:
            numbers = padded.reshape(panels, WIDTH, -1).transpose(0, 2, 1)
        return Panels(np.ascontiguousarray(numbers), scale, columns, width)

    def times(self, x_AK: np.ndarray, *, normed: bool = False, relu: bool = False) -> np.ndarray:
        """x W', (A, J). normed: x over its root mean square. relu: of the products."""
        out_AJ = np.empty((len(x_AK), self.columns), _f)
        self._times(x_AK, normed, relu, False, out_AJ)
        return out_AJ

    def add_to(self, out_AJ: np.ndarray, x_AK: np.ndarray) -> None:
        """out += x W'."""
        self._times(x_AK, False, False, True, out_AJ)

    def _times(self, x_AK: np.ndarray, normed: bool, relu: bool, add: bool, out_AJ: np.ndarray) -> None:
        assert x_AK.flags.c_contiguous
        assert out_AJ.flags.c_contiguous  # the loops go by addresses
        if self.numbers.dtype == np.int8:
            _times_bytes(x_AK, self.numbers, self.scale, normed, relu, add, out_AJ)
        else:
            _times_floats(x_AK, self.numbers, self.scale, normed, relu, add, out_AJ)


@part
def _one_over_rms(row):
    total = _f(0)
    for i in range(len(row)):
        total += row[i] * row[i]
    return _f(1) / np.sqrt(total / _f(len(row)) + _f(1e-6))


@part
def _finish(tile, rows, first, column, factor_A, scale, relu, add, out_AJ):
    """A tile's sums -> their places, scaled."""
    columns = out_AJ.shape[1]
    if column + WIDTH <= columns:
        from_scale = scale.ctypes.data + 4 * column
        for r in range(rows):
            place = out_AJ.ctypes.data + 4 * ((first + r) * columns + column)
            settle(tile.ctypes.data + 4 * WIDTH * r, factor_A[first + r], from_scale, place, relu, add)
    else:
        for r in range(rows):
            for j in range(columns - column):
                number = tile[r, j] * factor_A[first + r] * scale[column + j]
                if relu:
                    number = max(number, _f(0))
                out_AJ[first + r, column + j] = out_AJ[first + r, column + j] + number if add else number


@loop
def _times_floats(x_AK, numbers_PKN, scale, normed, relu, add, out_AJ):
    rows_all, k = x_AK.shape
    tile = np.empty((ROWS, WIDTH), np.float32)
    factor_A = np.ones(rows_all, np.float32)
    if normed:
        for a in range(rows_all):
            factor_A[a] = _one_over_rms(x_AK[a])
    chunk = max(1, _NEAR // (ROWS * k)) * ROWS
    for begin in range(0, rows_all, chunk):
        end = min(begin + chunk, rows_all)
        for p in range(len(numbers_PKN)):
            panel = numbers_PKN[p].ctypes.data
            ahead = panel + 64 * k
            first = begin
            while first < end:
                tiles = (end - first + ROWS - 1) // ROWS
                rows = (end - first + tiles - 1) // tiles
                floats(rows, x_AK[first:].ctypes.data, k, panel, k, tile.ctypes.data, ahead)
                ahead += 32 * k
                _finish(tile, rows, first, p * WIDTH, factor_A, scale, relu, add, out_AJ)
                first += rows


@loop
def _times_bytes(x_AK, numbers_PKN2, scale, normed, relu, add, out_AJ):
    rows_all, k = x_AK.shape
    pairs = numbers_PKN2.shape[1]
    most = _f(min(32767, 2147483647 // (127 * 2 * pairs)))
    tile = np.empty((ROWS_INT8, WIDTH), np.float32)
    factor_A = np.ones(rows_all, np.float32)
    x16_AK = np.zeros((rows_all, 2 * pairs), np.int16)
    for a in range(rows_all):
        row = x_AK[a]
        largest = _f(0)
        for i in range(k):
            largest = max(largest, abs(row[i]))
        unit = largest / most if largest > 0 else _f(1)
        for i in range(k):
            scaled = row[i] / unit
            x16_AK[a, i] = np.int16(scaled + (_f(0.5) if scaled >= 0 else _f(-0.5)))
        factor_A[a] = unit * (_one_over_rms(row) if normed else _f(1)) + _f(0) * row.sum()  # a NaN stays one
    chunk = max(1, 2 * _NEAR // (ROWS_INT8 * k)) * ROWS_INT8
    for begin in range(0, rows_all, chunk):
        end = min(begin + chunk, rows_all)
        for p in range(len(numbers_PKN2)):
            panel = numbers_PKN2[p].ctypes.data
            ahead = panel + 32 * pairs
            first = begin
            while first < end:
                tiles = (end - first + ROWS_INT8 - 1) // ROWS_INT8
                rows = (end - first + tiles - 1) // tiles
                bytes_(rows, x16_AK[first:].ctypes.data, pairs, panel, pairs, tile.ctypes.data, ahead)
                ahead += 16 * pairs
                _finish(tile, rows, first, p * WIDTH, factor_A, scale, relu, add, out_AJ)
                first += rows


@loop
def gated_gelu(h_A2F):
    """gelu of the first half, in its tanh form, times the second half, (A, F)."""
    width = h_A2F.shape[1] // 2
    out_AF = np.empty((len(h_A2F), width), np.float32)
    for a in range(len(h_A2F)):
        for j in range(width):
            x = h_A2F[a, j]
            y = _f(1.5957691216) * (x + _f(0.044715) * x * x * x)  # (1 + tanh(y / 2)) / 2 = 1 / (1 + e^-y)
            e = exp(-abs(y))
            part = (_f(1) if y >= 0 else e) / (_f(1) + e)
            out_AF[a, j] = x * part * h_A2F[a, width + j]
    return out_AF
