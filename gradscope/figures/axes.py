"""Turns prepared data into the parts that figures share: axes, bands, stage lines, titles.

Must never know runs, frames' origin or files.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

from gradscope.figures.prepared import Prepared
from gradscope.figures.theme import (
    Style,
    number,
    shorten,
    superscript,
    template,
    translucent,
    width_px,
)

RESPONSIVE_WIDTH = 960
"""Width in px that a responsive title is wrapped for, and of an export without a width."""


def finish(
    figure: go.Figure,
    prepared: Prepared,
    style: Style,
    *,
    width: str | float | None,
    title: bool | None,
    height: float | None = None,
    entries: Sequence[str] = (),
    above: float = 0,
) -> go.Figure:
    """Lays out title, caption, legend and margins; `entries` are the legend's texts.

    `meta` carries `answer` and `caption` for a page that shows them itself. `above` is room in px
    kept over the plot for names of stages. Titles are left to the caption in papers.
    """
    shown = (not style.paper) if title is None else title
    if style.paper and width is None:
        width = "single"
    across = width_px(width)
    room = across or RESPONSIVE_WIDTH
    head, rows = _heading(prepared, style, room) if shown else ("", 0.0)
    legend = _legend_height(entries, style, room)
    top = (14 if not style.paper else 4) + rows + legend + above
    figure.update_layout(
        template=template(style),
        title=(
            {
                "text": head,
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 0},
                "font": {"size": style.heading, "color": style.ink},
            }
            if shown
            else None
        ),
        showlegend=bool(entries),
        legend={"yref": "paper", "y": 1, "yanchor": "bottom", "tracegroupgap": 0},
        margin={"t": top, "r": 12 if style.paper else 24, "b": 36, "l": 44, "pad": 0},
        meta={"figure": prepared.name, "answer": prepared.answer, "caption": prepared.caption},
        uirevision=prepared.name,
        hovermode="closest",
    )
    if across is not None:
        figure.update_layout(width=across, autosize=False)
    figure.update_layout(height=height or _height(style, across, top))
    if shown:
        figure.update_layout(title={"y": 1 - 16 / figure.layout.height})
    if above and entries:
        plot = figure.layout.height - top - 40
        figure.update_layout(legend={"y": 1 + above / max(plot, 60)})
    return figure


def log_axis(values: np.ndarray, label: str, least: float = 1.0) -> dict[str, Any]:
    """A log10 axis over the positive finite values: decades as grid lines, 10ⁿ as labels.

    Spans `least` decades at the least; where it spans less than two, 2 and 5 get labels too.
    """
    low, high = log_range(values, least)
    span = high - low
    if span < 1.7:
        return {"type": "log", "range": [low, high], "title": {"text": label}, **_fine(low, high)}
    step = max(1, math.ceil(span / 9))
    ticks = list(range(math.ceil(low), math.floor(high) + 1, step))
    return {
        "type": "log",
        "range": [low, high],
        "title": {"text": label},
        "tickmode": "array",
        "tickvals": [10.0**tick for tick in ticks],
        "ticktext": [f"10{superscript(tick)}" for tick in ticks],
    }


def linear_axis(values: np.ndarray, label: str) -> dict[str, Any]:
    """An axis over the finite values; 0 to 1 where all of them are shares."""
    low, high = linear_range(values)
    margin = 0.04 * (high - low)
    return {"range": [low - margin, high + margin], "title": {"text": label}}


def linear_range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value, never equal; 0 and 1 where all are shares."""
    known = values[np.isfinite(values)]
    if known.size == 0 or (known.min() >= 0 and known.max() <= 1):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def log_range(values: np.ndarray, least: float = 1.0) -> tuple[float, float]:
    """log10 bounds of the positive finite values with a margin, at least `least` decades apart."""
    usable = values[np.isfinite(values) & (values > 0)]
    if usable.size == 0:
        return -1.0, 1.0
    low, high = math.log10(usable.min()), math.log10(usable.max())
    margin = 0.05 * (high - low) + 0.04
    low, high = low - margin, high + margin
    missing = max(0.0, least - (high - low)) / 2
    return low - missing, high + missing


def colour_ticks(low: float, high: float) -> dict[str, Any]:
    """Colour-bar ticks for z = log10(value): whole decades, or 1-2-5 where the span is short."""
    if high - low < 1.5:
        fine = _fine(low, high)
        return {
            "tickvals": [math.log10(value) for value in fine["tickvals"]],
            "ticktext": fine["ticktext"],
        }
    step = max(1, math.ceil((high - low) / 8))
    ticks = list(range(math.ceil(low), math.floor(high) + 1, step))
    return {"tickvals": ticks, "ticktext": [f"10{superscript(tick)}" for tick in ticks]}


def colour_bar(label: str, style: Style, **extra: Any) -> dict[str, Any]:
    """A slim colour bar with its label along the side."""
    return {
        "title": {"text": label, "side": "right", "font": {"size": style.text}},
        "thickness": 8 if style.paper else 12,
        "len": 1,
        "outlinewidth": 0,
        "ticks": "outside",
        "ticklen": 3,
        "tickfont": {"size": style.small, "color": style.muted},
        "xpad": 6,
        "ypad": 0,
        **extra,
    }


def band(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, group: str, alpha: float = 0.16
) -> go.Scatter | None:
    """A filled band low..high over x; gaps where either is missing. None where nothing is left."""
    usable = np.isfinite(low) & np.isfinite(high) & np.isfinite(x)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], usable.astype(np.int8), [0]])))
    across: list[float | None] = []
    along: list[float | None] = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start < 2:
            continue
        if across:
            across.append(None)
            along.append(None)
        across.extend([*x[start:stop], *x[start:stop][::-1]])
        along.extend([*high[start:stop], *low[start:stop][::-1]])
    if not across:
        return None
    return go.Scatter(
        x=across,
        y=along,
        fill="toself",
        fillcolor=translucent(colour, alpha),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
    )


def stage_lines(
    figure: go.Figure,
    positions: Sequence[float],
    stages: Sequence[str],
    style: Style,
    *,
    over: str = "",
) -> float:
    """Thin vertical lines where the stage changes, with names on top; px needed above the plot.

    `positions` ascend (one per layer, in units of the x axis). Names that would collide are left
    out, the lines stay. `over` is the colour of lines drawn over a map.
    """
    spans = stage_spans(positions, stages)
    if len(spans) < 2:
        return 0.0
    for (_, _, end), (_, start, _) in pairwise(spans):
        figure.add_vline(
            x=(end + start) / 2,
            line={"color": over or style.axis, "width": 0.8, "dash": "dot"},
            opacity=0.8 if over else 0.6,
            layer="above" if over else "below",
        )
    whole = max(positions) - min(positions) or 1.0
    letters = 34 if style.paper else 110
    taken = -math.inf
    for name, start, end in sorted(spans, key=lambda span: span[1]):
        centre = (start + end) / 2
        reach = 0.5 * len(name) / letters * whole
        if centre - reach < taken or (end - start) / whole * letters < 0.3 * len(name):
            continue
        taken = centre + reach
        figure.add_annotation(
            x=centre,
            xref="x",
            y=1,
            yref="paper",
            yanchor="bottom",
            text=name,
            showarrow=False,
            font={"size": style.small, "color": style.muted},
        )
    return style.small + 6


def stage_spans(
    positions: Sequence[float], stages: Sequence[str]
) -> list[tuple[str, float, float]]:
    """(name, first position, last position) of each run of equal stages."""
    spans: list[tuple[str, float, float]] = []
    for position, stage in zip(positions, stages, strict=True):
        if spans and spans[-1][0] == stage:
            spans[-1] = (stage, spans[-1][1], float(position))
        else:
            spans.append((stage, float(position), float(position)))
    return spans


def unit_ticks(
    figure: go.Figure, units: Sequence[str], stages: Sequence[str], most: int = 20
) -> None:
    """Names of units, without their stage's, along an x axis with one column a unit."""
    every = max(1, -(-len(units) // most))
    texts = [
        shorten(unit.removeprefix(f"{stage}."), 12)
        for unit, stage in zip(units, stages, strict=True)
    ]
    figure.update_xaxes(tickvals=list(range(len(units)))[::every], ticktext=texts[::every])


def empty_note(figure: go.Figure, text: str, style: Style) -> None:
    """A sentence in the middle of a plot that has nothing to show."""
    figure.add_annotation(
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        text=text,
        showarrow=False,
        font={"size": style.text, "color": style.muted},
    )


def _fine(low: float, high: float) -> dict[str, Any]:
    exponents = range(math.floor(low) - 1, math.ceil(high) + 1)
    marks = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    ticks = [mark for mark in marks if low <= math.log10(mark) <= high]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [number(t) for t in ticks]}


def _heading(prepared: Prepared, style: Style, room: float) -> tuple[str, float]:
    letters = max(20, int((room - 80) / (0.6 * style.heading)))
    title = textwrap.wrap(prepared.answer, letters)
    small = max(24, int((room - 70) / (0.52 * style.small)))
    caption = textwrap.wrap(prepared.caption, small) if prepared.caption else []
    text = "<br>".join(f"<b>{line}</b>" for line in title)
    if caption:
        span = f"font-size:{style.small}px;color:{style.muted}"
        text += "".join(f'<br><span style="{span}">{line}</span>' for line in caption)
    return text, 1.3 * style.heading * (len(title) + len(caption)) + 8


def _legend_height(entries: Sequence[str], style: Style, room: float) -> float:
    if not entries:
        return 0.0
    rows, used = 1, 0.0
    for entry in entries:
        need = 44 + 0.58 * style.text * len(entry)
        if used + need > room - 80 and used:
            rows, used = rows + 1, 0.0
        used += need
    return rows * 1.6 * style.text + 4


def _height(style: Style, across: float | None, top: float) -> float:
    if style.paper:
        return round(min((across or 320) * 0.62, 300) + top)
    return round(360 + top)
