"""Section 3.5.1's Table 10: which weights fine-tuning moves."""

from __future__ import annotations

from t5study.study.baseline import BASELINE
from t5study.study.scores import figures
from t5study.study.table import Row, Table
from t5study.train.tuning import Adapters, GradualUnfreezing

TABLE_10 = Table(
    number="10",
    caption="Which weights fine-tuning moves",
    axes=("tuning",),
    rows=(
        Row("All parameters", BASELINE, figures(83.28, 19.24, 80.88, 71.36, 26.98, 39.82, 27.65)),
        Row(
            "Adapter layers, d=32",
            BASELINE.but(tuning=Adapters(32)),
            figures(80.52, 15.08, 79.32, 60.40, 13.84, 17.88, 15.54),
        ),
        Row(
            "Adapter layers, d=128",
            BASELINE.but(tuning=Adapters(128)),
            figures(81.51, 16.62, 79.47, 63.03, 19.83, 27.50, 22.63),
        ),
        Row(
            "Adapter layers, d=512",
            BASELINE.but(tuning=Adapters(512)),
            figures(81.54, 17.78, 79.18, 64.30, 23.45, 33.98, 25.81),
        ),
        Row(
            "Adapter layers, d=2048",
            BASELINE.but(tuning=Adapters(2048)),
            figures(82.62, 18.30, 79.40, 68.61, 25.64, 36.92, 26.93),
            erratum="Table 10 prints the figures of d=128 once more in this row; these are the ones of Table 16",
        ),
        Row(
            "Gradual unfreezing",
            BASELINE.but(tuning=GradualUnfreezing(12)),
            figures(82.50, 18.95, 79.17, 70.79, 26.71, 39.02, 26.93),
        ),
    ),
)
