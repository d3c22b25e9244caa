"""How do gradients of near inputs decorrelate with depth? Runs -> autocorrelation by lag and depth.

Must never know files, Dash, or how gradients were taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gradscope.figures.axes import band, empty_note, finish
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import join
from gradscope.figures.sources import Source, groups, latest
from gradscope.figures.theme import DASHES, SYMBOLS, Style, number, run_colours, style_of
from gradscope.schema import GradScopeError

COLUMNS = (
    "network",
    "depth",
    "lag",
    "distance",
    "value",
    "low",
    "high",
    "networks",
    "coactivation",
)
RESAMPLES = 2000
KEYS = ("network", "depth", "seed", "lag")


def shattering_table(
    runs: Source, *, lag: int = 1, colours: Mapping[str, str] | None = None
) -> Prepared:
    """One row per network, depth and lag: `network`, `depth`, `lag`, `distance`, `value`, `low`,
    `high`, `networks`, `coactivation`.

    `value` is the autocorrelation's mean over `networks` initialisations, `low` and `high` its
    95 % interval (percentile bootstrap over them; NaN for one). `distance` is the lag in units of
    the input; `lag` of the second panel. GradScopeError for a lag that was not measured.
    """
    found = groups(runs, colours=colours)
    parts, hues = [], {}
    for group in found:
        # The seeds of a group measured the same fresh networks: the first stands for all.
        rows = latest(group.members[0].read("shattering", None), KEYS)
        kinds = rows["network"].nunique() if len(rows) else 0
        if kinds == 1:
            rows = rows.assign(network=group.label)
            hues[group.label] = group.colour
        parts.append(rows)
    rows = pd.concat(parts, ignore_index=True)
    if rows.empty:
        return Prepared(
            "shattering", pd.DataFrame(columns=list(COLUMNS)), "No gradient was followed yet"
        )
    if lag not in set(rows["lag"]):
        raise GradScopeError(f"lag {lag} was not measured; the largest is {int(rows['lag'].max())}")
    data = _means(rows)
    caption = (
        f"autocorrelation of the gradient along a line of inputs at initialisation · mean of "
        f"{_counted(data['networks'])} networks, band and whiskers: its 95 % interval · "
        "0: white noise"
    )
    options = {"lag": lag, "looks": _looks(list(dict.fromkeys(data["network"])), hues)}
    return Prepared("shattering", data, _answer(data, lag), caption, options)


def draw_shattering(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """By lag for the deepest network of each kind; beside it by depth, where there are several."""
    look = style_of(style)
    data = prepared.data
    if data.empty:
        figure = go.Figure()
        empty_note(figure, "nothing was measured yet: gradscope shattering, or paths RUN", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    names = list(dict.fromkeys(data["network"]))
    lag = int(prepared.options["lag"])
    several = bool(data.groupby("network")["depth"].nunique().max() > 1)
    narrow = look.paper and width in (None, "single")
    shape: dict[str, Any] = {"rows": 1, "cols": 2, "horizontal_spacing": 0.1}
    if narrow:
        shape = {"rows": 2, "cols": 1, "vertical_spacing": 0.16}
    figure = make_subplots(**shape) if several else make_subplots(rows=1, cols=1)
    beside = {"row": 2, "col": 1} if narrow else {"row": 1, "col": 2}
    for rank, name in enumerate(names):
        part = data[data["network"] == name]
        colour, dash = prepared.options["looks"][name]
        deepest = part[part["depth"] == part["depth"].max()]
        shade = band(*_triple(deepest, "distance"), colour, name)
        if shade is not None:
            figure.add_trace(shade, row=1, col=1)
        figure.add_trace(
            _line(deepest, "distance", name, colour, dash, SYMBOLS[rank % len(SYMBOLS)], look),
            row=1,
            col=1,
        )
        if several:
            near = part[part["lag"] == lag]
            line = _line(
                near, "depth", name, colour, dash, SYMBOLS[rank % len(SYMBOLS)], look
            ).update(showlegend=False)
            figure.add_trace(line.update(error_y=_whiskers(near, colour)), **beside)
    figure.update_yaxes(
        zeroline=True, zerolinecolor=look.axis, nticks=6, title={"text": "autocorrelation"}
    )
    figure.update_xaxes(title={"text": "distance between inputs on the line"}, row=1, col=1)
    figure.update_xaxes(rangemode="tozero", row=1, col=1)
    if several:
        figure.update_yaxes(title={"text": f"autocorrelation at lag {lag}"}, **beside)
        figure.update_xaxes(title={"text": "depth (layers)"}, rangemode="tozero", **beside)
    tall = height or (420 if narrow and several else None)
    return finish(figure, prepared, look, width=width, title=title, height=tall, entries=names)


def shattering(
    runs: Source,
    *,
    lag: int = 1,
    colours: Mapping[str, str] | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """How fast gradients of near inputs decorrelate at initialisation (Balduzzi et al. 2017).

    runs: what `gradscope shattering` wrote, runs measured by `gradscope paths`, or a frame of
    `shattering`. lag: in grid points, of the panel by depth.
    """
    prepared = shattering_table(runs, lag=lag, colours=colours)
    return draw_shattering(prepared, style=style, width=width, height=height, title=title)


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    table = []
    for (network, _), part in rows.groupby(["network", "depth"], sort=False):
        depth = int(part["depth"].iloc[0])
        curves = part.pivot(index="seed", columns="lag", values="autocorrelation")
        values = curves.to_numpy(dtype=float)
        low, high = mean_interval(values)
        distance = part.groupby("lag")["distance"].first()
        open_both = part.groupby("seed")["coactivation"].first().mean()
        for at, lag in enumerate(curves.columns.to_numpy(dtype=int)):
            known = values[np.isfinite(values[:, at]), at]
            mean = float(known.mean()) if len(known) else np.nan
            table.append(
                (network, depth, int(lag), float(distance.loc[lag]), mean, low[at], high[at],
                 len(known), float(open_both))
            )  # fmt: skip
    return pd.DataFrame(table, columns=list(COLUMNS))


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval of the mean over rows: (n, m) -> (m,), (m,).

    NaN for fewer than two rows, and in columns with a missing value.
    """
    n = len(values)
    if n < 2:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing
    picked = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    weights = np.stack([np.bincount(row, minlength=n) for row in picked]) / n
    low, high = np.quantile(weights @ values, (0.025, 0.975), axis=0)
    return low, high


def _line(
    part: pd.DataFrame, x: str, name: str, colour: str, dash: str, symbol: str, look: Style
) -> go.Scatter:
    return go.Scatter(
        x=part[x],
        y=part["value"],
        mode="lines+markers",
        name=name,
        legendgroup=name,
        line={
            "color": colour,
            "width": look.line,
            "dash": dash,
        },
        marker={"size": look.marker, "symbol": symbol},
        hovertext=[_hover(row) for row in part.to_dict("records")],
        hoverinfo="text",
    )


def _triple(part: pd.DataFrame, x: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(part[name].to_numpy(dtype=float) for name in (x, "low", "high"))  # type: ignore[return-value]


def _whiskers(part: pd.DataFrame, colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": part["high"] - part["value"],
        "arrayminus": part["value"] - part["low"],
        "color": colour,
        "thickness": 1,
        "width": 3,
    }


def _hover(row: Mapping[Any, Any]) -> str:
    text = f"<b>{row['network']}</b>, {row['depth']} layers, lag {row['lag']}<br>"
    text += f"autocorrelation {number(row['value'])}"
    if np.isfinite(row["low"]):
        text += f" (95 %: {number(row['low'])} to {number(row['high'])})"
    if np.isfinite(row["coactivation"]):
        text += f"<br>co-activation of two inputs {number(row['coactivation'])}"
    return text


def _looks(names: list[str], hues: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Colour and dash: a family (the name's first word) has a hue, its variants have dashes."""
    families = [name.split(" ", 1)[0] for name in names]
    colours = run_colours(families, {family: family for family in families})
    looks = {}
    for position, (name, family) in enumerate(zip(names, families, strict=True)):
        variant = families[:position].count(family)
        looks[name] = (hues.get(name, colours[family]), DASHES[variant % len(DASHES)])
    return looks


def _counted(networks: pd.Series) -> str:
    least, most = int(networks.min()), int(networks.max())
    return f"{least}" if least == most else f"{least} to {most}"


def _answer(data: pd.DataFrame, lag: int) -> str:
    near = data[data["lag"] == lag]
    deepest = near.loc[near.groupby("network", sort=False)["depth"].idxmax()]
    depths = set(deepest["depth"])
    one_each = bool((near["network"].value_counts() == 1).all())
    deep = f"At {depths.pop()} layers" if len(depths) == 1 else "At the greatest depth"
    deep = "At initialisation" if one_each else deep
    told = [
        f"{number(round(float(row['value']), 2))} in {row['network']}"
        for row in deepest.to_dict("records")
    ]
    return f"{deep} gradients of neighbouring inputs correlate by {join(told)}"
