"""What is wrong, where, and what to do? Turns every run's findings into one list.

Must never know the other pages' insides.
"""

from __future__ import annotations

from typing import Any

from dash import Dash, html
from dash.dependencies import Output
from dash.development.base_component import Component
from gradscope_dashboard import controls, evidence, ids, words
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.scene import Scene, scene
from gradscope_dashboard.state import parse

PATH = "/findings"
TITLE = "Findings"
ICON = "findings"


def layout(_catalog: Catalog) -> Component:
    """Title, filters, list."""
    return html.Div(
        [
            controls.answer(ids.FINDINGS_TITLE),
            html.Div(id=ids.FINDINGS_CHOICES, className="page-choices"),
            html.Div(controls.skeleton_lines(6), id=ids.FINDINGS_LIST),
        ]
    )


def connect(app: Dash, catalog: Catalog) -> None:
    """Wires the page to the address."""

    @app.callback(
        Output(ids.FINDINGS_TITLE, "children"),
        Output(ids.FINDINGS_CHOICES, "children"),
        Output(ids.FINDINGS_LIST, "children"),
        *controls.seen(),
    )
    def show(search: str, theme: str | None, _version: str) -> Any:
        return view(scene(catalog, parse(search), theme))


def view(seen: Scene) -> tuple[Any, Any, Any]:
    """Title line, filters, and the findings of the visible runs, the gravest first."""
    if not seen.names:
        text = ["Findings are made from recorded runs."]
        return (
            "Nothing has been recorded yet",
            "",
            controls.empty("No runs yet", text, "gradscope demo"),
        )
    found = [(f, run) for run in seen.visible for f in seen.catalog.findings(run)]
    found.sort(key=lambda pair: evidence.by_weight(pair[0]))
    state = seen.state
    severities = [("", "all"), *((s, w) for s, w in controls.SEVERITY_WORDS.items())]
    kinds = [("", "all"), *((k, k.replace("_", " ")) for k in sorted({f.kind for f, _ in found}))]
    choices = [
        controls.segments("Severity", state, PATH, "severity", severities, state.severity),
        controls.segments("Kind", state, PATH, "kind", kinds, state.kind),
    ]
    shown = [
        (f, run)
        for f, run in found
        if state.severity in ("", f.severity) and state.kind in ("", f.kind)
    ]
    if not shown:
        none = "No finding of this kind." if found else "The rules found nothing to complain about."
        body: Component = html.Section(html.P(none, className="muted"), className="panel")
    else:
        body = html.Section(
            [evidence.entry(f, run.name, seen.colours[run.name], state) for f, run in shown],
            className="panel",
        )
    grave = sum(f.severity == "critical" for f, _ in found)
    mild = sum(f.severity == "warning" for f, _ in found)
    notes = len(found) - grave - mild
    told = [
        words.plural(amount, word)
        for amount, word in ((grave, "critical finding"), (mild, "warning"), (notes, "note"))
        if amount
    ]
    title = f"{words.listed(told) or 'No findings'} in {words.plural(len(seen.visible), 'run')}"
    return title, choices, body
