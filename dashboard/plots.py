"""Turns runs into the plots that only the dashboard draws: a layer's curves together, sparklines.

Must never know Dash.
"""

from __future__ import annotations

from urllib.parse import quote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gradscope.figures.axes import log_axis
from gradscope.figures.theme import Style, number, style_of, template
from gradscope.frame import Run, thin
from gradscope.schema import GradScopeError

CURVES = (
    ("outputs", "grad_rms", "loss gradient rms", True),
    ("outputs", "rms", "activation rms", True),
    ("outputs", "zero_fraction", "zero fraction", False),
    ("parameters", "grad_rms", "parameter gradient rms", True),
    ("parameters", "update_ratio", "update ratio", True),
)
"""Table, column, axis word, log scale: the rows of `layer_curves`, where they have data."""


def sparkline(values: np.ndarray, colour: str, width: int = 132, height: int = 38) -> str:
    """A line without axes as a data URI; "" with fewer than two finite values.

    Long series are cut into as many buckets as pixels, of which the least and greatest stay.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return ""
    if len(finite) > 2 * width:
        parts = np.array_split(finite, width)
        finite = np.array([end for part in parts for end in (part.max(), part.min())])
    low, high = float(finite.min()), float(finite.max())
    x = np.linspace(2, width - 4, len(finite))
    y = height - 4 - (finite - low) / ((high - low) or 1.0) * (height - 8)
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4" '
        f'stroke-linejoin="round"/><circle cx="{x[-1]:.1f}" cy="{y[-1]:.1f}" r="2.4" '
        f'fill="{colour}"/></svg>'
    )
    return "data:image/svg+xml," + quote(svg)


def layer_curves(
    run: Run, layer: str, *, colour: str = "#0072B2", style: str = "screen"
) -> go.Figure:
    """Statistics of one layer over training, one row each; parameters of the layer beside it.

    Raises GradScopeError when nothing was recorded of that layer.
    """
    look = style_of(style)
    rows = []
    for table, column, word, log in CURVES:
        parts = _of_layer(run, table, column, layer)
        if any(bool(part[column].notna().any()) for part in parts.values()):
            rows.append((column, word, log, parts))
    if not rows:
        raise GradScopeError(f"nothing was recorded of {layer!r} in {run.name!r} yet")
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for row, (column, word, log, parts) in enumerate(rows, start=1):
        everything = np.concatenate([part[column].to_numpy(dtype=float) for part in parts.values()])
        for position, (site, part) in enumerate(parts.items()):
            values = part[column].to_numpy(dtype=float)
            figure.add_trace(
                go.Scatter(
                    x=part["step"],
                    y=np.where(values > 0, values, np.nan) if log else values,
                    mode="lines" if len(part) > 1 else "markers",
                    line={
                        "color": colour,
                        "width": 1.6,
                        "dash": "solid" if position == 0 else "dot",
                    },
                    name=site,
                    showlegend=False,
                    hovertext=[
                        f"<b>{site}</b><br>step {s}: {number(v)}"
                        for s, v in zip(part["step"], values, strict=True)
                    ],
                    hoverinfo="text",
                ),
                row=row,
                col=1,
            )
        axis = log_axis(everything, "") if log else {"rangemode": "tozero", "nticks": 4}
        figure.update_yaxes(axis, row=row, col=1)
        figure.add_annotation(
            text=word,
            x=0,
            y=1,
            xref=f"x{row if row > 1 else ''} domain",
            yref=f"y{row if row > 1 else ''} domain",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": look.small, "color": look.muted},
        )
    figure.update_xaxes(title_text="optimizer step", row=len(rows), col=1)
    return _dressed(figure, look, f"curves {run.name} {layer}", top=22, height=40 + 118 * len(rows))


def _of_layer(run: Run, table: str, column: str, layer: str) -> dict[str, pd.DataFrame]:
    """Thinned rows of that layer (or, among parameters, of its own parameters), by site."""
    patterns = [layer] if table == "outputs" else [layer, *_own_parameters(run, layer)]
    if table not in run.stored.tables():
        return {}
    frame = run.frame(table, columns=[column], sites=patterns)
    parts: dict[str, pd.DataFrame] = {}
    for site in dict.fromkeys(frame["site"].astype("str")):
        parts[site] = thin(
            frame[frame["site"] == site].dropna(subset=[column]), column, buckets=400
        )
    return parts


def _own_parameters(run: Run, layer: str) -> list[str]:
    module = layer.split("#", 1)[0]
    sites = run.sites
    names = sites[sites["kind"] == "parameter"]["site"]
    return [str(name) for name in names if str(name).rpartition(".")[0] == module]


def _dressed(figure: go.Figure, look: Style, revision: str, *, top: int, height: int) -> go.Figure:
    figure.update_layout(
        template=template(look),
        margin={"t": top, "r": 16, "b": 36, "l": 44, "pad": 0},
        height=height,
        uirevision=revision,
        hovermode="closest",
    )
    return figure
