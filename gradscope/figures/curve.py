"""How many units can a network lose? Runs with lesions -> the metric by units dropped at random.

Must never know files, Dash, or how a lesion was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gradscope.figures.axes import band as band_trace
from gradscope.figures.axes import empty_note, finish
from gradscope.figures.lesions import against_textbook, chosen_metric, lesions
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import join
from gradscope.figures.sources import Group, Source, groups
from gradscope.figures.theme import number, shorten, style_of
from gradscope.schema import GradScopeError

BAND = (10, 90)
AXES = {"k": "units dropped at once, at random", "share": "share of the units dropped at random"}
COLUMNS = ("run", "k", "share", "value", "low", "high", "draws", "units", "seeds")
SAME = 0.02
"""Values closer than this, or a tenth, count as equal when architectures are compared."""


def curve_table(
    runs: Source,
    *,
    metric: str | None = None,
    x: str = "k",
    band: bool = True,
    fold: bool = True,
    colours: Mapping[str, str] | None = None,
) -> Prepared:
    """One row per line and k: `run`, `k`, `share`, `value`, `low`, `high`, `draws`, `units`,
    `seeds`.

    `value` is the median of the metric over the draws (and seeds) with k units dropped, `low` and
    `high` the 10th and 90th percentile, NaN without `band` or with one draw; k = 0 is the intact
    network. `units` is the most units dropped at once or alone, `share` = k / units.
    """
    if x not in AXES:
        raise GradScopeError(f"x must be one of {', '.join(AXES)}, not {x!r}")
    found = groups(runs, fold=fold, colours=colours)
    name = chosen_metric(found, metric)
    parts = [_curve(group, name, band) for group in found]
    data = pd.concat(parts, ignore_index=True)
    looks = {g.label: {"colour": g.colour, "dash": g.dash, "symbol": g.symbol} for g in found}
    answer = _answer(data, {g.label: g.family for g in found}, name, x)
    options = {"metric": name or "metric", "x": x, "looks": looks}
    return Prepared("ablation-curve", data, answer, _caption(data), options)


def draw_curve(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Lines with bands; the point at zero is the intact network."""
    look = style_of(style)
    figure = go.Figure()
    data = prepared.data
    if data.empty:
        empty_note(figure, "nothing was dropped yet: gradscope ablate RUN --drop random", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    looks: Mapping[str, Mapping[str, str]] = prepared.options["looks"]
    x = str(prepared.options["x"])
    metric = str(prepared.options["metric"]).replace("_", " ")
    for label, part in data.groupby("run", sort=False):
        own = looks[str(label)]
        across = part[x].to_numpy(dtype=float)
        low, high = (part[name].to_numpy(dtype=float) for name in ("low", "high"))
        shade = band_trace(across, low, high, own["colour"], str(label))
        if shade is not None:
            figure.add_trace(shade)
        figure.add_trace(
            go.Scatter(
                x=across,
                y=part["value"],
                mode="lines+markers",
                name=shorten(str(label), 30),
                legendgroup=str(label),
                line={
                    "color": own["colour"],
                    "width": look.line,
                    "dash": own["dash"] if look.paper else "solid",
                },
                marker={"size": look.marker, "symbol": own["symbol"] if look.paper else "circle"},
                hovertext=_hover(part, metric),
                hoverinfo="text",
            )
        )
    end = float(data[x].max())
    figure.update_xaxes(title={"text": AXES[x]}, range=[-0.025 * end, 1.025 * end])
    if x == "k" and int(data["k"].max()) <= 12:
        figure.update_xaxes(dtick=1)
    worst = float(np.nanmin(data[["value", "low"]].to_numpy(dtype=float)))
    figure.update_yaxes(
        title={"text": metric}, rangemode="tozero" if worst >= 0 else "normal", nticks=6
    )
    shown = [label for label in looks if bool((data["run"] == label).any())]
    entries = shown if len(looks) > 1 else []
    return finish(figure, prepared, look, width=width, title=title, height=height, entries=entries)


def ablation_curve(
    runs: Source,
    *,
    metric: str | None = None,
    x: str = "k",
    band: bool = True,
    fold: bool = True,
    colours: Mapping[str, str] | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """The metric by the number of units dropped at random: median of the draws, 10 to 90 % band.

    runs: Run, list of runs, or a frame of `ablations`. x: "k" units, or "share" of the network's
    units, so that nets of different depth compare. GradScopeError for a metric not measured.
    """
    prepared = curve_table(runs, metric=metric, x=x, band=band, fold=fold, colours=colours)
    return draw_curve(prepared, style=style, width=width, height=height, title=title)


def _curve(group: Group, metric: str, band: bool) -> pd.DataFrame:
    frames = [lesions(member, metric, ("drop-k",)) for member in group.members]
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    alone = [lesions(member, metric, ("drop",))["unit"].nunique() for member in group.members]
    units = max(int(rows["k"].max()), *alone)
    values = rows.groupby("k", sort=True)["value"]
    intact = float(rows["baseline"].median())
    table = pd.DataFrame(
        {"value": values.median(), "low": np.nan, "high": np.nan, "draws": values.size()}
    )
    if band:
        several = table["draws"] > 1
        table["low"] = values.quantile(BAND[0] / 100).where(several)
        table["high"] = values.quantile(BAND[1] / 100).where(several)
    edge = intact if band else np.nan
    start = pd.DataFrame(
        {"value": [intact], "low": [edge], "high": [edge], "draws": [0]}, index=[0]
    )
    table = pd.concat([start, table]).rename_axis("k").reset_index()
    table = table.assign(
        run=group.label, share=table["k"] / units, units=units, seeds=len(group.members)
    )
    return table[list(COLUMNS)]


def _hover(part: pd.DataFrame, metric: str) -> list[str]:
    texts = []
    for row in part.to_dict("records"):
        what = f"{row['k']} of {row['units']} units dropped" if row["k"] else "intact"
        text = f"<b>{shorten(str(row['run']), 40)}</b> {what}<br>{metric} {number(float(row['value']))}"
        if row["k"] and np.isfinite(row["low"]):
            low, high = number(float(row["low"])), number(float(row["high"]))
            text += f"<br>{BAND[0]}–{BAND[1]} % of {row['draws']} draws: {low} to {high}"
        texts.append(text)
    return texts


def _caption(data: pd.DataFrame) -> str:
    if data.empty:
        return ""
    parts = [str(data["run"].iloc[0])] if data["run"].nunique() == 1 else []
    draws = sorted({int(n) for n in data["draws"] if n})
    count = f"{draws[0]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
    parts.append(f"line: median of {count} draws")
    if bool(data.loc[data["k"] > 0, "low"].notna().any()):
        parts.append(f"band: {BAND[0]} to {BAND[1]} % of them")
    if int(data["seeds"].max()) > 1:
        parts.append(f"{int(data['seeds'].max())} seeds folded into one line")
    return " · ".join(parts)


def _answer(data: pd.DataFrame, families: Mapping[str, str], metric: str, x: str) -> str:
    """Tells each line's mean up to about a third of the units, where networks still differ."""
    if data.empty:
        return "No units were dropped at random yet"
    noun = metric.replace("_", " ")
    lines = {str(run): part for run, part in data.groupby("run", sort=False)}
    most = max(1, round(min(int(part["units"].iloc[0]) for part in lines.values()) / 3))
    drawn = [set(part["k"].astype(int)) for part in lines.values()]
    shared = [k for k in sorted(set.intersection(*drawn)) if 0 < k <= most]
    early = all(bool(part["share"].between(0, 1 / 3, "right").any()) for part in lines.values())
    if not (early if x == "share" else shared):
        return f"Too few draws of {noun} with up to a third of the units dropped to say"
    grid = np.linspace(0, 1 / 3, 101) if x == "share" else np.array(shared, dtype=float)
    means = {
        run: float(np.interp(grid, part[x].to_numpy(float), part["value"].to_numpy(float)).mean())
        for run, part in lines.items()
    }
    intact = [f"{number(float(part['value'].iloc[0]))} in {run}" for run, part in lines.items()]
    parts = [f"{number(mean)} in {run}" for run, mean in means.items()]
    what = "up to a third of the units" if x == "share" else _counted(shared)
    margin = max(SAME, 0.1 * max(abs(mean) for mean in means.values()))
    surprise = against_textbook(metric, [(families[run], means[run]) for run in lines], margin)
    return (
        f"With {what} dropped at random {noun} averages {join(parts)}"
        f" (intact: {', '.join(intact)}){surprise}"
    )


def _counted(shared: Sequence[int]) -> str:
    first, last = shared[0], shared[-1]
    if first != last:
        return f"{first} to {last} units"
    return "one unit" if first == 1 else f"{first} units"
