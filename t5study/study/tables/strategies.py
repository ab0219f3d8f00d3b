"""Section 3.5: Table 10, which weights fine-tuning moves; Tables 11 and 12, in which order text and tasks are seen.

Table 12's multi-task training is the same experiment as Table 11's examples-proportional mixing with K = 2^19, is run
once, and stands in both.
"""

from __future__ import annotations

from t5study.feed.mixing import Equal, ExamplesProportional, Temperature
from t5study.study.baseline import BASELINE
from t5study.study.experiment import Mixing
from t5study.study.scores import figures
from t5study.study.strategies import LeaveOneOut, MultiTask, MultiTaskThenFinetune, SupervisedThenFinetune
from t5study.study.table import Row, Table
from t5study.train.tuning import Adapters, GradualUnfreezing

_BASELINE_FIGURES = figures(83.28, 19.24, 80.88, 71.36, 26.98, 39.82, 27.65)

TABLE_10 = Table(
    number="10",
    caption="Which weights fine-tuning moves",
    axes=("tuning",),
    rows=(
        Row("All parameters", BASELINE, _BASELINE_FIGURES),
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


def _mixed(label: str, mixing: Mixing, *values: float) -> Row:
    """A row of multi-task training, without fine-tuning."""
    return Row(label, BASELINE.but(strategy=MultiTask(), mixing=mixing), figures(*values))


TABLE_11 = Table(
    number="11",
    caption="Multi-task training without fine-tuning, by how text and tasks are mixed",
    axes=("strategy", "mixing"),
    rows=(
        Row("Baseline (pre-train/fine-tune)", BASELINE, _BASELINE_FIGURES),
        _mixed("Equal", Equal(), 76.13, 19.02, 76.51, 63.37, 23.89, 34.31, 26.78),
        _mixed(
            "Examples-proportional, K=2^16",
            ExamplesProportional(2**16),
            80.45,
            19.04,
            77.25,
            69.95,
            24.35,
            34.99,
            27.10,
        ),
        _mixed(
            "Examples-proportional, K=2^17",
            ExamplesProportional(2**17),
            81.56,
            19.12,
            77.00,
            67.91,
            24.36,
            35.00,
            27.25,
        ),
        _mixed(
            "Examples-proportional, K=2^18",
            ExamplesProportional(2**18),
            81.67,
            19.07,
            78.17,
            67.94,
            24.57,
            35.19,
            27.39,
        ),
        _mixed(
            "Examples-proportional, K=2^19",
            ExamplesProportional(2**19),
            81.42,
            19.24,
            79.78,
            67.30,
            25.21,
            36.30,
            27.76,
        ),
        _mixed(
            "Examples-proportional, K=2^20",
            ExamplesProportional(2**20),
            80.80,
            19.24,
            80.36,
            67.38,
            25.66,
            36.93,
            27.68,
        ),
        _mixed(
            "Examples-proportional, K=2^21",
            ExamplesProportional(2**21),
            79.83,
            18.79,
            79.50,
            65.10,
            25.82,
            37.22,
            27.13,
        ),
        _mixed("Temperature-scaled, T=2", Temperature(2, 2**21), 81.90, 19.28, 79.42, 69.92, 25.42, 36.72, 27.20),
        _mixed("Temperature-scaled, T=4", Temperature(4, 2**21), 80.56, 19.22, 77.99, 69.54, 25.04, 35.82, 27.45),
        _mixed("Temperature-scaled, T=8", Temperature(8, 2**21), 77.21, 19.10, 77.14, 66.07, 24.55, 35.35, 27.17),
    ),
)

TABLE_12 = Table(
    number="12",
    caption="Multi-task training, and fine-tuning after it",
    axes=("strategy",),
    rows=(
        Row("Unsupervised pre-training + fine-tuning", BASELINE, _BASELINE_FIGURES),
        Row(
            "Multi-task training",
            BASELINE.but(strategy=MultiTask()),
            figures(81.42, 19.24, 79.78, 67.30, 25.21, 36.30, 27.76),
        ),
        Row(
            "Multi-task pre-training + fine-tuning",
            BASELINE.but(strategy=MultiTaskThenFinetune()),
            figures(83.11, 19.12, 80.26, 71.03, 27.08, 39.80, 28.07),
        ),
        Row(
            "Leave-one-out multi-task training",
            BASELINE.but(strategy=LeaveOneOut()),
            figures(81.98, 19.05, 79.97, 71.68, 26.93, 39.79, 27.87),
        ),
        Row(
            "Supervised multi-task pre-training",
            BASELINE.but(strategy=SupervisedThenFinetune()),
            figures(79.93, 18.96, 77.38, 65.36, 26.81, 40.13, 28.04),
        ),
    ),
)

TABLES = (TABLE_10, TABLE_11, TABLE_12)
