"""What could be removed? Runs with lesions -> the metric kept against the compute saved.

Must never know files, Dash, or how a lesion was measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gradscope.figures.axes import empty_note, finish
from gradscope.figures.lesions import (
    chosen_metric,
    gain,
    lesions,
    lower_is_better,
    signed,
    unit_names,
)
from gradscope.figures.prepared import Prepared
from gradscope.figures.sources import Group, Source, groups
from gradscope.figures.theme import Style, number, shorten, style_of, translucent
from gradscope.schema import GradScopeError

COSTS = {"macs": "multiply-accumulates saved per sample", "parameters": "parameters taken away"}
KINDS = ("drop", "drop-k", "drop-stage")
COLUMNS = (
    "run",
    "unit",
    "lesion",
    "k",
    "saved",
    "value",
    "delta",
    "ci_low",
    "ci_high",
    "baseline",
    "front",
)
MOST_NAMED = 5


def front_table(
    runs: Source,
    *,
    metric: str | None = None,
    cost: str = "macs",
    colours: Mapping[str, str] | None = None,
) -> Prepared:
    """One row per run and lesion: `run`, `unit`, `lesion`, `k`, `saved`, `value`, `delta`,
    `ci_low`, `ci_high`, `baseline`, `front`.

    `saved` is what the lesion takes away, in multiply-accumulates per sample or parameters; the
    intact network is the row with `lesion` "none". On the `front`: no other lesion of the run
    saves at least as much and keeps the metric as well or better.
    """
    if cost not in COSTS:
        raise GradScopeError(f"cost must be one of {', '.join(COSTS)}, not {cost!r}")
    found = groups(runs, fold=False, colours=colours)
    name = chosen_metric(found, metric)
    parts = [_points(group, name, cost) for group in found]
    data = pd.concat(parts, ignore_index=True)
    options = {
        "metric": name or "metric",
        "cost": cost,
        "colours": {group.label: group.colour for group in found},
    }
    caption = "line: the best at each saving · ring: intact · whiskers: 95 % interval of one lesion at a time"
    answer = _answer(data, name, cost)
    return Prepared("pareto", data, answer, caption if len(data) else "", options)


def draw_front(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Faint dots for all lesions, a stepped line with the names along the front."""
    look = style_of(style)
    figure = go.Figure()
    data = prepared.data
    if data.empty or not bool((data["saved"] > 0).any()):
        text = "no lesion with a counted cost was measured yet: gradscope ablate RUN"
        empty_note(figure, text, look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    colours: Mapping[str, str] = prepared.options["colours"]
    metric = str(prepared.options["metric"]).replace("_", " ")
    several = len(colours) > 1
    for label, part in data.groupby("run", sort=False):
        _add_run(figure, str(label), part, colours[str(label)], metric, look, named=not several)
    top = float(data["saved"].max())
    figure.update_xaxes(
        title={"text": COSTS[str(prepared.options["cost"])]},
        range=[-0.03 * top, 1.08 * top],
        tickformat="~s",
        nticks=6,
    )
    figure.update_yaxes(title={"text": metric}, nticks=6)
    entries = list(colours) if several else []
    return finish(figure, prepared, look, width=width, title=title, height=height, entries=entries)


def pareto(
    runs: Source,
    *,
    metric: str | None = None,
    cost: str = "macs",
    colours: Mapping[str, str] | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """The metric kept against what a lesion saves, with the front of those worth considering.

    runs: Run, list of runs, or a frame of `ablations`. cost: "macs" or "parameters". Lesions of
    one unit, of k at random and of stages all count. Nothing was retrained. GradScopeError for a
    metric not measured.
    """
    prepared = front_table(runs, metric=metric, cost=cost, colours=colours)
    return draw_front(prepared, style=style, width=width, height=height, title=title)


def on_front(saved: np.ndarray, goodness: np.ndarray) -> np.ndarray:
    """Which points no other one beats: at least as much saved, and as good or better.

    Of equal points the first stays. Shapes: (n,), (n,) -> (n,) of bool.
    """
    result = np.zeros(len(saved), dtype=bool)
    best = -np.inf
    for position in np.lexsort((-goodness, -saved)):
        if goodness[position] > best:
            result[position] = True
            best = goodness[position]
    return result


def _points(group: Group, metric: str, cost: str) -> pd.DataFrame:
    rows = lesions(group.members[0], metric, KINDS)
    if rows.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = rows.assign(saved=rows[cost].astype("int64"))
    intact = float(rows["baseline"].iloc[-1])
    nothing = {"unit": "", "lesion": "none", "k": 0, "saved": 0, "value": intact}
    zero = {"delta": 0.0, "ci_low": 0.0, "ci_high": 0.0, "baseline": intact}
    rows = pd.concat([pd.DataFrame([nothing | zero]), rows], ignore_index=True)
    good = gain(metric, rows["delta"].to_numpy(dtype=float))
    front = on_front(rows["saved"].to_numpy(), np.where(np.isfinite(good), good, -np.inf))
    table = rows.assign(run=group.label, front=front)[list(COLUMNS)]
    return table.sort_values(["saved", "value"], ignore_index=True)


def _add_run(
    figure: go.Figure,
    label: str,
    part: pd.DataFrame,
    colour: str,
    metric: str,
    style: Style,
    *,
    named: bool,
) -> None:
    rest = part[~part["front"] & (part["lesion"] != "none")]
    # From the greatest saving down: the legend shows the first marker, and it must not be the ring.
    front = part[part["front"]].sort_values("saved", ascending=False)
    shared = {"legendgroup": label, "hoverinfo": "text", "cliponaxis": False}
    figure.add_trace(
        go.Scatter(
            x=rest["saved"],
            y=rest["value"],
            mode="markers",
            marker={"size": style.marker, "color": translucent(colour, 0.35)},
            hovertext=_hover(rest, metric),
            showlegend=False,
            **shared,
        )
    )
    figure.add_trace(
        go.Scatter(
            x=front["saved"],
            y=front["value"],
            mode="lines+markers",
            line={"color": colour, "width": style.line, "shape": "hv"},
            marker={
                "size": style.marker + 2,
                "color": colour,
                "symbol": [
                    "circle" if kind != "none" else "circle-open" for kind in front["lesion"]
                ],
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (front["ci_high"] - front["delta"]).clip(lower=0),
                "arrayminus": (front["delta"] - front["ci_low"]).clip(lower=0),
                "color": translucent(colour, 0.6),
                "thickness": 1,
                "width": 3,
            },
            name=shorten(label, 30),
            hovertext=_hover(front, metric),
            **shared,
        )
    )
    if named:
        _name_front(figure, part, metric, style)


def _name_front(figure: go.Figure, part: pd.DataFrame, metric: str, style: Style) -> None:
    front = part[part["front"] & (part["lesion"] != "none")]
    whole = float(part["saved"].max())
    room = whole / (6 if style.paper else 16)
    last, count = -np.inf, 0
    for row in front.to_dict("records"):
        if row["saved"] - last < room or count == MOST_NAMED:
            continue
        last, count = row["saved"], count + 1
        edge = row["saved"] > 0.85 * whole
        figure.add_annotation(
            x=row["saved"],
            y=row["value"],
            text=_short(str(row["unit"])),
            showarrow=False,
            xanchor="right" if edge else "left",
            yanchor="top" if lower_is_better(metric) else "bottom",
            xshift=-4 if edge else 4,
            yshift=-2 if lower_is_better(metric) else 2,
            font={"size": style.small, "color": style.muted},
        )


def _hover(part: pd.DataFrame, metric: str) -> list[str]:
    texts = []
    for row in part.to_dict("records"):
        what = ", ".join(unit_names(str(row["unit"]))) or "intact"
        text = f"<b>{shorten(what, 60)}</b><br>{metric} {number(float(row['value']))}"
        if row["lesion"] != "none":
            text += f" ({signed(row['delta'])})<br>saves {number(float(row['saved']))}"
        texts.append(text)
    return texts


def _short(unit: str) -> str:
    names = unit_names(unit)
    return shorten(names[0], 20) if len(names) == 1 else f"{len(names)} units"


def _answer(data: pd.DataFrame, metric: str, cost: str) -> str:
    """The largest saving that costs nothing measurable, run by run; else the cheapest one."""
    if data.empty:
        return "No lesion was measured yet"
    noun = metric.replace("_", " ")
    thing = {"macs": "multiply-accumulates", "parameters": "parameters"}[cost]
    told = []
    for run, part in data.groupby("run", sort=False):
        real = part[(part["lesion"] != "none") & (part["saved"] > 0)]
        if real.empty:
            continue
        bound = real["ci_low"] if lower_is_better(metric) else real["ci_high"]
        free = real[gain(metric, bound.to_numpy(dtype=float)) >= 0]
        mildest = real.iloc[int(np.argmax(gain(metric, real["delta"].to_numpy(dtype=float))))]
        row = free.sort_values("saved").iloc[-1] if len(free) else mildest
        unit, saved = _short(str(row["unit"])), f"{_counted(float(row['saved']))} {thing}"
        if len(free):
            told.append(
                f"dropping {unit} saves {run} {saved} with no measurable harm to its {noun}"
            )
        else:
            told.append(
                f"every lesion harms {run}, the least by {noun} {signed(float(row['delta']))}"
                f" ({unit}, saves {saved})"
            )
    text = "; ".join(told)
    return text[:1].upper() + text[1:] or f"No lesion has a counted number of {thing}"


def _counted(value: float) -> str:
    """Thousands, millions, ... as a reader of networks says them: `3.61 M`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"
