"""Products of a few rows with a large matrix, and attention of single queries, on a CPU: compiled loops.

A step of decoding multiplies 1 to some 64 rows with every matrix of the decoder. Libraries are made for square
products: with 4 to 16 rows they reach a third of a core's arithmetic. Here a matrix lies in panels of 16 columns, a
panel's rows behind each other, so that it is read once, in order; a tile of up to 6 rows by 16 columns is summed up
entirely in registers, and what comes after a product (norm, scale, ReLU, residual) is done while the tile is at hand.
A sum runs over k in order whatever the rows beside it, so a row's result does not depend on its batch.

int8: a matrix's columns are rounded to 8 bits with a scale each. A row of x is rounded to 16 bits (fewer where sums
would not fit in 32), products and sums are exact: what is lost is what the weights lose. Twice the speed of fp32.

    A  rows    K  columns in    J  columns out    P  panels of 16 columns    N  16 of them    I  H E
    H  heads    E  d_kv    R  rows of the batch    G  floats of all panels    L  places for answers

Why the tile is written in LLVM's language: no loop of numba's keeps its sums in registers. All is in this file because
numba's cache looks at the file of the outer function only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WIDTH = 16  # columns of a panel
ROWS = 6  # of a tile: 6 x 16 sums are 12 of the 16 vector registers of AVX2
ROWS_INT8 = 4  # its products need some more
_NEAR = 1 << 16  # numbers of the rows that go over all panels together: they stay in a core's own cache
_FAST = ("reassoc", "contract", "nsz", "arcp")
_loop = njit(cache=True, nogil=True, error_model="numpy", fastmath=set(_FAST))
_part = njit(forceinline=True, error_model="numpy", fastmath=set(_FAST))
_inline = njit(cache=True, inline="always")
_f = np.float32


# --- the tile ---------------------------------------------------------------------------------------------------------

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32 = ir.FloatType()


def _vector(element: ir.Type, count: int = WIDTH) -> ir.VectorType:
    return ir.VectorType(element, count)


def _places(places: range) -> ir.Constant:
    return ir.Constant(_vector(_I32, len(places)), list(places))


def _at(builder, base, offset, element: ir.Type):
    return builder.inttoptr(builder.add(base, offset), element.as_pointer())


def _everywhere(builder, number, count: int = WIDTH):
    """A vector that holds one number in all places."""
    kind = _vector(number.type, count)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_vector(_I32, count), [0] * count))


def _summed(builder, rows: int, steps, unroll: int, kind: ir.Type, one_step) -> list:
    """sums = one_step(i, sums) for i from 0 to steps: a loop in LLVM's form, unrolled, and one for what is left."""

    def run(start, stop, by: int, sums: list) -> list:
        before, body, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
        builder.position_at_end(body)
        i = builder.phi(_I64)
        phis = [builder.phi(kind) for _ in range(rows)]
        now: list = phis
        for u in range(by):
            now = one_step(builder.add(i, ir.Constant(_I64, u)), now)
        next_i, end = builder.add(i, ir.Constant(_I64, by)), builder.block
        builder.cbranch(builder.icmp_signed("<", next_i, stop), body, after)
        builder.position_at_end(after)
        out = [builder.phi(kind) for _ in range(rows)]
        i.add_incoming(start, before)
        i.add_incoming(next_i, end)
        for phi, result, old, new in zip(phis, out, sums, now, strict=True):
            phi.add_incoming(old, before)
            phi.add_incoming(new, end)
            result.add_incoming(old, before)
            result.add_incoming(new, end)
        return out

    zero = ir.Constant(_I64, 0)
    whole = builder.and_(steps, ir.Constant(_I64, -unroll))
    sums = run(zero, whole, unroll, [ir.Constant(kind, [0] * WIDTH)] * rows)
    return run(whole, steps, 1, sums)


def _intrinsic(generate) -> Any:
    """A function of five addresses and numbers without a result, as numba calls it."""

    def typed(_, x, stride, panel, k, out):
        return types.void(*[types.int64] * 5), generate

    return intrinsic(typed)


def _tile_of_floats(rows: int) -> Any:
    """x (rows, k), `stride` apart, times a panel (k, 16), both fp32 at an address -> (rows, 16) fp32 at another."""

    def generate(context, builder, _signature, args):
        x, stride, panel, k, out = args
        wide = _vector(_F32)

        def one_step(i, sums):
            w = builder.load(_at(builder, panel, builder.mul(i, ir.Constant(_I64, 4 * WIDTH)), wide), align=4)
            found = []
            for r in range(rows):
                place = builder.add(builder.mul(stride, ir.Constant(_I64, r)), i)
                number = builder.load(_at(builder, x, builder.mul(place, ir.Constant(_I64, 4)), _F32), align=4)
                product = builder.fmul(_everywhere(builder, number), w, flags=_FAST)
                found.append(builder.fadd(sums[r], product, flags=_FAST))
            return found

        for r, total in enumerate(_summed(builder, rows, k, 4, wide, one_step)):
            builder.store(total, _at(builder, out, ir.Constant(_I64, 4 * WIDTH * r), wide), align=4)
        return context.get_dummy_value()

    return _intrinsic(generate)


def _tile_of_bytes(rows: int) -> Any:
    """x (rows, 2 k) int16, times a panel (k, 16, 2) int8: pairs are multiplied and added at once."""
    pairs = bool(llvm.get_host_cpu_features().get("avx2"))

    def multiplied(builder, w, x):
        """int16 (16), int16 (16) -> sums of neighbours' products, int32 (8)."""
        if pairs:
            kind = ir.FunctionType(_vector(_I32, 8), [_vector(_I16), _vector(_I16)])
            return builder.call(builder.module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", fnty=kind), [w, x])
        product = builder.mul(builder.sext(w, _vector(_I32)), builder.sext(x, _vector(_I32)))
        none = ir.Constant(product.type, ir.Undefined)
        even, odd = (builder.shuffle_vector(product, none, _places(range(i, 16, 2))) for i in (0, 1))
        return builder.add(even, odd)

    def generate(context, builder, _signature, args):
        x, stride, panel, k, out = args

        def one_step(i, sums):
            place = _at(builder, panel, builder.mul(i, ir.Constant(_I64, 2 * WIDTH)), _vector(_I8, 32))
            w = builder.sext(builder.load(place, align=1), _vector(_I16, 32))
            none = ir.Constant(w.type, ir.Undefined)
            halves = [builder.shuffle_vector(w, none, _places(range(at, at + 16))) for at in (0, 16)]
            found = []
            for r in range(rows):
                place = builder.add(builder.mul(stride, ir.Constant(_I64, r)), i)
                pair = builder.load(_at(builder, x, builder.mul(place, ir.Constant(_I64, 4)), _I32), align=4)
                both = builder.bitcast(_everywhere(builder, pair, 8), _vector(_I16))
                low, high = (multiplied(builder, half, both) for half in halves)
                found.append(builder.add(sums[r], builder.shuffle_vector(low, high, _places(range(16)))))
            return found

        for r, total in enumerate(_summed(builder, rows, k, 2, _vector(_I32), one_step)):
            place = _at(builder, out, ir.Constant(_I64, 4 * WIDTH * r), _vector(_F32))
            builder.store(builder.sitofp(total, _vector(_F32)), place, align=4)
        return context.get_dummy_value()

    return _intrinsic(generate)


_floats_1, _floats_2, _floats_3, _floats_4, _floats_5, _floats_6 = (
    _tile_of_floats(rows) for rows in range(1, ROWS + 1)
)
_bytes_1, _bytes_2, _bytes_3, _bytes_4 = (_tile_of_bytes(rows) for rows in range(1, ROWS_INT8 + 1))


@_part
def _floats(rows, x, stride, panel, k, out):
    if rows == 6:
        _floats_6(x, stride, panel, k, out)
    elif rows == 5:
        _floats_5(x, stride, panel, k, out)
    elif rows == 4:
        _floats_4(x, stride, panel, k, out)
    elif rows == 3:
        _floats_3(x, stride, panel, k, out)
    elif rows == 2:
        _floats_2(x, stride, panel, k, out)
    else:
        _floats_1(x, stride, panel, k, out)


@_part
def _bytes(rows, x, stride, panel, k, out):
    if rows == 4:
        _bytes_4(x, stride, panel, k, out)
    elif rows == 3:
        _bytes_3(x, stride, panel, k, out)
    elif rows == 2:
        _bytes_2(x, stride, panel, k, out)
    else:
        _bytes_1(x, stride, panel, k, out)


# --- matrices ---------------------------------------------------------------------------------------------------------


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
        if self.numbers.dtype == np.int8:
            _times_bytes(x_AK, self.numbers, self.scale, normed, relu, add, out_AJ)
        else:
            _times_floats(x_AK, self.numbers, self.scale, normed, relu, add, out_AJ)


@_part
def _one_over_rms(row):
    total = _f(0)
    for i in range(len(row)):
        total += row[i] * row[i]
    return _f(1) / np.sqrt(total / _f(len(row)) + _f(1e-6))


@_part
def _finish(tile, rows, first, column, factor_A, scale, relu, add, out_AJ):
    """A tile's sums -> their places, scaled."""
    width = min(WIDTH, out_AJ.shape[1] - column)
    for r in range(rows):
        factor = factor_A[first + r]
        out = out_AJ[first + r, column : column + width]
        for j in range(width):
            number = tile[r, j] * factor * scale[column + j]
            if relu:
                number = max(number, _f(0))
            out[j] = out[j] + number if add else number


@_loop
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
            first = begin
            while first < end:
                tiles = (end - first + ROWS - 1) // ROWS
                rows = (end - first + tiles - 1) // tiles
                _floats(rows, x_AK[first:].ctypes.data, k, panel, k, tile.ctypes.data)
                _finish(tile, rows, first, p * WIDTH, factor_A, scale, relu, add, out_AJ)
                first += rows


@_loop
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
            first = begin
            while first < end:
                tiles = (end - first + ROWS_INT8 - 1) // ROWS_INT8
                rows = (end - first + tiles - 1) // tiles
                _bytes(rows, x16_AK[first:].ctypes.data, pairs, panel, pairs, tile.ctypes.data)
                _finish(tile, rows, first, p * WIDTH, factor_A, scale, relu, add, out_AJ)
                first += rows


# --- attention --------------------------------------------------------------------------------------------------------


def _two_to_the(_, n):
    def generate(context, builder, _signature, args):
        bits = builder.shl(builder.add(args[0], ir.Constant(_I32, 127)), ir.Constant(_I32, 23))
        return builder.bitcast(bits, _F32)

    return types.float32(types.int32), generate


_power_of_two: Any = intrinsic(_two_to_the)


@_inline
def _exp(x):
    """e^x for x <= 0 within 2e-7, below -87 as if it were -87: as in model/softmax_loops.py."""
    x = max(x, _f(-87))
    n = np.int32(x * _f(1.44269504) - _f(0.5))
    f = x - _f(n) * _f(0.693147181)
    p = ((((_f(1.9875691500e-4) * f + _f(1.3981999507e-3)) * f + _f(8.3334519073e-3)) * f
          + _f(4.1665795894e-2)) * f + _f(1.6666665459e-1)) * f + _f(5.0000001201e-1)  # fmt: skip
    return (p * f * f + f + _f(1)) * _power_of_two(n)


@_part
def _softmax(row):
    """In place."""
    most, total = row[0], _f(0)
    for j in range(len(row)):
        most = max(most, row[j])
    check = _f(0)
    for j in range(len(row)):
        check += row[j]
        row[j] = _exp(row[j] - most)
        total += row[j]
    scale = _f(1) / (total + check * _f(0))
    for j in range(len(row)):
        row[j] *= scale


@_loop
def source_panels(kv_NW, length_R, heads):
    """Keys beside values (N, 2 I) of a batch's source tokens, row after row, as panels: for each row and head keys
    (places / 16, E, 16) and values (E / 16, places, 16), behind each other in one list; and where each row begins."""
    e = kv_NW.shape[1] // (2 * heads)
    values = (e + WIDTH - 1) // WIDTH
    first_R = np.empty(len(length_R), np.int64)
    total = 0
    for r in range(len(length_R)):
        first_R[r] = total
        keys = (length_R[r] + WIDTH - 1) // WIDTH
        total += heads * WIDTH * (keys * e + values * length_R[r])
    panels_G = np.zeros(total, np.float32)
    token = 0
    for r in range(len(length_R)):
        at, length = first_R[r], length_R[r]
        keys = (length + WIDTH - 1) // WIDTH
        for h in range(heads):
            for j in range(length):
                for i in range(e):
                    panels_G[at + ((j // WIDTH) * e + i) * WIDTH + j % WIDTH] = kv_NW[token + j, h * e + i]
            at += keys * e * WIDTH
            for j in range(length):
                for i in range(e):
                    place = at + ((i // WIDTH) * length + j) * WIDTH + i % WIDTH
                    panels_G[place] = kv_NW[token + j, (heads + h) * e + i]
            at += values * length * WIDTH
        token += length
    return panels_G, first_R


@_loop
def attend(q_AI, heads, panels_G, first_R, length_R, row_A, answer_LA2I, slot_AL, places, bias_HL, out_AI):
    """Attention of one query each: over its row's source (panels_G empty: not), and over the `places` places of its
    own answer so far (0: not). slot_AL: where in the cache each place of an answer lies. bias_HL: by how far a key
    lies behind the query, where answers are looked at. Answers of a row lie side by side."""
    e = q_AI.shape[1] // heads
    sources, values = len(panels_G) > 0, (e + WIDTH - 1) // WIDTH
    longest = length_R.max() if sources else 0
    score = np.empty((ROWS, (longest + WIDTH - 1) // WIDTH * WIDTH + places), np.float32)
    tile = np.empty((ROWS, WIDTH), np.float32)
    first = 0
    while first < len(row_A):
        r, rows = row_A[first], 1
        while rows < ROWS and first + rows < len(row_A) and row_A[first + rows] == r:
            rows += 1
        length = length_R[r] if sources else 0
        keys = (length + WIDTH - 1) // WIDTH
        for h in range(heads):
            q = q_AI[first:, h * e :].ctypes.data
            at = (first_R[r] + h * WIDTH * (keys * e + values * length)) if sources else 0
            for p in range(keys):
                _floats(rows, q, q_AI.strides[0] // 4, panels_G[at + p * e * WIDTH :].ctypes.data, e, tile.ctypes.data)
                score[:rows, p * WIDTH : (p + 1) * WIDTH] = tile[:rows]
            for b in range(rows):
                a, row = first + b, score[b, : length + places]
                if places:
                    for j in range(length):
                        row[j] += bias_HL[h, length + places - 1 - j]
                for j in range(places):
                    key = answer_LA2I[j, slot_AL[a, j], 0, h * e : h * e + e]
                    total = bias_HL[h, places - 1 - j]
                    for i in range(e):
                        total += q_AI[a, h * e + i] * key[i]
                    row[length + j] = total
                _softmax(row)
            at += keys * e * WIDTH
            for c in range(values):
                width = min(WIDTH, e - c * WIDTH)
                if length:
                    panel = panels_G[at + c * length * WIDTH :].ctypes.data
                    _floats(rows, score.ctypes.data, score.shape[1], panel, length, tile.ctypes.data)
                else:
                    tile[:] = 0
                out_AI[first : first + rows, h * e + c * WIDTH : h * e + c * WIDTH + width] = tile[:rows, :width]
            for b in range(rows):
                a = first + b
                out = out_AI[a, h * e : h * e + e]
                for j in range(places):
                    p = score[b, length + j]
                    value = answer_LA2I[j, slot_AL[a, j], 1, h * e : h * e + e]
                    for i in range(e):
                        out[i] += p * value[i]
        first += rows


@_loop
def gated_gelu(h_A2F):
    """gelu of the first half, in its tanh form, times the second half, (A, F)."""
    width = h_A2F.shape[1] // 2
    out_AF = np.empty((len(h_A2F), width), np.float32)
    for a in range(len(h_A2F)):
        for j in range(width):
            x = h_A2F[a, j]
            y = _f(1.5957691216) * (x + _f(0.044715) * x * x * x)  # (1 + tanh(y / 2)) / 2 = 1 / (1 + e^-y)
            e = _exp(-abs(y))
            part = (_f(1) if y >= 0 else e) / (_f(1) + e)
            out_AF[a, j] = x * part * h_A2F[a, width + j]
    return out_AF


# --- the best of a vocabulary -----------------------------------------------------------------------------------------


def top(logits_AV: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` tokens with the greatest logits, greatest first and the first of equal ones, and their log p,
    (A, count)."""
    token_AC, log_p_AC = np.zeros((len(logits_AV), count), np.int64), np.empty((len(logits_AV), count), np.float32)
    _top(logits_AV, token_AC, log_p_AC)
    return token_AC, log_p_AC


@_loop
def _top(logits_AV, token_AC, log_p_AC):
    count = token_AC.shape[1]
    for a in range(len(logits_AV)):
        row, token, best = logits_AV[a], token_AC[a], log_p_AC[a]
        best[:] = -np.inf
        least = best[count - 1]
        for v in range(len(row)):
            if row[v] > least:
                at = count - 1
                while at > 0 and row[v] > best[at - 1]:
                    best[at], token[at] = best[at - 1], token[at - 1]
                    at -= 1
                best[at], token[at] = row[v], v
                least = best[count - 1]
        most, total, check = best[0], _f(0), _f(0)
        for v in range(len(row)):
            check += row[v]
            total += _exp(row[v] - most)
        log_z = most + np.log(total) + check * _f(0)  # a NaN stays one
        for c in range(count):
            best[c] -= log_z
