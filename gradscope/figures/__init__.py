"""Turns runs or tidy frames into plotly figures, each answering one question in its title.

Must never know torch, files or Dash.
"""

from gradscope.figures.flow import gradient_flow
from gradscope.figures.heatmap import gradient_heatmap
from gradscope.figures.training import training_curves

__all__ = ["gradient_flow", "gradient_heatmap", "training_curves"]
