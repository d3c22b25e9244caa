"""What is each part worth? Turns ablation rows into bars and a k-curve, block rows into a map.

Must never know the other pages' insides.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from dash import Dash, html
from dash.dependencies import Output
from dash.development.base_component import Component
from gradscope_dashboard import controls, ids, lesions, words
from gradscope_dashboard.calls import figure_call
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.controls import Plot
from gradscope_dashboard.scene import Scene, scene
from gradscope_dashboard.state import parse

from gradscope import figures
from gradscope.frame import Run

PATH = "/ablation"
TITLE = "Ablation"
ICON = "ablation"
PLOTS = (
    (ids.ABLATION_BARS, "Each unit dropped alone", "Input on the left, loss on the right."),
    (
        ids.ABLATION_CURVE,
        "Several units dropped at once",
        "A line for every visible run that was ablated so.",
    ),
    (
        ids.ABLATION_PARETO,
        "Worth against cost",
        "Every lesion a point: what it saves, and what is left.",
    ),
    (ids.ABLATION_SHARE, "Skip share by unit and step", "Share of the gradient on the shortcut."),
)
"""Graph, heading and hint of the panels; one without data is left out."""


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
    names = [(other.name, other.name) for other in seen.chosen]
    choices: list[Component] = [controls.segments("Run", seen.state, PATH, "run", names, run.name)]
    rows = _rows(run)
    body: list[Any] = []
    title = f"{run.name} has not been ablated yet"
    if len(rows):
        metrics = list(dict.fromkeys(rows["metric"].astype("str")))
        metric = seen.state.metric if seen.state.metric in metrics else metrics[0]
        choices.append(
            controls.segments(
                "Metric", seen.state, PATH, "metric", [(m, m) for m in metrics], metric
            )
        )
        title = answer(run, rows[rows["metric"] == metric], metric)
        body = _panels(seen, run, metric)
    else:
        text = ["Drop every unit of ", html.Code(run.name), " once and measure what it was worth."]
        command = f"gradscope ablate {run.path} --drop blocks,random"
        body = [controls.empty("No lesions recorded", text, command), *_panels(seen, run, "")]
    return title, choices, body


def _rows(run: Run) -> pd.DataFrame:
    return run.frame("ablations") if "ablations" in run.stored.tables() else pd.DataFrame()


def _panels(seen: Scene, run: Run, metric: str) -> list[Component]:
    """A panel for every plot that the run has data for."""
    drawn = {ids.ABLATION_SHARE: _share(seen, run)}
    if metric:
        drawn |= _lesions(seen, run, metric)
    panels = []
    for graph, heading, hint in PLOTS:
        plot = drawn.get(graph)
        if plot is not None and plot.figure is not None:
            panels.append(controls.filled_panel(graph, heading, plot, height="360px", hint=hint))
    return panels


def _lesions(seen: Scene, run: Run, metric: str) -> dict[str, Plot]:
    look: dict[str, Any] = {"colour": seen.colours[run.name], "style": seen.style}
    by_run = {}
    for other in dict.fromkeys((run, *seen.visible)):
        rows = _rows(other)
        if len(rows):
            by_run[other.name] = rows[rows["metric"] == metric]
    rows = by_run[run.name]
    made = {
        ids.ABLATION_BARS: lesions.unit_bars(run, rows, **look),
        ids.ABLATION_CURVE: lesions.drop_curve(by_run, seen.colours, style=seen.style),
        ids.ABLATION_PARETO: lesions.pareto(run, rows, **look),
    }
    return {
        graph: controls.drawn(figure, "") for graph, figure in made.items() if figure is not None
    }


def _share(seen: Scene, run: Run) -> Plot | None:
    if "blocks" not in run.stored.tables() or len(run.sampled_steps("blocks")) < 2:
        return None
    arguments: dict[str, Any] = {"statistic": "skip_share", "kind": "block"}
    figure = figures.gradient_heatmap(run, **arguments, style=seen.style, title=False)
    return controls.drawn(figure, figure_call("gradient_heatmap", [run], arguments))


def answer(run: Run, rows: pd.DataFrame, metric: str) -> str:
    """Which single unit the network misses most, and what a typical one is worth."""
    alone = lesions.alone(run, rows)
    if alone.empty:
        return f"{words.plural(len(rows), 'lesion')} of {run.name}"
    worst = alone.iloc[int(alone["delta"].abs().to_numpy().argmax())]
    typical = words.number(float(alone["delta"].median()))
    delta = words.number(float(worst["delta"]))
    return (
        f"Dropping {worst['unit']} changes the {metric} of {run.name} most ({delta}); "
        f"the median of {words.plural(len(alone), 'unit')} is {typical}"
    )
