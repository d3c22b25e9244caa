"""What is each unit worth? Runs with lesions -> bars of the metric's change, unit by unit.

Must never know files, Dash, or how a lesion was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gradscope.figures.axes import empty_note, finish, stage_lines
from gradscope.figures.lesions import (
    against_textbook,
    chosen_metric,
    gain,
    lesions,
    signed,
    stages_of,
)
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import join
from gradscope.figures.sources import Group, Source, groups
from gradscope.figures.theme import Style, number, shorten, style_of

COLUMNS = (
    "run",
    "unit",
    "stage",
    "position",
    "delta",
    "ci_low",
    "ci_high",
    "value",
    "baseline",
    "samples",
    "seeds",
)
MOST_TICKS = 40
PATTERNS = ("", "/", ".", "x", "-", "|", "+")
"""What tells the bars of several runs apart in print without colours."""
SAME = 0.02
"""Medians closer than this count as equal when two architectures are compared."""


def bars_table(
    runs: Source,
    *,
    metric: str | None = None,
    fold: bool = True,
    colours: Mapping[str, str] | None = None,
) -> Prepared:
    """One row per line and unit dropped alone: `run`, `unit`, `stage`, `position`, `delta`,
    `ci_low`, `ci_high`, `value`, `baseline`, `samples`, `seeds`.

    `delta` = metric with the lesion - metric of the intact network, at the last step with lesions;
    the 95 % interval as stored, NaN without one. Seeds: medians, and the outermost bounds.
    `position` is the unit's place in the order of execution, shared by units of the same name.
    """
    found = groups(runs, fold=fold, colours=colours)
    name = chosen_metric(found, metric)
    parts = [_units(group, name) for group in found]
    order = merged_order([part["unit"].tolist() for part in parts])
    place = {unit: position for position, unit in enumerate(order)}
    data = pd.concat(parts, ignore_index=True)
    data["position"] = [place[unit] for unit in data["unit"]]
    data = data[list(COLUMNS)]
    colour = {group.label: group.colour for group in found}
    options = {"metric": name or "metric", "colours": colour, "order": order}
    answer = _answer(data, {g.label: g.family for g in found}, name)
    return Prepared("ablation-bars", data, answer, _caption(data, name), options)


def draw_bars(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Bars from zero in the order of execution, whiskers for the interval, lines between stages."""
    look = style_of(style)
    figure = go.Figure()
    data = prepared.data
    if data.empty:
        empty_note(figure, "no unit was dropped yet: gradscope ablate RUN --drop blocks", look)
        return finish(figure, prepared, look, width=width, title=title, height=height)
    colours: Mapping[str, str] = prepared.options["colours"]
    metric = str(prepared.options["metric"]).replace("_", " ")
    for rank, (label, part) in enumerate(data.groupby("run", sort=False)):
        pattern = PATTERNS[rank % len(PATTERNS)] if look.paper else ""
        figure.add_trace(_bar(str(label), part, colours[str(label)], pattern, metric, look))
    above = _unit_axis(figure, data, look)
    figure.update_yaxes(
        title={"text": f"change in {metric}"},
        zeroline=True,
        zerolinecolor=look.ink,
        zerolinewidth=1,
    )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.06)
    entries = [str(label) for label in colours] if len(colours) > 1 else []
    return finish(
        figure,
        prepared,
        look,
        width=width,
        title=title,
        height=height,
        entries=entries,
        above=above,
    )


def ablation_bars(
    runs: Source,
    *,
    metric: str | None = None,
    fold: bool = True,
    colours: Mapping[str, str] | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """How the metric changes when one unit is dropped, for every unit, with 95 % intervals.

    runs: Run, list of runs, or a frame of `ablations`. metric: accuracy where it was measured,
    else the first. Units of the same name stand beside each other. GradScopeError for a metric
    that was not measured.
    """
    prepared = bars_table(runs, metric=metric, fold=fold, colours=colours)
    return draw_bars(prepared, style=style, width=width, height=height, title=title)


def merged_order(orders: Iterable[Sequence[str]]) -> list[str]:
    """One order of names that keeps each given order where they do not contradict."""
    result: list[str] = []
    for order in orders:
        at = 0
        for name in order:
            if name in result:
                at = result.index(name) + 1
            else:
                result.insert(at, name)
                at += 1
    return result


def _units(group: Group, metric: str) -> pd.DataFrame:
    frames = [
        frame.assign(stage=stages_of(member, frame))
        for member in group.members
        for frame in (lesions(member, metric, ("drop",)),)
    ]
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    together = rows.groupby("unit", sort=False)
    middle = together[["delta", "value", "baseline"]].median()
    order = merged_order([frame["unit"].tolist() for frame in frames])
    result = middle.assign(
        stage=together["stage"].first(),
        ci_low=together["ci_low"].min(),
        ci_high=together["ci_high"].max(),
        samples=together["samples"].max(),
        seeds=together.size(),
        run=group.label,
    )
    return result.reindex(order).reset_index(names="unit")


def _bar(
    label: str, part: pd.DataFrame, colour: str, pattern: str, metric: str, look: Style
) -> go.Bar:
    return go.Bar(
        x=part["position"],
        y=part["delta"],
        name=shorten(label, 30),
        marker={
            "color": colour,
            "line": {"width": 0},
            "pattern": {"shape": pattern, "fgcolor": "#FFFFFF", "fillmode": "overlay", "size": 5},
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": (part["ci_high"] - part["delta"]).clip(lower=0),
            "arrayminus": (part["delta"] - part["ci_low"]).clip(lower=0),
            "color": look.ink,
            "thickness": 1,
            "width": 2 if look.paper else 3,
        },
        hovertext=_hover(part, metric),
        hoverinfo="text",
    )


def _unit_axis(figure: go.Figure, data: pd.DataFrame, look: Style) -> float:
    """Units along x, lines between their stages; px needed above the plot for the names."""
    first = data.drop_duplicates("position").sort_values("position")
    ranks, stages = first["position"].astype(float).tolist(), first["stage"].tolist()
    step = -(-len(first) // (MOST_TICKS if not look.paper else MOST_TICKS // 2))
    ticks = list(zip(ranks, first["unit"], stages, strict=True))[::step]
    figure.update_xaxes(
        title={"text": f"{len(first)} units, input → loss"},
        tickvals=[rank for rank, _, _ in ticks],
        ticktext=[_tick(unit, stage) for _, unit, stage in ticks],
        range=[-0.6, len(first) - 0.4],
        ticks="",
    )
    return stage_lines(figure, ranks, stages, look)


def _tick(unit: str, stage: str) -> str:
    rest = unit.removeprefix(f"{stage}.")
    return shorten(rest, 12)


def _hover(part: pd.DataFrame, metric: str) -> list[str]:
    texts = []
    for row in part.to_dict("records"):
        text = f"<b>{row['unit']}</b> dropped from {shorten(str(row['run']), 40)}<br>{metric} "
        text += f"{number(float(row['baseline']))} → {number(float(row['value']))} ({signed(row['delta'])})"
        if np.isfinite(row["ci_low"]):
            text += f"<br>95 %: {signed(row['ci_low'])} to {signed(row['ci_high'])}"
        texts.append(text)
    return texts


def _caption(data: pd.DataFrame, metric: str) -> str:
    if data.empty:
        return ""
    each = data.groupby("run", sort=False)
    intact = [f"{run} {number(float(part['baseline'].median()))}" for run, part in each]
    parts = [f"{metric.replace('_', ' ')} intact: {', '.join(intact)}"]
    samples = int(data["samples"].max())
    if samples > 0:
        parts.append(f"{samples} samples")
    seeds = int(data["seeds"].max())
    if bool(data["ci_low"].notna().any()):
        word = "outermost 95 % bounds of the seeds" if seeds > 1 else "95 % interval of one lesion"
        parts.append(f"whiskers: {word}")
    if seeds > 1:
        parts.append(f"bars: median of {seeds} seeds")
    return " · ".join(parts)


def _answer(data: pd.DataFrame, families: Mapping[str, str], metric: str) -> str:
    if data.empty:
        return "No unit was dropped yet"
    noun = metric.replace("_", " ")
    if data["run"].nunique() == 1:
        harm = gain(metric, data["delta"].to_numpy(dtype=float))
        worst = data.iloc[int(np.argmin(harm))]
        text = f"Dropping {worst['unit']} changes {noun} most ({signed(float(worst['delta']))})"
        known = data[data["ci_low"].notna()]
        free = int(((known["ci_low"] <= 0) & (known["ci_high"] >= 0)).sum())
        if len(known):
            verb = "makes" if free < 2 else "make"
            text += f"; {free or 'none'} of {len(known)} units {verb} no measurable difference"
        return text
    middle = {str(run): float(part["delta"].median()) for run, part in data.groupby("run")}
    order = [str(run) for run in data["run"].unique()]
    parts = [f"{signed(middle[run])} in {run}" for run in order]
    surprise = against_textbook(metric, [(families[run], middle[run]) for run in order], SAME)
    return f"Dropping one unit changes {noun} by a median of {join(parts)}{surprise}"
