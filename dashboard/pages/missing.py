"""Turns an unknown address into a page that says so and leads back.

Must never know runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from dash import dcc, html
from dash.development.base_component import Component


def layout(path: str, pages: Sequence[ModuleType]) -> Component:
    """A sentence on the unknown path, and links to the pages that exist."""
    return html.Div(
        [
            html.P("Not found", className="overline"),
            html.H1(["There is no page at ", html.Code(path)], className="answer"),
            html.P("These exist:", className="muted"),
            html.Ul([html.Li(dcc.Link(page.TITLE, href=page.PATH)) for page in pages]),
        ],
        className="not-found",
    )
