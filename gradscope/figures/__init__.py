"""Turns runs or tidy frames into plotly figures, each answering one question in its title.

Must never know torch, files or Dash.
"""

from gradscope.figures.bars import ablation_bars
from gradscope.figures.curve import ablation_curve
from gradscope.figures.difference import gradient_difference
from gradscope.figures.flow import gradient_flow
from gradscope.figures.front import pareto
from gradscope.figures.heatmap import gradient_heatmap
from gradscope.figures.layer import histogram, parameter_curves
from gradscope.figures.skips import skip_share
from gradscope.figures.training import training_curves

__all__ = [
    "ablation_bars",
    "ablation_curve",
    "gradient_difference",
    "gradient_flow",
    "gradient_heatmap",
    "histogram",
    "parameter_curves",
    "pareto",
    "skip_share",
    "training_curves",
]
