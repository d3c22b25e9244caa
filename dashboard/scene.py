"""Turns the catalog and a URL's state into what a page shows: runs, colours, step, baseline.

Must never know Dash components.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.state import State

from gradscope.figures import theme as palette
from gradscope.frame import Run
from gradscope.store import RunStatus

AT_FIRST = 6
"""Runs shown when the address names none."""

STATISTICS = (
    ("output.grad_rms", "gradient rms"),
    ("output.grad_norm", "gradient norm"),
    ("output.rms", "activation rms"),
    ("parameter.grad_rms", "parameter gradient"),
    ("parameter.update_ratio", "update ratio"),
)
"""What a profile can show: `kind.column` and its word; the first is shown at first."""
TABLE_OF = {"output": "outputs", "parameter": "parameters"}


@dataclass(frozen=True)
class Scene:
    """What is looked at: `chosen` runs stand on the bar, `visible` are those not hidden,
    `run` is the one looked at alone, `base` the baseline of differences (None: no runs).

    `colours` has every readable run; `style` is the figure style of the theme.
    """

    catalog: Catalog
    state: State
    style: str
    names: tuple[str, ...]
    chosen: tuple[Run, ...]
    visible: tuple[Run, ...]
    run: Run | None
    base: Run | None
    colours: Mapping[str, str]

    def versions(self) -> str:
        """Versions of the visible runs, for what is kept between requests."""
        return "|".join(f"{run.name}:{run.stored.version()}" for run in self.visible)


def scene(catalog: Catalog, state: State, theme: str | None = "light") -> Scene:
    """What the state shows of the catalog's runs; names that are gone are passed over."""
    names = catalog.names()
    wanted = state.runs or names[:AT_FIRST]
    chosen = tuple(run for name in wanted if (run := catalog.run(name)) is not None)
    visible = tuple(run for run in chosen if run.name not in state.hide)
    alone = catalog.run(state.run) if state.run else None
    marked = {s.name for s in catalog.summaries() if s.status.baseline}
    base = next((run for run in chosen if run.name == state.base), None)
    base = base or next((run for run in visible if run.name in marked), None)
    return Scene(
        catalog=catalog,
        state=state,
        style="dark" if theme == "dark" else "screen",
        names=names,
        chosen=chosen,
        visible=visible,
        run=alone or next(iter(visible or chosen), None),
        base=base or _plainest(visible),
        colours=_colours(catalog, names),
    )


def statistic(state: State) -> tuple[str, str]:
    """Kind of site and column that the state asks for; the first of STATISTICS by default."""
    known = dict(STATISTICS)
    kind, _, column = (state.stat if state.stat in known else STATISTICS[0][0]).partition(".")
    return kind, column


def compared(seen: Scene) -> tuple[Run, Run] | None:
    """The two runs of a difference: the one looked at against the baseline; None without two.

    Where the run looked at is the baseline itself or hidden, the first other visible one is taken.
    """
    base = seen.base
    others = [run for run in seen.visible if base is not None and run.name != base.name]
    if base is None or not others:
        return None
    return next((run for run in others if run.name == seen.state.run), others[0]), base


def looked_at(seen: Scene) -> tuple[Run, ...]:
    """The run that the state names, else all visible ones."""
    return (seen.run,) if seen.state.run and seen.run is not None else seen.visible


def has_shares(run: Run) -> bool:
    """Whether the run has the skip shares of residual units at two steps or more."""
    return "blocks" in run.stored.tables() and len(run.sampled_steps("blocks")) > 1


def steps_of(runs: tuple[Run, ...], table: str = "outputs") -> np.ndarray:
    """Every step at which one of the runs has rows of that table, ascending, int64."""
    read = [run.sampled_steps(table) for run in runs]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *read]))


def is_live(status: RunStatus) -> bool:
    """Whether somebody is writing the run at this moment."""
    return status.state == "running"


def newest_age(status: RunStatus, now: float | None = None) -> float:
    """Seconds since the run was last heard of."""
    return (time.time() if now is None else now) - (status.heartbeat or status.started or 0.0)


def _colours(catalog: Catalog, names: tuple[str, ...]) -> dict[str, str]:
    runs = [run for name in sorted(names) if (run := catalog.run(name)) is not None]
    return palette.run_colours([r.name for r in runs], {r.name: r.family for r in runs})


def _plainest(runs: tuple[Run, ...]) -> Run | None:
    return next((run for run in runs if run.family == "plain"), next(iter(runs), None))
