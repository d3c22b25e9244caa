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
from gradscope_dashboard.scene import Scene, compared, looked_at, scene, statistic
from gradscope_dashboard.state import parse
from gradscope_dashboard.studies import BY_NAME

from gradscope.export import COMPARING, IMAGE_FORMATS, SINGLE, Image, render
from gradscope.figures.prepared import Prepared
from gradscope.frame import Run
from gradscope.schema import GradScopeError

FIGURES: Mapping[str, tuple[Any, Any]] = {
    **COMPARING,
    **SINGLE,
    "shattering-by-depth": COMPARING["shattering"],
}
"""Table step and draw step by a figure's name."""


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
        runs: Sequence[Run] = looked_at(seen) if path == "/ablation" else seen.visible
        if path == "/flow" and seen.run is not None:
            runs = (seen.run,)
        name = f"{wanted['figure']}.{wanted['format']}"
        return dcc.send_bytes(contents(seen, runs, wanted["figure"], wanted["format"]), name)


def contents(seen: Scene, runs: Sequence[Run], figure: str, form: str) -> bytes:
    """The file's bytes. Raises GradScopeError without runs, or without a browser for pictures."""
    if not runs:
        raise GradScopeError("there is nothing to export; put a run on the bar first")
    table, draw = FIGURES[figure]
    given, arguments = _arguments(seen, runs, figure)
    prepared: Prepared = table(given, **arguments)
    if form == "csv":
        return prepared.data.to_csv(index=False).encode()
    if form == "html":
        page = draw(prepared, style="screen")
        return str(page.to_html(include_plotlyjs=True, full_html=True)).encode()
    if form not in IMAGE_FORMATS:
        raise GradScopeError(f"{form!r} is no format to export")
    drawn = draw(prepared, style="paper", width="double")
    return render([Image(figure=drawn, format=form, scale=4.0)])[0]


def _arguments(seen: Scene, runs: Sequence[Run], figure: str) -> tuple[Any, dict[str, Any]]:
    """What the figure's table step is given to make what the page shows: runs, and keywords."""
    kind, column = statistic(seen.state)
    shown: dict[str, Any] = {"statistic": column, "kind": kind}
    if figure in BY_NAME:
        study = BY_NAME[figure]
        found = [run for run in runs if study.has(run)]
        if not found:
            raise GradScopeError(f"no visible run has data for {figure} to export")
        asked: dict[str, Any] = {"metric": seen.state.metric or None} if study.metric else {}
        return (found, {**asked, "colours": seen.colours}) if study.several else (found[0], asked)
    if figure == "gradient-heatmap":
        return runs[0], shown
    if figure == "gradient-difference":
        pair = compared(seen)
        if pair is None:
            raise GradScopeError("a difference needs a baseline and one more visible run")
        return list(pair), shown
    if figure == "training-curves":
        return list(runs), {"colours": seen.colours}
    step = "last" if seen.state.step is None else seen.state.step
    return list(runs), {**shown, "step": step, "colours": seen.colours}
