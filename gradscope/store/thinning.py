"""Turns the rows of a part into minimum, mean and maximum per bucket of steps, and reads them.

Buckets are 32, 128, 512, ... steps wide and begin at multiples of their width, so that they nest.
No peak is lost: minimum and maximum are kept as they are. Never knows what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gradscope.schema import TABLES
from gradscope.store.parts import (
    Part,
    PartReader,
    PartWriter,
    codes_of,
    joined,
    kept,
    key_columns,
    rows_of,
    taken,
)
from gradscope.store.values import FAR_STEP, Columns

WIDTHS = tuple(32 * 4**power for power in range(25))
_KINDS = ("min", "mean", "max", "n")


def thin_folder(table: str) -> str:
    """The sub-folder that holds the thinned forms of a table's parts."""
    return f"{table}.thin"


def width_for(first: int, last: int, buckets: int) -> int:
    """The narrowest power of two such that `buckets` buckets of it span first..last."""
    width = 1
    while last // width - first // width + 1 > buckets:
        width *= 2
    return width


def number_columns(table: str) -> list[str]:
    """The columns of `table` that are thinned."""
    keys = {"step", *key_columns(table)}
    return [c.name for c in TABLES[table].columns if c.name not in keys and c.dtype != "str"]


def thin_fields(table: str) -> dict[str, str]:
    """Columns and dtypes of a thinned part: width, step, the keys, then four a number column."""
    dtypes = {c.name: c.dtype for c in TABLES[table].columns}
    fields = {"width": "int64", "step": "int64"}
    fields |= {name: dtypes[name] for name in key_columns(table)}
    for name in number_columns(table):
        dtype = "float32" if dtypes[name] == "float32" else "float64"
        fields |= {f"{name}_{kind}": "int32" if kind == "n" else dtype for kind in _KINDS}
    return fields


def _order(rows: Columns, keys: list[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """An order by keys then bucket, and where each (keys, bucket) begins in it."""
    codes = [codes_of(rows[name]) for name in keys]
    order = np.lexsort([rows["step"], *reversed(codes)])
    new = np.zeros(len(order), bool)
    new[0] = True
    for values in (rows["step"], *codes):
        ordered = values[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(new)


def spread(rows: Columns, names: list[str], keys: list[str]) -> Columns:
    """Raw rows as thinned ones, one bucket a row."""
    result = {"step": rows["step"], **{key: rows[key] for key in keys}}
    for name in names:
        values = rows[name]
        wide = values if values.dtype == np.float32 else values.astype(np.float64)
        finite = np.isfinite(wide)
        result[f"{name}_min"] = result[f"{name}_max"] = wide
        result[f"{name}_mean"] = np.where(finite, wide, np.nan)
        result[f"{name}_n"] = finite.astype(np.int32)
    return result


def gathered(rows: Columns, names: list[str], keys: list[str], width: int) -> Columns:
    """Thinned rows in buckets `width` steps wide, sorted by keys, then step."""
    if not rows_of(rows):
        return rows
    rows = {**rows, "step": rows["step"] // width * width}
    order, starts = _order(rows, keys)
    result = {name: rows[name][order][starts] for name in ("step", *keys)}
    for name in names:
        low, high = rows[f"{name}_min"], rows[f"{name}_max"]
        result[f"{name}_min"] = np.fmin.reduceat(low[order], starts)
        result[f"{name}_max"] = np.fmax.reduceat(high[order], starts)
        count = rows[f"{name}_n"][order]
        mean = rows[f"{name}_mean"][order].astype(np.float64)
        total = np.add.reduceat(np.where(count > 0, mean * count, 0.0), starts)
        counts = np.add.reduceat(count.astype(np.int64), starts)
        average = np.full(len(starts), np.nan)
        np.divide(total, counts, out=average, where=counts > 0)
        result[f"{name}_mean"] = average.astype(low.dtype)
        result[f"{name}_n"] = np.minimum(counts, 2**31 - 1).astype(np.int32)
    return result


def _first_level(steps: np.ndarray[Any, Any]) -> int:
    """The level whose buckets hold 16 sampled steps or more; narrower ones would save nothing."""
    sampled = np.unique(steps)
    apart = int(sampled[-1] - sampled[0]) // max(len(sampled) - 1, 1)
    return next((n for n, width in enumerate(WIDTHS) if width >= 16 * apart), len(WIDTHS) - 1)


class Thinner:
    """Collects the row groups of one part while it is merged."""

    def __init__(self, table: str, part: Part) -> None:
        self._table = table
        self._part = part
        self._names = number_columns(table)
        self._keys = key_columns(table)
        self._useful = part.last_step - part.first_step >= 4 * WIDTHS[0]
        self._pieces: list[Columns] = []
        self._level = -1

    def add(self, rows: Columns) -> None:
        """Take in one row group, rows sorted by keys, then step."""
        if self._useful:
            if self._level < 0:
                self._level = _first_level(rows["step"])
            thin = spread(rows, self._names, self._keys)
            self._pieces.append(gathered(thin, self._names, self._keys, WIDTHS[self._level]))

    def write(self, path: Path, meanwhile: Callable[[], None]) -> None:
        """Write what was collected beside the table's folder, one row group a width.

        `meanwhile` is called while the disk takes its time.
        """
        span = self._part.last_step - self._part.first_step
        if not self._pieces or WIDTHS[self._level] > span:
            return
        folder = path / thin_folder(self._table)
        folder.mkdir(exist_ok=True)
        writer = PartWriter(folder, self._part, thin_fields(self._table))
        try:
            rows = joined(self._pieces)
            for _ in range(self._level):
                nothing = taken(rows, slice(0, 0))
                writer.add({**nothing, "width": np.empty(0, np.int64)})
            for width in WIDTHS[self._level :]:
                rows = gathered(rows, self._names, self._keys, width)
                filled = {**rows, "width": np.full(rows_of(rows), width, np.int64)}
                writer.add(kept(filled))
                if width * 4 > span:
                    break
            writer.finish(meanwhile)
        except BaseException:
            writer.abandon()
            raise


def thinned_part(
    table: str, source: Any, where: Path, names: list[str], width: int
) -> list[Columns] | None:
    """The widest thinned rows that fit into buckets of `width`; None if all are too wide."""
    if width < WIDTHS[0] or any(name not in number_columns(table) for name in names):
        return None
    reader = PartReader(source, where, thin_fields(table))
    groups = [group for group, _, _ in reader.groups(0, FAR_STEP)]
    fitting = [group for group in groups if group < len(WIDTHS) and WIDTHS[group] <= width]
    if not fitting:
        return None
    wanted = ["step", *key_columns(table)]
    wanted += [f"{name}_{kind}" for name in names for kind in _KINDS]
    rows = reader.read([fitting[-1]], wanted)
    return rows if rows_of(rows[0]) else None


def bucketed(table: str, names: list[str], pieces: list[Columns], width: int) -> Columns:
    """Raw and thinned pieces as one answer, sorted by step, then keys."""
    keys = key_columns(table)
    thin = [
        piece if f"{name}_n" in piece else spread(piece, names, keys)
        for piece in pieces
        for name in names[:1]
        if rows_of(piece)
    ]
    shown = ["step", *keys, *(f"{n}_{kind}" for n in names for kind in _KINDS[:3])]
    if not thin:
        return _nothing(table, shown)
    parts = [gathered(piece, names, keys, width) for piece in thin]
    whole = gathered(joined(parts), names, keys, width)
    order = np.argsort(whole["step"], kind="stable")
    return taken({name: whole[name] for name in shown}, order)


def _nothing(table: str, shown: list[str]) -> Columns:
    dtypes: dict[str, Any] = dict(thin_fields(table))
    return {
        name: np.empty(0, object if dtypes.get(name) == "str" else dtypes.get(name, "float64"))
        for name in shown
    }
