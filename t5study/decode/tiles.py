"""The arithmetic of decoding on a CPU, in LLVM's language through numba: tiles of products, summed up in registers.

A tile is up to 6 rows by a panel of 16 columns, k steps long: its sums stay in registers, which no loop of numba's own
does. While one panel is read the next is fetched, a line for every two: with 16 rows, reading 154 MB of weights a step
costs nearly nothing beside their arithmetic. All of it is inlined into the loops of other files.

numba's cache looks at the file of the outer loop only. So a file whose loops have parts from here holds this file's
digest; a change here changes it, and tests/laws/test_compiled_loops.py says where.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WIDTH = 16  # columns of a panel
ROWS = 6  # of a tile: 6 x 16 sums are 12 of the 16 vector registers of AVX2
ROWS_INT8 = 4  # its products need some more
_UNROLL = 4  # steps of a loop
_FAST = ("reassoc", "contract", "nsz", "arcp")
loop = njit(cache=True, nogil=True, error_model="numpy", fastmath=set(_FAST))
part = njit(forceinline=True, error_model="numpy", fastmath=set(_FAST))
_f = np.float32


def panel_width(columns: int) -> int:
    """Columns rounded up to whole panels."""
    return -(-columns // WIDTH) * WIDTH


# --- LLVM's language --------------------------------------------------------------------------------------------------

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


def _fetch(builder, place, *, write: bool = False) -> None:
    """Asks for the cache line at a place, to read or to write it, and does not wait for it."""
    kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
    near = 3 if write else 2  # into the first cache, or the second
    builder.call(fetch, [place, *(ir.Constant(_I32, number) for number in (int(write), near, 1))])


def _summed(builder, rows: int, steps, kind: ir.Type, one_step, ahead=None, lines: int = 0) -> list:
    """sums = one_step(i, sums) for i from 0 to steps: a loop in LLVM's form, unrolled, and one for what is left.

    ahead: an address from which on half as much is fetched as is read, 4 steps reading `lines` lines of 64 bytes.
    """

    def run(start, stop, by: int, sums: list) -> list:
        before, body, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
        builder.position_at_end(body)
        i = builder.phi(_I64)
        phis = [builder.phi(kind) for _ in range(rows)]
        now: list = phis
        for u in range(by):
            now = one_step(builder.add(i, ir.Constant(_I64, u)), now)
        if by > 1 and ahead is not None:
            from_here = builder.mul(i, ir.Constant(_I64, 64 * lines // (2 * by)))
            for line in range(lines // 2):
                _fetch(builder, _at(builder, ahead, builder.add(from_here, ir.Constant(_I64, 64 * line)), _I8))
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
    whole = builder.and_(steps, ir.Constant(_I64, -_UNROLL))
    sums = run(zero, whole, _UNROLL, [ir.Constant(kind, [0] * WIDTH)] * rows)
    return run(whole, steps, 1, sums)


def _tile(generate) -> Any:
    """A tile as numba calls it, with addresses and numbers of places: x, `stride` apart from row to row, times a panel,
    over k steps, to `out`; and what to fetch meanwhile, from `ahead` on."""

    def typed(_, x, stride, panel, k, out, ahead):
        return types.void(*[types.int64] * 6), generate

    return intrinsic(typed)


def _tile_of_floats(rows: int) -> Any:
    """x (rows, k), `stride` apart, times a panel (k, 16), both fp32 at an address -> (rows, 16) fp32 at another."""

    def generate(context, builder, _signature, args):
        x, stride, panel, k, out, ahead = args
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

        for r, total in enumerate(_summed(builder, rows, k, wide, one_step, ahead, lines=_UNROLL)):
            builder.store(total, _at(builder, out, ir.Constant(_I64, 4 * WIDTH * r), wide), align=4)
        return context.get_dummy_value()

    return _tile(generate)


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
        x, stride, panel, k, out, ahead = args

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

        for r, total in enumerate(_summed(builder, rows, k, _vector(_I32), one_step, ahead, lines=_UNROLL // 2)):
            place = _at(builder, out, ir.Constant(_I64, 4 * WIDTH * r), _vector(_F32))
            builder.store(builder.sitofp(total, _vector(_F32)), place, align=4)
        return context.get_dummy_value()

    return _tile(generate)


def _settled(context, builder, _signature, args):
    """out (16) = tile (16) * factor * scale (16), at addresses; with relu at least 0, with add what was there more."""
    tile, factor, scale, out, relu, add = args
    wide = _vector(_F32)
    none = ir.Constant(wide, [0] * WIDTH)
    sums, scales = (builder.load(builder.inttoptr(place, wide.as_pointer()), align=4) for place in (tile, scale))
    place = builder.inttoptr(out, wide.as_pointer())
    _fetch(builder, _at(builder, out, ir.Constant(_I64, 128), _I8), write=True)
    number = builder.fmul(builder.fmul(sums, _everywhere(builder, factor)), scales)
    positive = builder.select(builder.fcmp_ordered("<", number, none), none, number)  # a NaN stays one
    number = builder.select(relu, positive, number)
    with builder.if_else(add) as (then, otherwise):
        with then:
            builder.store(builder.fadd(number, builder.load(place, align=4)), place, align=4)
        with otherwise:
            builder.store(number, place, align=4)
    return context.get_dummy_value()


def _typed_settle(_, tile, factor, scale, out, relu, add):
    number, truth = types.int64, types.boolean
    return types.void(number, types.float32, number, number, truth, truth), _settled


settle: Any = intrinsic(_typed_settle)


def _dot_of_floats(context, builder, _signature, args):
    """x . y, fp32 at two addresses, over `steps` times 16 places."""
    x, y, steps = args
    wide = _vector(_F32)

    def one_step(i, sums):
        place = builder.mul(i, ir.Constant(_I64, 4 * WIDTH))
        left, right = (builder.load(_at(builder, base, place, wide), align=4) for base in (x, y))
        return [builder.fadd(sums[0], builder.fmul(left, right, flags=_FAST), flags=_FAST)]

    (sums,) = _summed(builder, 1, steps, wide, one_step)
    kind = ir.FunctionType(_F32, [_F32, wide])
    total = builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{WIDTH}f32", (), kind)
    return builder.call(total, [ir.Constant(_F32, 0), sums], fastmath=_FAST)


def _mix_of_floats(context, builder, _signature, args):
    """out (16) += the sum over j < steps of p[j] times the 16 numbers at address[j] + offset; all at addresses."""
    p, address, offset, steps, out = args
    wide = _vector(_F32)

    def one_step(j, sums):
        number = builder.load(_at(builder, p, builder.mul(j, ir.Constant(_I64, 4)), _F32), align=4)
        base = builder.load(_at(builder, address, builder.mul(j, ir.Constant(_I64, 8)), _I64), align=8)
        product = builder.fmul(
            _everywhere(builder, number), builder.load(_at(builder, base, offset, wide), align=4), flags=_FAST
        )
        return [builder.fadd(sums[0], product, flags=_FAST)]

    (total,) = _summed(builder, 1, steps, wide, one_step)
    place = _at(builder, out, ir.Constant(_I64, 0), wide)
    builder.store(builder.fadd(builder.load(place, align=4), total, flags=_FAST), place, align=4)
    return context.get_dummy_value()


def _typed_dot(_, x, y, steps):
    return types.float32(*[types.int64] * 3), _dot_of_floats


dot: Any = intrinsic(_typed_dot)


def _typed_mix(_, p, address, offset, steps, out):
    return types.void(*[types.int64] * 5), _mix_of_floats


mix: Any = intrinsic(_typed_mix)
_floats_1, _floats_2, _floats_3, _floats_4, _floats_5, _floats_6 = (
    _tile_of_floats(rows) for rows in range(1, ROWS + 1)
)
_bytes_1, _bytes_2, _bytes_3, _bytes_4 = (_tile_of_bytes(rows) for rows in range(1, ROWS_INT8 + 1))


@part
def floats(rows, x, stride, panel, k, out, ahead):
    if rows == 6:
        _floats_6(x, stride, panel, k, out, ahead)
    elif rows == 5:
        _floats_5(x, stride, panel, k, out, ahead)
    elif rows == 4:
        _floats_4(x, stride, panel, k, out, ahead)
    elif rows == 3:
        _floats_3(x, stride, panel, k, out, ahead)
    elif rows == 2:
        _floats_2(x, stride, panel, k, out, ahead)
    else:
        _floats_1(x, stride, panel, k, out, ahead)


@part
def bytes_(rows, x, stride, panel, k, out, ahead):
    if rows == 4:
        _bytes_4(x, stride, panel, k, out, ahead)
    elif rows == 3:
        _bytes_3(x, stride, panel, k, out, ahead)
    elif rows == 2:
        _bytes_2(x, stride, panel, k, out, ahead)
    else:
        _bytes_1(x, stride, panel, k, out, ahead)


# --- e^x --------------------------------------------------------------------------------------------------------------


def _two_to_the(_, n):
    def generate(context, builder, _signature, args):
        bits = builder.shl(builder.add(args[0], ir.Constant(_I32, 127)), ir.Constant(_I32, 23))
        return builder.bitcast(bits, _F32)

    return types.float32(types.int32), generate


_power_of_two: Any = intrinsic(_two_to_the)


@part
def exp(x):
    """e^x for x <= 0 within 2e-7, below -87 as if it were -87: as in model/softmax_loops.py."""
    x = max(x, _f(-87))
    n = np.int32(x * _f(1.44269504) - _f(0.5))
    f = x - _f(n) * _f(0.693147181)
    p = ((((_f(1.9875691500e-4) * f + _f(1.3981999507e-3)) * f + _f(8.3334519073e-3)) * f
          + _f(4.1665795894e-2)) * f + _f(1.6666665459e-1)) * f + _f(5.0000001201e-1)  # fmt: skip
    return (p * f * f + f + _f(1)) * _power_of_two(n)
