"""Section 3.1's Table 1 and section 3.3's Tables 4 to 7: the baseline, and what pre-training should hide."""

from __future__ import annotations

from t5study.objectives import (
    BertStyle,
    Deshuffle,
    DropTokens,
    MassStyle,
    PrefixLM,
    ReplaceSpans,
    SpanCorruption,
)
from t5study.study.baseline import BASELINE
from t5study.study.scores import figures
from t5study.study.table import Row, Table

_BASELINE_FIGURES = figures(83.28, 19.24, 80.88, 71.36, 26.98, 39.82, 27.65)
_BERT_FIGURES = figures(82.96, 19.17, 80.65, 69.85, 26.78, 40.03, 27.41)
_BERT = Row("BERT-style", BASELINE.but(objective=BertStyle()), _BERT_FIGURES)

TABLE_1 = Table(
    number="1",
    caption="The baseline, its noise, and the same model without pre-training",
    axes=("pretraining",),
    rows=(
        Row("Baseline average", BASELINE, _BASELINE_FIGURES),
        Row(
            "No pre-training",
            BASELINE.but(pretraining=0.0),
            figures(66.22, 17.60, 50.31, 53.04, 25.86, 39.77, 24.04),
        ),
    ),
    deviation=figures(0.235, 0.065, 0.343, 0.416, 0.112, 0.090, 0.108),
)

TABLE_4 = Table(
    number="4",
    caption="Three disparate pre-training objectives",
    axes=("objective",),
    rows=(
        Row(
            "Prefix language modeling",
            BASELINE.but(objective=PrefixLM()),
            figures(80.69, 18.94, 77.99, 65.27, 26.86, 39.73, 27.49),
        ),
        _BERT,
        Row(
            "Deshuffling",
            BASELINE.but(objective=Deshuffle()),
            figures(73.17, 18.59, 67.61, 58.47, 26.11, 39.30, 25.62),
        ),
    ),
)

TABLE_5 = Table(
    number="5",
    caption="Variants of the BERT-style objective: what stands in the gaps, and what is to be said",
    axes=("objective",),
    rows=(
        _BERT,
        Row(
            "MASS-style",
            BASELINE.but(objective=MassStyle()),
            figures(82.32, 19.16, 80.10, 69.28, 26.79, 39.89, 27.55),
        ),
        Row("Replace corrupted spans", BASELINE, _BASELINE_FIGURES),
        Row(
            "Drop corrupted tokens",
            BASELINE.but(objective=DropTokens()),
            figures(84.44, 19.31, 80.52, 68.67, 27.07, 39.76, 27.82),
        ),
    ),
)

TABLE_6 = Table(
    number="6",
    caption="Corruption rate of the i.i.d. objective",
    axes=("objective",),
    rows=(
        Row(
            "10%",
            BASELINE.but(objective=ReplaceSpans(rate=0.10)),
            figures(82.82, 19.00, 80.38, 69.55, 26.87, 39.28, 27.44),
        ),
        Row("15%", BASELINE, _BASELINE_FIGURES),
        Row(
            "25%",
            BASELINE.but(objective=ReplaceSpans(rate=0.25)),
            figures(83.00, 19.54, 80.96, 70.48, 27.04, 39.83, 27.47),
        ),
        Row(
            "50%",
            BASELINE.but(objective=ReplaceSpans(rate=0.50)),
            figures(81.27, 19.32, 79.80, 70.33, 27.01, 39.90, 27.49),
        ),
    ),
)

TABLE_7 = Table(
    number="7",
    caption="Mean length of the corrupted spans at a rate of 15%",
    axes=("objective",),
    rows=(
        Row("Baseline (i.i.d.)", BASELINE, _BASELINE_FIGURES),
        Row(
            "2",
            BASELINE.but(objective=SpanCorruption(mean_span=2)),
            figures(83.54, 19.39, 82.09, 72.20, 26.76, 39.99, 27.63),
        ),
        Row(
            "3",
            BASELINE.but(objective=SpanCorruption(mean_span=3)),
            figures(83.49, 19.62, 81.84, 72.53, 26.86, 39.65, 27.62),
        ),
        Row(
            "5",
            BASELINE.but(objective=SpanCorruption(mean_span=5)),
            figures(83.40, 19.24, 82.05, 72.23, 26.88, 39.40, 27.53),
        ),
        Row(
            "10",
            BASELINE.but(objective=SpanCorruption(mean_span=10)),
            figures(82.85, 19.33, 81.84, 70.44, 26.79, 39.49, 27.69),
        ),
    ),
)

TABLES = (TABLE_1, TABLE_4, TABLE_5, TABLE_6, TABLE_7)
