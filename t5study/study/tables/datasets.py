"""Section 3.4's Tables 8 and 9: which text to pre-train on, and how often the same.

A text is one of those that a study is given by name (`--corpus wikipedia='wiki/*.txt'`), in the place of C4 the one it
is given without a name; all are read in the study's own vocabulary, as the paper read all in C4's. A row whose text is
not there is Absent. `corpus build` has a recipe for each of the paper's but the books.
"""

from __future__ import annotations

from t5study.study.baseline import BASELINE
from t5study.study.scores import figures
from t5study.study.table import Row, Table

_BASELINE_FIGURES = figures(83.28, 19.24, 80.88, 71.36, 26.98, 39.82, 27.65)

TABLE_8 = Table(
    number="8",
    caption="Pre-training on other text",
    axes=("corpus",),
    rows=(
        Row("C4", BASELINE, _BASELINE_FIGURES),
        Row(
            "C4, unfiltered",  # "the worst in every task", says section 3.4.1; on SuperGLUE Wikipedia is 0.03 lower
            BASELINE.but(corpus="c4-unfiltered"),
            figures(81.46, 19.14, 78.78, 68.04, 26.55, 39.34, 27.21),
        ),
        Row(
            "RealNews-like",
            BASELINE.but(corpus="realnews-like"),
            figures(83.83, 19.23, 80.39, 72.38, 26.75, 39.90, 27.48),
        ),
        Row(
            "WebText-like",
            BASELINE.but(corpus="webtext-like"),
            figures(84.03, 19.31, 81.42, 71.40, 26.80, 39.74, 27.59),
        ),
        Row(
            "Wikipedia",
            BASELINE.but(corpus="wikipedia"),
            figures(81.85, 19.31, 81.29, 68.01, 26.94, 39.69, 27.67),
        ),
        Row(
            "Wikipedia + TBC",  # the Toronto Books Corpus, which is no longer given away: any books will do
            BASELINE.but(corpus="wikipedia-books"),
            figures(83.65, 19.28, 82.08, 73.24, 26.77, 39.63, 27.57),
        ),
    ),
)

TABLE_9 = Table(
    number="9",
    caption="Pre-training on less text, read over and over",
    axes=("repeats",),
    rows=(
        Row("Full data set (0)", BASELINE, _BASELINE_FIGURES),
        Row("2^29 (64)", BASELINE.but(repeats=64), figures(82.87, 19.19, 80.97, 72.03, 26.83, 39.74, 27.63)),
        Row("2^27 (256)", BASELINE.but(repeats=256), figures(82.62, 19.20, 79.78, 69.97, 27.02, 39.71, 27.33)),
        Row("2^25 (1,024)", BASELINE.but(repeats=1024), figures(79.55, 18.57, 76.27, 64.76, 26.38, 39.56, 26.80)),
        Row("2^23 (4,096)", BASELINE.but(repeats=4096), figures(76.34, 18.33, 70.92, 59.29, 26.37, 38.84, 25.81)),
    ),
)

TABLES = (TABLE_8, TABLE_9)
