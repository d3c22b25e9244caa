"""Runs and a figure's name -> image, page and data files in a folder, each written whole or not at all.

Must never know torch or Dash.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from gradscope.export.images import IMAGE_FORMATS, PNG_SCALE, Image, render
from gradscope.figures.bars import bars_table, draw_bars
from gradscope.figures.curve import curve_table, draw_curve
from gradscope.figures.decorrelation import draw_shattering, shattering_table
from gradscope.figures.difference import difference_table, draw_difference
from gradscope.figures.flow import draw_flow, flow_table
from gradscope.figures.front import draw_front, front_table
from gradscope.figures.heads import draw_heads, heads_table
from gradscope.figures.heatmap import draw_heatmap, heatmap_table
from gradscope.figures.paths import draw_paths, paths_table
from gradscope.figures.prepared import Prepared
from gradscope.figures.reuse import draw_reuse, reuse_table
from gradscope.figures.skips import draw_skips, skip_table
from gradscope.figures.training import draw_training, training_table
from gradscope.figures.worth import draw_worth, worth_table
from gradscope.frame import Run
from gradscope.schema import GradScopeError

FORMATS = (*IMAGE_FORMATS, "html", "csv")

TableStep = Callable[..., Prepared]
DrawStep = Callable[..., go.Figure]

COMPARING: Mapping[str, tuple[TableStep, DrawStep]] = {
    "gradient-flow": (flow_table, draw_flow),
    "training-curves": (training_table, draw_training),
    "gradient-difference": (difference_table, draw_difference),
    "ablation-bars": (bars_table, draw_bars),
    "ablation-curve": (curve_table, draw_curve),
    "pareto": (front_table, draw_front),
    "shattering": (shattering_table, draw_shattering),
}
"""Figures of several runs at once, by the name a user types."""

SINGLE: Mapping[str, tuple[TableStep, DrawStep]] = {
    "gradient-heatmap": (heatmap_table, draw_heatmap),
    "skip-share": (skip_table, draw_skips),
    "ablation-heatmap": (worth_table, draw_worth),
    "path-profile": (paths_table, draw_paths),
    "head-share": (heads_table, draw_heads),
    "feature-reuse": (reuse_table, draw_reuse),
}
"""Figures of one run: one file for each run that has the data."""


def export_figures(
    runs: Sequence[Run],
    *,
    figure: str = "gradient-flow",
    formats: Sequence[str] = ("png", "csv"),
    out: str | Path = "figures",
    style: str = "paper",
    width: str | float | None = None,
) -> list[Path]:
    """Write a figure of the runs in several formats; returns the files, in the order of `formats`.

    figure: a name of `COMPARING` or `SINGLE`; one of `SINGLE` gives a file for each run with data.
    formats: png, svg, pdf (through an installed Chromium or Chrome), html (one self-contained page),
        csv (exactly the numbers drawn).
    width: "single" (85 mm), "double" (175 mm) or millimetres; by default double for style "paper".
    Raises GradScopeError for unknown names, for no runs or none with data, and for images without a browser, in which
    case html and csv are written all the same.
    """
    _refuse(runs, figure, formats)
    folder = _folder(out)
    wide = width if width is not None or style != "paper" else "double"
    drawn = {
        stem: (p, draw(p, style=style, width=wide)) for stem, p, draw in _prepare(runs, figure)
    }
    written: dict[tuple[str, str], Path] = {}
    for stem, (prepared, picture) in drawn.items():
        if "csv" in formats:
            text = prepared.data.to_csv(index=False)
            written[stem, "csv"] = _write(folder / f"{stem}.csv", text.encode())
        if "html" in formats:
            page = picture.to_html(include_plotlyjs=True, full_html=True)
            written[stem, "html"] = _write(folder / f"{stem}.html", page.encode())
    wanted = [(stem, form) for stem in drawn for form in formats if form in IMAGE_FORMATS]
    scale = PNG_SCALE.get(style, 2.0)
    contents = render([Image(drawn[stem][1], form, scale) for stem, form in wanted])
    for (stem, form), content in zip(wanted, contents, strict=True):
        written[stem, form] = _write(folder / f"{stem}.{form}", content)
    return [written[stem, form] for stem in drawn for form in formats]


def _prepare(runs: Sequence[Run], figure: str) -> list[tuple[str, Prepared, DrawStep]]:
    if figure in COMPARING:
        table, draw = COMPARING[figure]
        return [(figure, table(list(runs)), draw)]
    table, draw = SINGLE[figure]
    prepared = [(f"{figure}-{run.name}", table(run), draw) for run in runs]
    filled = [entry for entry in prepared if len(entry[1].data)]
    if not filled:
        raise GradScopeError(f"None of the runs has data for {figure}: {prepared[0][1].answer}.")
    return filled


def _refuse(runs: Sequence[Run], figure: str, formats: Sequence[str]) -> None:
    if not runs:
        raise GradScopeError("There is no run to draw; record one first: gradscope demo.")
    known: dict[str, Any] = {**COMPARING, **SINGLE}
    if figure not in known:
        near = difflib.get_close_matches(figure, known, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
        raise GradScopeError(f"There is no figure {figure!r}; {hint}")
    unknown = [form for form in formats if form not in FORMATS]
    if unknown or not formats:
        wrong = unknown[0] if unknown else "nothing"
        raise GradScopeError(
            f"{wrong!r} is no format to export; take some of {', '.join(FORMATS)}."
        )
    if figure == "gradient-difference" and len(runs) != 2:
        raise GradScopeError(f"gradient-difference takes two runs, not {len(runs)}.")


def _folder(out: str | Path) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GradScopeError(
            f"The folder {folder} cannot be made ({error.strerror}); name another with --out."
        ) from None
    return folder


def _write(path: Path, content: bytes) -> Path:
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    except OSError as error:
        raise GradScopeError(f"{path} cannot be written ({error.strerror}).") from None
    return path
