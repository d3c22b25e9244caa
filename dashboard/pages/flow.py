"""Which layer is it? Turns one run into its gradient profile by depth and its map over steps.

Must never know the other pages' insides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dash
import numpy as np
import plotly.graph_objects as go
from dash import Dash, dcc, html
from dash.dependencies import Input, Output
from dash.dependencies import State as Held
from dash.development.base_component import Component
from gradscope_dashboard import controls, ids, words
from gradscope_dashboard.calls import figure_call
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.controls import Plot
from gradscope_dashboard.scene import STATISTICS, TABLE_OF, Scene, scene, statistic
from gradscope_dashboard.state import opened, parse

from gradscope import figures
from gradscope.figures.theme import style_of
from gradscope.frame import Run, nearest_step

PATH = "/flow"
TITLE = "Flow"
ICON = "flow"


@dataclass(frozen=True)
class View:
    """What the page shows."""

    answer: Any
    choices: Any
    profile: Plot
    heatmap: Plot
    head: str = ""
    rows: Any = ""


def layout(_catalog: Catalog) -> Component:
    """Title, choices, profile, heat-map, table of layers."""
    return html.Div(
        [
            controls.answer(ids.FLOW_TITLE),
            html.Div(id=ids.FLOW_CHOICES, className="page-choices"),
            controls.plot_panel(
                ids.FLOW_PROFILE,
                "Profile by depth",
                height="max(330px, 50vh)",
                export="gradient-flow",
                hint="Input on the left, loss on the right. Click a layer to open it.",
            ),
            controls.plot_panel(
                ids.FLOW_HEATMAP,
                "Layer by step",
                height="max(300px, 40vh)",
                export="gradient-heatmap",
                hint="Steps run upward. Click a cell to open the layer at that step.",
            ),
            html.Section(
                html.Details(
                    [html.Summary(id=ids.FLOW_TABLE_HEAD), html.Div(id=ids.FLOW_TABLE_ROWS)],
                    className="more",
                ),
                id=ids.FLOW_TABLE,
                className="panel",
            ),
        ]
    )


def connect(app: Dash, catalog: Catalog) -> None:
    """Wires the page to the address, and clicks on layers to the address."""

    @app.callback(
        Output(ids.FLOW_TITLE, "children"),
        Output(ids.FLOW_CHOICES, "children"),
        *controls.plot_outputs(ids.FLOW_PROFILE),
        *controls.plot_outputs(ids.FLOW_HEATMAP),
        Output(ids.FLOW_TABLE, "hidden"),
        Output(ids.FLOW_TABLE_HEAD, "children"),
        Output(ids.FLOW_TABLE_ROWS, "children"),
        *controls.seen(),
    )
    def show(search: str, theme: str | None, _version: str) -> Any:
        shown = view(scene(catalog, parse(search), theme))
        return (
            shown.answer,
            shown.choices,
            *shown.profile.props(),
            *shown.heatmap.props(),
            shown.rows == "",
            shown.head,
            shown.rows,
        )

    @app.callback(
        Output(ids.URL, "search", allow_duplicate=True),
        Output(ids.FLOW_PROFILE, "clickData"),
        Output(ids.FLOW_HEATMAP, "clickData"),
        Input(ids.FLOW_PROFILE, "clickData"),
        Input(ids.FLOW_HEATMAP, "clickData"),
        Held(ids.URL, "search"),
        prevent_initial_call=True,
    )
    def click(profile: Any, heatmap: Any, search: str) -> Any:
        moved = opened(search, profile, heatmap)
        return (dash.no_update if moved is None else moved), None, None


def view(seen: Scene) -> View:
    """Profile at the chosen step, map over steps, and the table of layers, of the run."""
    run = seen.run
    if run is None:
        empty = controls.empty(
            "No run to look at",
            ["Record one first; this page opens on the newest run."],
            "gradscope demo",
        )
        none = Plot(message="No run was recorded yet.")
        return View("There is no gradient to follow yet", empty, none, none)
    if not len(run.sampled_steps("outputs")) and not len(run.sampled_steps("parameters")):
        none = Plot(message="Waiting for the first sampled step; it appears by itself.")
        return View(f"{run.name} has no sampled step yet", _choices(seen, run), none, none)
    profile = _profile(seen, run)
    return View(
        controls.answer_of(profile) or f"Flow of {run.name}",
        _choices(seen, run),
        profile,
        _heatmap(seen, run),
        *_table(seen, run),
    )


def _choices(seen: Scene, run: Run) -> list[Component]:
    runs = [(other.name, other.name) for other in seen.chosen]
    if run.name not in dict(runs):
        runs.append((run.name, run.name))
    kind, column = statistic(seen.state)
    axis = [("", "relative depth"), ("depth", "order of execution")]
    return [
        controls.segments("Run", seen.state, PATH, "run", runs, run.name),
        controls.segments("Show", seen.state, PATH, "stat", STATISTICS, f"{kind}.{column}"),
        controls.segments("By", seen.state, PATH, "axis", axis, seen.state.axis),
    ]


def _profile(seen: Scene, run: Run) -> Plot:
    kind, column = statistic(seen.state)
    if not len(run.sampled_steps(TABLE_OF[kind])):
        return Plot(message=f"{run.name} has no rows of {TABLE_OF[kind]}.")
    arguments: dict[str, Any] = {
        "statistic": column,
        "kind": kind,
        "step": "last" if seen.state.step is None else seen.state.step,
        "x": "depth" if seen.state.axis == "depth" else "relative_depth",
    }
    code = figure_call("gradient_flow", [run], arguments)
    figure = figures.gradient_flow(
        run, **arguments, colours=seen.colours, style=seen.style, title=False
    )
    _mark_layer(figure, seen.state.layer, style_of(seen.style).ink)
    return controls.drawn(figure, code, f"profile {run.name} {column} {kind} {seen.state.axis}")


def _mark_layer(figure: go.Figure, layer: str, ink: str) -> None:
    """A ring around the layer that stands in the drawer."""
    for trace in list(figure.data):
        names = [] if trace.customdata is None else [str(name) for name in trace.customdata]
        if layer and layer in names:
            at = names.index(layer)
            figure.add_trace(
                go.Scatter(
                    x=[trace.x[at]],
                    y=[trace.y[at]],
                    mode="markers",
                    showlegend=False,
                    hoverinfo="skip",
                    marker={
                        "symbol": "circle-open",
                        "size": 16,
                        "color": ink,
                        "line": {"width": 2},
                    },
                )
            )
            return


def _heatmap(seen: Scene, run: Run) -> Plot:
    kind, column = statistic(seen.state)
    steps = run.sampled_steps(TABLE_OF[kind])
    if len(steps) < 2:
        return Plot(message="The map needs two sampled steps; it appears by itself.")
    arguments: dict[str, Any] = {"statistic": column, "kind": kind}
    code = figure_call("gradient_heatmap", [run], arguments)

    def draw() -> go.Figure:
        return figures.gradient_heatmap(run, **arguments, style=seen.style, title=False)

    key = ("heatmap", run.name, column, kind, seen.style)
    figure = go.Figure(seen.catalog.memo(key, run.stored.version(), draw))
    if seen.state.step is not None:
        at = nearest_step(steps, seen.state.step)
        figure.add_hline(
            y=at, line={"color": style_of(seen.style).ink, "width": 1.2, "dash": "dot"}
        )
    return controls.drawn(figure, code, f"map {run.name} {column} {kind}")


def _table(seen: Scene, run: Run) -> tuple[str, Any]:
    """Every layer at the chosen step, in order of execution: what it is, and its rows."""
    kind, column = statistic(seen.state)
    steps = run.sampled_steps(TABLE_OF[kind])
    if not len(steps):
        return "", ""
    at = nearest_step(steps, "last" if seen.state.step is None else seen.state.step)
    frame = run.frame(TABLE_OF[kind], columns=[column], first_step=at, last_step=at)
    frame = frame.sort_values("depth", kind="stable")
    known = run.sites.drop_duplicates("site").set_index("site")
    named = {finding.site for finding in seen.catalog.findings(run)}
    rows = []
    for site, value in zip(frame["site"].astype("str"), frame[column], strict=True):
        place = known.loc[site]
        shape = " × ".join(str(size) for size in place["shape"])
        link = seen.state.but(layer=site).href(PATH)
        rows.append(
            [
                dcc.Link(html.Span(site, className="mono"), href=link),
                place["module_type"],
                place["stage"],
                "named in a finding" if site in named else "",
                shape,
                str(place["depth"]),
                words.number(float(value) if np.isfinite(value) else float("nan")),
            ]
        )
    head = [
        "Layer",
        "Module",
        "Stage",
        "",
        "Shape",
        "Depth",
        controls.term(dict(STATISTICS)[f"{kind}.{column}"]),
    ]
    told = f"All {len(rows)} layers at step {at}, as a table"
    return told, controls.table(head, rows, numbers_from=4)
