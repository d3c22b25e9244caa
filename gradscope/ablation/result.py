"""Rows of lesions -> equal-length columns, a table of what could be removed, and a stored table.

Must never know networks or how anything was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from gradscope.schema import TABLES


class Appends(Protocol):
    """What a run's writer offers here."""

    def append(self, table: str, columns: Mapping[str, np.ndarray]) -> None: ...


@dataclass(frozen=True)
class Row:
    """One lesion and one metric, as in the table `ablations`."""

    step: int
    unit: str
    lesion: str
    metric: str
    value: float
    baseline: float
    delta: float
    ci_low: float
    ci_high: float
    samples: int
    parameters: int
    macs: int
    k: int
    detail: str


@dataclass(frozen=True)
class Ablation:
    """The measured lesions. `kept_bytes` is the most memory shared outputs took at once,
    `reused` whether outputs before a lesion were reused, `notes` what a reader should know."""

    rows: tuple[Row, ...]
    kept_bytes: int = 0
    reused: bool = False
    notes: tuple[str, ...] = ()

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of the table `ablations`, one entry per lesion and metric."""
        return {
            column.name: np.array(
                [getattr(row, column.name) for row in self.rows],
                dtype=object if column.dtype == "str" else column.dtype,
            )
            for column in TABLES["ablations"].columns
        }

    def frame(self) -> Any:
        """The rows as a pandas DataFrame; pandas is loaded by this call alone."""
        return import_module("pandas").DataFrame(self.columns())

    def save(self, writer: Appends) -> None:
        """Appends the rows to a run."""
        if self.rows:
            writer.append("ablations", self.columns())

    def pareto(self, metric: str = "accuracy", *, cost: str = "macs") -> dict[str, np.ndarray]:
        """Lesions by compute saved: unit, saved, delta, ci_low, ci_high, and whether on the front.

        On the front: no other lesion saves at least as much and keeps the metric better.
        """
        rows = [r for r in self.rows if r.metric == metric and r.lesion != "reorder"]
        rows.sort(key=lambda row: (-getattr(row, cost), -_goodness(row)))
        best = -np.inf
        front = []
        for row in rows:
            front.append(_goodness(row) > best)
            best = max(best, _goodness(row))
        return {
            "unit": np.array([r.unit for r in rows], dtype=object),
            "saved": np.array([getattr(r, cost) for r in rows], dtype=np.int64),
            "delta": np.array([r.delta for r in rows]),
            "ci_low": np.array([r.ci_low for r in rows]),
            "ci_high": np.array([r.ci_high for r in rows]),
            "front": np.array(front, dtype=bool),
        }

    def __str__(self) -> str:
        lesions = len({(r.unit, r.lesion, r.detail) for r in self.rows})
        worst = sorted(self.rows, key=_goodness)[:3]
        told: Any = "; ".join(f"{r.unit} {r.metric} {r.delta:+.4f}" for r in worst)
        return f"{lesions} lesions; most harmful: {told}" if worst else "no lesions"


def _goodness(row: Row) -> float:
    return -row.delta if row.metric == "loss" else row.delta
