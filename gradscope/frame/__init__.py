"""Turns run folders into tidy pandas frames: load, select, align by relative depth, thin.

Must never know torch or plotly.
"""

from gradscope.frame.runs import Run, load, load_all, load_named
from gradscope.frame.selection import aligned, nearest_step, on_grid, select, thin
from gradscope.frame.tables import FRAMES, sites_frame

__all__ = [
    "FRAMES",
    "Run",
    "aligned",
    "load",
    "load_all",
    "load_named",
    "nearest_step",
    "on_grid",
    "select",
    "sites_frame",
    "thin",
]
