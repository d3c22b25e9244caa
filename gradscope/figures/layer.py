"""What happens in one layer? A run and a site -> curves of its statistics, its histogram over time.

Must never know files or Dash.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gradscope.figures.axes import colour_bar, empty_note, finish, log_axis
from gradscope.figures.flow import KINDS, statistic_label
from gradscope.figures.heatmap import condense, with_gaps
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import LINEAR
from gradscope.figures.sources import Source, single
from gradscope.figures.theme import BLUE, MAGNITUDES, number, shorten, style_of
from gradscope.frame import select, thin
from gradscope.schema import GradScopeError

TENSORS = {"tensor": 0, "gradient": 1}
LOST_IN_HALF = -25
"""Below this binary exponent a value rounds to zero in float16, whose smallest is 2^-24."""


def parameter_table(
    run: Source,
    site: str,
    *,
    statistics: Sequence[str] = ("grad_norm", "weight_norm", "update_ratio"),
    kind: str = "parameter",
) -> Prepared:
    """One row per statistic and step: `statistic`, `step`, `value`. Thinned, extremes kept."""
    member = single(run)
    labels = {name: statistic_label(name, kind) for name in statistics}
    frame = select(member.read(KINDS[kind], list(statistics)), sites=site)
    parts = [
        thin(frame[["step", "site", name]].dropna(), name).rename(columns={name: "value"})
        for name in statistics
    ]
    data = pd.concat(
        [part.assign(statistic=name) for name, part in zip(statistics, parts, strict=True)],
        ignore_index=True,
    )[["statistic", "step", "value"]]
    options = {"labels": labels, "site": site}
    answer = _curve_answer(data, site, labels)
    return Prepared("parameter-curves", data, answer, f"{member.name} · {site}", options)


def draw_parameter(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """A panel per statistic under each other, log scale where the numbers are magnitudes."""
    look = style_of(style)
    labels: dict[str, str] = prepared.options["labels"]
    figure = make_subplots(rows=len(labels), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    for row, (name, label) in enumerate(labels.items(), start=1):
        part = prepared.data[prepared.data["statistic"] == name]
        values = part["value"].to_numpy(dtype=float)
        steps, column = part["step"].to_numpy(dtype=float), values[:, None]
        if len(part):
            steps, column = with_gaps(steps, column)
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=column[:, 0],
                mode="lines" if len(part) > 60 else "lines+markers",
                line={"color": BLUE, "width": look.line},
                marker={"size": look.marker},
                hovertext=[
                    f"step {s:.0f}: {number(v)}" for s, v in zip(steps, column[:, 0], strict=True)
                ],
                hoverinfo="text",
                showlegend=False,
            ),
            row=row,
            col=1,
        )
        axis = {"title": {"text": label}} if name in LINEAR else log_axis(values, label)
        figure.update_yaxes(**axis, row=row, col=1)
    figure.update_xaxes(title={"text": "optimizer step"}, row=len(labels), col=1)
    if prepared.data.empty:
        empty_note(figure, "nothing was recorded for this layer yet", look)
    tall = height or 80 + 135 * len(labels)
    return finish(figure, prepared, look, width=width, title=title, height=tall)


def parameter_curves(
    run: Source,
    site: str,
    *,
    statistics: Sequence[str] = ("grad_norm", "weight_norm", "update_ratio"),
    kind: str = "parameter",
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Statistics of one site over steps. kind "output" and "block" take those tables' columns."""
    prepared = parameter_table(run, site, statistics=statistics, kind=kind)
    return draw_parameter(prepared, style=style, width=width, height=height, title=title)


def histogram_table(run: Source, site: str, *, of: str = "gradient") -> Prepared:
    """One row per step and binary exponent: `step`, `exponent`, `share`.

    `share` is of the elements that are not zero at that step. of: "gradient" or "tensor".
    """
    if of not in TENSORS:
        raise GradScopeError(f"of must be 'gradient' or 'tensor', not {of!r}")
    member = single(run)
    frame = select(member.read("histograms", None), sites=site)
    frame = frame[frame["of"] == TENSORS[of]]
    counts = frame.groupby(["step", "exponent"], sort=True)["count"].sum().unstack(fill_value=0)
    occupied = counts.columns[(counts > 0).any(axis=0)]
    if len(occupied):
        span = range(int(occupied.min()), int(occupied.max()) + 1)
        counts = counts.reindex(columns=span, fill_value=0)
    share = counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0)
    steps = counts.index.to_numpy()
    thinned, _, cells, _ = condense(
        steps, share.to_numpy(dtype=float), np.zeros(share.shape), log=False
    )
    data = pd.DataFrame(
        {
            "step": np.repeat(thinned, share.shape[1]),
            "exponent": np.tile(counts.columns.to_numpy(dtype=np.int64), len(thinned)),
            "share": cells.ravel(),
        }
    )
    data = data.dropna(subset=["share"]) if len(occupied) else data.iloc[:0]
    answer = _histogram_answer(data, site, of)
    return Prepared("histogram", data, answer, f"{member.name} · {of} of {site}", {"of": of})


def draw_histogram(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Magnitude left to right, steps upward, colour the share of elements."""
    look = style_of(style)
    figure = go.Figure()
    data = prepared.data
    if data.empty:
        empty_note(figure, "no histogram was recorded for this layer yet", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    table = data.pivot(index="step", columns="exponent", values="share")
    steps, values = with_gaps(table.index.to_numpy(dtype=float), table.to_numpy(dtype=float))
    exponents = table.columns.to_numpy(dtype=float)
    figure.add_trace(
        go.Heatmap(
            x=exponents,
            y=steps,
            z=100 * np.where(values > 0, values, np.nan),
            colorscale=MAGNITUDES,
            zmin=0,
            hoverongaps=False,
            hovertemplate="step %{y}<br>2<sup>%{x}</sup>: %{z:.3g} %<extra></extra>",
            colorbar=colour_bar("share of elements (%)", look),
        )
    )
    if exponents[0] < LOST_IN_HALF <= exponents[-1] + 1:
        figure.add_vline(
            x=LOST_IN_HALF - 0.5, line={"color": "#FFFFFF", "width": 1, "dash": "dash"}
        )
        figure.add_annotation(
            x=LOST_IN_HALF - 0.5,
            y=1,
            yref="paper",
            xanchor="right",
            yanchor="bottom",
            text="← zero in float16",
            showarrow=False,
            font={"size": look.small, "color": look.muted},
        )
    figure.update_xaxes(title={"text": f"magnitude of the {prepared.options['of']}, as 2ⁿ: n"})
    figure.update_yaxes(title={"text": "optimizer step"}, showgrid=False)
    return finish(figure, prepared, look, width=width, title=title, height=height, above=14)


def histogram(
    run: Source,
    site: str,
    *,
    of: str = "gradient",
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """The magnitudes within one site over time: shares per power of two, steps upward."""
    prepared = histogram_table(run, site, of=of)
    return draw_histogram(prepared, style=style, width=width, height=height, title=title)


def _curve_answer(data: pd.DataFrame, site: str, labels: dict[str, str]) -> str:
    name = next(iter(labels))
    values = data[(data["statistic"] == name) & np.isfinite(data["value"])]["value"]
    usable = name in LINEAR or bool(len(values) and values.iloc[0] > 0 and values.iloc[-1] > 0)
    if len(values) < 2 or not usable:
        return f"{shorten(site, 40)} has too few values to compare first and last"
    first, last = float(values.iloc[0]), float(values.iloc[-1])
    ratio = "" if name in LINEAR else f" (×{number(last / first)})"
    label = f"{labels[name][:1].upper()}{labels[name][1:]}"
    return f"{label} of {site} goes from {number(first)} to {number(last)}{ratio}"


def _histogram_answer(data: pd.DataFrame, site: str, of: str) -> str:
    if data.empty:
        return f"No histogram of {site} was recorded"
    last = data[data["step"] == data["step"].max()]
    lost = float(last[last["exponent"] < LOST_IN_HALF]["share"].sum())
    running = last["share"].cumsum().to_numpy()
    half = int(last["exponent"].iloc[min(np.searchsorted(running, 0.5), len(last) - 1)])
    text = f"Half of the {of} of {site} is smaller than about {number(2.0 ** (half + 1))}"
    return text + (f"; {100 * lost:.3g} % would be zero in float16" if lost > 5e-4 else "")
