"""The value between a figure's table step and its draw step: data, the answer, the caption.

Must never know plotly, runs or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Prepared:
    """Exactly what is drawn. `answer` is the title in words, `caption` how the data was treated.

    `data` holds every drawn number, one tidy row each; `options` what else the draw step needs
    (labels, colours, stage boundaries), plain values only.
    """

    name: str
    data: pd.DataFrame
    answer: str
    caption: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
