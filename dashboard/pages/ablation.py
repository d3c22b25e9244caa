"""What is each part worth? Turns lesions into bars, a curve and a front.

Must never know the other pages' insides.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from dash import Dash, html
from dash.dependencies import Output
from dash.development.base_component import Component
from gradscope_dashboard import controls, ids
from gradscope_dashboard.calls import figure_call
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.controls import Plot
from gradscope_dashboard.scene import Scene, has_shares, looked_at, scene
from gradscope_dashboard.state import parse

from gradscope import figures
from gradscope.frame import Run

PATH = "/ablation"
TITLE = "Ablation"
ICON = "ablation"
PANELS = (
    ("ablation-bars", "Each unit dropped alone", "Input on the left, loss on the right."),
    ("ablation-curve", "Units dropped at random", "How many can go before the network fails."),
    ("pareto", "Worth against cost", "Every lesion a point: what it saves, and what is left."),
    ("skip-share", "Skip share by unit and step", "Share of the gradient on the shortcut."),
)
"""Figure, heading and hint of the panels; one without data is left out."""
DRAW: Mapping[str, Callable[..., Any]] = {
    "ablation-bars": figures.ablation_bars,
    "ablation-curve": figures.ablation_curve,
    "pareto": figures.pareto,
}
LESIONS = {"ablation-bars": ("drop",), "ablation-curve": ("drop-k",), "pareto": ("drop", "drop-k")}
"""The lesions of which a figure needs at least one."""


def layout(_catalog: Catalog) -> Component:
    """Title, choices, and a body that depends on what was recorded."""
    return html.Div(
        [
            controls.answer(ids.ABLATION_TITLE),
            html.Div(id=ids.ABLATION_CHOICES, className="page-choices"),
            html.Div(controls.skeleton_lines(6), id=ids.ABLATION_BODY),
        ]
    )


def connect(app: Dash, catalog: Catalog) -> None:
    """Wires the page to the address."""

    @app.callback(
        Output(ids.ABLATION_TITLE, "children"),
        Output(ids.ABLATION_CHOICES, "children"),
        Output(ids.ABLATION_BODY, "children"),
        *controls.seen(),
    )
    def show(search: str, theme: str | None, _version: str) -> Any:
        return view(scene(catalog, parse(search), theme))


def view(seen: Scene) -> tuple[Any, Any, Any]:
    """Title line, choices, and the plots of what the run has, or what to type."""
    run = seen.run
    if run is None:
        text = ["An ablation needs a trained run with its checkpoint."]
        return (
            "Nothing has been recorded yet",
            "",
            controls.empty("No runs yet", text, "gradscope demo"),
        )
    names = [("", "all"), *((other.name, other.name) for other in seen.chosen)]
    choices: list[Component] = [
        controls.segments("Run", seen.state, PATH, "run", names, seen.state.run)
    ]
    ablated = [other for other in looked_at(seen) if len(_rows(other))]
    if not ablated:
        text = ["Drop every unit of ", html.Code(run.name), " once and measure what it was worth."]
        command = f"gradscope ablate {shlex.quote(str(run.path))} --drop blocks,random"
        body = [controls.empty("No lesions recorded", text, command), *_panels(seen, [], "")]
        return f"{_named(seen)} not been ablated yet", choices, body
    metrics = metrics_of(ablated)
    metric = seen.state.metric if seen.state.metric in metrics else metrics[0]
    choices.append(
        controls.segments("Metric", seen.state, PATH, "metric", [(m, m) for m in metrics], metric)
    )
    panels = _panels(seen, ablated, metric)
    answers = figures.ablation_bars(ablated, metric=metric, colours=seen.colours).layout.meta
    return str(answers["answer"]), choices, panels


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """Metrics that lesions of the runs were measured by, accuracy first."""
    known = dict.fromkeys(str(name) for run in runs for name in _rows(run)["metric"].unique())
    return sorted(known, key=lambda name: ("accuracy" not in name, name))


def _rows(run: Run) -> pd.DataFrame:
    return run.frame("ablations") if "ablations" in run.stored.tables() else pd.DataFrame()


def _named(seen: Scene) -> str:
    runs = looked_at(seen)
    return f"{runs[0].name} has" if len(runs) == 1 else "These runs have"


def _panels(seen: Scene, ablated: Sequence[Run], metric: str) -> list[Component]:
    """A panel for every figure that the runs have data for."""
    panels = []
    for name, heading, hint in PANELS:
        plot = _plot(seen, ablated, metric, name)
        if plot is not None:
            graph = f"{ids.ABLATION_GRAPH}-{name}"
            panels.append(
                controls.filled_panel(graph, heading, plot, height="380px", hint=hint, export=name)
            )
    return panels


def _plot(seen: Scene, ablated: Sequence[Run], metric: str, name: str) -> Plot | None:
    if name == "skip-share":
        run = next((run for run in looked_at(seen) if has_shares(run)), None)
        if run is None:
            return None
        figure = figures.skip_share(run, style=seen.style, title=False)
        return controls.drawn(
            figure, figure_call("skip_share", [run], {}), f"skip share {run.name}"
        )
    runs = [run for run in ablated if _rows(run)["lesion"].isin(LESIONS[name]).any()]
    if not runs:
        return None
    figure = DRAW[name](runs, metric=metric, colours=seen.colours, style=seen.style, title=False)
    revision = " ".join((name, metric, *(run.name for run in runs)))
    return controls.drawn(
        figure, figure_call(name.replace("-", "_"), runs, {"metric": metric}), revision
    )
