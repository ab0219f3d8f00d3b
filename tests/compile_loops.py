"""Compiles the model's loops into numba's cache before any test starts: the process that compiles rounds a last digit
otherwise than those that load (docs/results/README.md), and tests compare bytes between processes."""

from __future__ import annotations

import numpy as np

from t5study.feed.packing import pack
from t5study.ground.machine import Machine, use
from t5study.ground.pairs import Pair, Pairs
from t5study.model.architectures import Dropout, arrange, build
from t5study.model.shapes import Shape
from t5study.train.optim import Adafactor

use(Machine())
model = build(Shape(128, 128, 32, 4, 1, 1, 256), seed=0)
optimizer = Adafactor().build(model)
ids = np.arange(3, 20, dtype=np.int32)
batch, _ = pack(Pairs.of([Pair(ids, ids[:7])] * 6), rows=2, source_length=40, target_length=20)
for dropout in (None, Dropout(0.1, 0, 0)):
    losses = model.loss_sum(arrange(batch), dropout=dropout, z_loss=1e-4)
    (losses.total / losses.tokens).backward()
    optimizer.step(0.01)
    for weight in model.parameters():
        weight.grad = None
