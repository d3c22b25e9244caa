"""Turns runs or tidy frames into plotly figures, each answering one question in its title.

Must never know torch, files or Dash.
"""

from gradscope.figures.bars import ablation_bars
from gradscope.figures.curve import ablation_curve
from gradscope.figures.decorrelation import shattering
from gradscope.figures.difference import gradient_difference
from gradscope.figures.flow import gradient_flow
from gradscope.figures.front import pareto
from gradscope.figures.heads import head_share
from gradscope.figures.heatmap import gradient_heatmap
from gradscope.figures.layer import histogram, parameter_curves
from gradscope.figures.paths import path_profile
from gradscope.figures.reuse import feature_reuse
from gradscope.figures.skips import skip_share
from gradscope.figures.training import training_curves
from gradscope.figures.worth import ablation_heatmap

__all__ = [
    "ablation_bars",
    "ablation_curve",
    "ablation_heatmap",
    "feature_reuse",
    "gradient_difference",
    "gradient_flow",
    "gradient_heatmap",
    "head_share",
    "histogram",
    "parameter_curves",
    "pareto",
    "path_profile",
    "shattering",
    "skip_share",
    "training_curves",
]
