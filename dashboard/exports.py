"""Turns the view on a page into a file to download: png, svg, pdf, html or csv.

Must never know pages or layouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash
from dash import Dash, dcc
from dash.dependencies import ALL, Input, Output
from dash.dependencies import State as Held
from gradscope_dashboard import ids
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.scene import Scene, compared, scene, statistic
from gradscope_dashboard.state import parse

from gradscope.export.images import Image, render
from gradscope.figures.difference import difference_table, draw_difference
from gradscope.figures.flow import draw_flow, flow_table
from gradscope.figures.heatmap import draw_heatmap, heatmap_table
from gradscope.figures.prepared import Prepared
from gradscope.figures.training import draw_training, training_table
from gradscope.frame import Run
from gradscope.schema import GradScopeError

DRAW: Mapping[str, Any] = {
    "gradient-difference": draw_difference,
    "gradient-flow": draw_flow,
    "gradient-heatmap": draw_heatmap,
    "training-curves": draw_training,
}


def connect(app: Dash, catalog: Catalog) -> None:
    """Wires every export button to the download of the frame."""

    @app.callback(
        Output(ids.DOWNLOAD, "data"),
        Input({"type": "export", "figure": ALL, "format": ALL}, "n_clicks"),
        Held(ids.URL, "search"),
        Held(ids.URL, "pathname"),
        prevent_initial_call=True,
    )
    def download(clicks: Sequence[int | None], search: str, path: str) -> Any:
        wanted = dash.ctx.triggered_id
        if not any(clicks) or not wanted or not dash.ctx.triggered[0]["value"]:
            return dash.no_update
        seen = scene(catalog, parse(search))
        runs = (seen.run,) if path == "/flow" and seen.run is not None else seen.visible
        name = f"{wanted['figure']}.{wanted['format']}"
        return dcc.send_bytes(contents(seen, runs, wanted["figure"], wanted["format"]), name)


def contents(seen: Scene, runs: Sequence[Run], figure: str, form: str) -> bytes:
    """The file's bytes. Raises GradScopeError without runs, or without a browser for pictures."""
    if not runs:
        raise GradScopeError("there is nothing to export; put a run on the bar first")
    prepared = _prepared(seen, runs, figure)
    if form == "csv":
        return prepared.data.to_csv(index=False).encode()
    if form == "html":
        page = DRAW[figure](prepared, style="screen")
        return str(page.to_html(include_plotlyjs=True, full_html=True)).encode()
    drawn = DRAW[figure](prepared, style="paper", width="double")
    return render([Image(figure=drawn, format=form)])[0]


def _prepared(seen: Scene, runs: Sequence[Run], figure: str) -> Prepared:
    kind, column = statistic(seen.state)
    if figure == "gradient-heatmap":
        return heatmap_table(runs[0], statistic=column, kind=kind)
    if figure == "gradient-difference":
        pair = compared(seen)
        if pair is None:
            raise GradScopeError("a difference needs a baseline and one more visible run")
        return difference_table(list(pair), statistic=column, kind=kind)
    if figure == "training-curves":
        return training_table(list(runs), colours=seen.colours)
    step = seen.state.step
    return flow_table(
        list(runs),
        statistic=column,
        kind=kind,
        step="last" if step is None else step,
        colours=seen.colours,
    )
