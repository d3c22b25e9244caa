"""Turns the columns of one stored table into a tidy DataFrame with site names and depths.

Must never know torch, plotly, or which figure will be drawn.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from gradscope.schema import TABLES, Column, Finding, GradScopeError, Site
from gradscope.store import StoredRun

SITE_COLUMNS = (
    "site",
    "kind",
    "depth",
    "relative_depth",
    "module_type",
    "shape",
    "parameters",
    "stage",
)
FINDING_COLUMNS = (
    "kind",
    "severity",
    "confidence",
    "site",
    "first_step",
    "last_step",
    "sentence",
    "advice",
)
LESION_KEYS = ("step", "unit", "lesion", "metric", "k", "detail")
"""What tells one lesion's row from another's; of rows that agree in it the newest counts."""

FRAMES = (*TABLES, "sites", "findings")
"""The names that `Run.frame` answers to."""


def sites_frame(sites: Sequence[Site]) -> pd.DataFrame:
    """One row per site, in recording order (the row number is the stored site index).

    `relative_depth` is depth / greatest depth: 0 at the input, 1 at the loss; NaN where the
    depth is not known yet (stored as a negative number). `shape` is a tuple. `stage` is the
    recorded one, else the top-level part of the module path.
    """
    depth = np.array([site.depth for site in sites], dtype=np.int64)
    return pd.DataFrame(
        {
            "site": pd.Series([site.name for site in sites], dtype="str"),
            "kind": pd.Series([site.kind for site in sites], dtype="str"),
            "depth": depth,
            "relative_depth": relative_depth(depth),
            "module_type": pd.Series([site.module_type for site in sites], dtype="str"),
            "shape": pd.Series([tuple(site.shape) for site in sites], dtype=object),
            "parameters": np.array([site.parameters for site in sites], dtype=np.int64),
            "stage": pd.Series([site.stage or top_level(site.name) for site in sites], dtype="str"),
        },
        columns=list(SITE_COLUMNS),
    )


def relative_depth(depth: np.ndarray) -> np.ndarray:
    """depth / greatest depth, float64 in [0, 1]; NaN for unknown (negative) depths."""
    known = np.where(depth < 0, np.nan, depth.astype(np.float64))
    greatest = float(depth.max(initial=0))
    return known / greatest if greatest > 0 else known


def top_level(name: str) -> str:
    """The first part of a module path: `layer2.0.conv1` -> `layer2`, `relu#2` -> `relu`."""
    return name.split(".", 1)[0].split("#", 1)[0]


def findings_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row per finding, columns as in `FINDING_COLUMNS`."""
    rows = [[getattr(finding, name) for name in FINDING_COLUMNS] for finding in findings]
    return pd.DataFrame(rows, columns=list(FINDING_COLUMNS))


def tidy(
    stored: StoredRun,
    table: str,
    *,
    columns: Sequence[str] | None = None,
    first_step: int | None = None,
    last_step: int | None = None,
    sites: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Rows of a stored table, sorted by step then site; missing values are NaN.

    Tables of sites get `site` as a Categorical of names, `depth` and `relative_depth`.
    A lesion that was measured again counts once, as measured last.
    `columns` keeps only these statistics (keys stay); `sites` keeps names that match a glob or
    one of several. Steps are optimizer steps, both bounds included.
    """
    contract = TABLES[table]
    known = {column.name: column for column in contract.columns}
    named = LESION_KEYS if table == "ablations" else ("step", "site", "of", "exponent", "name")
    keys = [name for name in named if name in known]
    wanted = list(known) if columns is None else [*keys, *(c for c in columns if c not in keys)]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise GradScopeError(
            f"table {table!r} has no column {unknown[0]!r}; it has {', '.join(known)}"
        )
    indices = None if sites is None or "site" not in known else matching(stored.sites, sites)
    read = stored.read(table, wanted, first_step=first_step, last_step=last_step, sites=indices)
    rows = len(next(iter(read.values()))) if read else 0
    frame = pd.DataFrame({name: _series(known[name], read.get(name), rows) for name in wanted})
    if table == "ablations":
        frame = pd.DataFrame(frame.drop_duplicates(list(LESION_KEYS), keep="last"))
        frame = frame.reset_index(drop=True)
    return _with_places(frame, stored.sites) if "site" in known else frame


def matching(sites: Sequence[Site], patterns: str | Sequence[str]) -> list[int]:
    """Indices of the sites whose name equals or matches (as a glob) one of the patterns."""
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    return [
        index
        for index, site in enumerate(sites)
        if any(site.name == p or fnmatch.fnmatchcase(site.name, p) for p in wanted)
    ]


def _series(column: Column, values: np.ndarray | None, rows: int) -> pd.Series:
    if column.dtype == "str":
        text = [""] * rows if values is None else [str(value) for value in values]
        return pd.Series(text, dtype="str")
    if values is not None:
        return pd.Series(np.asarray(values))
    if column.dtype.startswith("float") or rows:
        return pd.Series(np.full(rows, np.nan, dtype=np.float32))
    return pd.Series(np.empty(0, dtype=column.dtype))


def _with_places(frame: pd.DataFrame, sites: Sequence[Site]) -> pd.DataFrame:
    index = frame["site"].to_numpy(dtype=np.int64)
    depth = np.array([site.depth for site in sites], dtype=np.int64)
    relative = relative_depth(depth)
    names = pd.Index(list(dict.fromkeys(site.name for site in sites)), dtype="str")
    position = {name: code for code, name in enumerate(names)}
    codes = np.array([position[site.name] for site in sites], dtype=np.int32)
    frame["site"] = pd.Categorical.from_codes(codes[index], categories=names)
    at = list(frame.columns).index("site") + 1
    frame.insert(at, "depth", pd.Series(depth[index]))
    frame.insert(at + 1, "relative_depth", pd.Series(relative[index]))
    return frame
