"""A name -> a recorded training, or a comparison of several; data sets and checkpoints.

Must never know figures or the dashboard.
"""

from gradscope.experiments.checkpoint import rebuild
from gradscope.experiments.comparison import (
    DEMO,
    DEMO_MODELS,
    Variant,
    compare,
    demo,
    train_variants,
)
from gradscope.experiments.datasets import DataSet, Split
from gradscope.experiments.datasets import load as load_data
from gradscope.experiments.datasets import names as data_names
from gradscope.experiments.heldout import TestImages
from gradscope.experiments.lesions import ablate_run
from gradscope.experiments.outcomes import OUTCOMES, Spread
from gradscope.experiments.studies import STUDIES, Judged, StudyResult, study
from gradscope.experiments.training import Progress, evaluate, train
from gradscope.experiments.ways import MEASURES, Ways, measure_ways, shatter_lines

__all__ = [
    "DEMO",
    "DEMO_MODELS",
    "MEASURES",
    "OUTCOMES",
    "STUDIES",
    "DataSet",
    "Judged",
    "Progress",
    "Split",
    "Spread",
    "StudyResult",
    "TestImages",
    "Variant",
    "Ways",
    "ablate_run",
    "compare",
    "data_names",
    "demo",
    "evaluate",
    "load_data",
    "measure_ways",
    "rebuild",
    "shatter_lines",
    "study",
    "train",
    "train_variants",
]
