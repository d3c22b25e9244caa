"""What is each part worth? Turns lesions into bars, a curve and a front.

Must never know the other pages' insides.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from dash import Dash, html
from dash.dependencies import Output
from dash.development.base_component import Component
from gradscope_dashboard import controls, ids
from gradscope_dashboard.calls import figure_call
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.controls import Plot
from gradscope_dashboard.scene import Scene, looked_at, scene
from gradscope_dashboard.state import parse
from gradscope_dashboard.studies import LESIONS, STUDIES, WAYS, Study, metrics_of, of_numbers

from gradscope.frame import Run
from gradscope.schema import GradScopeError

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
    names = [("", "all"), *((other.name, other.name) for other in seen.chosen)]
    choices: list[Component] = [
        controls.segments("Run", seen.state, PATH, "run", names, seen.state.run)
    ]
    metrics = metrics_of(looked_at(seen))
    metric = seen.state.metric if seen.state.metric in metrics else next(iter(metrics), "")
    if metrics:
        shown = [(name, name) for name in metrics]
        choices.append(controls.segments("Metric", seen.state, PATH, "metric", shown, metric))
    plots = [(study, runs, _plot(seen, study, runs, metric)) for study, runs in _filled(seen)]
    title = controls.answer_of(plots[0][2]) if plots else f"{_named(seen)} not been studied yet"
    panels = [
        _panel(study, runs, plot, answered=number > 0)
        for number, (study, runs, plot) in enumerate(plots)
    ]
    return title, choices, [*panels, *_missing(_trained(seen, run), [study for study, *_ in plots])]


def _trained(seen: Scene, run: Run) -> Run:
    """The first run looked at that the commands can rebuild, else the one given."""
    return next((other for other in looked_at(seen) if "build" in other.config), run)


def _filled(seen: Scene) -> list[tuple[Study, list[Run]]]:
    """The figures that the runs looked at have data for, and those runs."""
    having = [(study, [run for run in looked_at(seen) if study.has(run)]) for study in STUDIES]
    return [(study, runs) for study, runs in having if runs]


def _named(seen: Scene) -> str:
    runs = looked_at(seen)
    return f"{runs[0].name} has" if len(runs) == 1 else "These runs have"


def _plot(seen: Scene, study: Study, runs: Sequence[Run], metric: str) -> Plot:
    shown = list(runs) if study.several else [runs[0]]
    asked = {"metric": metric} if study.metric else {}
    look = {"colours": seen.colours} if study.several else {}
    given = shown if study.several else shown[0]
    try:
        figure = study.draw(given, **asked, **look, style=seen.style, title=False)
    except GradScopeError as error:
        return Plot(message=str(error))
    revision = " ".join((study.name, *asked.values(), *(run.name for run in shown)))
    return controls.drawn(figure, figure_call(study.draw.__name__, shown, asked), revision)


def _panel(study: Study, runs: Sequence[Run], plot: Plot, *, answered: bool) -> Component:
    """A panel with its answer in words, unless the title line says it already."""
    hint = controls.answer_of(plot) if answered else ""
    if len(runs) > 1 and not study.several:
        hint = f"{hint}. This is {runs[0].name}; choose another run above.".removeprefix(". ")
    graph = f"{ids.ABLATION_GRAPH}-{study.name}"
    return controls.filled_panel(
        graph, study.heading, plot, height=study.height, hint=hint, export=study.name
    )


def _missing(run: Run, shown: Sequence[Study]) -> list[Component]:
    """What could still be measured on a run, and the command for it."""
    if of_numbers(run):
        return []
    path = shlex.quote(str(run.path))
    asked: list[Component] = []
    if not any(study in LESIONS for study in shown):
        text = ["Drop every unit of ", html.Code(run.name), " once and measure what it was worth."]
        command = f"gradscope ablate {path} --drop blocks,random"
        asked.append(controls.empty("No lesions recorded", text, command))
    if not any(study in WAYS for study in shown):
        text = ["Measure which ways the gradient of ", html.Code(run.name), " takes."]
        asked.append(controls.empty("No gradient paths measured", text, f"gradscope paths {path}"))
    return asked
