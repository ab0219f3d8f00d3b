"""Rounds that later papers asked for, as further tables beside the paper's own: `--tables later`, or some by name.

Figures of those papers stand in `published`, never in `paper`: they are of other baselines, sizes and tasks, so their
differences to the T5 paper's baseline would mean nothing. They are to be read against one another within a table.
"""

from __future__ import annotations

from t5study.denoisers import Denoiser, MixtureOfDenoisers, Ul2
from t5study.objectives import SpanCorruption
from t5study.study.baseline import BASELINE
from t5study.study.sizes import Size
from t5study.study.table import Published, Row, Table

_GLU, _UL2, _DEEP = "GLU variants (Shazeer 2020)", "UL2 (Tay 2022)", "Scale Efficiently (Tay 2021)"
_BYT5, _WANG = "ByT5 ablations (Xue 2022)", "What LM Architecture & Objective (Wang 2022)"


def _glu(row: str, glue: float, superglue: float, squad: float) -> tuple[Published, ...]:
    """Shazeer's controls have no dropout in pre-training, and span corruption where ours hides i.i.d. tokens."""
    columns = {"GLUE avg (dev)": glue, "SuperGLUE avg (dev)": superglue, "SQuAD EM": squad}
    return tuple(Published(_GLU, "Tables 2-4", row, column, value) for column, value in columns.items())


GATED = Table(
    number="later-gated",
    caption="T5 1.1: a gated GELU, no dropout in pre-training, an untied softmax",
    axes=("gated", "tied", "pretrain_dropout"),
    rows=(
        Row("Baseline", BASELINE),
        Row(
            "No dropout in pre-training",  # the same run as the baseline at a scale without dropout
            BASELINE.but(pretrain_dropout=0.0),
            published=_glu("ReLU", 83.80, 72.76, 83.18),
        ),
        Row("Gated GELU", BASELINE.but(gated=True)),
        Row(
            "Gated GELU, no dropout in pre-training",
            BASELINE.but(gated=True, pretrain_dropout=0.0),
            published=_glu("GEGLU", 84.12, 73.96, 83.55),
        ),
        Row("Untied softmax", BASELINE.but(tied=False)),
        Row("All three (T5 1.1)", BASELINE.but(gated=True, tied=False, pretrain_dropout=0.0)),
    ),
)

_T5GEMMA_2 = MixtureOfDenoisers(
    (
        Denoiser("R", 0.15, 3),
        Denoiser("X", 0.5, 12),
        Denoiser("X", 0.15, 32),
        Denoiser("X", 0.5, 32),
        Denoiser("S", 0.75, None, weight=4),
    )
)

DENOISERS = Table(
    number="later-denoisers",
    caption="UL2: a mixture of denoisers, with and without mode tokens",
    axes=("objective",),
    rows=(
        Row("Baseline (i.i.d.)", BASELINE),
        Row("Span corruption", BASELINE.but(objective=SpanCorruption())),
        Row(
            "UL2",
            BASELINE.but(objective=Ul2()),
            published=(
                Published(_UL2, "text", "UL2 vs T5 (span corruption), 9 tasks", "relative overall gain %", 43.4),
            ),
        ),
        Row("UL2, no mode tokens", BASELINE.but(objective=Ul2(modes=False))),
        Row("T5Gemma 2's five denoisers", BASELINE.but(objective=_T5GEMMA_2)),
    ),
)

SHAPES = Table(
    number="later-shapes",
    caption="Deep and narrow: Small's width with more layers, beside Base",
    axes=("size",),
    rows=(
        Row("Base", BASELINE),
        Row("Small", BASELINE.but(size=Size("small"))),
        Row(
            "Small, 16 layers",
            BASELINE.but(size=Size("small", 16, 16)),
            published=(Published(_DEEP, "Table 4", "Small 16L vs Base (12L)", "FLOPs vs reference %", 63.1),),
        ),
        Row("Small, 32 layers", BASELINE.but(size=Size("small", 32, 32))),  # where their gain from depth ends
    ),
)


def _xnli(row: str, value: float) -> tuple[Published, ...]:
    return (Published(_BYT5, "Table 8", row, "XNLI zero-shot acc", value),)


DEPTH = Table(
    number="later-depth",
    caption="As many layers, split between encoder and decoder",
    axes=("size",),
    rows=(
        Row("12 + 12", BASELINE, published=_xnli("(b) ByT5-24/24-718M", 75.4)),
        Row("18 + 6", BASELINE.but(size=Size("base", 18, 6)), published=_xnli("(a) ByT5-36/12-668M", 78.3)),
        Row("6 + 18", BASELINE.but(size=Size("base", 6, 18)), published=_xnli("(c) ByT5-12/36-768M", 73.5)),
    ),
)


def _spans(percent: int, mean_span: int) -> Row:
    objective = SpanCorruption(percent / 100, mean_span)
    return Row(f"{percent}%, spans of {mean_span}", BASELINE.but(objective=objective))


RATES = Table(
    number="later-rates",
    caption="Corruption rates up to 50% at large spans",
    axes=("objective",),
    rows=(
        Row("Baseline (i.i.d.)", BASELINE),
        *(_spans(percent, mean_span) for mean_span in (3, 10, 32) for percent in (15, 25, 40, 50)),
    ),
)


def _wang(row: str, eai: float, t0: float) -> tuple[Published, ...]:
    return (Published(_WANG, "Table 8", row, "EAI-Eval", eai), Published(_WANG, "Table 8", row, "T0-Eval", t0))


ADAPTATION = Table(
    number="later-adaptation",
    caption="LM adaptation: prefix language modelling after pre-training, in parts of its steps",
    axes=("adaptation",),
    rows=(
        Row("None", BASELINE, published=_wang("ED:MLM(42B)+ED:MTF(13B)", 45.4, 53.7)),
        Row(
            "10%",  # as Lester 2021: 100,000 steps after 1,000,000
            BASELINE.but(adaptation=0.1),
            published=_wang("ED:MLM(38B)+ED:PLM(4B)+ED:MTF(13B)", 45.7, 52.6),
        ),
        Row("20%", BASELINE.but(adaptation=0.2)),
    ),
)

LATER = (GATED, DENOISERS, SHAPES, DEPTH, RATES, ADAPTATION)
