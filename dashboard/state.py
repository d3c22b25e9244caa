"""Turns a URL into what the reader is looking at, and back: every state is a link.

Must never know Dash, figures or runs; it holds names as they stand in the address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import quote, unquote_plus

SAFE = "/:.-_~#[]()="
"""Characters of run and layer names kept readable in a query; "#" is quoted by `_quoted`."""


@dataclass(frozen=True)
class State:
    """One view of the dashboard. Empty fields mean "not chosen" and are left out of the link.

    `runs`: the runs on the bar, in order; `hide`: those switched off; `base`: the baseline;
    `run`: the one looked at alone; `step`: an optimizer step, None for the newest;
    `layer`: the site in the drawer; `stat`: the statistic, as `table.column`;
    `axis`: "depth" for layer counts instead of relative depth; `severity`, `kind`: the filters
    of the findings; `metric`: of the ablations; `pause`: "1" where live updates are held.
    """

    runs: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    base: str = ""
    run: str = ""
    step: int | None = None
    layer: str = ""
    stat: str = ""
    axis: str = ""
    severity: str = ""
    kind: str = ""
    metric: str = ""
    theme: str = ""
    pause: str = ""

    def but(self, **changes: Any) -> State:
        """The same view with some fields changed."""
        return replace(self, **changes)

    def search(self) -> str:
        """The query part of the link, "" or starting with "?"; the inverse of `parse`."""
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or value in ("", ()):
                continue
            words = value if isinstance(value, tuple) else (str(value),)
            parts.append(f"{field.name}={','.join(_quoted(word) for word in words)}")
        return "?" + "&".join(parts) if parts else ""

    def href(self, path: str) -> str:
        """The whole link to this view on the page at `path`."""
        return path + self.search()


def parse(search: str | None) -> State:
    """The state a query string describes; unknown keys and unreadable values are ignored."""
    found: dict[str, Any] = {}
    for part in (search or "").removeprefix("?").split("&"):
        key, separator, value = part.partition("=")
        if not separator or not value:
            continue
        if key in ("runs", "hide"):
            names = [unquote_plus(word) for word in value.split(",")]
            found[key] = tuple(dict.fromkeys(name for name in names if name))
        elif key == "step":
            if value.isascii() and value.isdigit() and len(value) < 18:
                found[key] = int(value)
        elif key in _WORDS:
            found[key] = unquote_plus(value)
    return State(**found)


def toggled(names: Sequence[str], name: str) -> tuple[str, ...]:
    """`names` without `name` where it is in, with it at the end where it is not."""
    if name in names:
        return tuple(other for other in names if other != name)
    return (*names, name)


def opened(search: str | None, point: Any, cell: Any) -> str | None:
    """The address after a click on a plot: the drawer of the layer that the mark names.

    `point` and `cell` are click events of a profile and of a map (each None: not clicked); a cell
    also names the step. None where the mark names no layer.
    """
    clicked: dict[str, Any] = next(iter((cell or point or {}).get("points", [])), {})
    layer = clicked.get("customdata")
    if isinstance(layer, list):
        layer = layer[0] if layer else None
    if not isinstance(layer, str) or not layer:
        return None
    state = parse(search).but(layer=layer)
    if cell and isinstance(clicked.get("y"), (int, float)):
        state = state.but(step=round(clicked["y"]))
    return state.search()


_WORDS = {field.name for field in fields(State)} - {"runs", "hide", "step"}


def _quoted(word: str) -> str:
    return quote(word, safe=SAFE.replace("#", ""))
