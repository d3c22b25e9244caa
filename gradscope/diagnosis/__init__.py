"""Recorded runs -> findings: what is wrong, where, since when, on what evidence, and what to do.

Works on plain numpy columns, so that a training process can tell its verdict without pandas.
Must never know figures or Dash, nor judge by a network's name.
"""

from gradscope.diagnosis.evidence import Evidence, Panel, Series, empty_panel, gather, panel
from gradscope.diagnosis.slope import Attenuation, attenuation, student
from gradscope.diagnosis.verdict import RULES, Rule, diagnose, judge, verdict

__all__ = [
    "RULES",
    "Attenuation",
    "Evidence",
    "Panel",
    "Rule",
    "Series",
    "attenuation",
    "diagnose",
    "empty_panel",
    "gather",
    "judge",
    "panel",
    "student",
    "verdict",
]
