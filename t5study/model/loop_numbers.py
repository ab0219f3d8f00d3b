"""Numbers as compiled loops have them: how a loop is compiled, the bits of a float, and bfloat16.

numba does not know bfloat16. A loop is given its bits as int16 (`array`), reads each by `number`, reckons in fp32 and
writes by `written`; it is compiled for fp32 and for bfloat16, and in fp32 the three do nothing.

numba's cache looks at the file of the outer loop only. So a file whose loops have parts from here holds this file's
digest; a change here changes it, and tests/laws/test_compiled_loops.py says where.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload
from torch import Tensor

# Sums may be taken in any order, which is what lets them run in lanes; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
loop = njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
# A loop called by a loop is inlined into it. Called, it would be compiled twice, on its own and within its caller, with
# sums in other orders; the process that compiles them would link the first and one that loads them from numba's cache
# the second: runs would differ in a last digit.
part = njit(forceinline=True, error_model="numpy", fastmath=_FAST)

_I32 = ir.IntType(32)
_16 = _I32(16)


# --- bits -------------------------------------------------------------------------------------------------------------


def _float_of_bits(_context, _bits):
    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


def _bits_of_float(_context, _number):
    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


as_float: Any = intrinsic(_float_of_bits)
as_int: Any = intrinsic(_bits_of_float)


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


def array(tensor: Tensor) -> np.ndarray:
    """A tensor's memory as a loop takes it: float32, or a bfloat16's bits as int16."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _number(_context, kept):
    def generate(_context, builder, _signature, args):
        if kept == types.float32:
            return args[0]
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _16), ir.FloatType())

    return (types.float32(kept), generate) if kept in (types.float32, types.int16) else None


def _written(_context, x, row):
    def generate(_context, builder, _signature, args):
        if row.dtype == types.float32:
            return args[0]
        bits = builder.bitcast(args[0], _I32)
        last = builder.and_(builder.lshr(bits, _16), _I32(1))
        nearest = builder.lshr(builder.add(builder.add(bits, _I32(0x7FFF)), last), _16)
        not_a_number = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.select(not_a_number, _I32(0x7FC0), nearest), ir.IntType(16))

    known = x == types.float32 and row.dtype in (types.float32, types.int16)
    return (row.dtype(x, row), generate) if known else None


# number(kept): what lies in an array, as float32.
number: Any = intrinsic(_number)
# written(x, row): a float32 as it is to lie in `row`: as it is, or as the nearest bfloat16, of two the even one.
written: Any = intrinsic(_written)


def room(row, scratch):
    """Where a row's float32 may lie until they are written: the row itself, or `scratch` beside one of bfloat16."""
    raise NotImplementedError("of compiled loops alone")


@overload(room, inline="always")
def _room(row, scratch):
    if row.dtype == types.float32:
        return lambda row, scratch: row
    return lambda row, scratch: scratch
