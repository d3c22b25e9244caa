"""Which path lengths carry the gradient? One run -> gradient, number of paths and their product.

Must never know files, Dash, or how a path was measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gradscope.figures.axes import empty_note, finish, log_axis
from gradscope.figures.prepared import Prepared
from gradscope.figures.sources import Source, latest, single
from gradscope.figures.theme import BLUE, Style, number, style_of, translucent

EFFECTIVE = 0.95
"""Share of the gradient that the effective paths carry together."""
NARROW_PX = 500
PANELS = ("gradient by one path", "paths of that length", "their gradient")
COLUMNS = (
    "length",
    "paths",
    "gradient",
    "gradient_low",
    "gradient_high",
    "contribution",
    "draws",
    "samples",
)


def paths_table(run: Source) -> Prepared:
    """One row per path length: `length`, `paths`, `gradient`, `gradient_low`, `gradient_high`,
    `contribution`, `draws`, `samples`, `effective`.

    `length` counts residual units crossed through their branch, `paths` is the share of all 2^n
    paths, `gradient` the norm at the input by one such path (95 % interval of the mean over draws),
    `contribution` paths x gradient, summing to 1. `effective`: in the shortest range of lengths
    that carries 95 % of it.
    """
    member = single(run)
    data = latest(member.read("paths", None), ["length"])
    data = data.sort_values("length", ignore_index=True)[list(COLUMNS)] if len(data) else data
    if data.empty:
        return Prepared("path-profile", data, "No path lengths were measured yet")
    length, product = data["length"].to_numpy(), data["contribution"].to_numpy(dtype=float)
    first, last = effective_range(length, product, EFFECTIVE)
    data["effective"] = (length >= first) & (length <= last)
    units, mean = int(length.max()), float(length @ product)
    share = float(data.loc[data["effective"], "paths"].sum())
    word = (
        "shorter"
        if mean < 0.95 * units / 2
        else "longer"
        if mean > 1.05 * units / 2
        else "no other"
    )
    answer = (
        f"{100 * EFFECTIVE:.0f} % of the gradient passes {first} to {last} of {units} units, which "
        f"{100 * share:.3g} % of all paths do; it takes {word} ways than the average path "
        f"({number(mean)} units against {number(units / 2)})"
    )
    draws, samples = int(data["draws"].max()), int(data["samples"].max())
    caption = (
        f"{member.name} · backward through k random branches and all other shortcuts, {draws} draws "
        f"for each k, {samples} inputs · whiskers: 95 % interval of their mean · full colour: the "
        f"{100 * EFFECTIVE:.0f} %"
    )
    return Prepared("path-profile", data, answer, caption)


def draw_paths(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Three panels over path length, beside each other or, in a narrow figure, under each other."""
    look = style_of(style)
    data = prepared.data
    if data.empty:
        figure = go.Figure()
        empty_note(figure, "no path was measured yet: gradscope paths RUN", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    narrow = look.paper and width in (None, "single")
    shape: dict[str, Any] = (
        {"rows": 3, "cols": 1, "shared_xaxes": True, "vertical_spacing": 0.09}
        if narrow
        else {"rows": 1, "cols": 3, "horizontal_spacing": 0.09}
    )
    figure = make_subplots(**shape, subplot_titles=PANELS)
    places = [(i + 1, 1) if narrow else (1, i + 1) for i in range(3)]
    gradient = data["gradient"].to_numpy(dtype=float)
    figure.add_trace(_line(data, look), row=places[0][0], col=places[0][1])
    known = data[["gradient", "gradient_low", "gradient_high"]].to_numpy(dtype=float)
    axis = log_axis(known if len(gradient) else gradient, "gradient norm")
    figure.update_yaxes(**axis, row=places[0][0], col=places[0][1])
    for (row, col), name, label in (
        (places[1], "paths", "share of all paths"),
        (places[2], "contribution", "share of the gradient"),
    ):
        figure.add_trace(_bars(data, name, look), row=row, col=col)
        figure.update_yaxes(title={"text": label}, rangemode="tozero", row=row, col=col, nticks=5)
    end = int(data["length"].max())
    figure.update_xaxes(range=[-0.6, end + 0.6], **({"dtick": 1} if end <= 12 else {"nticks": 7}))
    for row, col in places[2:] if narrow else places:
        figure.update_xaxes(title={"text": "path length (units)"}, row=row, col=col)
    figure.update_annotations(font={"size": look.small, "color": look.muted})
    tall = height or (420 if narrow else None)
    return finish(figure, prepared, look, width=width, title=title, height=tall, above=16)


def path_profile(
    run: Source,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Gradient by path length, number of paths, and their product (Veit et al. 2016, section 4.2).

    run: a Run or its frame of `paths`, as `gradscope paths RUN` measures them.
    """
    return draw_paths(paths_table(run), style=style, width=width, height=height, title=title)


def effective_range(
    length: np.ndarray, contribution: np.ndarray, share: float = EFFECTIVE
) -> tuple[int, int]:
    """First and last of the shortest run of lengths that carries `share` of the contribution."""
    total = np.concatenate(([0.0], np.cumsum(contribution)))
    n = len(length)
    runs = (
        (b - a, a, b)
        for a in range(n)
        for b in range(a, n)
        if total[b + 1] - total[a] >= share - 1e-9
    )
    _, first, last = min(runs, default=(0, 0, n - 1))
    return int(length[first]), int(length[last])


def _line(data: pd.DataFrame, look: Style) -> go.Scatter:
    gradient = data["gradient"]
    return go.Scatter(
        x=data["length"],
        y=gradient.where(gradient > 0),
        mode="lines+markers",
        line={"color": BLUE, "width": look.line},
        marker={"size": look.marker},
        error_y=_whiskers(data, look, 1.0),
        hovertext=[
            f"<b>{row['length']} units crossed</b><br>gradient norm {number(row['gradient'])}"
            for row in data.to_dict("records")
        ],
        hoverinfo="text",
        showlegend=False,
    )


def _whiskers(data: pd.DataFrame, look: Style, scale: pd.Series | float) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": (data["gradient_high"] - data["gradient"]).clip(lower=0) * scale,
        "arrayminus": (data["gradient"] - data["gradient_low"]).clip(lower=0) * scale,
        "color": look.ink,
        "thickness": 1,
        "width": 3,
    }


def _bars(data: pd.DataFrame, name: str, look: Style) -> go.Bar:
    """Bars of a share; whiskers on the gradient's, as far as its norm is uncertain."""
    whiskers = None
    if name == "contribution":
        scale = (data["contribution"] / data["gradient"].where(data["gradient"] > 0)).fillna(0)
        whiskers = _whiskers(data, look, scale)
    return go.Bar(
        error_y=whiskers,
        x=data["length"],
        y=data[name],
        marker={
            "color": [BLUE if on else translucent(BLUE, 0.35) for on in data["effective"]],
            "line": {"width": 0},
        },
        hovertext=[
            f"<b>{length} units crossed</b><br>{100 * value:.3g} %"
            for length, value in zip(data["length"], data[name], strict=True)
        ],
        hoverinfo="text",
        showlegend=False,
    )
