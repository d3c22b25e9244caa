"""Turns what a run logged into one series by name, and into the value to show for it.

Must never know Dash or figures.
"""

from __future__ import annotations

import numpy as np

from gradscope.frame import Run

NEWEST = 20
"""Rows of a train value that are averaged, one batch alone being noise."""


def series(run: Run, name: str) -> np.ndarray:
    """Every value logged under that name, oldest first, float64; empty where there is none."""
    logged = run.frame("scalars", columns=["value"])
    return logged[logged["name"] == name]["value"].to_numpy(dtype=np.float64)


def final(run: Run, name: str) -> float:
    """The newest finite value: of validation the last one, of training the mean of NEWEST; NaN."""
    values = series(run, name)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan")
    return float(finite[-1] if name.startswith("val_") else finite[-NEWEST:].mean())
