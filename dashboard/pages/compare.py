"""Why does the other network not have it? Turns several runs into plots on shared scales.

Must never know the other pages' insides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import Dash, html
from dash.dependencies import Output
from dash.development.base_component import Component
from gradscope_dashboard import controls, ids, plots, words
from gradscope_dashboard.calls import figure_call
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.controls import Plot
from gradscope_dashboard.scene import STATISTICS, Scene, scene, statistic
from gradscope_dashboard.state import parse

from gradscope import figures
from gradscope.frame import Run
from gradscope.schema import GradScopeError

PATH = "/compare"
TITLE = "Compare"
ICON = "compare"
SCALARS = ("val_accuracy", "accuracy", "val_loss", "loss")
CONFIGURED = ("model", "batch_size", "optimizer", "lr", "seed", "device", "dtype")


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
                height="340px",
                hint="Star a run on the bar to make it the baseline.",
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
        Output(ids.COMPARE_TABLE, "children"),
        *controls.seen(),
    )
    def show(search: str, theme: str | None, _version: str) -> Any:
        title, choices, profile, training, difference, table = view(
            scene(catalog, parse(search), theme)
        )
        return title, choices, *profile.props(), *training.props(), *difference.props(), table


def view(seen: Scene) -> tuple[Any, Any, Plot, Plot, Plot, Any]:
    """Title line, choices, the three plots, and the verdicts side by side."""
    runs = list(seen.visible)
    if not runs:
        none = Plot(message="No run is visible.")
        text = ["Click a chip to show a run, or record some first."]
        empty = controls.empty("No run to compare", text, "" if seen.names else "gradscope demo")
        return "There is nothing to compare yet", empty, none, none, none, ""
    kind, column = statistic(seen.state)
    profile = _profile(seen, runs)
    choices = controls.segments("Show", seen.state, PATH, "stat", STATISTICS, f"{kind}.{column}")
    title = controls.answer_of(profile) or f"{words.plural(len(runs), 'run')} side by side"
    return (
        title,
        choices,
        profile,
        _training(seen, runs),
        _difference(seen, runs),
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
    return controls.drawn(figure, figure_call("gradient_flow", runs, arguments))


def _training(seen: Scene, runs: list[Run]) -> Plot:
    try:
        figure = figures.training_curves(runs, colours=seen.colours, style=seen.style, title=False)
    except GradScopeError as error:
        return Plot(message=str(error))
    return controls.drawn(figure, figure_call("training_curves", runs, {}))


def _difference(seen: Scene, runs: list[Run]) -> Plot:
    base = seen.base
    others = [run for run in runs if base is not None and run.name != base.name]
    if base is None or not others:
        return Plot(message="A difference needs a baseline and one more visible run.")
    kind, column = statistic(seen.state)
    drawn = [base, *others[:4]]
    arguments = {"statistic": column, "kind": kind}
    try:
        figure = plots.difference_heatmap(drawn, **arguments, style=seen.style)
    except GradScopeError as error:
        return Plot(message=str(error))
    code = figure_call("difference_heatmap", drawn, arguments, "gradscope_dashboard.plots")
    return controls.drawn(figure, code)


def _table(seen: Scene, runs: list[Run]) -> Component:
    head = ["", *(html.Span([controls.dot(seen.colours[r.name]), " ", r.name]) for r in runs)]
    rows: list[list[Any]] = [
        [controls.term("Verdict", "verdict"), *(seen.catalog.verdict(run) for run in runs)],
        ["Findings", *(str(len(seen.catalog.findings(run))) for run in runs)],
    ]
    for name in SCALARS:
        values = [_last(run, name) for run in runs]
        if any(np.isfinite(values)):
            show = words.percent if "accuracy" in name else words.number
            rows.append([f"last {name.replace('_', ' ')}", *(show(value) for value in values)])
    for key in CONFIGURED:
        told = [str(run.config.get(key, "")) for run in runs]
        if any(told):
            rows.append([key.replace("_", " "), *(word or "–" for word in told)])
    return html.Section(
        [html.Header(html.H2("Side by side")), controls.table(head, rows, numbers_from=99)],
        className="panel",
    )


def _last(run: Run, name: str) -> float:
    scalars = run.frame("scalars", columns=["value"])
    values = scalars[scalars["name"] == name]["value"].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else float("nan")
