"""Runs -> figure files and the data they show.

Must never know torch or Dash.
"""

from gradscope.export.files import COMPARING, FORMATS, SINGLE, export_figures
from gradscope.export.images import IMAGE_FORMATS, Image, browser_found, render

__all__ = [
    "COMPARING",
    "FORMATS",
    "IMAGE_FORMATS",
    "SINGLE",
    "Image",
    "browser_found",
    "export_figures",
    "render",
]
