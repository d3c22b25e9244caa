"""Per-sample results with and without a lesion -> the difference and its paired 95 % interval.

Must never know networks, lesions or files.
"""

from __future__ import annotations

import numpy as np

_Z = 1.959963984540054
_BLOCK = 64


def paired_share(baseline: np.ndarray, lesioned: np.ndarray) -> tuple[float, float, float]:
    """Difference of two shares over the same samples (0 or 1 each) and its interval.

    Counts the samples that changed in each direction, as McNemar's test does; the interval is that
    of Bonett and Price 2012 (adjusted Wald for paired proportions), which also holds when no
    sample changed.
    """
    n = len(baseline)
    lost = int(np.sum((baseline > 0.5) & (lesioned <= 0.5)))
    won = int(np.sum((baseline <= 0.5) & (lesioned > 0.5)))
    down, up = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = _Z * np.sqrt((down + up - (up - down) ** 2) / (n + 2))
    centre = up - down
    return (won - lost) / n, float(max(-1.0, centre - half)), float(min(1.0, centre + half))


def paired_mean(
    baseline: np.ndarray, lesioned: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean differences of lesions (rows, samples) against one baseline (samples), with intervals.

    Percentile bootstrap over samples; the same resamples serve all lesions. NaN where a value is
    not finite. Memory: 64 resamples of all samples at a time.
    """
    differences = np.atleast_2d(lesioned).astype(np.float64) - baseline
    n = differences.shape[1]
    rng = np.random.default_rng(seed)
    means = np.empty((draws, len(differences)))
    for start in range(0, draws, _BLOCK):
        rows = min(_BLOCK, draws - start)
        picked = rng.integers(0, n, (rows, n))
        weights = np.stack([np.bincount(row, minlength=n) for row in picked]) / n
        means[start : start + rows] = weights @ differences.T
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return differences.mean(axis=1), low, high
