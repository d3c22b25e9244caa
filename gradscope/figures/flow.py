"""How large is the gradient at each layer? Runs -> gradient profiles by depth on a log scale.

Must never know files or Dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from gradscope.figures.axes import band as band_trace
from gradscope.figures.axes import empty_note, finish, linear_axis, log_axis, stage_lines
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import LINEAR, Profile, flow_sentence, linear_sentence
from gradscope.figures.sources import Group, Source, groups, layers_of, pivot, places
from gradscope.figures.theme import Style, number, shorten, style_of
from gradscope.frame import nearest_step
from gradscope.schema import TABLES, GradScopeError

KINDS = {"output": "outputs", "parameter": "parameters", "block": "blocks"}
BAND = (10, 90)
AXES = {"relative_depth": "relative depth (0 input, 1 loss)", "depth": "depth (order of execution)"}


def flow_table(
    runs: Source,
    *,
    statistic: str = "grad_rms",
    kind: str = "output",
    step: int | str | None = None,
    band: bool = True,
    x: str = "relative_depth",
    layers: str | Sequence[str] = "auto",
    fold: bool = True,
    colours: Mapping[str, str] | None = None,
) -> Prepared:
    """One row per line and layer: `run`, `site`, `depth`, `relative_depth`, `stage`, `value`,
    `low`, `high`, `step`, `steps`, `seeds`, `nonfinite`, `zeros`, `sampled_fraction`.

    `value` is the median over the sampled steps (and seeds), or the value at the step nearest to
    `step`; `low`..`high` the 10th to 90th percentile over steps and seeds, NaN without `band`.
    `nonfinite` and `zeros` count the steps at which the layer had such an element or value.
    """
    label = statistic_label(statistic, kind)
    if x not in AXES:
        raise GradScopeError(f"x must be one of {', '.join(AXES)}, not {x!r}")
    found = groups(runs, fold=fold, colours=colours)
    parts = [_profile(g, statistic, kind, step, band, layers) for g in found]
    data = pd.concat(parts, ignore_index=True)
    profiles = [_as_profile(g, part) for g, part in zip(found, parts, strict=True)]
    log = statistic not in LINEAR
    noun = "Gradient" if statistic.startswith("grad_") else label[:1].upper() + label[1:]
    looks = {g.label: {"colour": g.colour, "dash": g.dash, "symbol": g.symbol} for g in found}
    return Prepared(
        "gradient-flow",
        data,
        flow_sentence(profiles, noun) if log else linear_sentence(profiles, label),
        _caption(data, step, band, log),
        {"label": label, "x": x, "looks": looks, "log": log},
    )


def draw_flow(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Lines with bands over depth; crosses mark non-finite values, triangles exact zeros."""
    look = style_of(style)
    figure = go.Figure()
    data = prepared.data
    looks: Mapping[str, Mapping[str, str]] = prepared.options["looks"]
    x = str(prepared.options["x"])
    everything = data[["value", "low", "high"]].to_numpy(dtype=float).ravel()
    log = bool(prepared.options["log"])
    axis = (log_axis if log else linear_axis)(everything, str(prepared.options["label"]))
    ends = [10.0**end for end in axis["range"]] if log else axis["range"]
    for label, part in data.groupby("run", sort=False):
        _add_line(figure, str(label), part, x, looks[str(label)], look, ends, log)
    above = 0.0
    if len(looks) == 1 and len(data):
        above = stage_lines(figure, data[x].tolist(), data["stage"].tolist(), look)
    if not np.isfinite(everything).any():
        empty_note(figure, "no value was recorded here yet", look)
    figure.update_yaxes(**axis)
    figure.update_xaxes(title={"text": AXES[x]}, nticks=6)
    if x == "relative_depth":
        figure.update_xaxes(range=[-0.02, 1.02])
    entries = list(looks) if len(looks) > 1 else []
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


def gradient_flow(
    runs: Source,
    *,
    statistic: str = "grad_rms",
    kind: str = "output",
    step: int | str | None = None,
    band: bool = True,
    x: str = "relative_depth",
    layers: str | Sequence[str] = "auto",
    fold: bool = True,
    colours: Mapping[str, str] | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """The gradient profile of one or several runs by depth, input left, loss right; log scale, but
    linear for shares and what may be negative.

    runs: Run, list of runs, or a frame. kind: "output" (loss gradient at module outputs) or
    "parameter". step: None for the median over steps, a number, "first" or "last". layers: "auto"
    (convolutions and linear layers, or weights), "all", or globs. Seeds of one model fold into a
    line unless fold=False. width: "single" (85 mm), "double" (175 mm) or millimetres.
    """
    prepared = flow_table(
        runs,
        statistic=statistic,
        kind=kind,
        step=step,
        band=band,
        x=x,
        layers=layers,
        fold=fold,
        colours=colours,
    )
    return draw_flow(prepared, style=style, width=width, height=height, title=title)


def statistic_label(statistic: str, kind: str) -> str:
    """The axis text of a statistic, with its unit; GradScopeError where there is none such."""
    if kind not in KINDS:
        raise GradScopeError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    table = TABLES[KINDS[kind]]
    try:
        column = table.column(statistic)
    except KeyError:
        names = ", ".join(c.name for c in table.columns if c.name not in ("step", "site"))
        raise GradScopeError(
            f"{table.name} have no statistic {statistic!r}; there are {names}"
        ) from None
    return f"{column.label} ({column.unit})" if column.unit else column.label


def needed_columns(statistic: str, kind: str) -> list[str]:
    """The statistic with what says how far to trust it: non-finite counts, sampled fraction."""
    if kind == "block":
        return [statistic]
    if kind == "parameter":
        return list(dict.fromkeys([statistic, "grad_nonfinite"]))
    nonfinite = "grad_nonfinite" if statistic.startswith("grad_") else "nonfinite"
    return list(dict.fromkeys([statistic, nonfinite, "sampled_fraction"]))


def _profile(
    group: Group,
    statistic: str,
    kind: str,
    step: int | str | None,
    band: bool,
    layers: str | Sequence[str],
) -> pd.DataFrame:
    columns = needed_columns(statistic, kind)
    frames = [member.read(KINDS[kind], columns) for member in group.members]
    reference = next((frame for frame in frames if len(frame)), frames[0])
    _, names, _ = pivot(reference, statistic)
    where = places(group.members[0], kind, names, reference)
    where = where[layers_of(where, kind, layers)].reset_index(drop=True)
    stacks = [_stack(frame, statistic, where["site"].tolist()) for frame in frames]
    whole = np.concatenate(stacks) if stacks else np.empty((0, len(where)))
    chosen, at = whole, np.nan
    if step is not None and len(reference):
        picked = [
            stack[np.unique(frame["step"]) == nearest_step(frame["step"].unique(), step)]
            for stack, frame in zip(stacks, frames, strict=True)
            if len(frame)
        ]
        chosen = np.concatenate(picked)
        at = float(nearest_step(reference["step"].unique(), step))
    low, high = _quantiles(whole, BAND) if band and len(whole) > 1 else (np.nan, np.nan)
    return where.assign(
        run=group.label,
        value=_quantiles(chosen, (50,))[0],
        low=low,
        high=high,
        step=at,
        steps=reference["step"].nunique(),
        first_step=reference["step"].min() if len(reference) else np.nan,
        last_step=reference["step"].max() if len(reference) else np.nan,
        seeds=len(group.members),
        nonfinite=_count(frames, where, columns[1] if len(columns) > 1 else "", chosen_step=at),
        zeros=(chosen == 0).sum(axis=0),
        sampled_fraction=_sampled(frames),
    )


def _stack(frame: pd.DataFrame, statistic: str, names: Sequence[str]) -> np.ndarray:
    _, known, matrix = pivot(frame, statistic)
    position = {name: column for column, name in enumerate(known)}
    result = np.full((len(matrix), len(names)), np.nan)
    for column, name in enumerate(names):
        if name in position:
            result[:, column] = matrix[:, position[name]]
    return result


def _quantiles(values: np.ndarray, percent: Sequence[float]) -> list[np.ndarray]:
    """Percentiles along axis 0 over the finite values, NaN where there are none."""
    finite = np.where(np.isfinite(values), values, np.nan)
    empty = np.isnan(finite).all(axis=0) if len(finite) else np.ones(values.shape[1], dtype=bool)
    result = []
    for share in percent:
        line = np.full(values.shape[1], np.nan)
        if not empty.all():
            line[~empty] = np.nanpercentile(finite[:, ~empty], share, axis=0)
        result.append(line)
    return result


def _count(
    frames: Sequence[pd.DataFrame], where: pd.DataFrame, column: str, chosen_step: float
) -> np.ndarray:
    total = np.zeros(len(where), dtype=np.int64)
    for frame in frames:
        if column not in frame.columns or frame.empty:
            continue
        bad = frame[frame[column].to_numpy(dtype=float) > 0]
        if np.isfinite(chosen_step):
            bad = bad[bad["step"] == chosen_step]
        seen = bad.groupby(bad["site"].astype("str")).size()
        total += where["site"].map(seen).fillna(0).to_numpy(dtype=np.int64)
    return total


def _sampled(frames: Sequence[pd.DataFrame]) -> float:
    least = [float(f["sampled_fraction"].min()) for f in frames if "sampled_fraction" in f]
    known = [value for value in least if np.isfinite(value)]
    return min(known) if known else 1.0


def _as_profile(group: Group, part: pd.DataFrame) -> Profile:
    rank = part["rank"].to_numpy()
    spatial = rank >= 3
    # Average pooling divides the gradient by the number of positions: layers behind it are on
    # another scale, so the ends are taken among the feature maps wherever there are any.
    trunk = spatial if spatial.sum() >= 2 else np.ones(len(part), dtype=bool)
    return Profile(
        group.label,
        group.family,
        part["site"].tolist(),
        part["value"].to_numpy(dtype=float),
        part["stage"].tolist(),
        trunk,
    )


def _caption(data: pd.DataFrame, step: int | str | None, band: bool, log: bool) -> str:
    parts = []
    steps = sorted({int(n) for n in data["steps"]})
    if data["run"].nunique() == 1 and len(data):
        parts.append(str(data["run"].iloc[0]))
    if step is None:
        count = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}" if steps else "0"
        parts.append(f"line: median of {count} sampled steps")
    else:
        shown = sorted({int(n) for n in data["step"].dropna()})
        word = "step" if len(shown) < 2 else "steps"
        parts.append(f"line: {word} {', '.join(map(str, shown))}")
    if band and bool(data["low"].notna().any()):
        parts.append(f"band: {BAND[0]} to {BAND[1]} % over steps")
    if len(data) and data["seeds"].max() > 1:
        parts.append(f"{int(data['seeds'].max())} seeds folded into one line")
    if len(data) and data["sampled_fraction"].min() < 1:
        parts.append(f"from {data['sampled_fraction'].min() * 100:.3g} % of the elements")
    if len(data) and data["nonfinite"].sum():
        parts.append("✕ non-finite elements seen")
    if log and bool(((data["value"] == 0) & (data["zeros"] > 0)).any()):
        parts.append("▽ exactly zero")
    return " · ".join(parts)


def _add_line(
    figure: go.Figure,
    label: str,
    part: pd.DataFrame,
    x: str,
    look: Mapping[str, str],
    style: Style,
    span: Sequence[float],
    log: bool,
) -> None:
    across = part[x].to_numpy(dtype=float)
    values = part["value"].to_numpy(dtype=float)
    shade = band_trace(
        across,
        _drawn(part["low"].to_numpy(dtype=float), log),
        _drawn(part["high"].to_numpy(dtype=float), log),
        look["colour"],
        label,
    )
    if shade is not None:
        figure.add_trace(shade)
    many = len(part) > 70 and not style.paper
    marker = {"symbol": look["symbol"] if style.paper else "circle", "size": style.marker}
    if style.paper:
        marker["maxdisplayed"] = 9
    hover = [
        f"<b>{site}</b><br>{shorten(label, 40)} · {number(value)}"
        + (f"<br>10–90 %: {number(low)} to {number(high)}" if np.isfinite(low) else "")
        + (f"<br>non-finite at {bad} steps" if bad else "")
        for site, value, low, high, bad in zip(
            part["site"], values, part["low"], part["high"], part["nonfinite"], strict=True
        )
    ]
    figure.add_trace(
        go.Scatter(
            x=across,
            y=_drawn(values, log),
            mode="lines" if many else "lines+markers",
            name=shorten(label, 30),
            legendgroup=label,
            line={
                "color": look["colour"],
                "width": style.line,
                "dash": look["dash"] if style.paper else "solid",
            },
            marker=marker,
            hovertext=hover,
            hoverinfo="text",
            customdata=part["site"],
            connectgaps=False,
        )
    )
    _add_marks(figure, label, across, part["nonfinite"] > 0, span[1], "x", look["colour"], style)
    zero = (part["value"] == 0) | (part["value"].isna() & (part["zeros"] > 0))
    zero &= log
    _add_marks(figure, label, across, zero, span[0], "triangle-down-open", look["colour"], style)


def _drawn(values: np.ndarray, log: bool) -> np.ndarray:
    return np.where((values > 0) | (not log), values, np.nan)


def _add_marks(
    figure: go.Figure,
    label: str,
    across: np.ndarray,
    at: pd.Series,
    height: float,
    symbol: str,
    colour: str,
    style: Style,
) -> None:
    where = across[at.to_numpy(dtype=bool)]
    if not len(where):
        return
    figure.add_trace(
        go.Scatter(
            x=where,
            y=np.full(len(where), height),
            mode="markers",
            marker={"symbol": symbol, "size": style.marker + 3, "color": colour},
            legendgroup=label,
            showlegend=False,
            cliponaxis=False,
            hoverinfo="text",
            hovertext="non-finite elements" if symbol == "x" else "exactly zero",
        )
    )
