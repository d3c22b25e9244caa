"""When does a unit become worth something? One run with lesions at several steps -> a map.

Must never know files, Dash, or how a lesion was measured.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gradscope.figures.axes import colour_bar, empty_note, finish, stage_lines, unit_ticks
from gradscope.figures.heatmap import with_gaps
from gradscope.figures.lesions import chosen_metric, gain, signed, stages_of
from gradscope.figures.prepared import Prepared
from gradscope.figures.sources import Group, Source, single
from gradscope.figures.theme import Style, style_of

COLUMNS = (
    "step",
    "unit",
    "position",
    "stage",
    "delta",
    "ci_low",
    "ci_high",
    "value",
    "baseline",
    "samples",
)


def worth_table(run: Source, *, metric: str | None = None) -> Prepared:
    """One row per step and unit dropped alone: `step`, `unit`, `position`, `stage`, `delta`,
    `ci_low`, `ci_high`, `value`, `baseline`, `samples`.

    `delta` = metric with the lesion - metric of the intact network at that step. A lesion measured
    twice at one step counts as measured last. GradScopeError for a metric that was not measured.
    """
    member = single(run)
    name = chosen_metric([Group(member.name, (member,))], metric)
    frame = member.read("ablations", None)
    rows = frame.loc[(frame["metric"] == name) & (frame["lesion"] == "drop")]
    rows = rows.drop_duplicates(["step", "unit"], keep="last")
    if rows["step"].nunique() < 2:
        return Prepared(
            "ablation-heatmap",
            pd.DataFrame(columns=list(COLUMNS)),
            "Units were dropped at fewer than two steps",
        )
    rows = rows.sort_values("step", kind="stable", ignore_index=True)
    rows["stage"] = stages_of(member, rows)
    rows["position"] = pd.factorize(rows["unit"])[0]
    samples = " or ".join(str(int(n)) for n in np.unique(rows["samples"]) if n > 0)
    caption = f"{member.name} · one unit dropped at a time, at {rows['step'].nunique()} steps"
    caption += f" · {samples} samples" if samples else ""
    if bool(rows["ci_low"].notna().any()):
        caption += " · dots: the 95 % interval contains 0"
    answer = _answer(rows, name)
    return Prepared("ablation-heatmap", rows[list(COLUMNS)], answer, caption, {"metric": name})


def draw_worth(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """The map: input left, loss right, steps upward; a diverging scale with zero in the middle."""
    look = style_of(style)
    figure = go.Figure()
    data = prepared.data
    if data.empty:
        text = "no unit was dropped at two steps yet: gradscope.track(..., ablate_every=500)"
        empty_note(figure, text, look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    metric = str(prepared.options["metric"]).replace("_", " ")
    table = data.pivot(index="step", columns="position", values="delta")
    steps, values = with_gaps(table.index.to_numpy(dtype=float), table.to_numpy(dtype=float))
    first = data.drop_duplicates("position").sort_values("position")
    units, stages = first["unit"].astype(str).tolist(), first["stage"].astype(str).tolist()
    top = max(float(np.nanmax(np.abs(values))), 1e-9)
    figure.add_trace(
        go.Heatmap(
            x=np.arange(len(units)),
            y=steps,
            z=values,
            zmin=-top,
            zmax=top,
            colorscale=[list(stop) for stop in look.difference],
            hoverongaps=False,
            customdata=np.broadcast_to(np.array(units, dtype=object), values.shape),
            text=[["" if np.isnan(v) else signed(float(v)) for v in row] for row in values],
            hovertemplate=(
                f"<b>%{{customdata}}</b> dropped<br>step %{{y}}<br>{metric} %{{text}}<extra></extra>"
            ),
            colorbar=colour_bar(f"change in {metric}", look),
        )
    )
    figure.add_trace(_unsure(data, look))
    above = stage_lines(
        figure, [float(i) for i in range(len(units))], stages, look, over=look.muted
    )
    figure.update_xaxes(
        title={"text": f"{len(units)} units, input → loss"},
        range=[-0.5, len(units) - 0.5],
        showgrid=False,
    )
    unit_ticks(figure, units, stages)
    figure.update_yaxes(title={"text": "optimizer step"}, showgrid=False)
    return finish(figure, prepared, look, width=width, title=title, height=height, above=above)


def _unsure(data: pd.DataFrame, look: Style) -> go.Scatter:
    """A dot on each cell whose interval contains zero."""
    cells = data[(data["ci_low"] <= 0) & (data["ci_high"] >= 0)]
    return go.Scatter(
        x=cells["position"],
        y=cells["step"],
        mode="markers",
        marker={"size": look.marker * 0.6, "color": look.muted},
        hoverinfo="skip",
        showlegend=False,
    )


def ablation_heatmap(
    run: Source,
    *,
    metric: str | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """A unit's worth over time: the metric's change when it is dropped, by unit and step.

    run: a Run, or its frame of `ablations`, with lesions at two steps or more. metric: accuracy
    where it was measured, else the first.
    """
    prepared = worth_table(run, metric=metric)
    return draw_worth(prepared, style=style, width=width, height=height, title=title)


def _answer(rows: pd.DataFrame, metric: str) -> str:
    """The unit that is worth most at the end, and what it was worth at the first step."""
    noun = metric.replace("_", " ")
    last = rows[rows["step"] == rows["step"].max()]
    harm = gain(metric, last["delta"].to_numpy(dtype=float))
    if not np.isfinite(harm).any():
        return f"No unit changes {noun} by a known amount at the last step"
    worst = last.iloc[int(np.nanargmin(harm))]
    text = (
        f"At step {int(worst['step'])} dropping {worst['unit']} changes {noun} most "
        f"({signed(float(worst['delta']))})"
    )
    before = rows[(rows["unit"] == worst["unit"]) & (rows["step"] < worst["step"])]
    if before.empty:
        return text
    early = before.iloc[0]
    return f"{text}; at step {int(early['step'])} it was {signed(float(early['delta']))}"
