"""Attention of single queries, on a CPU: compiled loops over the source's keys, the answer's, or both.

Beams of a row share their source's keys and values, which lie in panels: so attention over them is a product of up to
6 rows. Those of answers lie head by head, place after place, and are found by their addresses, since the beams of a row
have parts of their pasts in common.

    A  answers under way    R  rows of the batch    N  source tokens    H  heads    E  d_kv    I  H E
    B  beams of a row    G  floats of all panels    L  places for answers    W  I of keys, then of values
"""

from __future__ import annotations

import numpy as np

from t5study.decode.tiles import ROWS, WIDTH, dot, exp, floats, loop, mix, part

_TILES = "14fb784f3c249e4d"  # digest of tiles.py, whose parts are compiled into the loops below
_f = np.float32


@part
def _softmax(row):
    """In place."""
    most, total = row[0], _f(0)
    for j in range(len(row)):
        most = max(most, row[j])
    check = _f(0)
    for j in range(len(row)):
        check += row[j]
        row[j] = exp(row[j] - most)
        total += row[j]
    scale = _f(1) / (total + check * _f(0))
    for j in range(len(row)):
        row[j] *= scale


@loop
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


@loop
def attend(q_AI, heads, panels_G, first_R, length_R, row_A, answer_2AHLE, slot_AL, places, bias_HL, out_AI):
    """Attention of one query each: over its row's source (panels_G empty: not), and over the `places` places of its
    own answer so far (0: not). answer_2AHLE: keys and values, E rounded up to panels. slot_AL: where in the cache each
    place of an answer lies. bias_HL: by how far a key lies behind the query, where answers are looked at. Answers of a
    row lie side by side. (Fetching ahead does not help here: a core's whole bandwidth is read already.)"""
    e = q_AI.shape[1] // heads
    sources, chunks = len(panels_G) > 0, (e + WIDTH - 1) // WIDTH
    longest = length_R.max() if sources else 0
    score = np.empty((ROWS, (longest + WIDTH - 1) // WIDTH * WIDTH + places), np.float32)
    tile = np.empty((ROWS, WIDTH), np.float32)
    q_E = np.zeros(chunks * WIDTH, np.float32)
    key_BL = np.empty((ROWS, places), np.int64)  # addresses
    of_place = 4 * chunks * WIDTH  # bytes
    of_head = of_place * answer_2AHLE.shape[3]
    to_values = of_head * heads * answer_2AHLE.shape[1]
    first = 0
    while first < len(row_A):
        r, rows = row_A[first], 1
        while rows < ROWS and first + rows < len(row_A) and row_A[first + rows] == r:
            rows += 1
        length = length_R[r] if sources else 0
        keys = (length + WIDTH - 1) // WIDTH
        for b in range(rows):
            for j in range(places):
                key_BL[b, j] = answer_2AHLE.ctypes.data + slot_AL[first + b, j] * heads * of_head + j * of_place
        for h in range(heads):
            q = q_AI[first:, h * e :].ctypes.data
            at = (first_R[r] + h * WIDTH * (keys * e + chunks * length)) if sources else 0
            for p in range(keys):
                panel = panels_G[at + p * e * WIDTH :].ctypes.data
                floats(rows, q, q_AI.strides[0] // 4, panel, e, tile.ctypes.data, panel)
                score[:rows, p * WIDTH : (p + 1) * WIDTH] = tile[:rows]
            for b in range(rows):
                row = score[b, : length + places]
                if places:
                    for j in range(length):
                        row[j] += bias_HL[h, length + places - 1 - j]
                    q_E[:e] = q_AI[first + b, h * e : h * e + e]
                for j in range(places):
                    key = key_BL[b, j] + h * of_head
                    row[length + j] = bias_HL[h, places - 1 - j] + dot(q_E.ctypes.data, key, chunks)
                _softmax(row)
            at += keys * e * WIDTH
            for c in range(chunks):
                width = min(WIDTH, e - c * WIDTH)
                if length:
                    panel = panels_G[at + c * length * WIDTH :].ctypes.data
                    floats(rows, score.ctypes.data, score.shape[1], panel, length, tile.ctypes.data, panel)
                else:
                    tile[:] = 0
                if places:
                    value = to_values + h * of_head + 4 * c * WIDTH
                    for b in range(rows):
                        p_L = score[b, length:].ctypes.data
                        mix(p_L, key_BL[b].ctypes.data, value, places, tile[b].ctypes.data)
                out_AI[first : first + rows, h * e + c * WIDTH : h * e + c * WIDTH + width] = tile[:rows, :width]
        first += rows
