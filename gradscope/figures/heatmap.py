"""Where and when is the gradient small or large? One run -> a map of layer by step.

Must never know files or Dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gradscope.figures.axes import (
    colour_bar,
    colour_ticks,
    empty_note,
    finish,
    linear_range,
    log_range,
    stage_lines,
)
from gradscope.figures.flow import KINDS, needed_columns, statistic_label
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import LINEAR, heatmap_sentence
from gradscope.figures.sources import Source, layers_of, pivot, places, single
from gradscope.figures.theme import MAGNITUDES, Style, number, style_of

MOST_ROWS = 300


def heatmap_table(
    run: Source,
    *,
    statistic: str = "grad_rms",
    kind: str = "output",
    layers: str | Sequence[str] = "auto",
    first_step: int | None = None,
    last_step: int | None = None,
) -> Prepared:
    """One row per drawn cell: `step`, `last_step`, `site`, `position`, `depth`, `stage`, `value`,
    `nonfinite`.

    More than 300 sampled steps are put into as many equal ranges of steps (`step`..`last_step`);
    a cell then holds the value farthest from the layer's median, so that no extreme is lost.
    """
    label = statistic_label(statistic, kind)
    member = single(run)
    columns = needed_columns(statistic, kind)
    frame = member.read(KINDS[kind], columns)
    steps, names, matrix = pivot(frame, statistic)
    where = places(member, kind, names, frame)
    keep = layers_of(where, kind, layers)
    where = where[keep].reset_index(drop=True)
    span = np.ones(len(steps), dtype=bool)
    span &= steps >= (first_step if first_step is not None else -1)
    span &= steps <= (last_step if last_step is not None else np.iinfo(np.int64).max)
    steps, matrix = steps[span], matrix[span][:, keep]
    bad = np.zeros_like(matrix)
    if len(columns) > 1 and columns[1] in frame.columns:
        bad = np.nan_to_num(pivot(frame, columns[1])[2][span][:, keep])
    log = statistic not in LINEAR
    first, last, cells, wrong = condense(steps, matrix, bad, log=log)
    data = _tidy(first, last, cells, wrong, where)
    answer = heatmap_sentence(where["site"].tolist(), first, cells, label, log=log)
    per = int(np.ceil(len(steps) / max(len(first), 1)))
    caption = f"{member.name} · {len(steps)} sampled step{'s' * (len(steps) != 1)}"
    if per > 1:
        caption += f", each row the most extreme of about {per}"
    if "sampled_fraction" in frame and frame["sampled_fraction"].min() < 1:
        caption += f" · from {frame['sampled_fraction'].min() * 100:.3g} % of the elements"
    if wrong.sum():
        caption += " · ✕ non-finite elements"
    options = {"label": label, "log": log, "where": where}
    return Prepared("gradient-heatmap", data, answer, caption, options)


def draw_heatmap(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
    range_log10: tuple[float, float] | None = None,
) -> go.Figure:
    """The map: input left, loss right, steps upward; missing steps are gaps.

    `range_log10` fixes the colour scale, so that small multiples share one.
    """
    look = style_of(style)
    where: pd.DataFrame = prepared.options["where"]
    log = bool(prepared.options["log"])
    data = prepared.data
    figure = go.Figure()
    if data.empty or where.empty:
        empty_note(figure, "no sampled step was recorded yet", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    grid = data.pivot(index="step", columns="position", values="value").reindex(
        columns=range(len(where))
    )
    steps, values = with_gaps(grid.index.to_numpy(dtype=float), grid.to_numpy(dtype=float))
    z = _log(values) if log else values
    low, high = range_log10 or (log_range(values, 0.3) if log else linear_range(values))
    label = str(prepared.options["label"])
    figure.add_trace(
        go.Heatmap(
            x=np.arange(len(where)),
            y=steps,
            z=z,
            zmin=low,
            zmax=high,
            colorscale=MAGNITUDES,
            hoverongaps=False,
            text=[[number(value) for value in row] for row in values],
            customdata=np.broadcast_to(where["site"].to_numpy(dtype=object), values.shape),
            hovertemplate="<b>%{customdata}</b><br>step %{y}<br>%{text}<extra></extra>",
            colorbar=colour_bar(label, look, **(colour_ticks(low, high) if log else {})),
        )
    )
    _mark_nonfinite(figure, data, look)
    ranks = [float(i) for i in range(len(where))]
    above = stage_lines(figure, ranks, where["stage"].tolist(), look, over="#FFFFFF")
    layer_axis(figure, where, str(prepared.options.get("noun", "layers")))
    figure.update_yaxes(title={"text": "optimizer step"}, showgrid=False, rangemode="nonnegative")
    return finish(figure, prepared, look, width=width, title=title, height=height, above=above)


def gradient_heatmap(
    run: Source,
    *,
    statistic: str = "grad_rms",
    kind: str = "output",
    layers: str | Sequence[str] = "auto",
    first_step: int | None = None,
    last_step: int | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
    range_log10: tuple[float, float] | None = None,
) -> go.Figure:
    """A statistic of one run by layer (input left, loss right) and step (upward), log colours.

    run: a Run or its frame. kind: "output", "parameter" or "block". layers as in `gradient_flow`.
    `range_log10` = (low, high) fixes the colour scale for small multiples.
    """
    prepared = heatmap_table(
        run,
        statistic=statistic,
        kind=kind,
        layers=layers,
        first_step=first_step,
        last_step=last_step,
    )
    return draw_heatmap(
        prepared, style=style, width=width, height=height, title=title, range_log10=range_log10
    )


def condense(
    steps: np.ndarray,
    matrix: np.ndarray,
    bad: np.ndarray,
    *,
    log: bool = True,
    rows: int = MOST_ROWS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """First and last step of each row, the cells, and their non-finite counts; at most `rows` rows.

    Within a row the cell is the value farthest from its column's median (in decades if `log`).
    """
    if len(steps) <= rows:
        return steps, steps, matrix, bad
    edges = np.linspace(steps[0], steps[-1] + 1, rows + 1)
    bucket = np.searchsorted(edges, steps, side="right") - 1
    height = _log(matrix) if log else matrix
    known = np.isfinite(height)
    middle = np.array(
        [np.median(c[k]) if k.any() else 0.0 for c, k in zip(height.T, known.T, strict=True)]
    )
    far = np.where(known, np.abs(height - middle), -1.0)
    firsts, lasts, cells, wrong = [], [], [], []
    for start, stop in _runs(bucket):
        pick = start + np.argmax(far[start:stop], axis=0)
        firsts.append(steps[start])
        lasts.append(steps[stop - 1])
        cells.append(matrix[pick, np.arange(matrix.shape[1])])
        wrong.append(bad[start:stop].sum(axis=0))
    return np.array(firsts), np.array(lasts), np.array(cells), np.array(wrong)


def with_gaps(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Empty rows where steps are missing, so that a hole is not bridged by its neighbours.

    A hole is a distance more than 2.5 times both neighbouring distances.
    """
    if len(steps) < 4:
        return steps, values
    distance = np.diff(steps)
    before = np.concatenate([[np.inf], distance[:-1]])
    after = np.concatenate([distance[1:], [np.inf]])
    near = np.where(np.isinf(before), after, np.where(np.isinf(after), before, before))
    near = np.maximum(near, np.where(np.isinf(after), 0, after))
    holes = np.flatnonzero(distance > 2.5 * near)
    width = near[holes]
    extra = np.concatenate([steps[holes] + width, steps[holes + 1] - width])
    empty = np.full((len(extra), values.shape[1]), np.nan)
    joined, rows = np.concatenate([steps, extra]), np.concatenate([values, empty])
    order = np.argsort(joined, kind="stable")
    return joined[order], rows[order]


def layer_axis(figure: go.Figure, where: pd.DataFrame, noun: str = "layers") -> None:
    """The x axis of a map: one column a layer (or what `noun` says), no text but the direction."""
    count = len(where)
    figure.update_xaxes(
        title={"text": f"{count} {noun}, input → loss"},
        range=[-0.5, count - 0.5],
        showgrid=False,
        nticks=6,
    )


def _mark_nonfinite(figure: go.Figure, data: pd.DataFrame, look: Style) -> None:
    marks = data[data["nonfinite"] > 0]
    if marks.empty:
        return
    figure.add_trace(
        go.Scatter(
            x=marks["position"],
            y=marks["step"],
            mode="markers",
            marker={"symbol": "x", "size": look.marker, "color": "#D55E00"},
            hovertext=marks["site"] + ": non-finite elements",
            hoverinfo="text",
            showlegend=False,
        )
    )


def _runs(bucket: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(bucket)) + 1
    return list(zip([0, *edges], [*edges, len(bucket)], strict=True))


def _log(values: np.ndarray) -> np.ndarray:
    result = np.full(values.shape, np.nan)
    good = np.isfinite(values) & (values > 0)
    result[good] = np.log10(values[good])
    return result


def _tidy(
    first: np.ndarray, last: np.ndarray, cells: np.ndarray, wrong: np.ndarray, where: pd.DataFrame
) -> pd.DataFrame:
    rows, columns = cells.shape
    place = np.tile(np.arange(columns), rows)
    fields: dict[str, Any] = {
        "step": np.repeat(first, columns),
        "last_step": np.repeat(last, columns),
        "site": where["site"].to_numpy()[place],
        "position": place,
        "depth": where["depth"].to_numpy()[place],
        "stage": where["stage"].to_numpy()[place],
        "value": cells.ravel(),
        "nonfinite": wrong.ravel().astype(np.int64),
    }
    return pd.DataFrame(fields)
