"""How much gradient takes the shortcut? One run -> a map of the skip share by unit and step.

Must never know files or Dash.
"""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go

from gradscope.figures.axes import unit_ticks
from gradscope.figures.heatmap import draw_heatmap, heatmap_table
from gradscope.figures.prepared import Prepared
from gradscope.figures.sources import Source

FORMULA = "∂L/∂x = ∂L/∂y · (1 + ∂F/∂x): the share that takes the 1, 0.5 where both are even"
"""The derivative of y = x + F(x), as the caption says it."""


def skip_table(
    run: Source, *, first_step: int | None = None, last_step: int | None = None
) -> Prepared:
    """The cells of `heatmap_table` for the skip share of each residual unit, a number in [0, 1].

    Share = shortcut norm / (shortcut norm + branch norm): 1 all by the shortcut, 0.5 even. For a
    unit y = x + F(x) the shortcut is the 1 in dL/dx = dL/dy (1 + dF/dx).
    """
    shown = heatmap_table(
        run, statistic="skip_share", kind="block", first_step=first_step, last_step=last_step
    )
    if shown.data.empty:
        return replace(shown, name="skip-share")
    return replace(
        shown,
        name="skip-share",
        caption=f"{shown.caption} · {FORMULA}",
        options={**shown.options, "noun": "residual units"},
    )


def draw_skips(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """The map, one column a unit, colours from 0 to 1."""
    figure = draw_heatmap(prepared, style=style, width=width, height=height, title=title)
    if len(prepared.data):
        where = prepared.options["where"]
        unit_ticks(figure, where["site"].tolist(), where["stage"].tolist())
    return figure


def skip_share(
    run: Source,
    *,
    first_step: int | None = None,
    last_step: int | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """The share of the gradient that takes the shortcut, by residual unit and step.

    run: a Run or its frame of `blocks`. Networks without residual units have nothing to show.
    """
    prepared = skip_table(run, first_step=first_step, last_step=last_step)
    return draw_skips(prepared, style=style, width=width, height=height, title=title)
