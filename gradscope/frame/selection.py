"""Turns frames into smaller or comparable frames: select, align by relative depth, thin.

Must never know torch, plotly or files.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradscope.frame.runs import Run
from gradscope.schema import GradScopeError


def select(
    frame: pd.DataFrame,
    *,
    sites: str | Sequence[str] | None = None,
    first_step: int | None = None,
    last_step: int | None = None,
) -> pd.DataFrame:
    """Rows whose site equals or matches (glob) one of `sites`, within the steps given.

    Both step bounds are included. A pattern that matches nothing is an error naming some sites.
    """
    keep = np.ones(len(frame), dtype=bool)
    if first_step is not None:
        keep &= frame["step"].to_numpy() >= first_step
    if last_step is not None:
        keep &= frame["step"].to_numpy() <= last_step
    if sites is not None:
        names = [str(name) for name in frame["site"].unique()]
        wanted = [sites] if isinstance(sites, str) else list(sites)
        chosen: set[str] = set()
        for pattern in wanted:
            hits = {n for n in names if n == pattern or fnmatch.fnmatchcase(n, pattern)}
            if not hits and names:
                raise GradScopeError(
                    f"no site matches {pattern!r}; sites are {', '.join(names[:6])}, ..."
                )
            chosen |= hits
        keep &= frame["site"].isin(sorted(chosen)).to_numpy(dtype=bool)
    return frame[keep]


def nearest_step(steps: Sequence[int] | np.ndarray, step: int | str) -> int:
    """The recorded step nearest to `step`; "first" and "last" are words for the ends."""
    known = np.asarray(steps, dtype=np.int64)
    if known.size == 0:
        raise GradScopeError("no step was recorded yet; wait for the first sampled step")
    if isinstance(step, str):
        if step not in ("first", "last"):
            raise GradScopeError(f"step must be a number, 'first' or 'last', not {step!r}")
        return int(known.min() if step == "first" else known.max())
    return int(known[np.argmin(np.abs(known - step))])


def aligned(
    runs: Sequence[Run],
    table: str = "outputs",
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Frames of several runs under each other, with the columns `run` and `relative_depth` first.

    Relative depth (0 input, 1 loss) is the axis on which nets of different size compare.
    """
    parts = []
    for run in runs:
        part = run.frame(table, columns=columns)
        part["site"] = part["site"].astype("str")
        part.insert(0, "run", run.name)
        parts.append(part)
    if not parts:
        raise GradScopeError("no runs were given to align")
    joined = pd.concat(parts, ignore_index=True)
    first = ["run", "relative_depth"]
    return joined[[*first, *(name for name in joined.columns if name not in first)]]


def on_grid(
    positions: np.ndarray, values: np.ndarray, grid: np.ndarray, *, log: bool = True
) -> np.ndarray:
    """Values known at `positions` (ascending relative depths), interpolated at `grid`.

    With `log` the interpolation is linear in log10, as magnitudes ask for, and values <= 0 count
    as missing. Outside the known range, and where fewer than two are known, the answer is NaN.
    Shapes: positions (n,), values (n,), grid (m,) -> (m,).
    """
    height = np.full(len(values), np.nan)
    usable = np.isfinite(values) & ((values > 0) | (not log)) & np.isfinite(positions)
    height[usable] = np.log10(values[usable]) if log else values[usable]
    if usable.sum() < 2:
        return np.full(len(grid), np.nan)
    drawn = np.interp(grid, positions[usable], height[usable], left=np.nan, right=np.nan)
    return np.asarray(10.0**drawn if log else drawn)


def thin(
    frame: pd.DataFrame, column: str, *, buckets: int = 1000, by: str | None = None
) -> pd.DataFrame:
    """At most about 2 x `buckets` rows per group, none of them invented, extremes kept.

    The steps are cut into equal buckets; of each bucket stay the rows with the smallest and the
    largest value of `column`, every row where it is not finite though present, and the first and
    last row. `by` (default: `site` or `name` where there is one) names the groups.
    """
    group = by or next((name for name in ("site", "name") if name in frame.columns), None)
    if frame.empty or frame["step"].nunique() <= 2 * buckets:
        return frame
    step = frame["step"].to_numpy(dtype=np.float64)
    width = (step.max() - step.min()) / buckets
    bucket = np.minimum(((step - step.min()) / width).astype(np.int64), buckets - 1)
    values = frame[column].to_numpy(dtype=np.float64)
    keys = pd.DataFrame({"bucket": bucket, "value": np.where(np.isfinite(values), values, np.nan)})
    names = ["bucket"]
    if group is not None:
        labels, _ = pd.factorize(frame[group])
        keys["group"] = labels
        names = ["group", "bucket"]
    grouped = keys.dropna(subset=["value"]).groupby(names, sort=False)["value"]
    keep: np.ndarray = np.isinf(values)
    keep[grouped.idxmin().to_numpy()] = True
    keep[grouped.idxmax().to_numpy()] = True
    ends = keys.groupby("group" if group is not None else np.zeros(len(keys)), sort=False).indices
    for positions in ends.values():
        keep[[positions[0], positions[-1]]] = True
    return frame.loc[keep]
