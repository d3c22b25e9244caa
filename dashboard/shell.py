"""Turns a scene into the frame around every page: rail, run chips, live sign, step control.

Must never know what a page draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import dash
from dash import Dash, dcc, html
from dash.dependencies import Input, Output
from dash.dependencies import State as Held
from dash.development.base_component import Component
from gradscope_dashboard import controls, ids, words
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.scene import Scene, is_live, newest_age, scene, steps_of
from gradscope_dashboard.state import State, parse, toggled

from gradscope.frame import nearest_step

TICK_MS = 2000
STEP_PAGES = ("/flow", "/compare")
SHORTCUTS = (
    ("1 … 5", "go to a page"),
    ("[  ]", "one recorded step back, forward"),
    ("L", "newest step"),
    ("T", "switch light and dark"),
    ("P", "hold or resume live updates"),
    ("Esc", "close the drawer or this list"),
    ("?", "this list"),
)


class Page(Protocol):
    """What the frame asks of a page module."""

    PATH: str
    TITLE: str
    ICON: str


def layout(pages: Sequence[Page], catalog: Catalog, drawer: Component) -> Component:
    """The frame with empty places; callbacks fill them from the address."""
    return html.Div(
        [
            dcc.Location(id=ids.URL, refresh="callback-nav"),
            dcc.Store(id=ids.THEME),
            dcc.Store(id=ids.VERSION, data=catalog.version()),
            dcc.Store(id=ids.TITLED),
            dcc.Interval(id=ids.TICK, interval=TICK_MS),
            dcc.Download(id=ids.DOWNLOAD),
            html.A("Skip to the page", href=f"#{ids.BODY}", className="skip-link"),
            html.Nav(rail(pages, "/", State()), id=ids.RAIL, className="rail"),
            html.Header(
                [
                    html.Div(id=ids.CHIPS, className="chips"),
                    html.Div(
                        [
                            html.Div(id=ids.LIVE, className="live"),
                            html.Div(id=ids.TOOLS, className="tools"),
                        ],
                        className="bar-end",
                    ),
                    step_control(),
                ],
                className="bar",
            ),
            html.Main(controls.skeleton_lines(3), id=ids.BODY, className="page", tabIndex="-1"),
            drawer,
            html.Div(id=ids.TOAST, className="toast", role="status"),
            shortcuts(),
        ],
        className="frame",
    )


def rail(pages: Sequence[Page], path: str, state: State) -> list[Component]:
    """The brand and one link a page; the view goes along, the open layer does not."""
    kept = state.but(layer="")
    return [
        dcc.Link(
            html.Span(className="icon icon-brand", **{"aria-hidden": "true"}),
            href=kept.href("/"),
            className="brand",
            title="GradScope",
        ),
        *(
            dcc.Link(
                [
                    html.Span(className=f"icon icon-{page.ICON}", **{"aria-hidden": "true"}),
                    html.Span(page.TITLE, className="rail-word"),
                ],
                href=kept.href(page.PATH),
                className="rail-link current" if path == page.PATH else "rail-link",
                title=page.TITLE,
            )
            for page in pages
        ),
    ]


def step_control() -> Component:
    """The slider over recorded steps, shared by the pages that look at one step."""
    return html.Div(
        [
            html.Label("Step", htmlFor=ids.STEP_SLIDER, className="step-word"),
            dcc.Slider(
                id=ids.STEP_SLIDER,
                min=0,
                max=1,
                value=1,
                step=1,
                marks=None,
                updatemode="mouseup",
                allow_direct_input=False,
                className="step-slider",
            ),
            html.Div(id=ids.STEP_LABEL, className="step-label"),
        ],
        id=ids.STEP,
        className="step-control",
        hidden=True,
    )


def shortcuts() -> Component:
    """The list of keyboard shortcuts, opened by "?"."""
    rows = [
        html.Div([html.Kbd(key), html.Span(does)], className="shortcut") for key, does in SHORTCUTS
    ]
    return html.Div(
        html.Div(
            [
                html.H2("Keyboard"),
                *rows,
                html.Button("Close", className="quiet-button", **{"data-close": "1"}),
            ],
            className="dialog",
            role="dialog",
            **{"aria-label": "Keyboard shortcuts"},
        ),
        id=ids.SHORTCUTS,
        className="dialog-ground",
    )


def chips(seen: Scene, path: str) -> list[Component]:
    """One chip a run on the bar, and a menu of the runs that are not."""
    state = seen.state
    order = tuple(run.name for run in seen.chosen)
    found = [_chip(seen, name, path) for name in order]
    others = [name for name in seen.names if name not in order]
    if others:
        found.append(
            html.Details(
                [
                    html.Summary(f"+ {len(others)} more", className="chip chip-more"),
                    html.Div(
                        [
                            dcc.Link(
                                [controls.dot(seen.colours[name]), html.Span(name)],
                                href=state.but(runs=(*order, name)).href(path),
                                className="menu-item",
                            )
                            for name in others
                        ],
                        className="menu",
                    ),
                ],
                className="menu-holder",
            )
        )
    return found


def _chip(seen: Scene, name: str, path: str) -> Component:
    state = seen.state
    hidden = name in state.hide
    base = state.base == name
    implied = not state.base and seen.base is not None and seen.base.name == name
    about = (
        f"{name} is the baseline; click to choose none"
        if base
        else f"Take {name} as the baseline"
        + (" (differences use it until one is starred)" if implied else "")
    )
    rest = tuple(run.name for run in seen.chosen if run.name != name)
    parts: list[Component] = [
        dcc.Link(
            [controls.dot(seen.colours[name]), html.Span(name, className="chip-name")],
            href=state.but(hide=toggled(state.hide, name)).href(path),
            className="chip-link",
            title=f"Show {name}" if hidden else f"Hide {name}",
        ),
        dcc.Link(
            html.Span(className=f"icon icon-star{'-full' if base else ''}"),
            href=state.but(base="" if base else name).href(path),
            className="chip-star current" if base else "chip-star",
            title=about,
        ),
    ]
    if rest:
        parts.append(
            dcc.Link(
                html.Span(className="icon icon-close"),
                href=state.but(runs=rest, hide=tuple(h for h in state.hide if h != name)).href(
                    path
                ),
                className="chip-close",
                title=f"Take {name} off the bar",
            )
        )
    return html.Div(
        parts,
        className="chip hidden-run" if hidden else "chip",
        draggable="true",
        **{"data-run": name},
    )


def tools(state: State, path: str, theme: str) -> list[Component]:
    """Theme switch and help."""
    other = "light" if theme == "dark" else "dark"
    return [
        dcc.Link(
            html.Span(className=f"icon icon-{other}"),
            href=state.but(theme=other).href(path),
            className="tool",
            title=f"Switch to the {other} theme",
            id=ids.THEME_SWITCH,
        ),
        html.Button(
            "?", className="tool", title="Keyboard shortcuts", **{"data-open": ids.SHORTCUTS}
        ),
    ]


def live_sign(seen: Scene, path: str) -> list[Component]:
    """Whether something is being recorded, how old the newest step is, and the pause link."""
    running = [s for s in seen.catalog.summaries() if is_live(s.status)]
    if not running:
        return [html.Span("no run is recording", className="live-word")]
    newest = min(running, key=lambda summary: newest_age(summary.status))
    held = bool(seen.state.pause)
    told = (
        "updates held"
        if held
        else f"live · step {newest.status.last_step} · {words.age(newest_age(newest.status))} ago"
    )
    return [
        html.Span(className="pulse held" if held else "pulse", **{"aria-hidden": "true"}),
        html.Span(told, className="live-word", title=f"recording: {newest.name}"),
        dcc.Link(
            html.Span(className=f"icon icon-{'play' if held else 'pause'}"),
            href=seen.state.but(pause="" if held else "1").href(path),
            className="tool",
            title="Resume live updates" if held else "Hold live updates",
            id=ids.PAUSE_SWITCH,
        ),
    ]


def step_view(seen: Scene, path: str) -> tuple[bool, int, int, int, Any]:
    """Hidden, greatest slider position, position, and the label; positions count recorded steps."""
    runs = (seen.run,) if path == "/flow" and seen.run is not None else seen.visible
    steps = steps_of(runs) if path in STEP_PAGES else steps_of(())
    if len(steps) < 2:
        return True, 0, 1, 1, ""
    last = len(steps) - 1
    state = seen.state
    now = int(steps[last]) if state.step is None else nearest_step(steps, state.step)
    label = [
        html.Span([html.Strong(str(now)), f" of {int(steps[last])}"]),
        dcc.Link(
            "newest",
            href=state.but(step=None).href(path),
            className="segment current" if state.step is None else "segment",
            title="Follow the newest step",
            id=ids.NEWEST_STEP,
        ),
    ]
    return False, 0, last, int(steps.searchsorted(now)), label


def stepped(seen: Scene, path: str, position: int) -> State:
    """The state after the slider was put at that position; the end means "newest"."""
    runs = (seen.run,) if path == "/flow" and seen.run is not None else seen.visible
    steps = steps_of(runs)
    if len(steps) == 0 or position >= len(steps) - 1:
        return seen.state.but(step=None)
    return seen.state.but(step=int(steps[max(position, 0)]))


def connect(app: Dash, catalog: Catalog, pages: Sequence[Page]) -> None:
    """Wires the frame to the address, the theme and the clock."""
    app.clientside_callback(
        dash.ClientsideFunction("gradscope", "theme"),
        Output(ids.THEME, "data"),
        Input(ids.URL, "search"),
    )
    app.clientside_callback(
        dash.ClientsideFunction("gradscope", "arrived"),
        Output(ids.TITLED, "data"),
        Input(ids.URL, "pathname"),
    )

    @app.callback(
        Output(ids.RAIL, "children"),
        Output(ids.CHIPS, "children"),
        Output(ids.TOOLS, "children"),
        Output(ids.TICK, "disabled"),
        Input(ids.URL, "pathname"),
        *controls.seen(),
    )
    def show_frame(path: str, search: str, theme: str | None, _version: str) -> Any:
        seen = scene(catalog, parse(search), theme)
        return (
            rail(pages, path, seen.state),
            chips(seen, path),
            tools(seen.state, path, theme or "light"),
            bool(seen.state.pause),
        )

    @app.callback(
        Output(ids.VERSION, "data"),
        Output(ids.LIVE, "children"),
        Input(ids.TICK, "n_intervals"),
        Input(ids.URL, "search"),
        Input(ids.URL, "pathname"),
        Held(ids.VERSION, "data"),
    )
    def tick(_count: int | None, search: str, path: str, held: str | None) -> Any:
        version = catalog.version()
        sign = live_sign(scene(catalog, parse(search)), path)
        return (dash.no_update if version == held else version), sign

    @app.callback(
        Output(ids.URL, "search"),
        Output(ids.STEP, "hidden"),
        Output(ids.STEP_SLIDER, "min"),
        Output(ids.STEP_SLIDER, "max"),
        Output(ids.STEP_SLIDER, "value"),
        Output(ids.STEP_LABEL, "children"),
        Input(ids.STEP_SLIDER, "value"),
        Input(ids.URL, "search"),
        Input(ids.URL, "pathname"),
        Input(ids.VERSION, "data"),
    )
    def step(position: int, search: str, path: str, _version: str) -> Any:
        seen = scene(catalog, parse(search))
        if dash.ctx.triggered_id == ids.STEP_SLIDER and path in STEP_PAGES:
            moved = stepped(seen, path, position)
            seen = scene(catalog, moved)
            link = dash.no_update if moved == parse(search) else moved.search()
            return link, *step_view(seen, path)
        return dash.no_update, *step_view(seen, path)
