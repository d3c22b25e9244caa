"""A depth profile over steps -> its attenuation: decades per layer, with a confidence interval.

Pure arithmetic on arrays; must never know runs, rules or sites' names.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradscope.diagnosis.thresholds import END_SHARE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Attenuation:
    """How a gradient changes on its way from the loss to the input.

    `slope`: decades per layer, negative where the gradient is lost towards the input; `low` and
    `high` its 95 % interval. `decades`: slope times the range of depth. `ratio`: first site over
    last. NaN where fewer than three sites have a positive finite value. `steps`: how many were
    used.
    """

    slope: float
    low: float
    high: float
    decades: float
    ratio: float
    steps: int


def logarithms(profile: ArrayLike) -> Floats:
    """log10 of the positive finite values, NaN for all others. Any shape."""
    values = np.asarray(profile, np.float64)
    usable = np.isfinite(values) & (values > 0)
    return np.log10(values, where=usable, out=np.full(values.shape, np.nan))


def slopes(logs: Floats, depth: Floats) -> tuple[Floats, Floats]:
    """Least squares of `logs` (steps, sites) against `depth` (sites), step by step.

    Returns the slope from loss to input (decades per layer) and its standard error from the
    scatter of the sites about the line; NaN where fewer than three sites are finite.
    """
    mask = np.isfinite(logs)
    count = mask.sum(axis=1)
    safe = np.maximum(count, 1)[:, None]
    x = np.where(mask, depth[None, :], 0.0)
    y = np.where(mask, logs, 0.0)
    dx = np.where(mask, depth[None, :] - x.sum(axis=1, keepdims=True) / safe, 0.0)
    dy = np.where(mask, logs - y.sum(axis=1, keepdims=True) / safe, 0.0)
    spread = (dx * dx).sum(axis=1)
    enough = (count >= 3) & (spread > 0)
    divisor = np.where(enough, spread, 1.0)
    slope = (dx * dy).sum(axis=1) / divisor
    residual = ((dy - slope[:, None] * dx) ** 2).sum(axis=1)
    error = np.sqrt(residual / np.maximum(count - 2, 1) / divisor)
    return np.where(enough, -slope, np.nan), np.where(enough, error, np.nan)


def end_ratio(logs: Floats) -> Floats:
    """Decades from the loss end to the input end, per step: medians over `END_SHARE` of the sites.

    `logs` has the shape (steps, sites), sites in order of depth; positive where the gradient is
    larger at the input.
    """
    size = max(1, round(END_SHARE * logs.shape[1]))
    result = np.full(len(logs), np.nan)
    for i, row in enumerate(logs):
        finite = row[np.isfinite(row)]
        if len(finite) >= 2 * size:
            result[i] = np.median(finite[:size]) - np.median(finite[-size:])
    return result


def attenuation(profile: ArrayLike, depth: ArrayLike) -> Attenuation:
    """Attenuation of a profile, e.g. `grad_rms` by depth.

    `profile` has the shape (steps, sites) or (sites,), `depth` (sites,). The interval is over
    steps, widened for the correlation between neighbouring ones; with a single step it is that of
    the fitted line over the sites. Zeros and NaN count as missing.

    Source: docs/metrics.md; Glorot & Bengio 2010 for the profile.
    """
    logs = np.atleast_2d(logarithms(profile))
    at = np.asarray(depth, np.float64)
    order = np.argsort(at, kind="stable")
    logs, at = logs[:, order], at[order]
    per_step, errors = slopes(logs, at)
    usable = np.isfinite(per_step)
    values = per_step[usable]
    if len(values) == 0:
        nan = math.nan
        return Attenuation(nan, nan, nan, nan, nan, 0)
    slope = float(values.mean())
    half = _half_width(values) if len(values) > 1 else 1.96 * float(errors[usable][0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmean(logs[usable], axis=0)
    finite = np.flatnonzero(np.isfinite(middle))
    span = at[finite[-1]] - at[finite[0]]
    ratio = 10.0 ** float(middle[finite[0]] - middle[finite[-1]])
    return Attenuation(
        slope, slope - half, slope + half, slope * float(span), ratio, int(usable.sum())
    )


def _half_width(values: Floats) -> float:
    """Half of the 95 % interval of the mean of a correlated series.

    The effective number of values is n (1 - r) / (1 + r) with r the lag-1 autocorrelation (the
    first-order autoregressive form; Wilks, Statistical Methods in the Atmospheric Sciences, 5.2.4).
    """
    n = len(values)
    deviation = values - values.mean()
    variance = float((deviation**2).sum()) / (n - 1)
    if variance == 0.0:
        return 0.0
    lag = float((deviation[1:] * deviation[:-1]).sum() / (deviation**2).sum())
    lag = min(max(lag, 0.0), 0.99)
    effective = max(n * (1 - lag) / (1 + lag), 2.0)
    return student(effective - 1) * math.sqrt(variance / effective)


def student(freedom: float) -> float:
    """97.5 % quantile of Student's t (Abramowitz & Stegun 26.7.5); within 1 % from 3 degrees on."""
    if freedom < 2:
        return 12.71
    if freedom < 3:
        return 4.30
    z = 1.959964
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / freedom + g2 / freedom**2 + g3 / freedom**3
