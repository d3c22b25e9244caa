"""Turns a folder of runs into a dashboard in the browser, live while runs are being written.

Reads runs through `gradscope.frame` and `gradscope.figures` only; must never know torch.
"""

from gradscope_dashboard.app import create_app, serve

__all__ = ["create_app", "serve"]
