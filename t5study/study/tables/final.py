"""Section 3.7: Table 14, the final models, and Table 15, what they owe to anything but their size.

What the search came to, in one experiment: span corruption of 15 % in spans of 3; a million steps of 2^11 rows (30
times the baseline's tokens) on text and tasks at once; then fine-tuning on each GLUE and SuperGLUE task by itself, in
small batches, on the other benchmarks in large ones (which section 3.7 implies: "our large batch size"); beams for
summaries and translations.

Table 14's figures are of test sets (SQuAD's are not), so they stand in `published`: no difference to the baseline's,
which are of validation sets, would mean anything. Table 15 has T5-Base's on validation sets; it is the same run.
Not here: checkpoints every 1,000 steps of fine-tuning (a scale says how many there are), and test sets, whose answers
are not public (`submission` writes them for the sites).
"""

from __future__ import annotations

from t5study.feed.multitask import Final
from t5study.objectives import SpanCorruption
from t5study.study.baseline import BASELINE
from t5study.study.experiment import Experiment
from t5study.study.scores import figures
from t5study.study.sizes import Size
from t5study.study.strategies import MultiTaskThenFinetune
from t5study.study.table import Published, Row, Table

_TRILLION = BASELINE.but(pretraining=10**6 / 2**19, batch=2**11 / 2**7)  # 2^40 tokens, nearly

# fmt: off
_COLUMNS = (
    "GLUE average", "CoLA Matthews", "SST-2 Acc", "MRPC F1", "MRPC Acc", "STS-B Pearson", "STS-B Spearman", "QQP F1",
    "QQP Acc", "MNLI-m Acc", "MNLI-mm Acc", "QNLI Acc", "RTE(GLUE) Acc", "WNLI Acc",
    "SQuAD EM", "SQuAD F1",
    "SuperGLUE average", "BoolQ Acc", "CB F1", "CB Acc", "COPA Acc", "MultiRC F1a", "MultiRC EM", "ReCoRD F1",
    "ReCoRD Acc", "RTE(SGLUE) Acc", "WiC Acc", "WSC Acc",
    "WMT EnDe BLEU", "WMT EnFr BLEU", "WMT EnRo BLEU",
    "CNN/DM ROUGE-1", "CNN/DM ROUGE-2", "CNN/DM ROUGE-L",
)
_TESTED = {
    "T5-Small": (
        77.4, 41.0, 91.8, 89.7, 86.6, 85.6, 85.0, 70.0, 88.0, 82.4, 82.3, 90.3, 69.9, 69.2,
        79.10, 87.24,
        63.3, 76.4, 56.9, 81.6, 46.0, 69.3, 26.3, 56.3, 55.4, 73.3, 66.9, 70.5,
        26.7, 36.0, 26.8,
        41.12, 19.56, 38.35,
    ),
    "T5-Base": (
        82.7, 51.1, 95.2, 90.7, 87.5, 89.4, 88.6, 72.6, 89.4, 87.1, 86.2, 93.7, 80.1, 78.8,
        85.44, 92.08,
        76.2, 81.4, 86.2, 94.0, 71.2, 79.7, 43.1, 75.0, 74.2, 81.5, 68.3, 80.8,
        30.9, 41.2, 28.0,
        42.05, 20.34, 39.40,
    ),
    "T5-Large": (
        86.4, 61.2, 96.3, 92.4, 89.9, 89.9, 89.2, 73.9, 89.9, 89.9, 89.6, 94.8, 87.2, 85.6,
        86.66, 93.79,
        82.3, 85.4, 91.6, 94.8, 83.4, 83.3, 50.7, 86.8, 85.9, 87.8, 69.3, 86.3,
        32.0, 41.5, 28.1,
        42.50, 20.68, 39.75,
    ),
    "T5-3B": (
        88.5, 67.1, 97.4, 92.5, 90.0, 90.6, 89.8, 74.4, 89.7, 91.4, 91.2, 96.3, 91.1, 89.7,
        88.53, 94.95,
        86.4, 89.9, 90.3, 94.4, 92.0, 86.8, 58.3, 91.2, 90.4, 90.7, 72.1, 90.4,
        31.8, 42.6, 28.2,
        42.72, 21.02, 39.94,
    ),
    "T5-11B": (
        90.3, 71.6, 97.5, 92.8, 90.4, 93.1, 92.8, 75.1, 90.6, 92.2, 91.9, 96.9, 92.8, 94.5,
        91.26, 96.22,
        88.9, 91.2, 93.9, 96.8, 94.8, 88.1, 63.3, 94.1, 93.4, 92.5, 76.9, 93.8,
        32.1, 43.4, 28.1,
        43.52, 21.55, 40.69,
    ),
}
# fmt: on


def final(size: str) -> Experiment:
    """A final model. size: "small", "base", "large", "3b", "11b"."""
    return _TRILLION.but(
        objective=SpanCorruption(0.15, 3),
        strategy=MultiTaskThenFinetune(),
        mixing=Final(size),
        size=Size(size),
        beam=True,
        per_task=True,
    )


def _row(size: str, erratum: str | None = None) -> Row:
    label = {"small": "T5-Small", "base": "T5-Base", "large": "T5-Large"}.get(size, f"T5-{size.upper()}")
    tested = zip(_COLUMNS, _TESTED[label], strict=True)
    published = (Published("T5 (Raffel 2020)", "Table 14", label, column, value) for column, value in tested)
    return Row(label, final(size), erratum=erratum, published=tuple(published))


TABLE_14 = Table(
    number="14",
    caption="The final models, from 60 million parameters to 11 billion",
    axes=("objective", "strategy", "mixing", "pretraining", "batch", "size", "beam", "per_task"),
    rows=(
        _row("small"),
        _row("base"),
        _row("large"),
        _row("3b"),
        _row("11b", erratum="Table 14 prints 88.9 for SuperGLUE; the mean of its own task scores is 89.25"),
    ),
)

TABLE_15 = Table(
    number="15",
    caption="The baseline, the baseline on a trillion tokens, and T5-Base",
    axes=("objective", "strategy", "mixing", "pretraining", "batch", "beam", "per_task"),
    rows=(
        Row("Baseline", BASELINE, figures(83.28, 19.24, 80.88, 71.36, 26.98, 39.82, 27.65)),
        Row(
            "Baseline-1T",  # in T5-Base's steps and rows; the paper says only that the tokens are as many
            _TRILLION,
            figures(84.80, 19.62, 83.01, 73.90, 27.46, 40.30, 28.34),
        ),
        Row("T5-Base", final("base"), figures(85.97, 20.90, 85.44, 75.64, 28.37, 41.37, 28.98)),
    ),
)

TABLES = (TABLE_14, TABLE_15)
