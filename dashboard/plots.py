"""Turns runs into the plots that only the dashboard draws: a layer alone, differences, sparklines.

Must never know Dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gradscope.figures.axes import colour_bar, log_axis
from gradscope.figures.flow import statistic_label
from gradscope.figures.sources import pivot
from gradscope.figures.theme import MAGNITUDES, Style, number, style_of, template
from gradscope.frame import Run, on_grid, thin
from gradscope.schema import GradScopeError

CURVES = (
    ("outputs", "grad_rms", "loss gradient rms", True),
    ("outputs", "rms", "activation rms", True),
    ("outputs", "zero_fraction", "zero fraction", False),
    ("parameters", "grad_rms", "parameter gradient rms", True),
    ("parameters", "update_ratio", "update ratio", True),
)
"""Table, column, axis word, log scale: the rows of `layer_curves`, where they have data."""
GRID = 48
"""Relative depths at which two runs are compared."""


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


def layer_histogram(
    run: Run, layer: str, *, gradient: bool = True, style: str = "screen"
) -> go.Figure:
    """How many elements of one layer's tensor have which magnitude, steps running upward.

    x: powers of two; y: optimizer step; colour: share of that step's counted elements.
    Raises GradScopeError when the run has no histogram of that layer.
    """
    frame = run.frame("histograms", sites=[layer])
    frame = frame[frame["of"] == int(gradient)]
    if frame.empty:
        raise GradScopeError(f"no magnitude histogram of {layer!r} was recorded in {run.name!r}")
    look = style_of(style)
    wide = frame.pivot_table(index="step", columns="exponent", values="count", aggfunc="sum")
    exponents = np.arange(int(wide.columns.min()), int(wide.columns.max()) + 1)
    wide = wide.reindex(columns=exponents)
    share = wide.div(wide.sum(axis=1), axis=0)
    figure = go.Figure(
        go.Heatmap(
            x=exponents,
            y=[str(step) for step in share.index],
            z=share.to_numpy(dtype=float),
            colorscale=MAGNITUDES,
            colorbar=colour_bar("share", look, tickformat=".0%"),
            hovertemplate="magnitude 2^%{x}<br>step %{y}<br>%{z:.1%} of elements<extra></extra>",
            hoverongaps=False,
        )
    )
    figure.update_xaxes(
        title_text="magnitude, as a power of two",
        tickprefix="2<sup>",
        ticksuffix="</sup>",
        nticks=8,
    )
    figure.update_yaxes(title_text="optimizer step", type="category", nticks=8)
    return _dressed(figure, look, f"histogram {run.name} {layer} {gradient}", top=10, height=300)


def difference_heatmap(
    runs: Sequence[Run],
    *,
    statistic: str = "grad_rms",
    kind: str = "output",
    style: str = "screen",
) -> go.Figure:
    """log10 of every further run's statistic over the first run's, by relative depth and step.

    Steps are those that both sampled; layers are interpolated at common relative depths.
    All panels share one diverging scale with zero in the middle.
    Raises GradScopeError with fewer than two runs, or none that shares a step with the first.
    """
    if len(runs) < 2:
        raise GradScopeError("a difference needs a baseline and at least one more run")
    table = {"output": "outputs", "parameter": "parameters"}[kind]
    grid = np.linspace(0, 1, GRID)
    base, others = runs[0], list(runs[1:])
    panels = [(run, *_ratio(base, run, table, statistic, grid)) for run in others]
    panels = [panel for panel in panels if len(panel[1])]
    if not panels:
        raise GradScopeError(f"no run shares a sampled step with {base.name!r} yet")
    look = style_of(style)
    figure = make_subplots(rows=1, cols=len(panels), shared_yaxes=True, horizontal_spacing=0.03)
    finite = np.concatenate([np.abs(z[np.isfinite(z)]) for _, _, z in panels])
    most = float(max(np.percentile(finite, 99), 0.3)) if len(finite) else 1.0
    for column, (run, steps, ratio) in enumerate(panels, start=1):
        figure.add_trace(
            go.Heatmap(
                x=grid,
                y=steps,
                z=ratio,
                coloraxis="coloraxis",
                hoverongaps=False,
                hovertemplate=f"<b>{run.name} / {base.name}</b><br>relative depth %{{x:.2f}}<br>"
                "step %{y}<br>%{z:+.2f} decades<extra></extra>",
            ),
            row=1,
            col=column,
        )
        suffix = "" if column == 1 else str(column)
        figure.add_annotation(
            text=f"<b>{run.name}</b> against {base.name}",
            x=0,
            y=1,
            xref=f"x{suffix} domain",
            yref=f"y{suffix} domain",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": look.small + 1, "color": look.ink},
        )
    figure.update_xaxes(title_text="relative depth", nticks=5, showgrid=False)
    figure.update_yaxes(showgrid=False)
    figure.update_yaxes(title_text="optimizer step", col=1)
    figure.update_layout(
        coloraxis={
            "colorscale": [list(stop) for stop in look.difference],
            "cmin": -most,
            "cmax": most,
            "colorbar": colour_bar(f"decades of {statistic_label(statistic, kind)}", look),
        }
    )
    return _dressed(
        figure, look, "difference " + " ".join(run.name for run in runs), top=26, height=340
    )


def _ratio(
    base: Run, other: Run, table: str, statistic: str, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Common steps (s,), and log10(other / base) on the grid (s, grid)."""
    frames = [run.frame(table, columns=[statistic]) for run in (base, other)]
    ours, theirs = (frame["step"].to_numpy(dtype=np.int64) for frame in frames)
    common = np.intersect1d(ours, theirs)
    if len(common) > 400:
        common = common[np.linspace(0, len(common) - 1, 400).astype(int)]
    heights = []
    for frame in frames:
        steps, names, matrix = pivot(frame[frame["step"].isin(common)], statistic)
        place = frame.drop_duplicates("site").set_index("site")["relative_depth"]
        where = np.array([float(place[name]) for name in names])
        rows = [on_grid(where, row, grid) for row in matrix]
        heights.append(np.log10(np.array(rows)) if len(steps) else np.empty((0, len(grid))))
    return common, heights[1] - heights[0]


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
