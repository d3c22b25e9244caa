"""Which earlier features does a dense layer listen to? One run -> a map of weights per dense block.

Must never know files, Dash, or how weights were read.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gradscope.figures.axes import colour_bar, empty_note, finish
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import join
from gradscope.figures.sources import Source, latest, single
from gradscope.figures.theme import MAGNITUDES, number, shorten, style_of
from gradscope.schema import GradScopeError

STATISTICS = {"relative": "mean |w|, largest of the block = 1", "weight": "mean |w|"}

EVEN = 0.05
"""Mean weights closer than this, relatively, count as equal."""


def reuse_table(run: Source, *, statistic: str = "relative") -> Prepared:
    """One row per block, source and target: `block`, `source`, `target`, `weight`, `relative`.

    `source` 0 is the block's input, s its s-th layer; `weight` the mean absolute weight of the
    target's first convolution on the source's channels, `relative` that over the block's largest.
    statistic: which of the two is the colour. GradScopeError for another one.
    """
    if statistic not in STATISTICS:
        raise GradScopeError(f"statistic must be one of {', '.join(STATISTICS)}, not {statistic!r}")
    member = single(run)
    data = latest(member.read("reuse", None), ["block", "source", "target"])
    if data.empty:
        return Prepared("feature-reuse", data, "No dense block was read yet")
    data = data[["block", "source", "target", "weight", "relative"]]
    caption = (
        f"{member.name} · source 0 is the block's input · a layer with more sources starts with "
        "smaller weights; before training the cells of one column are alike"
    )
    return Prepared("feature-reuse", data, _answer(data), caption, {"statistic": statistic})


def draw_reuse(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """A map for each block on one colour scale: target to the right, source upward."""
    look = style_of(style)
    data = prepared.data
    if data.empty:
        figure = go.Figure()
        empty_note(figure, "no dense block was read yet: gradscope paths RUN", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    statistic = str(prepared.options["statistic"])
    blocks = list(dict.fromkeys(data["block"]))
    figure = make_subplots(
        rows=1,
        cols=len(blocks),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=[shorten(str(block), 16) for block in blocks],
    )
    for col, block in enumerate(blocks, start=1):
        part = data[data["block"] == block]
        figure.add_trace(_map(str(block), part, statistic), row=1, col=col)
        few = int(part["target"].max()) <= 12 // max(1, len(blocks) // 3)
        figure.update_xaxes(
            title={"text": "target layer"}, **({"dtick": 1} if few else {"nticks": 5}),
            showgrid=False, row=1, col=col,
        )  # fmt: skip
    figure.update_yaxes(showgrid=False, **({"dtick": 1} if data["source"].max() <= 12 else {}))
    figure.update_yaxes(title={"text": "source layer"}, row=1, col=1)
    figure.update_annotations(font={"size": look.small, "color": look.muted})
    top = float(data[statistic].max())
    figure.update_layout(
        coloraxis={
            "colorscale": MAGNITUDES,
            "cmin": 0,
            "cmax": 1 if statistic == "relative" else top,
            "colorbar": colour_bar(STATISTICS[statistic], look),
        }
    )
    return finish(figure, prepared, look, width=width, title=title, height=height, above=16)


def _map(block: str, part: pd.DataFrame, statistic: str) -> go.Heatmap:
    grid = part.pivot(index="source", columns="target", values=statistic)
    exact = part.pivot(index="source", columns="target", values="weight")
    return go.Heatmap(
        x=grid.columns.to_numpy(),
        y=grid.index.to_numpy(),
        z=grid.to_numpy(dtype=float),
        coloraxis="coloraxis",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        text=[[number(float(v)) for v in row] for row in exact.to_numpy(dtype=float)],
        hovertemplate=(
            f"<b>{block}</b>: layer %{{x}} on source %{{y}}<br>mean |w| %{{text}}<extra></extra>"
        ),
    )


def feature_reuse(
    run: Source,
    *,
    statistic: str = "relative",
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """How much each layer of a dense block weighs each earlier one (Huang et al. 2017, figure 5).

    run: a Run or its frame of `reuse`, as `gradscope paths RUN` reads it.
    """
    prepared = reuse_table(run, statistic=statistic)
    return draw_reuse(prepared, style=style, width=width, height=height, title=title)


def _answer(data: pd.DataFrame) -> str:
    """How a block's input compares with the layer just before, block by block."""
    ratios = {}
    for block, part in data.groupby("block", sort=False):
        later = part[part["target"] > 1]
        before = later[later["source"] == later["target"] - 1].set_index("target")["weight"]
        start = later[later["source"] == 0].set_index("target")["weight"]
        if len(before) and bool((before > 0).all()) and bool((start > 0).all()):
            ratios[block] = float(np.exp(np.log(start / before).mean()))
    if not ratios:
        return "No dense block has two layers whose weights could be compared"
    told = join([f"×{number(ratio)} in {block}" for block, ratio in ratios.items()])
    if max(abs(ratio - 1) for ratio in ratios.values()) < EVEN:
        return f"Layers weigh their block's input as much as the layer just before ({told})"
    return f"Layers weigh their block's input {told}, compared with the layer just before"
