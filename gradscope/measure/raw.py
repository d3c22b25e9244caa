"""Raw sums of one tensor -> the statistics of docs/metrics.md, as numpy arrays.

A tensor is first reduced to the seven float64 sums named in `RAW`; `finish` turns any number of such
rows into statistics, away from the training thread. Must never know sites, steps or files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RAW = ("count", "nonfinite", "zeros", "sum", "square_sum", "centered_square_sum", "absmax")
"""Sums over the finite elements, but for `count` (all elements) and `nonfinite`."""

STATISTICS = ("mean", "std", "rms", "norm", "absmax", "zero_fraction", "nonfinite")


def finish(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Statistics of tensors given as rows of `RAW`: shape (..., 7) -> (..., 7), columns `STATISTICS`.

    A tensor without finite elements has NaN for all but `nonfinite`.
    Formulas: mean = sum / f, std = sqrt(centered / f), rms = sqrt(square_sum / f),
    norm = sqrt(square_sum), zero_fraction = zeros / f, with f = count - nonfinite.
    """
    count, nonfinite, zeros, total, square, centered, absmax = np.moveaxis(raw, -1, 0)
    finite = count - nonfinite
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.stack(
            [
                total / finite,
                np.sqrt(centered / finite),
                np.sqrt(square / finite),
                np.sqrt(square),
                absmax,
                zeros / finite,
                nonfinite,
            ],
            axis=-1,
        )
    out[finite == 0, :-1] = np.nan
    return np.asarray(out, dtype=np.float64)
