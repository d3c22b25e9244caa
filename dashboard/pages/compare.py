"""Why does the other network not have it? Turns several runs into plots on shared scales.

Must never know the other pages' insides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dash
import numpy as np
import plotly.graph_objects as go
from dash import Dash, html
from dash.dependencies import Input, Output
from dash.dependencies import State as Held
from dash.development.base_component import Component
from gradscope_dashboard import controls, ids, scalars, words
from gradscope_dashboard.calls import figure_call
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.controls import Plot
from gradscope_dashboard.scene import STATISTICS, Scene, compared, scene, statistic
from gradscope_dashboard.state import opened, parse

from gradscope import figures
from gradscope.frame import Run
from gradscope.schema import GradScopeError

PATH = "/compare"
TITLE = "Compare"
ICON = "compare"
SCALARS = (
    ("val_accuracy", "validation accuracy"),
    ("accuracy", "train accuracy"),
    ("val_loss", "validation loss"),
    ("loss", "train loss"),
)
CONFIGURED = ("model", "batch_size", "optimizer", "lr", "seed", "device", "dtype")


@dataclass(frozen=True)
class View:
    """What the page shows; `pair` stands over the difference."""

    answer: Any
    choices: Any
    profile: Plot
    training: Plot
    difference: Plot
    pair: Any
    table: Any


def layout(_catalog: Catalog) -> Component:
    """Title, choices, profiles, training curves, differences, table."""
    return html.Div(
        [
            controls.answer(ids.COMPARE_TITLE),
            html.Div(id=ids.COMPARE_CHOICES, className="page-choices"),
            controls.plot_panel(
                ids.COMPARE_PROFILE,
                "Profiles over relative depth",
                height="max(330px, 50vh)",
                export="gradient-flow",
                hint="Input on the left, loss on the right.",
            ),
            controls.plot_panel(
                ids.COMPARE_TRAINING, "Training", height="360px", export="training-curves"
            ),
            controls.plot_panel(
                ids.COMPARE_DIFFERENCE,
                "Difference to the baseline",
                height="400px",
                export="gradient-difference",
                hint="Star a run on the bar to make it the baseline. Click a cell to open the layer.",
                over=ids.COMPARE_PAIR,
            ),
            html.Div(id=ids.COMPARE_TABLE),
        ]
    )


def connect(app: Dash, catalog: Catalog) -> None:
    """Wires the page to the address."""

    @app.callback(
        Output(ids.COMPARE_TITLE, "children"),
        Output(ids.COMPARE_CHOICES, "children"),
        *controls.plot_outputs(ids.COMPARE_PROFILE),
        *controls.plot_outputs(ids.COMPARE_TRAINING),
        *controls.plot_outputs(ids.COMPARE_DIFFERENCE),
        Output(ids.COMPARE_PAIR, "children"),
        Output(ids.COMPARE_TABLE, "children"),
        *controls.seen(),
    )
    def show(search: str, theme: str | None, _version: str) -> Any:
        shown = view(scene(catalog, parse(search), theme))
        return (
            shown.answer,
            shown.choices,
            *shown.profile.props(),
            *shown.training.props(),
            *shown.difference.props(),
            shown.pair,
            shown.table,
        )

    @app.callback(
        Output(ids.URL, "search", allow_duplicate=True),
        Output(ids.COMPARE_DIFFERENCE, "clickData"),
        Input(ids.COMPARE_DIFFERENCE, "clickData"),
        Held(ids.URL, "search"),
        prevent_initial_call=True,
    )
    def click(cell: Any, search: str) -> Any:
        moved = opened(search, None, cell)
        return (dash.no_update if moved is None else moved), None


def view(seen: Scene) -> View:
    """Title line, choices, the three plots, and the verdicts side by side."""
    runs = list(seen.visible)
    if not runs:
        none = Plot(message="No run is visible.")
        text = ["Click a chip to show a run, or record some first."]
        empty = controls.empty("No run to compare", text, "" if seen.names else "gradscope demo")
        return View("There is nothing to compare yet", empty, none, none, none, "", "")
    kind, column = statistic(seen.state)
    profile = _profile(seen, runs)
    choices = controls.segments("Show", seen.state, PATH, "stat", STATISTICS, f"{kind}.{column}")
    title = controls.answer_of(profile) or f"{words.plural(len(runs), 'run')} side by side"
    difference = _difference(seen)
    return View(
        title,
        choices,
        profile,
        _training(seen, runs),
        difference,
        _difference_choices(seen, difference),
        _table(seen, runs),
    )


def _profile(seen: Scene, runs: list[Run]) -> Plot:
    kind, column = statistic(seen.state)
    step = "last" if seen.state.step is None else seen.state.step
    arguments: dict[str, Any] = {"statistic": column, "kind": kind, "step": step}
    try:
        figure = figures.gradient_flow(
            runs, **arguments, colours=seen.colours, style=seen.style, title=False
        )
    except GradScopeError as error:
        return Plot(message=str(error))
    return controls.drawn(
        figure, figure_call("gradient_flow", runs, arguments), f"profiles {column} {kind}"
    )


def _training(seen: Scene, runs: list[Run]) -> Plot:
    try:
        figure = figures.training_curves(runs, colours=seen.colours, style=seen.style, title=False)
    except GradScopeError as error:
        return Plot(message=str(error))
    return controls.drawn(figure, figure_call("training_curves", runs, {}))


def _difference(seen: Scene) -> Plot:
    pair = compared(seen)
    if pair is None:
        return Plot(message="A difference needs a baseline and one more visible run.")
    kind, column = statistic(seen.state)
    arguments: dict[str, Any] = {"statistic": column, "kind": kind}
    names = " ".join(run.name for run in pair)

    def draw() -> go.Figure:
        return figures.gradient_difference(list(pair), **arguments, style=seen.style, title=False)

    try:
        key = ("difference", names, column, kind, seen.style)
        version = "|".join(run.stored.version() for run in pair)
        figure = go.Figure(seen.catalog.memo(key, version, draw))
    except GradScopeError as error:
        return Plot(message=str(error))
    code = figure_call("gradient_difference", pair, arguments)
    return controls.drawn(figure, code, f"difference {names} {column} {kind}")


def _difference_choices(seen: Scene, plot: Plot) -> list[Component]:
    """What the difference says in words, and which run is held against the baseline."""
    pair = compared(seen)
    if pair is None:
        return []
    other, base = pair
    names = [(run.name, run.name) for run in seen.visible if run.name != base.name]
    told = controls.answer_of(plot)
    return [
        *([html.P(told, className="panel-answer")] if told else []),
        controls.segments("Held against it", seen.state, PATH, "run", names, other.name),
    ]


def _table(seen: Scene, runs: list[Run]) -> Component:
    head = ["", *(html.Span([controls.dot(seen.colours[r.name]), " ", r.name]) for r in runs)]
    rows: list[list[Any]] = [
        [controls.term("Verdict", "verdict"), *(seen.catalog.verdict(run) for run in runs)],
        ["Findings", *(str(len(seen.catalog.findings(run))) for run in runs)],
    ]
    for name, word in SCALARS:
        values = [scalars.final(run, name) for run in runs]
        if any(np.isfinite(values)):
            show = words.percent if "accuracy" in name else words.number
            rows.append([word, *(show(value) for value in values)])
    for key in CONFIGURED:
        told = [str(run.config.get(key, "")) for run in runs]
        if any(told):
            rows.append([key.replace("_", " "), *(word or "–" for word in told)])
    return html.Section(
        [
            html.Header(html.H2("Side by side")),
            controls.table(head, rows, numbers_from=99, even=True),
        ],
        className="panel",
    )
