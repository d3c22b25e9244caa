"""A run folder -> the bounded numpy tables that rules read: panels of step by site, and scalars.

However long the run, an evidence holds a few hundred rows of steps. Must never know which rules
read it, nor pandas, plotly or torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradscope.diagnosis.thresholds import (
    DENSE_STEPS,
    SCALAR_SLICE_STEPS,
    SCALAR_SLICES,
    SCALAR_STEPS,
)
from gradscope.schema import Site

if TYPE_CHECKING:
    from gradscope.store import Columns, StoredRun

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PARAMETER_COLUMNS = (
    "grad_norm",
    "grad_rms",
    "grad_nonfinite",
    "update_ratio",
    "clip_factor",
)
OUTPUT_COLUMNS = (
    "grad_rms",
    "grad_norm",
    "nonfinite",
    "grad_nonfinite",
    "zero_fraction",
    "dead_fraction",
)


@dataclass(frozen=True)
class Panel:
    """Statistics of several sites over windows of steps; NaN where nothing was recorded.

    Window w covers the steps `first[w]`..`last[w]`; in short runs that is one step. `low`, `mean`
    and `high` map a column to its smallest, mean and largest value there, float64, of shape
    (windows, sites). `sites` holds indices into the run's sites, in order of depth.
    """

    first: Integers
    last: Integers
    sites: Integers
    low: Mapping[str, Floats] = field(default_factory=dict)
    mean: Mapping[str, Floats] = field(default_factory=dict)
    high: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def windows(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Series:
    """One scalar over steps, both of shape (values,)."""

    steps: Integers
    values: Floats


@dataclass(frozen=True)
class Evidence:
    """All that a rule may look at.

    `at_rest` says that the weights did not change between the steps (a check before training),
    so that a few passes are all there is and nothing can be said about time; `closed` then names
    the modules that hold a weight initialised at zero.
    """

    sites: tuple[Site, ...]
    parameters: Panel
    outputs: Panel
    scalars: Mapping[str, Series] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    at_rest: bool = False
    closed: tuple[str, ...] = ()

    def name(self, site: int) -> str:
        return self.sites[site].name or "(model)"


def empty_panel() -> Panel:
    none = np.zeros(0, dtype=np.int64)
    return Panel(none, none, none)


def panel(
    columns: Columns, names: Iterable[str], sites: Sequence[Site], *, final_step: int | None = None
) -> Panel:
    """Rows of (step, site, statistics) -> a panel.

    `columns` holds each statistic under its own name (one row a step), or as `NAME_min`,
    `NAME_mean`, `NAME_max` (one row a bucket, `step` being its first). Rows whose site is not in
    `sites` are left out; a later row of the same step and site (a resumed run) replaces the former.
    """
    step, site = np.asarray(columns["step"], np.int64), np.asarray(columns["site"], np.int64)
    known = (site >= 0) & (site < len(sites))
    if not known.any():
        return empty_panel()
    step, site = step[known], site[known]
    first, row = np.unique(step, return_inverse=True)
    present = np.unique(site)
    depth = np.array([sites[i].depth for i in present])
    order = present[np.argsort(depth, kind="stable")]
    position = np.zeros(len(sites), dtype=np.int64)
    position[order] = np.arange(len(order))
    target = (row, position[site])

    def table(name: str) -> Floats:
        grid = np.full((len(first), len(order)), np.nan)
        grid[target] = np.asarray(columns[name], np.float64)[known]
        return grid

    low, mean, high = {}, {}, {}
    bucketed = False
    for name in names:
        if f"{name}_mean" in columns:
            bucketed = True
            low[name], mean[name] = table(f"{name}_min"), table(f"{name}_mean")
            high[name] = table(f"{name}_max")
        elif name in columns:
            low[name] = mean[name] = high[name] = table(name)
    last = first.copy()
    if bucketed:
        end = first[-1] if final_step is None else max(final_step, int(first[-1]))
        last = np.append(first[1:] - 1, end)
    return Panel(first, last, order, low, mean, high)


def gather(run: StoredRun) -> Evidence:
    """Read from a run what the rules need. A run without a table yields an empty panel for it."""
    present = set(run.tables())
    final = run.status.last_step

    def of(table: str, names: tuple[str, ...]) -> Panel:
        if table not in present:
            return empty_panel()
        if run.status.steps_seen <= DENSE_STEPS:
            columns = run.read(table, ("step", "site", *names))
        else:
            columns = run.thinned(table, names, buckets=DENSE_STEPS)
        return panel(columns, names, run.sites, final_step=final)

    return Evidence(
        sites=run.sites,
        parameters=of("parameters", PARAMETER_COLUMNS),
        outputs=of("outputs", OUTPUT_COLUMNS),
        scalars=_scalars(run, final) if "scalars" in present else {},
        config=run.info.config,
    )


def _scalars(run: StoredRun, final: int) -> dict[str, Series]:
    names = ("step", "name", "value")
    if final <= SCALAR_STEPS:
        parts = [run.read("scalars", names)]
    else:
        starts = np.linspace(0, final - SCALAR_SLICE_STEPS, SCALAR_SLICES).astype(int)
        parts = [
            run.read("scalars", names, first_step=int(s), last_step=int(s) + SCALAR_SLICE_STEPS - 1)
            for s in starts
        ]
    step = np.concatenate([np.asarray(p["step"], np.int64) for p in parts])
    name = np.concatenate([np.asarray(p["name"], object) for p in parts])
    value = np.concatenate([np.asarray(p["value"], np.float64) for p in parts])
    return {
        str(key): Series(step[name == key], value[name == key])
        for key in dict.fromkeys(name.tolist())
    }
