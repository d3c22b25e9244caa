"""Where do two runs differ? Two runs -> a map of log10(first / second) by layer and step.

Must never know files or Dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gradscope.figures.axes import colour_bar, empty_note, finish, stage_lines
from gradscope.figures.flow import KINDS, statistic_label
from gradscope.figures.heatmap import condense, layer_axis, with_gaps
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import LINEAR, STEADY_SHARE
from gradscope.figures.sources import Member, Source, layers_of, members, pivot, places
from gradscope.figures.theme import Style, number, style_of, superscript
from gradscope.frame import on_grid
from gradscope.schema import GradScopeError


def difference_table(
    runs: Source,
    *,
    statistic: str = "grad_rms",
    kind: str = "output",
    layers: str | Sequence[str] = "auto",
) -> Prepared:
    """One row per cell: `step`, `site`, `position`, `relative_depth`, `stage`, `first`, `second`,
    `change` = log10(first / second), or first - second for shares and what may be negative.

    Layers are paired by name where both runs have the same ones, else by relative depth on the
    layers of the first run (interpolated in log10). Steps are those of the first run; the second
    run's nearest step counts if it lies within one sampling distance, else the cell is a gap.
    """
    pair = members(runs)
    if len(pair) != 2:
        raise GradScopeError(f"a difference needs two runs, but {len(pair)} were given")
    label = statistic_label(statistic, kind)
    (steps, where, first), (other, there, second) = (
        _grid(member, statistic, kind, layers) for member in pair
    )
    log = statistic not in LINEAR
    same = where["site"].tolist() == there["site"].tolist()
    if not same:
        grid = where["relative_depth"].to_numpy(dtype=float)
        known = there["relative_depth"].to_numpy(dtype=float)
        second = np.array([on_grid(known, row, grid, log=log) for row in second]).reshape(
            len(other), len(grid)
        )
    second = _nearest_rows(steps, other, second)
    change = np.full(first.shape, np.nan)
    good = np.isfinite(first) & np.isfinite(second) & (((first > 0) & (second > 0)) | (not log))
    change[good] = np.log10(first[good] / second[good]) if log else first[good] - second[good]
    stacked = np.concatenate([change, first, second], axis=1)
    rows, _, stacked, _ = condense(steps, stacked, np.zeros_like(stacked), log=False)
    change, first, second = np.split(stacked, 3, axis=1)
    columns = len(where)
    place = np.tile(np.arange(columns), len(rows))
    data = pd.DataFrame(
        {
            "step": np.repeat(rows, columns),
            "position": place,
            **{n: where[n].to_numpy()[place] for n in ("site", "relative_depth", "stage")},
            "first": first.ravel(),
            "second": second.ravel(),
            "change": change.ravel(),
        }
    )
    names = (pair[0].name, pair[1].name)
    how = "layers paired by name" if same else "layers paired by relative depth"
    options = {"label": label, "where": where, "names": names, "log": log}
    caption = f"{names[0]} {'/' if log else '−'} {names[1]} · {how}"
    answer = _answer(data, names, label, log)
    return Prepared("gradient-difference", data, answer, caption, options)


def draw_difference(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """A diverging map with its zero in the middle, symmetric."""
    look = style_of(style)
    data, where = prepared.data, prepared.options["where"]
    names: tuple[str, str] = prepared.options["names"]
    figure = go.Figure()
    if not bool(data["change"].notna().any()):
        empty_note(figure, "the two runs have no step and layer in common", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    table = data.pivot(index="step", columns="position", values="change")
    table = table.reindex(columns=range(len(where)))
    steps, values = with_gaps(table.index.to_numpy(dtype=float), table.to_numpy(dtype=float))
    log = bool(prepared.options["log"])
    top = max(float(np.nanmax(np.abs(values))), 0.3 if log else 0.05)
    figure.add_trace(
        go.Heatmap(
            x=np.arange(len(where)),
            y=steps,
            z=values,
            zmin=-top,
            zmax=top,
            colorscale=[list(stop) for stop in look.difference],
            hoverongaps=False,
            customdata=np.broadcast_to(where["site"].to_numpy(dtype=object), values.shape),
            text=[["" if np.isnan(v) else _told(v, log) for v in row] for row in values],
            hovertemplate=(
                f"<b>%{{customdata}}</b><br>step %{{y}}<br>{names[0]} = %{{text}} {names[1]}"
                "<extra></extra>"
            ),
            colorbar=_bar(top, log, look),
        )
    )
    ranks = [float(i) for i in range(len(where))]
    above = stage_lines(figure, ranks, where["stage"].tolist(), look, over=look.muted)
    layer_axis(figure, where)
    figure.update_yaxes(title={"text": "optimizer step"}, showgrid=False)
    return finish(figure, prepared, look, width=width, title=title, height=height, above=above)


def gradient_difference(
    runs: Source,
    *,
    statistic: str = "grad_rms",
    kind: str = "output",
    layers: str | Sequence[str] = "auto",
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """log10 of the first run's statistic over the second's, by layer and step; zero is neutral.

    Shares and what may be negative are subtracted instead.
    """
    prepared = difference_table(runs, statistic=statistic, kind=kind, layers=layers)
    return draw_difference(prepared, style=style, width=width, height=height, title=title)


def _grid(
    member: Member, statistic: str, kind: str, layers: str | Sequence[str]
) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    frame = member.read(KINDS[kind], [statistic])
    steps, names, matrix = pivot(frame, statistic)
    where = places(member, kind, names, frame)
    keep = layers_of(where, kind, layers)
    return steps, where[keep].reset_index(drop=True), matrix[:, keep]


def _nearest_rows(steps: np.ndarray, other: np.ndarray, values: np.ndarray) -> np.ndarray:
    if not len(other) or not len(steps):
        return np.full((len(steps), values.shape[1]), np.nan)
    nearest = np.abs(other[None, :] - steps[:, None]).argmin(axis=1)
    reach = max(1.0, float(np.median(np.diff(other)))) if len(other) > 1 else 1.0
    result = np.array(values[nearest], dtype=float)
    result[np.abs(other[nearest] - steps) > reach] = np.nan
    return result


def _ticks(top: float) -> list[float]:
    if top < 1:
        return [t for t in (-0.699, -0.301, 0.0, 0.301, 0.699) if abs(t) <= top]
    step = max(1, int(np.ceil(top / 4)))
    half = list(range(step, int(top) + 1, step))
    return [float(t) for t in (*(-t for t in reversed(half)), 0, *half)]


def _bar(top: float, log: bool, style: Style) -> dict[str, Any]:
    if not log:
        return colour_bar("difference", style)
    ticks = _ticks(top)
    words = [f"×10{superscript(int(t))}" if t == int(t) else f"×{number(10**t)}" for t in ticks]
    return colour_bar("ratio", style, tickvals=ticks, ticktext=words)


def _told(change: float, log: bool) -> str:
    if log:
        return f"{number(10**change)} ×"
    return f"{number(abs(change))} {'below' if change < 0 else 'above'}"


def _answer(data: pd.DataFrame, names: tuple[str, str], label: str, log: bool) -> str:
    by_layer = data.dropna(subset=["change"]).groupby("site", sort=False)["change"].median()
    if by_layer.empty:
        return f"{names[0]} and {names[1]} cannot be compared: no step and layer in common"
    site = str(by_layer.abs().idxmax())
    most = float(by_layer[site])
    word = "below" if most < 0 else "above"
    if not log:
        if abs(most) < STEADY_SHARE:
            return f"{names[0]} and {names[1]} have the same {label} within {STEADY_SHARE:g}"
        return (
            f"{names[0]} differs from {names[1]} most at {site}: its {label} is "
            f"{number(abs(most))} {word}"
        )
    if abs(most) < 0.3:
        return f"{names[0]} and {names[1]} have the same {label} within a factor 2 at every layer"
    return (
        f"{names[0]} differs from {names[1]} most at {site}: its {label} is "
        f"{abs(most):.1f} decades {word}"
    )
