"""A name -> a recorded training, or a comparison of several; data sets and checkpoints.

Must never know figures or the dashboard.
"""

from gradscope.experiments.checkpoint import rebuild
from gradscope.experiments.comparison import DEMO_MODELS, compare, demo
from gradscope.experiments.datasets import DataSet, Split
from gradscope.experiments.datasets import load as load_data
from gradscope.experiments.datasets import names as data_names
from gradscope.experiments.lesions import TestImages, ablate_run
from gradscope.experiments.training import Progress, evaluate, train
from gradscope.experiments.ways import MEASURES, Ways, measure_ways, shatter_lines

__all__ = [
    "DEMO_MODELS",
    "MEASURES",
    "DataSet",
    "Progress",
    "Split",
    "TestImages",
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
    "train",
]
