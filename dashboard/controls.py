"""Turns values into the widgets that pages share: links, panels around plots, terms, tables.

Must never know runs, the catalog or which page they stand on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from dash import dcc, html
from dash.dependencies import Input, Output
from dash.development.base_component import Component
from gradscope_dashboard import glossary, ids
from gradscope_dashboard.state import State

from gradscope.export import FORMATS

SEVERITY_WORDS = {"critical": "critical", "warning": "warning", "info": "note"}
GRAPH_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "toImage", "zoomIn2d", "zoomOut2d"],
}
BLANK = go.Figure(
    layout={
        "template": None,
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
    }
)


def seen() -> tuple[Input, Input, Input]:
    """What every view follows: the address, the theme in force, and the data's version."""
    return (Input(ids.URL, "search"), Input(ids.THEME, "data"), Input(ids.VERSION, "data"))


@dataclass(frozen=True)
class Plot:
    """What a plot panel shows: a figure, or the sentence that says why there is none.

    `code` is the Python that draws the figure, `caption` says how its data was treated.
    """

    figure: go.Figure | None = None
    code: str = ""
    caption: str = ""
    message: Any = ""

    def props(self) -> tuple[Any, str, str, str, Any]:
        """Values for `plot_outputs`, in their order."""
        if self.figure is None:
            return BLANK, "panel empty", "", "", self.message
        return self.figure, "panel ready", self.code, self.caption, ""


def drawn(figure: go.Figure, code: str, revision: str = "") -> Plot:
    """A figure fitted to its panel: the panel gives the height, the page the title.

    Zoom is kept from one figure to the next of the same `revision`; "" leaves the figure's own.
    """
    if revision:
        figure.update_layout(uirevision=revision)
    meta = figure.layout.meta if isinstance(figure.layout.meta, dict) else {}
    figure.update_layout(height=None, width=None, autosize=True)
    return Plot(figure, code, str(meta.get("caption", "")))


def answer_of(plot: Plot) -> str:
    """The sentence that the figure answers with; "" where there is none."""
    meta = plot.figure.layout.meta if plot.figure is not None else None
    return str(meta.get("answer", "")) if isinstance(meta, dict) else ""


def plot_outputs(graph: str) -> tuple[Output, ...]:
    """The properties of a plot panel that `Plot.props` fills."""
    return (
        Output(graph, "figure"),
        Output(ids.panel(graph), "className"),
        Output(ids.python(graph), "children"),
        Output(ids.caption(graph), "children"),
        Output(ids.message(graph), "children"),
    )


def filled_panel(
    graph: str, title: str, plot: Plot, *, height: str, hint: str = "", export: str = ""
) -> Component:
    """A panel that shows its plot from the start, for pages whose panels come and go."""
    return plot_panel(graph, title, height=height, hint=hint, export=export, plot=plot)


def plot_panel(
    graph: str,
    title: str,
    *,
    height: str,
    export: str = "",
    hint: str = "",
    over: str = "",
    plot: Plot | None = None,
) -> Component:
    """A panel: heading, tools (copy as Python, export), graph; a skeleton where `plot` is None.

    `over` is the id of a place between heading and graph.
    """
    figure, shown, code, caption, message = (
        (BLANK, "panel waiting", "", "", "") if plot is None else plot.props()
    )
    tools: list[Component] = []
    if plot is None or code:
        tools.append(
            html.Button(
                "Copy Python",
                className="quiet-button copy-button",
                title="Copy the Python call that draws this plot",
                **{"data-copy": ids.python(graph)},
            )
        )
    if export:
        tools.append(export_menu(export))
    return html.Section(
        [
            html.Header(
                [
                    html.Div(
                        [html.H2(title), html.P(hint, className="hint")], className="panel-head"
                    ),
                    html.Div(tools, className="panel-tools"),
                ]
            ),
            *([html.Div(id=over, className="panel-over")] if over else []),
            html.Div(
                [
                    html.Div(className="skeleton", **{"aria-hidden": "true"}),
                    html.Div(message, id=ids.message(graph), className="plot-message"),
                    dcc.Graph(id=graph, figure=figure, config=GRAPH_CONFIG, className="plot"),
                ],
                className="plot-area",
                style={"height": height},
            ),
            html.P(caption, id=ids.caption(graph), className="caption"),
            html.Code(code, id=ids.python(graph), hidden=True),
        ],
        id=ids.panel(graph),
        className=shown,
        **{"aria-label": title},
    )


def export_menu(figure: str) -> Component:
    """A drop-down of the export formats of one figure."""
    return html.Details(
        [
            html.Summary("Export", className="quiet-button"),
            html.Div(
                [
                    html.Button(form.upper(), id=ids.export(figure, form), className="menu-item")
                    for form in FORMATS
                ],
                className="menu",
            ),
        ],
        className="menu-holder",
    )


def term(word: str, key: str = "") -> Component:
    """A dotted word with its definition behind it, reachable by keyboard."""
    meaning = glossary.meaning(key or word)
    if not meaning:
        return html.Span(word)
    return html.Span(
        [word, html.Span(meaning, className="tip", role="tooltip")],
        className="term",
        tabIndex="0",
    )


def segments(
    label: str, state: State, path: str, field: str, choices: Sequence[tuple[str, str]], now: str
) -> Component:
    """A row of links, one of them current: each sets `field` of the state to its value."""
    return html.Div(
        [
            html.Span(label, className="segments-label"),
            html.Div(
                [
                    dcc.Link(
                        word,
                        href=state.but(**{field: value}).href(path),
                        className="segment current" if value == now else "segment",
                        title=word,
                    )
                    for value, word in choices
                ],
                className="segments",
            ),
        ],
        className="segments-holder",
        role="group",
        **{"aria-label": label},
    )


def skeleton_lines(amount: int) -> Component:
    """Grey lines in place of text that is being read."""
    return html.Div(
        [html.Div(className="skeleton-line") for _ in range(amount)], className="skeleton-text"
    )


def answer(component_id: str) -> Component:
    """The title line of a page, waiting for its sentence."""
    return html.H1(skeleton_lines(1), id=component_id, className="answer")


def command(line: str) -> Component:
    """A command to type, with a copy button."""
    return html.Span(
        [
            html.Code(line, id={"type": "command", "line": line}),
            html.Button("Copy", className="quiet-button copy-button", **{"data-copy-text": line}),
        ],
        className="command",
    )


def empty(title: str, text: Sequence[Any], line: str = "") -> Component:
    """An honest empty state: what is missing, why, and the command that fills it."""
    return html.Div(
        [html.H2(title), html.P(list(text)), *([command(line)] if line else [])],
        className="empty-state",
    )


def dot(colour: str, title: str = "") -> Component:
    """A run's colour as a disc."""
    return html.Span(className="dot", style={"backgroundColor": colour}, title=title)


def severity_mark(severity: str) -> Component:
    """A shape and a word for the severity: never colour alone."""
    return html.Span(
        [
            html.Span(className=f"mark mark-{severity}", **{"aria-hidden": "true"}),
            SEVERITY_WORDS.get(severity, severity),
        ],
        className=f"severity severity-{severity}",
    )


def table(
    head: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    *,
    numbers_from: int = 1,
    even: bool = False,
) -> Component:
    """A table; columns from `numbers_from` on are right-aligned numbers.

    `even`: all columns but the first are equally wide.
    """

    def side(position: int) -> str:
        return "number" if position >= numbers_from else ""

    return html.Div(
        html.Table(
            [
                html.Thead(
                    html.Tr([html.Th(word, className=side(i)) for i, word in enumerate(head)])
                ),
                html.Tbody(
                    [
                        html.Tr([html.Td(cell, className=side(i)) for i, cell in enumerate(row)])
                        for row in rows
                    ]
                ),
            ],
            className="data-table even" if even else "data-table",
        ),
        className="table-holder",
    )
