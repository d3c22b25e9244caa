"""Turns a run into the figures of the ablation page that it has data for.

Must never know Dash components or URLs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from gradscope_dashboard.scene import has_shares

from gradscope import figures
from gradscope.frame import Run


@dataclass(frozen=True)
class Study:
    """One figure of the page: its name in exports, heading, and function of `gradscope.figures`.

    `has` tells whether a run has its data; `several`: it takes runs together, else one of them;
    `metric`: it shows lesions by a metric. `height` is that of its panel, as CSS.
    """

    name: str
    heading: str
    draw: Callable[..., Any]
    has: Callable[[Run], bool]
    several: bool = False
    metric: bool = False
    height: str = "380px"


def lesions(run: Run) -> pd.DataFrame:
    """The run's rows of `ablations`; empty where nothing was dropped."""
    return run.frame("ablations") if "ablations" in run.stored.tables() else pd.DataFrame()


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """Metrics that lesions of the runs were measured by, accuracy first."""
    known = dict.fromkeys(
        str(name) for run in runs if len(lesions(run)) for name in lesions(run)["metric"].unique()
    )
    return sorted(known, key=lambda name: ("accuracy" not in name, name))


def _dropped(*kinds: str) -> Callable[[Run], bool]:
    def has(run: Run) -> bool:
        rows = lesions(run)
        return bool(len(rows) and rows["lesion"].isin(kinds).any())

    return has


def _at_several_steps(run: Run) -> bool:
    rows = lesions(run)
    return bool(len(rows) and rows.loc[rows["lesion"] == "drop", "step"].nunique() > 1)


def _measured(table: str) -> Callable[[Run], bool]:
    return lambda run: table in run.stored.tables()


def of_numbers(run: Run) -> bool:
    """Whether the run holds networks of numbers at initialisation, with nothing to drop."""
    return run.model == "LineNet"


LESIONS = (
    Study(
        "ablation-bars",
        "Each unit dropped alone",
        figures.ablation_bars,
        _dropped("drop"),
        several=True,
        metric=True,
    ),
    Study(
        "ablation-curve",
        "Units dropped at random",
        figures.ablation_curve,
        _dropped("drop-k"),
        several=True,
        metric=True,
    ),
    Study(
        "ablation-heatmap",
        "Worth of each unit over training",
        figures.ablation_heatmap,
        _at_several_steps,
        metric=True,
    ),
    Study(
        "pareto",
        "Worth against cost",
        figures.pareto,
        _dropped("drop", "drop-k"),
        several=True,
        metric=True,
    ),
)
WAYS = (
    Study("path-profile", "Gradient by path length", figures.path_profile, _measured("paths")),
    Study(
        "head-share",
        "Gradient of each head",
        figures.head_share,
        _measured("heads"),
        height="460px",
    ),
    Study("feature-reuse", "Feature reuse", figures.feature_reuse, _measured("reuse")),
    Study(
        "shattering",
        "Shattering of these networks at initialisation",
        figures.shattering,
        lambda run: _measured("shattering")(run) and not of_numbers(run),
        several=True,
    ),
    Study(
        "shattering-by-depth",
        "Shattering by depth, in networks of numbers",
        figures.shattering,
        lambda run: _measured("shattering")(run) and of_numbers(run),
        several=True,
    ),
)
RECORDED = (Study("skip-share", "Skip share by unit and step", figures.skip_share, has_shares),)
STUDIES = (*LESIONS, *RECORDED, *WAYS)
"""In the order of the page."""
BY_NAME = {study.name: study for study in STUDIES}
