"""What is each part worth? Turns ablation rows into bars and a k-curve, block rows into a map.

Must never know the other pages' insides.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from dash import Dash, dcc, html
from dash.dependencies import Output
from dash.development.base_component import Component
from gradscope_dashboard import controls, ids, words
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.scene import Scene, scene
from gradscope_dashboard.state import parse

from gradscope import figures
from gradscope.figures.theme import style_of, template
from gradscope.frame import Run

PATH = "/ablation"
TITLE = "Ablation"
ICON = "ablation"


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
    tables = run.stored.tables()
    rows = run.frame("ablations") if "ablations" in tables else pd.DataFrame()
    body: list[Any] = []
    title = f"{run.name} has not been ablated yet"
    if len(rows):
        metrics = list(dict.fromkeys(rows["metric"]))
        metric = seen.state.metric if seen.state.metric in metrics else metrics[0]
        choices.append(
            controls.segments(
                "Metric", seen.state, PATH, "metric", [(m, m) for m in metrics], metric
            )
        )
        rows = rows[rows["metric"] == metric]
        title = answer(run, rows, metric)
        body = [
            _panel("Each unit dropped alone", bars(rows, seen.colours[run.name], seen.style)),
            _panel("k units dropped at once", curve(rows, seen.colours[run.name], seen.style)),
        ]
    if "blocks" in tables and len(run.sampled_steps("blocks")) > 1:
        figure = figures.gradient_heatmap(
            run, statistic="skip_share", kind="block", style=seen.style, title=False
        )
        body.append(_panel("Skip share by unit and step", controls.drawn(figure, "").figure))
    if not len(rows):
        text = ["Drop every unit of ", html.Code(run.name), " once and measure what it was worth."]
        command = f"gradscope ablate {run.path} --drop blocks"
        body.insert(0, controls.empty("No lesions recorded", text, command))
    return title, choices, [part for part in body if part is not None]


def answer(run: Run, rows: pd.DataFrame, metric: str) -> str:
    """Which single unit the network misses most, and what a typical one is worth."""
    alone = _alone(rows)
    if alone.empty:
        return f"{words.plural(len(rows), 'lesion')} of {run.name}"
    worst = alone.iloc[int(alone["delta"].abs().to_numpy().argmax())]
    typical = words.number(float(alone["delta"].median()))
    delta = words.number(float(worst["delta"]))
    return (
        f"Dropping {worst['unit']} changes {metric} most ({delta}); "
        f"the median of {words.plural(len(alone), 'unit')} is {typical}"
    )


def bars(rows: pd.DataFrame, colour: str, style: str) -> go.Figure | None:
    """Difference of the metric by unit, with its interval; None without single lesions."""
    alone = _alone(rows)
    if alone.empty:
        return None
    error = {
        "type": "data",
        "symmetric": False,
        "array": alone["ci_high"] - alone["delta"],
        "arrayminus": alone["delta"] - alone["ci_low"],
        "color": style_of(style).muted,
        "thickness": 1.2,
    }
    figure = go.Figure(
        go.Bar(x=alone["unit"], y=alone["delta"], error_y=error, marker_color=colour)
    )
    figure.update_yaxes(title_text="difference to the intact network", zeroline=True)
    return _dressed(figure, style)


def curve(rows: pd.DataFrame, colour: str, style: str) -> go.Figure | None:
    """Median of the metric over the draws of each k, with all draws; None without such rows."""
    many = rows[rows["k"] > 1]
    if many.empty:
        return None
    several = rows[rows["k"] >= 1]
    middle = several.groupby("k")["value"].median()
    figure = go.Figure(
        [
            go.Scatter(
                x=several["k"],
                y=several["value"],
                mode="markers",
                opacity=0.35,
                marker_color=colour,
            ),
            go.Scatter(x=middle.index, y=middle, mode="lines+markers", line={"color": colour}),
        ]
    )
    figure.update_xaxes(title_text="units dropped at once")
    figure.update_layout(showlegend=False)
    return _dressed(figure, style)


def _alone(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["lesion"] == "drop") & (rows["k"].fillna(1) <= 1)]


def _dressed(figure: go.Figure, style: str) -> go.Figure:
    margin = {"t": 12, "r": 16, "b": 40, "l": 48}
    return figure.update_layout(
        template=template(style_of(style)), margin=margin, uirevision="kept"
    )


def _panel(title: str, figure: go.Figure | None) -> Component | None:
    if figure is None:
        return None
    graph = dcc.Graph(figure=figure, config=controls.GRAPH_CONFIG, className="plot")
    area = html.Div(graph, className="plot-area", style={"height": "360px"})
    return html.Section([html.Header(html.H2(title)), area], className="panel")
