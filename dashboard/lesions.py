"""Turns ablation rows into bars by unit, a curve over k and a front of worth against cost.

Must never know Dash, stored files or how a lesion is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gradscope.figures.axes import stage_lines
from gradscope.figures.theme import GREY, SYMBOLS, Style, number, shorten, style_of, template
from gradscope.frame import Run

BETTER_LOW = ("loss", "error", "perplexity")
"""A metric whose name holds one of these words is better when small."""


def alone(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """The lesions of a single unit in order of depth, with the column `stage`."""
    single = rows[(rows["lesion"] == "drop") & (rows["k"] == 1)]
    known = run.sites.drop_duplicates("site").set_index("site")
    depth = known["depth"].reindex(single["unit"]).to_numpy(dtype=float)
    stage = known["stage"].reindex(single["unit"]).astype("object").fillna("").to_numpy()
    order = np.argsort(np.where(np.isnan(depth), np.inf, depth), kind="stable")
    return single.assign(stage=stage).iloc[order].reset_index(drop=True)


def unit_bars(
    run: Run, rows: pd.DataFrame, *, colour: str = "#0072B2", style: str = "screen"
) -> go.Figure | None:
    """Difference of one metric by unit, whiskers its 95 % interval; None without such rows.

    Units whose interval holds zero are pale: the test images do not tell them from useless.
    """
    single = alone(run, rows)
    if single.empty:
        return None
    look = style_of(style)
    unsure = (single["ci_low"] <= 0) & (single["ci_high"] >= 0)
    figure = go.Figure(
        go.Bar(
            x=np.arange(len(single)),
            y=single["delta"],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": single["ci_high"] - single["delta"],
                "arrayminus": single["delta"] - single["ci_low"],
                "color": look.ink,
                "thickness": 1.1,
                "width": 4,
            },
            marker={"color": colour, "opacity": np.where(unsure, 0.38, 0.9)},
            hovertext=[_told_of(row) for row in single.to_dict("records")],
            hoverinfo="text",
            customdata=single["unit"],
        )
    )
    above = stage_lines(
        figure, np.arange(len(single), dtype=float).tolist(), single["stage"].tolist(), look
    )
    metric = str(single["metric"].iloc[0])
    figure.update_yaxes(title_text=f"change of {metric}", zeroline=True, zerolinecolor=look.axis)
    figure.update_xaxes(
        tickvals=np.arange(len(single)),
        ticktext=[shorten(str(unit), 18) for unit in single["unit"]],
        showgrid=False,
    )
    figure.update_layout(bargap=0.35)
    samples = int(single["samples"].iloc[0])
    pale = " · pale: the interval holds zero" if bool(unsure.any()) else ""
    caption = f"{run.name} · whiskers: 95 % interval over {samples} images{pale}"
    return _dressed(figure, look, f"bars {run.name} {metric}", caption, above)


def drop_curve(
    rows: Mapping[str, pd.DataFrame], colours: Mapping[str, str], *, style: str = "screen"
) -> go.Figure | None:
    """Median metric over random draws of k units, with every draw faint, a line a run.

    `rows`: ablation rows of one metric by run. Starts at k = 0 with the intact network.
    None without rows of several units dropped at once.
    """
    look = style_of(style)
    figure = go.Figure()
    metric = ""
    for position, (name, found) in enumerate(rows.items()):
        drawn = found[found["lesion"] == "drop-k"]
        if drawn.empty:
            continue
        metric = str(drawn["metric"].iloc[0])
        colour, symbol = colours.get(name, GREY), SYMBOLS[position % len(SYMBOLS)]
        middle = drawn.groupby("k")["value"].median()
        figure.add_trace(
            go.Scatter(
                x=drawn["k"],
                y=drawn["value"],
                mode="markers",
                opacity=0.3,
                marker={"color": colour, "symbol": symbol, "size": look.marker},
                hovertext=[
                    f"<b>{shorten(str(unit), 60)}</b><br>{metric} {number(float(value))}"
                    for unit, value in zip(drawn["unit"], drawn["value"], strict=True)
                ],
                hoverinfo="text",
                showlegend=False,
                legendgroup=name,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[0, *middle.index],
                y=[float(drawn["baseline"].iloc[0]), *middle],
                mode="lines+markers",
                name=name,
                legendgroup=name,
                line={"color": colour, "width": look.line},
                marker={"symbol": symbol, "size": look.marker + 1},
                hovertemplate=f"<b>{name}</b><br>%{{x}} dropped: median {metric} %{{y:.3g}}"
                "<extra></extra>",
            )
        )
    if not figure.data:
        return None
    most = max(float(trace.x[-1]) for trace in figure.data if trace.showlegend is None)
    figure.update_xaxes(
        title_text="units dropped at once", showgrid=False, range=[-0.02 * most, 1.04 * most]
    )
    figure.update_yaxes(title_text=metric)
    figure.update_layout(showlegend=len(figure.data) > 2)
    caption = "bold: median over random draws · faint: every draw · 0 is the intact network"
    return _dressed(figure, look, f"drop-k {metric}", caption, 24 if len(figure.data) > 2 else 0)


def pareto(
    run: Run, rows: pd.DataFrame, *, colour: str = "#0072B2", style: str = "screen"
) -> go.Figure | None:
    """Metric against multiply-accumulates saved, every lesion a point, the best ones a line.

    None where the rows of one metric say nothing of the cost.
    """
    known = rows[rows["lesion"].isin(("drop", "drop-k")) & (rows["macs"] > 0)]
    if len(known) < 3:
        return None
    look = style_of(style)
    metric = str(known["metric"].iloc[0])
    best = front(known, any(word in metric for word in BETTER_LOW))
    most = float(known["macs"].max()) / 1e6
    figure = go.Figure(
        [
            go.Scatter(
                x=known["macs"] / 1e6,
                y=known["value"],
                mode="markers",
                opacity=0.4,
                marker={"color": colour, "size": look.marker},
                hovertext=[_told_of(row) for row in known.to_dict("records")],
                hoverinfo="text",
            ),
            go.Scatter(
                x=[0, *(best["macs"] / 1e6)],
                y=[float(known["baseline"].iloc[0]), *best["value"]],
                mode="lines",
                line={"color": look.ink, "width": 1.4, "dash": "dot"},
                hoverinfo="skip",
            ),
        ]
    )
    figure.update_xaxes(
        title_text="multiply-accumulates saved per image, millions",
        showgrid=False,
        range=[-0.02 * most, 1.04 * most],
    )
    figure.update_yaxes(title_text=metric)
    figure.update_layout(showlegend=False)
    caption = f"{run.name} · dotted: the best {metric} for at least that saving, without retraining"
    return _dressed(figure, look, f"pareto {run.name} {metric}", caption, 0)


def front(rows: pd.DataFrame, low: bool) -> pd.DataFrame:
    """The rows that no other one beats in both `macs` saved and `value`, cheapest saving first."""
    ordered = rows.sort_values(["macs", "value"], ascending=[False, low], kind="stable")
    value = ordered["value"].to_numpy(dtype=float) * (-1.0 if low else 1.0)
    running = np.maximum.accumulate(value)
    keep = [True, *(after > before for before, after in pairwise(running.tolist()))]
    return ordered[np.array(keep[: len(ordered)], dtype=bool)].iloc[::-1]


def _told_of(row: Mapping[Any, Any]) -> str:
    delta, low, high = (float(row[key]) for key in ("delta", "ci_low", "ci_high"))
    saved = float(row["macs"]) / 1e6
    return (
        f"<b>{shorten(str(row['unit']), 60)}</b><br>{row['metric']} "
        f"{number(float(row['value']))}, {'+' if delta > 0 else ''}{number(delta)} "
        f"({number(low)} to {number(high)})<br>saves {number(saved)} M multiply-accumulates"
    )


def _dressed(
    figure: go.Figure, look: Style, revision: str, caption: str, above: float
) -> go.Figure:
    return figure.update_layout(
        template=template(look),
        margin={"t": 14 + above, "r": 16, "b": 40, "l": 52},
        uirevision=revision,
        hovermode="closest",
        meta={"caption": caption},
    )
