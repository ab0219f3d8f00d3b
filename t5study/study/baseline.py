"""BASELINE: the paper's section 3.1 as an experiment. Every other experiment says only what it changes."""

from __future__ import annotations

from t5study.feed.mixing import ExamplesProportional
from t5study.objectives import ReplaceSpans
from t5study.study.experiment import STUDY, Architecture, Experiment
from t5study.study.strategies import PretrainThenFinetune
from t5study.train.tuning import AllParameters

BASELINE = Experiment(
    objective=ReplaceSpans(),  # 3.1.4: 15 % of tokens, i.i.d., each run replaced by one sentinel; target: the runs
    architecture=Architecture("encoder_decoder"),  # 3.1.1
    corpus=STUDY,  # 2.2 has C4; here: the text this study was given
    pretraining=1.0,  # 3.1.2: 2^19 steps; here: the scale's
    finetuning=1.0,  # 3.1.2: 2^18 steps; here: the scale's
    mixing=ExamplesProportional(limit=2**19),  # 2.3 treats a benchmark's data sets as one mixture; K as in Table 12
    tuning=AllParameters(),  # 3.1.2: all parameters
    seed=0,
    repeats=0,  # 2.2: no text is read twice
    strategy=PretrainThenFinetune(),  # 3.1.2
)
