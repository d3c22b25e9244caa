"""Turns a style name into colours, fonts, sizes and a plotly template; names into short labels.

Must never know runs, tables or files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from gradscope.schema import GradScopeError

# Okabe & Ito's palette without its black and yellow, which vanish on a dark or a white ground.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PINK, ORANGE, SKY, GREY = "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A"
PALETTE = (BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY, GREY)
FAMILY_HUES: Mapping[str, str] = {
    "residual": BLUE,
    "plain": VERMILLION,
    "dense": GREEN,
    "inception": PINK,
    "torchvision": SKY,
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "x", "cross")
MAGNITUDES = "Viridis"
WIDTHS_MM = {"single": 85.0, "double": 175.0}
PX_PER_MM = 96 / 25.4
_SANS = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Helvetica, Arial, sans-serif"
_PRINT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Style:
    """What a figure looks like; sizes in px (1 px = 1/96 inch, so 8 pt = 10.7 px)."""

    name: str
    font: str
    ink: str
    muted: str
    grid: str
    axis: str
    ground: str
    text: float
    small: float
    heading: float
    line: float
    marker: float
    difference: tuple[tuple[float, str], ...]

    @property
    def paper(self) -> bool:
        return self.name == "paper"


_LIGHT_DIFFERENCE = (
    (0.0, "#0B4F8A"),
    (0.25, "#6FA8D6"),
    (0.5, "#F5F5F5"),
    (0.75, "#EFA26B"),
    (1.0, "#9C3A00"),
)
_DARK_DIFFERENCE = (
    (0.0, "#7CC0F5"),
    (0.25, "#2E6EA6"),
    (0.5, "#23272E"),
    (0.75, "#B4561A"),
    (1.0, "#FFB27A"),
)
STYLES: Mapping[str, Style] = {
    "screen": Style(
        "screen", _SANS, "#1B1F24", "#59636E", "#E4E7EB", "#AEB6BF", "#FFFFFF",
        13, 11, 16, 2.0, 6, _LIGHT_DIFFERENCE,
    ),
    "dark": Style(
        "dark", _SANS, "#E8EAED", "#A3ACB8", "#2C323B", "#59636E", "#15181D",
        13, 11, 16, 2.0, 6, _DARK_DIFFERENCE,
    ),
    "paper": Style(
        "paper", _PRINT, "#000000", "#333333", "#D9D9D9", "#000000", "rgba(0,0,0,0)",
        10.7, 9.4, 10.7, 1.4, 4.5, _LIGHT_DIFFERENCE,
    ),
}  # fmt: skip


def style_of(name: str) -> Style:
    """The style of that name; GradScopeError for another one."""
    if name not in STYLES:
        raise GradScopeError(f"no style named {name!r}; there are {', '.join(STYLES)}")
    return STYLES[name]


def width_px(width: str | float | None) -> float | None:
    """ "single" (85 mm), "double" (175 mm), millimetres as a number, or None for responsive."""
    if width is None:
        return None
    if isinstance(width, str):
        if width not in WIDTHS_MM:
            raise GradScopeError(f"width must be 'single', 'double' or millimetres, not {width!r}")
        return WIDTHS_MM[width] * PX_PER_MM
    return float(width) * PX_PER_MM


def template(style: Style) -> go.layout.Template:
    """The plotly template of a style: fonts, grids, margins, hover labels."""
    axis = {
        "showline": True,
        "linecolor": style.axis,
        "linewidth": 1,
        "gridcolor": style.grid,
        "gridwidth": 1 if not style.paper else 0.6,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4 if not style.paper else 3,
        "tickcolor": style.axis,
        "tickfont": {"size": style.small, "color": style.muted},
        "title": {"font": {"size": style.text, "color": style.ink}, "standoff": 8},
        "automargin": True,
    }
    layout = go.Layout(
        font={"family": style.font, "size": style.text, "color": style.ink},
        paper_bgcolor=style.ground,
        plot_bgcolor=style.ground,
        colorway=list(PALETTE),
        xaxis={**axis, "showgrid": False},
        yaxis=axis,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "font": {"size": style.text},
            "bgcolor": "rgba(0,0,0,0)",
        },
        hoverlabel={
            "bgcolor": "#262B33" if style.name == "dark" else "#FFFFFF",
            "bordercolor": style.axis,
            "font": {"family": style.font, "size": 12, "color": style.ink},
            "align": "left",
            "namelength": -1,
        },
        separators=".\u2009",
    )
    return go.layout.Template(layout=layout)


def run_colours(names: Sequence[str], families: Mapping[str, str] | None = None) -> dict[str, str]:
    """A colour for each run or group, the same for the same set of names in whatever order.

    The first run (by name) of a family gets its family's hue; the others get what is left of
    the palette, by name; beyond seven the colours repeat and dashes tell them apart.
    """
    ordered = sorted(set(names))
    colours: dict[str, str] = {}
    for name in ordered:
        hue = FAMILY_HUES.get((families or {}).get(name, ""))
        if hue is not None and hue not in colours.values():
            colours[name] = hue
    free = [colour for colour in PALETTE if colour not in colours.values()]
    rest = [name for name in ordered if name not in colours]
    for position, name in enumerate(rest):
        source = free if position < len(free) else PALETTE
        offset = position if position < len(free) else position - len(free)
        colours[name] = source[offset % len(source)]
    return {name: colours[name] for name in ordered}


def translucent(colour: str, alpha: float) -> str:
    """`#RRGGBB` -> `rgba(r,g,b,alpha)`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def shorten(name: str, limit: int = 22) -> str:
    """A long name with its middle left out: `features.denseblock…conv2`."""
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[len(name) - tail :]}"


def number(value: float) -> str:
    """Three significant digits; powers of ten beyond 0.001 .. 9999 (`1.2×10⁻⁵`)."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if 1e-3 <= abs(rounded) < 1e4:
        return f"{rounded:.6g}".replace("-", "−")
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    return f"{mantissa}×10{superscript(int(exponent))}"


def superscript(exponent: int) -> str:
    """-5 -> ⁻⁵"""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
