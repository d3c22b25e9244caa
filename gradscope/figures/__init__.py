"""Turns runs or tidy frames into plotly figures, each answering one question in its title.

Must never know torch, files or Dash.
"""

from gradscope.figures.difference import gradient_difference
from gradscope.figures.flow import gradient_flow
from gradscope.figures.heatmap import gradient_heatmap
from gradscope.figures.layer import histogram, parameter_curves
from gradscope.figures.training import training_curves

__all__ = [
    "gradient_difference",
    "gradient_flow",
    "gradient_heatmap",
    "histogram",
    "parameter_curves",
    "training_curves",
]
