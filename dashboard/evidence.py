"""Turns findings into the entries that pages and the drawer list.

Must never know the catalog, nor which rules there are.
"""

from __future__ import annotations

import math
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component
from gradscope_dashboard import controls, words
from gradscope_dashboard.state import State

from gradscope.schema import SEVERITIES, Finding


def by_weight(finding: Finding) -> tuple[int, float, int]:
    """Sort key: the gravest and surest first."""
    rank = SEVERITIES.index(finding.severity) if finding.severity in SEVERITIES else 0
    return (-rank, -finding.confidence, finding.first_step)


def entry(
    finding: Finding, run: str, colour: str, state: State, *, small: bool = False
) -> Component:
    """One finding: severity, sentence, advice, and where and when, with a link to its layer."""
    where: list[Any] = [
        html.Span([controls.dot(colour), run]),
        html.Span(_steps(finding)),
    ]
    if finding.site:
        link = state.but(run=run, layer=finding.site, step=finding.last_step)
        where.insert(
            1, dcc.Link(html.Code(finding.site), href=link.href("/flow"), title="Open this layer")
        )
    if not small:
        where.append(html.Span(f"confidence {finding.confidence:.2f}"))
    body: list[Any] = [html.P(finding.sentence, className="finding-text")]
    if not small and finding.advice:
        body.append(html.P(finding.advice, className="finding-advice"))
    body.append(html.Div(where, className="finding-meta"))
    facts = [] if small else _facts(finding)
    if facts:
        body.append(
            html.Details(
                [html.Summary("Evidence"), html.Div(facts, className="finding-meta evidence")],
                className="more",
            )
        )
    return html.Article(
        [controls.severity_mark(finding.severity), html.Div(body)],
        className="finding small" if small else "finding",
    )


def _steps(finding: Finding) -> str:
    if finding.first_step == finding.last_step:
        return f"step {finding.first_step}"
    return f"steps {finding.first_step} to {finding.last_step}"


def _facts(finding: Finding) -> list[Component]:
    return [
        html.Span([f"{key.replace('_', ' ')}: ", html.Code(_told(value))])
        for key, value in finding.evidence.items()
    ]


def _told(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return words.number(value) if not math.isnan(value) else "–"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_told(item) for item in value[:8])
        return f"{shown}, … ({len(value)})" if len(value) > 8 else shown
    return str(value)
