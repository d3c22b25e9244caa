"""Made-up rows of a stated size for the benchmarks of the run folder, random in every kept bit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gradscope.schema import OUTPUT_STATS

SITES, STATS, EXPONENTS = 200, 12, 16
NAMES = [c.name for c in OUTPUT_STATS if "nonfinite" not in c.name][:STATS]
"""Statistics that are rounded on disk, as nearly all are; counts would be kept exactly."""


def statistics_of(steps: np.ndarray[Any, Any], draw: np.random.Generator) -> dict[str, Any]:
    """12 log-normal statistics of 200 sites at each step; a site keeps its scale."""
    scale = np.tile(np.random.default_rng(7).normal(0, 4, SITES), len(steps))
    columns: dict[str, Any] = {
        "step": np.repeat(steps, SITES),
        "site": np.tile(np.arange(SITES), len(steps)),
    }
    for name in NAMES:
        columns[name] = np.exp(scale + 0.3 * draw.normal(size=len(scale))).astype("f4")
    return columns


def histograms_of(step: int, draw: np.random.Generator) -> dict[str, Any]:
    """200 histograms of 16 occupied exponents, of 4096 elements each, as a sampler draws them."""
    shape = np.exp(-0.5 * ((np.arange(EXPONENTS) - 10) / 2.5) ** 2)
    counts = draw.multinomial(4096, shape / shape.sum(), size=SITES)
    site, exponent = np.nonzero(counts)
    rows = len(site)
    return {
        "step": np.full(rows, step),
        "site": site,
        "of": np.zeros(rows, int),
        "exponent": exponent - 20,
        "count": counts[site, exponent],
        "sampled_fraction": np.ones(rows, "f4"),
    }


def seconds(work: Callable[[], Any], times: int = 5) -> float:
    """The median time of `work`."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
