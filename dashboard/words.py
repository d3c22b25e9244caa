"""Turns numbers, ages and names into the short words a reader sees.

Must never know Dash, runs or figures.
"""

from __future__ import annotations

import math

from gradscope.figures import theme

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | int | None) -> str:
    """A number with 3 significant digits, as a power of ten where it is far from one.

    `1234567 -> 1.23×10⁶`, `0.0456 -> 0.0456`, missing -> "–", infinite -> "∞".
    """
    if value is None or math.isnan(value):
        return "–"
    return theme.number(float(value))


def count(value: float | int) -> str:
    """A count with an SI prefix: `272474 -> 272 k`."""
    for size, prefix in _PREFIXES:
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g} {prefix}"
    return f"{value:,.0f}".replace(",", " ")


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; missing -> "–"."""
    if value is None or math.isnan(value):
        return "–"
    return f"{100 * value:.1f} %"


def age(seconds: float) -> str:
    """How long ago, in the largest unit that tells something: `4 s`, `12 min`, `3 h`, `5 d`."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} d"


def plural(amount: int, one: str, many: str = "") -> str:
    """`3 runs`, `1 run`."""
    return f"{amount} {one if amount == 1 else many or one + 's'}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) <= 1:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
