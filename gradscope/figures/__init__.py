"""Turns runs or tidy frames into plotly figures, each answering one question in its title.

Must never know torch, files or Dash.
"""

from gradscope.figures.flow import gradient_flow

__all__ = ["gradient_flow"]
