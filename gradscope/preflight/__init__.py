"""A model before training -> a verdict with the named layer, from a few passes and no update.

Must never know files of runs, figures or Dash.
"""

from gradscope.preflight.report import Reading, Report
from gradscope.preflight.state import preserved
from gradscope.preflight.subjects import classification_loss, load_builder, subject
from gradscope.preflight.trial import check

__all__ = [
    "Reading",
    "Report",
    "check",
    "classification_loss",
    "load_builder",
    "preserved",
    "subject",
]
