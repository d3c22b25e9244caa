"""Checks the columns a caller hands in, and fills in those it left out.

Knows the tables of the schema, but no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradscope.schema import TABLES, GradScopeError
from gradscope.store.values import Columns

_DTYPES: dict[str, dict[str, np.dtype[Any]]] = {
    table.name: {
        column.name: np.dtype(object if column.dtype == "str" else column.dtype)
        for column in table.columns
    }
    for table in TABLES.values()
}
_REQUIRED = {
    "site": "the site's index",
    "name": "the scalar's name",
    "step": "the step",
}


def dtypes_of(table: str) -> dict[str, np.dtype[Any]]:
    """numpy dtype of every column of a stored table. Raises GradScopeError if there is none."""
    try:
        return _DTYPES[table]
    except KeyError:
        raise GradScopeError(
            f"There is no table {table!r}: use one of {', '.join(_DTYPES)}."
        ) from None


def taken_in(table: str, columns: Mapping[str, Any]) -> tuple[Columns, int]:
    """A private copy of a caller's columns and its size in bytes.

    Raises GradScopeError for an unknown table or column, a missing key column, or unequal
    lengths: these are errors of the calling program and not of the data.
    """
    dtypes = dtypes_of(table)
    copies: Columns = {}
    size = 0
    rows = -1
    for name, values in columns.items():
        dtype = dtypes.get(name)
        if dtype is None:
            raise GradScopeError(f"Table {table!r} has no column {name!r}: see docs/metrics.md.")
        copy = np.array(values, dtype=dtype)
        if copy.ndim != 1 or (rows >= 0 and len(copy) != rows):
            raise GradScopeError(
                f"Column {name!r} of table {table!r} has shape {copy.shape}: "
                f"give one-dimensional columns of equal length."
            )
        rows = len(copy)
        size += copy.nbytes if dtype.kind != "O" else 64 * rows
        copies[name] = copy
    for name, what in _REQUIRED.items():
        if name in dtypes and name not in copies:
            raise GradScopeError(f"Table {table!r} needs the column {name!r} ({what}).")
    return copies, size


def complete(table: str, columns: Columns) -> Columns:
    """All columns of `table`, in order: missing floats are NaN, integers -1, texts empty."""
    rows = len(columns["step"])
    whole: Columns = {}
    for name, dtype in dtypes_of(table).items():
        values = columns.get(name)
        if values is None:
            fill: Any = np.nan if dtype.kind == "f" else "" if dtype.kind == "O" else -1
            values = np.full(rows, fill, dtype)
        elif dtype.kind == "O":
            values = np.array([_clean(value) for value in values], dtype=object)
        whole[name] = values
    return whole


def empty(table: str, names: list[str]) -> Columns:
    """No rows of the named columns."""
    dtypes = dtypes_of(table)
    return {name: np.empty(0, dtypes[name]) for name in names}


def _clean(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode()
