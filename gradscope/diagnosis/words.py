"""Numbers -> the words of a sentence. Must never know what the numbers mean."""

from __future__ import annotations

import math
from collections.abc import Sequence


def steps_words(first: int, last: int) -> str:
    """`step 3` or `steps 3 to 9`."""
    return f"step {first}" if first == last else f"steps {first} to {last}"


def power(value: float) -> str:
    """A factor for reading: `0.020`, `250`, `3e-7`."""
    if value <= 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.2g}" if 1e-3 <= value < 1e4 else f"{value:.0e}"


def share(value: float) -> str:
    """A share in percent, never rounded up to a whole."""
    if value >= 1.0:
        return "100 %"
    return f"{min(100 * value, 99.9):.3g} %"


def some(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
