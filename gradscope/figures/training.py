"""How well does it learn? Runs -> curves of logged scalars, raw behind smoothed.

Must never know files or Dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gradscope.figures.axes import band as band_trace
from gradscope.figures.axes import empty_note, finish
from gradscope.figures.prepared import Prepared
from gradscope.figures.sentences import curve_sentence
from gradscope.figures.sources import Group, Source, groups
from gradscope.figures.theme import Style, number, shorten, style_of, translucent
from gradscope.schema import GradScopeError

VALIDATION = ("val_", "test_", "valid_", "eval_")
DENSE = 40
"""From so many points on a curve is smoothed; fewer are drawn as they are, with markers."""
MOST_POINTS = 1500


def training_table(
    runs: Source,
    *,
    names: Sequence[str] = ("loss", "accuracy"),
    smoothing: float = 0.02,
    fold: bool = True,
    colours: Mapping[str, str] | None = None,
) -> Prepared:
    """One row per drawn point: `run`, `name`, `panel`, `step`, `value`, `smoothed`, `low`, `high`,
    `seeds`, `nonfinite`.

    Each name is a panel; `val_NAME` (also `test_`, `eval_`) joins the panel of NAME. `smoothed` is
    a centred mean over a window of `smoothing` x the number of steps (triangular weights, NaN where
    there is no value). Several seeds: the median, and `low`..`high` the smallest and largest.
    """
    if not 0 <= smoothing < 1:
        raise GradScopeError(f"smoothing must be at least 0 and below 1, not {smoothing}")
    found = groups(runs, fold=fold, colours=colours)
    parts = [_curves(group, tuple(names), smoothing) for group in found]
    data = pd.concat(parts, ignore_index=True)
    looks = {g.label: {"colour": g.colour, "dash": g.dash, "symbol": g.symbol} for g in found}
    panels = [name for name in names if bool((data["panel"] == name).any())] or list(names)[:1]
    smooth = bool((data["smoothed"].notna()).any())
    caption = []
    if len(found) == 1:
        caption.append(found[0].label)
    if smooth:
        caption.append("bold: smoothed, faint: as logged")
    if bool(data["validation"].any()):
        caption.append("dashed: validation")
    if any(group.folded for group in found):
        caption.append("band: smallest to largest of the seeds, line: their median")
    if len(data) and int(data["nonfinite"].sum()):
        caption.append("✕ not finite")
    answer = _answer(data, panels[0], list(looks))
    return Prepared(
        "training-curves", data, answer, " · ".join(caption), {"panels": panels, "looks": looks}
    )


def draw_training(
    prepared: Prepared,
    *,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """One panel a name, side by side; stacked at a width of one column."""
    look = style_of(style)
    panels: Sequence[str] = prepared.options["panels"]
    looks: Mapping[str, Mapping[str, str]] = prepared.options["looks"]
    stacked = width == "single" or (look.paper and width is None)
    shape = {"rows": len(panels), "cols": 1} if stacked else {"rows": 1, "cols": len(panels)}
    figure = make_subplots(
        **shape, shared_xaxes=stacked, vertical_spacing=0.07, horizontal_spacing=0.09
    )
    named: set[str] = set()
    data = prepared.data
    for number_, panel in enumerate(panels, start=1):
        row, column = (number_, 1) if stacked else (1, number_)
        here = data[data["panel"] == panel]
        for (label, _name), part in here.groupby(["run", "name"], sort=False):
            for trace in _traces(str(label), part, looks[str(label)], look, str(label) in named):
                figure.add_trace(trace, row=row, col=column)
            named.add(str(label))
        figure.update_yaxes(title={"text": panel.replace("_", " ")}, row=row, col=column)
        if not stacked or number_ == len(panels):
            figure.update_xaxes(title={"text": "optimizer step"}, row=row, col=column)
    if data.empty:
        empty_note(figure, "nothing was logged yet: call scope.log(loss=loss)", look)
    entries = [label for label in looks if label in named] if len(looks) > 1 else []
    tall = height
    if tall is None and stacked:
        tall = 60 + 150 * len(panels)
    return finish(figure, prepared, look, width=width, title=title, height=tall, entries=entries)


def training_curves(
    runs: Source,
    *,
    names: Sequence[str] = ("loss", "accuracy"),
    smoothing: float = 0.02,
    fold: bool = True,
    colours: Mapping[str, str] | None = None,
    style: str = "screen",
    width: str | float | None = None,
    height: float | None = None,
    title: bool | None = None,
) -> go.Figure:
    """Logged scalars over steps, a panel each, with their validation counterparts dashed.

    The raw line stays faint behind the smoothed one (`smoothing` = window as a share of the steps;
    0 for none). Seeds of one model fold into their median with a band unless fold=False.
    """
    prepared = training_table(runs, names=names, smoothing=smoothing, fold=fold, colours=colours)
    return draw_training(prepared, style=style, width=width, height=height, title=title)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean with triangular weights over `window` points each way; NaN stays NaN."""
    if window < 1:
        return values.astype(float)
    kernel = np.bartlett(2 * window + 3)[1:-1]
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), kernel, mode="full")[window:-window]
    weight = np.convolve(known.astype(float), kernel, mode="full")[window:-window]
    result = np.full(len(values), np.nan)
    result[known] = total[known] / weight[known]
    return result


def base_name(name: str) -> str:
    """`val_loss` -> `loss`; a training name stays."""
    for prefix in VALIDATION:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _curves(group: Group, names: Sequence[str], smoothing: float) -> pd.DataFrame:
    scalars = [member.read("scalars", None) for member in group.members]
    known = dict.fromkeys(str(name) for frame in scalars for name in frame["name"].unique())
    parts = []
    for panel in names:
        chosen = [panel] if panel in known else []
        chosen += [n for n in known if n != panel and n not in names and base_name(n) == panel]
        for name in chosen:
            logged = {
                position: frame[frame["name"] == name]
                .drop_duplicates("step", keep="last")
                .set_index("step")["value"]
                for position, frame in enumerate(scalars)
            }
            table = pd.concat(logged, axis=1).sort_index()
            # A NaN that was logged is news; one that comes from joining the seeds' steps is not.
            bad = pd.concat({p: ~np.isfinite(v) for p, v in logged.items()}, axis=1)
            wrong = bad.reindex(table.index).eq(True).sum(axis=1).to_numpy()
            parts.append(_curve(group.label, panel, name, table, wrong, smoothing))
    columns = ["run", "panel", "name", "validation", "step", "value"]
    empty = pd.DataFrame(columns=[*columns, "smoothed", "low", "high", "seeds", "nonfinite"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _curve(
    label: str,
    panel: str,
    name: str,
    table: pd.DataFrame,
    wrong: np.ndarray,
    smoothing: float,
) -> pd.DataFrame:
    values = table.to_numpy(dtype=float)
    finite = np.where(np.isfinite(values), values, np.nan)
    window = round(smoothing * len(table)) if len(table) >= DENSE else 0
    lines = np.column_stack([smooth(column, window) for column in finite.T])
    alive = np.isfinite(lines).any(axis=1)
    middle = np.full(len(table), np.nan)
    low, high, raw = middle.copy(), middle.copy(), middle.copy()
    if alive.any():
        middle[alive] = np.nanmedian(lines[alive], axis=1)
        raw[alive] = np.nanmedian(finite[alive], axis=1)
        if values.shape[1] > 1:
            low[alive], high[alive] = (
                np.nanmin(lines[alive], axis=1),
                np.nanmax(lines[alive], axis=1),
            )
    frame = pd.DataFrame(
        {
            "run": label,
            "panel": panel,
            "name": name,
            "validation": base_name(name) != name and panel != name,
            "step": table.index.to_numpy(),
            "value": raw,
            "smoothed": middle if window or values.shape[1] > 1 else np.nan,
            "low": low,
            "high": high,
            "seeds": values.shape[1],
            "nonfinite": wrong,
        }
    )
    return _thinned(frame)


def _thinned(frame: pd.DataFrame) -> pd.DataFrame:
    """Keeps the smallest and largest raw value of every bucket, and all non-finite rows."""
    if len(frame) <= MOST_POINTS:
        return frame
    bucket = np.arange(len(frame)) * (MOST_POINTS // 2) // len(frame)
    values = frame["value"]
    known = values.notna()
    grouped = values[known].groupby(bucket[known.to_numpy()])
    keep = np.array(frame["nonfinite"] > 0)
    keep[grouped.idxmin().to_numpy()] = True
    keep[grouped.idxmax().to_numpy()] = True
    keep[[0, -1]] = True
    return frame[keep]


def _answer(data: pd.DataFrame, panel: str, labels: Sequence[str]) -> str:
    here = data[data["panel"] == panel]
    validated = here[here["validation"].astype(bool)]
    chosen = validated if len(validated) else here
    last = {}
    for label in labels:
        part = chosen[chosen["run"] == label]
        line = part["smoothed"].where(part["smoothed"].notna(), part["value"]).dropna()
        last[label] = float(line.iloc[-1]) if len(line) else float("nan")
    noun = panel if not len(validated) else f"validation {panel}"
    better = "high" if any(word in panel for word in ("acc", "f1", "auc")) else "low"
    return curve_sentence(last, noun.replace("_", " "), better)


def _traces(
    label: str, part: pd.DataFrame, look: Mapping[str, str], style: Style, named: bool
) -> list[go.Scatter]:
    across = part["step"].to_numpy(dtype=float)
    traces = []
    shade = band_trace(
        across,
        part["low"].to_numpy(dtype=float),
        part["high"].to_numpy(dtype=float),
        look["colour"],
        label,
    )
    if shade is not None:
        traces.append(shade)
    smoothed = bool(part["smoothed"].notna().any())
    validation = bool(part["validation"].iloc[0])
    if smoothed and part["seeds"].iloc[0] == 1:
        traces.append(
            go.Scatter(
                x=across,
                y=part["value"],
                mode="lines",
                line={"color": translucent(look["colour"], 0.25), "width": 1},
                legendgroup=label,
                showlegend=False,
                hoverinfo="skip",
            )
        )
    values = part["smoothed"] if smoothed else part["value"]
    dash = "dash" if validation else (look["dash"] if style.paper and not validation else "solid")
    name = str(part["name"].iloc[0])
    traces.append(
        go.Scatter(
            x=across,
            y=values,
            mode="lines+markers" if len(part) < DENSE else "lines",
            name=shorten(label, 30),
            legendgroup=label,
            showlegend=not named,
            line={"color": look["colour"], "width": style.line, "dash": dash},
            marker={
                "size": style.marker,
                "symbol": f"{look['symbol']}-open" if validation else look["symbol"],
            },
            hovertext=[
                f"<b>{shorten(label, 40)}</b> {name}<br>step {int(step)}: {number(value)}"
                for step, value in zip(across, values, strict=True)
            ],
            hoverinfo="text",
            connectgaps=False,
        )
    )
    marks = _bad_marks(label, part, look["colour"], style)
    return traces if marks is None else [*traces, marks]


def _bad_marks(label: str, part: pd.DataFrame, colour: str, style: Style) -> go.Scatter | None:
    bad = part[part["nonfinite"] > 0]
    if bad.empty:
        return None
    known = part["value"][np.isfinite(part["value"])]
    return go.Scatter(
        x=bad["step"],
        y=np.full(len(bad), known.max() if len(known) else 1.0),
        mode="markers",
        marker={"symbol": "x", "size": style.marker + 3, "color": colour},
        legendgroup=label,
        showlegend=False,
        hoverinfo="text",
        hovertext="not finite",
    )
