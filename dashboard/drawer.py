"""Turns one layer of one run into the drawer at the right: place, curves, histogram, findings.

Must never know the pages behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from dash import Dash, dcc, html
from dash.dependencies import Input, Output
from dash.development.base_component import Component
from gradscope_dashboard import controls, evidence, ids, plots, words
from gradscope_dashboard.calls import figure_call
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.controls import Plot
from gradscope_dashboard.scene import Scene, scene
from gradscope_dashboard.state import parse

from gradscope import figures
from gradscope.figures.theme import shorten
from gradscope.frame import Run
from gradscope.schema import GradScopeError

NONE = Plot()


@dataclass(frozen=True)
class View:
    """What the drawer shows; closed where no layer is chosen."""

    open: bool = False
    head: Any = ""
    curves: Plot = NONE
    histogram: Plot = NONE
    foot: Any = ""


def layout() -> Component:
    """The drawer, closed and empty."""
    return html.Aside(
        html.Div(
            [
                html.Div(id=ids.DRAWER_HEAD),
                controls.plot_panel(ids.DRAWER_CURVES, "Over training", height="520px"),
                controls.plot_panel(
                    ids.DRAWER_HISTOGRAM, "Magnitudes of its loss gradient", height="290px"
                ),
                html.Div(id=ids.DRAWER_FOOT),
            ],
            className="drawer-scroll",
        ),
        id=ids.DRAWER,
        className="drawer",
        **{"aria-label": "Layer"},
    )


def connect(app: Dash, catalog: Catalog) -> None:
    """Wires the drawer to the address."""

    @app.callback(
        Output(ids.DRAWER, "className"),
        Output(ids.DRAWER_HEAD, "children"),
        *controls.plot_outputs(ids.DRAWER_CURVES),
        *controls.plot_outputs(ids.DRAWER_HISTOGRAM),
        Output(ids.DRAWER_FOOT, "children"),
        Input(ids.URL, "pathname"),
        *controls.seen(),
    )
    def show_layer(path: str, search: str, theme: str | None, _version: str) -> Any:
        shown = view(scene(catalog, parse(search), theme), path or "/")
        return (
            "drawer open" if shown.open else "drawer",
            shown.head,
            *shown.curves.props(),
            *shown.histogram.props(),
            shown.foot,
        )


def view(seen: Scene, path: str) -> View:
    """The drawer of the state's layer in the run looked at."""
    run, layer = seen.run, seen.state.layer
    if run is None or not layer:
        return View()
    sites = run.sites
    here = sites[sites["site"] == layer]
    if here.empty:
        gone = html.P(f"{run.name} has no layer named {layer}.", className="muted")
        nothing = Plot(message="Choose another layer in the plot.")
        return View(True, [_top(seen, layer, path), gone], nothing, nothing)
    colour = seen.colours.get(run.name, "#0072B2")
    curves = _attempt(
        lambda: plots.layer_curves(run, layer, colour=colour, style=seen.style),
        figure_call("layer_curves", [run], {}, "gradscope_dashboard.plots", [layer]),
    )
    histogram = _attempt(
        lambda: _histogram(run, layer, seen.style),
        figure_call("histogram", [run], {}, positional=[layer]),
    )
    return View(
        True,
        [_top(seen, layer, path), _facts(here.iloc[0]), _neighbours(seen, sites, layer, path)],
        curves,
        histogram,
        _findings(seen, run, layer),
    )


def _attempt(draw: Callable[[], go.Figure], code: str) -> Plot:
    try:
        return controls.drawn(draw(), code)
    except GradScopeError as error:
        return Plot(message=f"{str(error)[:1].upper()}{str(error)[1:]}.")


def _histogram(run: Run, layer: str, style: str) -> go.Figure:
    if "histograms" not in run.stored.tables() or run.frame("histograms", sites=[layer]).empty:
        raise GradScopeError(f"no magnitude histogram of {layer!r} was recorded in {run.name!r}")
    figure = figures.histogram(run, layer, style=style, title=False)
    return figure.update_layout(uirevision=f"histogram {run.name} {layer}")


def _top(seen: Scene, layer: str, path: str) -> Component:
    run = seen.run
    return html.Div(
        [
            html.Div(
                [
                    html.Div(
                        [controls.dot(seen.colours.get(run.name, "#777777")), f" {run.name}"],
                        className="overline",
                    )
                    if run is not None
                    else "",
                    html.H2(layer, className="drawer-name"),
                ]
            ),
            dcc.Link(
                html.Span(className="icon icon-close"),
                href=seen.state.but(layer="").href(path),
                className="tool",
                title="Close (Esc)",
                id=ids.DRAWER_CLOSE,
            ),
        ],
        className="drawer-top",
    )


def _facts(site: pd.Series) -> Component:
    shape = " × ".join(str(size) for size in site["shape"]) or "–"
    relative = site["relative_depth"]
    rows = [
        ("Module", site["module_type"] or "–"),
        ("Stage", site["stage"] or "–"),
        ("Depth", f"{site['depth']} ({words.number(relative)} of the way to the loss)"),
        ("Shape", shape),
    ]
    if site["parameters"]:
        rows.append(("Parameters", words.count(int(site["parameters"]))))
    return html.Dl(
        [part for word, value in rows for part in (html.Dt(word), html.Dd(str(value)))],
        className="facts",
    )


def _neighbours(seen: Scene, sites: pd.DataFrame, layer: str, path: str) -> Component:
    """The layer's place in the order of execution: the one before, the one after."""
    kind = sites[sites["site"] == layer]["kind"].iloc[0]
    same = sites[sites["kind"] == kind].sort_values("depth", kind="stable")["site"].tolist()
    at = same.index(layer)
    links = []
    if at > 0:
        links.append((same[at - 1], "← "))
    if at + 1 < len(same):
        links.append((same[at + 1], ""))
    return html.Div(
        [
            dcc.Link(
                f"{arrow}{shorten(name, 26)}{'' if arrow else ' →'}",
                href=seen.state.but(layer=name).href(path),
                className="quiet-button",
                title=name,
            )
            for name, arrow in links
        ],
        className="drawer-neighbours",
    )


def _findings(seen: Scene, run: Run, layer: str) -> list[Component]:
    module = layer.split("#", 1)[0]
    about = [
        finding
        for finding in seen.catalog.findings(run)
        if finding.site == layer or finding.site.rpartition(".")[0] == module
    ]
    if not about:
        return [html.P("No finding names this layer.", className="muted")]
    about.sort(key=evidence.by_weight)
    colour = seen.colours.get(run.name, "#777777")
    return [html.H2("Findings"), *(evidence.entry(f, run.name, colour, seen.state) for f in about)]
