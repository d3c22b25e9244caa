"""Do auxiliary heads feed the early layers? One run -> each head's own gradient, layer by layer.

Must never know files, Dash, or how a head was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gradscope.figures.axes import empty_note, finish, linear_axis, log_axis, stage_lines
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import join
from gradscope.figures.sources import Member, Source, latest, single
from gradscope.figures.theme import (
    BLUE,
    DASHES,
    GREEN,
    ORANGE,
    PINK,
    SYMBOLS,
    VERMILLION,
    Style,
    number,
    style_of,
)
from gradscope.schema import GradScopeError

STATISTICS = {"share": "head share", "norm": "gradient norm"}
COLUMNS = (
    "layer",
    "head",
    "position",
    "relative_depth",
    "stage",
    "norm",
    "share",
    "cosine",
    "weight",
    "samples",
)
AUXILIARY = (ORANGE, VERMILLION, PINK, GREEN)


def heads_table(run: Source, *, statistic: str = "share") -> Prepared:
    """One row per layer and head: `layer`, `head`, `position`, `relative_depth`, `stage`, `norm`,
    `share`, `cosine`, `weight`, `samples`.

    `norm` is that of the head's own weighted loss gradient at the layer's output, `share` norm /
    sum of the heads' norms there, `cosine` with the main head's. Layers within an auxiliary head
    are left out, for no other head reaches them. statistic: "share" or "norm", what the upper
    panel shows. GradScopeError for another one.
    """
    if statistic not in STATISTICS:
        raise GradScopeError(f"statistic must be one of {', '.join(STATISTICS)}, not {statistic!r}")
    member = single(run)
    rows = latest(member.read("heads", None), ["layer", "head"])
    if rows.empty:
        return Prepared("head-share", rows, "No auxiliary head was measured yet")
    inside = [any(str(x).startswith(f"{h}.") for h in rows["head"].unique()) for x in rows["layer"]]
    rows = rows[~np.array(inside)].sort_values(["depth"], kind="stable", ignore_index=True)
    rows["position"] = pd.factorize(rows["layer"])[0]
    rows["stage"] = _stages(member, rows["layer"])
    data = rows[list(COLUMNS)]
    weights = rows.drop_duplicates("head").set_index("head")["weight"]
    told = ", ".join(f"{head} {number(float(weight))}" for head, weight in weights.items())
    caption = (
        f"{member.name} · loss weights: {told} · one batch of {int(rows['samples'].max())} inputs in "
        "training mode · a head reaches no layer behind its own place"
    )
    return Prepared("head-share", data, _answer(data), caption, {"statistic": statistic})


def draw_heads(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """A line a head: share or norm above, cosine with the main head below; input left, loss right."""
    look = style_of(style)
    data = prepared.data
    if data.empty:
        figure = go.Figure()
        empty_note(figure, "no auxiliary head was measured yet: gradscope paths RUN", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    statistic = str(prepared.options["statistic"])
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.6, 0.4]
    )
    names = sorted(data["head"].unique(), key=lambda name: (name != "main", name))
    for rank, name in enumerate(names):
        part = data[data["head"] == name]
        reached = part[part["norm"] > 0]
        figure.add_trace(_line(reached, statistic, rank, look, shown=True), row=1, col=1)
        if name != "main":
            figure.add_trace(_line(reached, "cosine", rank, look, shown=False), row=2, col=1)
    values = data[statistic].to_numpy(dtype=float)
    label = STATISTICS[statistic]
    axis = linear_axis(values, label) if statistic == "share" else log_axis(values, label)
    figure.update_yaxes(**axis, row=1, col=1)
    figure.update_yaxes(
        title={"text": "cosine with main"}, rangemode="tozero", zeroline=True, zerolinecolor=look.axis, nticks=5,
        row=2, col=1,
    )  # fmt: skip
    first = data.drop_duplicates("position")
    ranks = first["position"].astype(float).tolist()
    above = stage_lines(figure, ranks, first["stage"].tolist(), look)
    figure.update_xaxes(range=[-0.5, len(first) - 0.5], nticks=6)
    figure.update_xaxes(title={"text": f"{len(first)} layers, input → loss"}, row=2, col=1)
    tall = height or (300 if look.paper else 460)
    return finish(
        figure, prepared, look, width=width, title=title, height=tall, entries=names, above=above
    )


def head_share(
    run: Source,
    *,
    statistic: str = "share",
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Each head's own gradient by depth: share (or norm) and cosine with the main head's.

    run: a Run or its frame of `heads`, as `gradscope paths RUN` measures them. Norms of differently
    shaped layers do not compare, shares do.
    """
    prepared = heads_table(run, statistic=statistic)
    return draw_heads(prepared, style=style, width=width, height=height, title=title)


def _stages(member: Member, layers: pd.Series) -> list[str]:
    known: dict[str, str] = {}
    if member.sites is not None:
        outputs = member.sites[member.sites["kind"] == "output"]
        known = dict(zip(outputs["site"].astype(str), outputs["stage"].astype(str), strict=True))
    return [known.get(str(layer)) or str(layer).split(".", 1)[0] for layer in layers]


def _line(part: pd.DataFrame, column: str, rank: int, look: Style, *, shown: bool) -> go.Scatter:
    name = str(part["head"].iloc[0]) if len(part) else ""
    return go.Scatter(
        x=part["position"],
        y=part[column],
        mode="lines+markers" if look.paper else "lines",
        name=name,
        legendgroup=name,
        showlegend=shown,
        line={
            "color": BLUE if name == "main" else AUXILIARY[(rank - 1) % len(AUXILIARY)],
            "width": look.line,
            "dash": DASHES[rank % len(DASHES)] if look.paper else "solid",
        },
        marker={"size": look.marker * 0.7, "symbol": SYMBOLS[rank % len(SYMBOLS)]},
        hovertext=[_hover(row) for row in part.to_dict("records")],
        hoverinfo="text",
    )


def _hover(row: Mapping[Any, Any]) -> str:
    text = f"<b>{row['layer']}</b><br>{row['head']}: norm {number(row['norm'])}"
    text += f", {100 * row['share']:.3g} % of the heads' gradient"
    cosine = row["cosine"]
    return text + (f"<br>cosine with main {number(cosine)}" if np.isfinite(cosine) else "")


def _answer(data: pd.DataFrame) -> str:
    """What reaches the first layer from the auxiliary heads, and whether it points the same way."""
    first = data[data["position"] == 0].set_index("head")
    aux = first.drop(index="main", errors="ignore")
    aux = aux[aux["norm"] > 0]
    site = str(first["layer"].iloc[0])
    if aux.empty:
        return f"No auxiliary head reaches {site}"
    total = float(aux["share"].sum())
    each = [f"{100 * float(share):.0f} % from {head}" for head, share in aux["share"].items()]
    text = f"At {site} {100 * total:.0f} % of the heads' gradient comes from auxiliary heads"
    if len(each) > 1:
        text += f" ({join(each)})"
    cosine = float(aux["cosine"].mean())
    if not np.isfinite(cosine):
        return text
    way = "with" if cosine > 0.1 else "against" if cosine < -0.1 else "neither with nor against"
    return f"{text}, {way} the main head (cosine {number(cosine)})"
