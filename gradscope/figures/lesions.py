"""Turns the stored lesions of a run into rows that the ablation figures draw.

Must never know plotly, files, or how a lesion was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from gradscope.figures.sources import Group, Member, latest
from gradscope.schema import GradScopeError

LOWER_IS_BETTER = ("loss", "error", "perplexity", "nll")
PREFERRED = ("accuracy", "val_accuracy", "loss")


def chosen_metric(found: Sequence[Group], metric: str | None) -> str:
    """The metric to draw: the one asked for, else accuracy, else the first there is.

    "" where nothing was measured yet. GradScopeError for a metric that none of the runs has.
    """
    known = dict.fromkeys(
        str(name)
        for group in found
        for member in group.members
        for name in member.read("ablations", ["metric"])["metric"].unique()
    )
    if metric is None:
        return next((name for name in PREFERRED if name in known), next(iter(known), ""))
    if known and metric not in known:
        raise GradScopeError(
            f"no lesion was measured by {metric!r}; the metrics are {', '.join(known)}"
        )
    return metric


def lesions(member: Member, metric: str, kinds: Iterable[str]) -> pd.DataFrame:
    """The rows of that metric and those lesions at the last step that has any, in their order.

    A lesion measured twice counts once, as measured last.
    """
    frame = member.read("ablations", None)
    frame = frame.loc[(frame["metric"] == metric) & frame["lesion"].isin(list(kinds))]
    return latest(frame, ("unit", "lesion", "k", "detail"))


def unit_names(text: str) -> list[str]:
    """The units of a row: `"a,b"`, or a JSON list of names, -> `["a", "b"]`."""
    if text.startswith("["):
        return [str(name) for name in json.loads(text)]
    return [name for name in text.split(",") if name]


def stages_of(member: Member, frame: pd.DataFrame) -> list[str]:
    """The stage of each row's unit: as recorded for its site or lesion, else the name's start."""
    known: dict[str, str] = {}
    if member.sites is not None:
        blocks = member.sites[member.sites["kind"] == "block"]
        known = dict(zip(blocks["site"].astype(str), blocks["stage"].astype(str), strict=True))
    result = []
    for unit, detail in zip(frame["unit"], frame["detail"], strict=True):
        told = json.loads(detail).get("stage") if str(detail).startswith("{") else None
        result.append(str(told or known.get(str(unit)) or str(unit).split(".", 1)[0]))
    return result


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of that metric is a better network."""
    return any(word in metric.lower() for word in LOWER_IS_BETTER)


def gain(metric: str, delta: np.ndarray) -> np.ndarray:
    """The differences with their sign turned so that a harmed network is negative."""
    return np.asarray(-delta if lower_is_better(metric) else delta, dtype=float)


def against_textbook(metric: str, size: Sequence[tuple[str, float]], margin: float) -> str:
    """Says so where a plain net bears a lesion better than a residual one by the margin.

    `size`: (family, value of the metric or its difference) for each line.
    """
    by: dict[str, list[float]] = {}
    for family, value in size:
        if np.isfinite(value):
            by.setdefault(family, []).append(float(gain(metric, np.array([value]))[0]))
    if "plain" not in by or "residual" not in by:
        return ""
    if min(by["plain"]) > max(by["residual"]) + margin:
        return "; against the textbook, the plain network bears it better here"
    if abs(float(np.median(by["plain"])) - float(np.median(by["residual"]))) <= margin:
        return "; the residual network bears it no better than the plain one here"
    return ""


def signed(value: float) -> str:
    """A difference with its sign, three digits after the point: `+0.012`, `−0.67`."""
    digits = f"{abs(value):.3f}" if abs(value) < 10 else f"{abs(value):.3g}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    if digits == "0":
        return "0"
    return f"{'−' if value < 0 else '+'}{digits}"
