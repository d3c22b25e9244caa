"""Which runs are there, and how are they? Turns the folder into rows with state and verdict.

Must never know the other pages' insides.
"""

from __future__ import annotations

from typing import Any

from dash import Dash, dcc, html
from dash.dependencies import Input, Output
from dash.development.base_component import Component
from gradscope_dashboard import controls, evidence, ids, plots, scalars, words
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.scene import Scene, is_live, newest_age, scene
from gradscope_dashboard.state import parse, toggled

from gradscope.frame import Run
from gradscope.store import RunStatus, RunSummary

PATH = "/"
TITLE = "Runs"
ICON = "overview"
MOST_FINDINGS = 6
FINAL = (
    ("val_accuracy", "val. accuracy", "high"),
    ("accuracy", "train accuracy", "high"),
    ("loss", "train loss", "low"),
)
"""Scalar, column head and which way is better."""


def layout(_catalog: Catalog) -> Component:
    """Title, rows of runs, findings; filled by the callback."""
    return html.Div(
        [
            controls.answer(ids.OVERVIEW_TITLE),
            html.Div(controls.skeleton_lines(6), id=ids.OVERVIEW_RUNS),
            html.Div(id=ids.OVERVIEW_FINDINGS),
        ]
    )


def connect(app: Dash, catalog: Catalog) -> None:
    """Wires the page to the address and the clock."""

    @app.callback(
        Output(ids.OVERVIEW_TITLE, "children"),
        Output(ids.OVERVIEW_RUNS, "children"),
        Output(ids.OVERVIEW_FINDINGS, "children"),
        *controls.seen(),
        Input(ids.TICK, "n_intervals"),
    )
    def show(search: str, theme: str | None, _version: str, _count: int | None) -> Any:
        return view(scene(catalog, parse(search), theme))


def view(seen: Scene) -> tuple[Any, Any, Any]:
    """Title line, the rows, the gravest findings."""
    summaries = seen.catalog.summaries()
    if not summaries:
        return "Nothing has been recorded yet", _nothing(seen), ""
    rows = [_row(seen, summary) for summary in summaries]
    listing = html.Section([_head(), *rows], className="panel runs")
    return answer(seen), listing, _findings(seen)


def answer(seen: Scene) -> str:
    """How many runs, how many of them ail, and what the worst says."""
    summaries = seen.catalog.summaries()
    runs = [run for s in summaries if (run := seen.catalog.run(s.name)) is not None]
    broken = len(summaries) - len(runs)
    grave = [run for run in runs if _worst(seen, run) == "critical"]
    mild = [run for run in runs if _worst(seen, run) == "warning"]
    parts = []
    if grave:
        names = words.listed([run.name for run in grave[:3]])
        if len(grave) > 3:
            names = f"{len(grave)} of {len(runs)} runs"
        parts.append(f"{names} {'needs' if len(grave) == 1 else 'need'} attention")
    if mild:
        names = (
            words.listed([run.name for run in mild[:3]]) if len(mild) <= 3 else f"{len(mild)} runs"
        )
        parts.append(f"{names} {'has' if len(mild) == 1 else 'have'} a warning")
    healthy = len(runs) - len(grave) - len(mild)
    if runs and healthy == len(runs):
        parts.append(
            f"No complaint about {'the run' if healthy == 1 else f'any of the {healthy} runs'}"
        )
    elif healthy:
        parts.append(f"{words.plural(healthy, 'run')} without complaint")
    if broken:
        parts.append(f"{words.plural(broken, 'folder')} cannot be read")
    sentence = "; ".join(parts)
    return sentence[:1].upper() + sentence[1:] if not grave and not mild else sentence


def _worst(seen: Scene, run: Run) -> str:
    found = sorted(seen.catalog.findings(run), key=evidence.by_weight)
    return found[0].severity if found else ""


def _nothing(seen: Scene) -> Component:
    return controls.empty(
        "No runs yet",
        [
            "There is nothing to read in ",
            html.Code(str(seen.catalog.root)),
            ". Record three small networks on embedded images in a few minutes, or add one line, ",
            html.Code("gradscope.track(model)"),
            ", to your training script. This page fills by itself.",
        ],
        "gradscope demo",
    )


def _head() -> Component:
    names = [
        "",
        "Run",
        controls.term("Verdict", "verdict"),
        "Loss over steps",
        *(html.Span(word, className="number") for _, word, _ in FINAL),
        "",
    ]
    return html.Div(
        [html.Div(name) if isinstance(name, str) else name for name in names],
        className="run-row head",
    )


def _row(seen: Scene, summary: RunSummary) -> Component:
    run = seen.catalog.run(summary.name)
    if run is None:
        return html.Div(
            [
                html.Span(className="mark mark-critical severity-critical", title="cannot be read"),
                html.Div(
                    [
                        html.Span(summary.name, className="run-name"),
                        html.Span("broken", className="run-sub state-broken"),
                    ]
                ),
                html.Div(seen.catalog.trouble(summary), className="run-why"),
            ],
            className="run-row broken",
        )
    colour = seen.colours[run.name]
    order = tuple(other.name for other in seen.chosen)
    on = run.name in order
    alone = seen.state.but(run=run.name)
    spark = plots.sparkline(scalars.series(run, "loss"), colour)
    return html.Div(
        [
            dcc.Link(
                html.Span(className="icon icon-check") if on else "",
                href=seen.state.but(runs=toggled(order, run.name)).href(PATH),
                className="run-check on" if on else "run-check",
                style={"backgroundColor": colour} if on else {},
                title=f"Take {run.name} off the bar" if on else f"Put {run.name} on the bar",
            ),
            html.Div(
                [
                    dcc.Link(run.name, href=alone.href("/flow"), className="run-name"),
                    html.Div([_family(run.family), _state(run.status)], className="run-sub"),
                ]
            ),
            html.Div(seen.catalog.verdict(run), className="run-verdict"),
            html.Img(src=spark, className="spark", alt=f"loss of {run.name} over steps")
            if spark
            else html.Span("–", className="muted"),
            *(_final(run, name) for name, _, _ in FINAL),
            dcc.Link("Open flow", href=alone.href("/flow"), className="quiet-button run-open"),
        ],
        className="run-row",
    )


def _final(run: Run, name: str) -> Component:
    value = scalars.final(run, name)
    text = words.percent(value) if "accuracy" in name else words.number(value)
    return html.Div(text, className="number run-value")


def _family(family: str) -> Component | str:
    if not family:
        return ""
    return html.Span(family, className="family")


def _state(status: RunStatus) -> Component:
    steps = (
        f"{status.last_step + 1} steps"
        if status.last_step is not None and status.last_step >= 0
        else "no step yet"
    )
    if is_live(status):
        told = [html.Span(className="pulse"), f"live, {words.age(newest_age(status))} ago"]
    else:
        told = [status.state]
    return html.Span(
        [html.Span(told, className=f"state state-{status.state}"), html.Span(f"· {steps}")],
        className="state",
        title=status.error or "",
    )


def _findings(seen: Scene) -> Component | str:
    found = [
        (finding, run)
        for name in seen.names
        if (run := seen.catalog.run(name)) is not None
        for finding in seen.catalog.findings(run)
        if finding.severity != "info"
    ]
    if not found:
        return ""
    found.sort(key=lambda pair: evidence.by_weight(pair[0]))
    more = len(found) - MOST_FINDINGS
    return html.Section(
        [
            html.Header(html.H2("Gravest findings")),
            *(
                evidence.entry(finding, run.name, seen.colours[run.name], seen.state, small=True)
                for finding, run in found[:MOST_FINDINGS]
            ),
            dcc.Link(
                f"All findings ({more} more)"
                if more > 0
                else "All findings, with evidence and advice",
                href=seen.state.href("/findings"),
            ),
        ],
        className="panel",
    )
