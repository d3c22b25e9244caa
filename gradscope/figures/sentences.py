"""Turns prepared numbers into one honest sentence: what the picture shows, in words.

Says what was measured, never what the name of an architecture suggests. Must never know plotly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradscope.figures.theme import number

STEADY_DECADES = 0.5
"""Below this many decades from end to end a gradient counts as keeping its size."""
STEADY_SHARE = 0.05
"""Below this difference a share or another linear statistic counts as unchanged."""
LINEAR = (
    "zero_fraction",
    "grad_zero_fraction",
    "dead_fraction",
    "sampled_fraction",
    "skip_share",
    "cosine",
    "mean",
    "grad_mean",
)
"""Statistics on a linear scale, told as plain differences: shares, and what may be negative."""


@dataclass(frozen=True)
class Profile:
    """One line of a gradient profile, from the input to the loss. Shapes: all (layers,)."""

    label: str
    family: str
    sites: Sequence[str]
    values: np.ndarray
    stages: Sequence[str]
    trunk: np.ndarray


def join(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def decades(profile: Profile) -> float:
    """log10 of the value nearest the input / the value nearest the loss, within the trunk.

    Negative: the gradient falls on its way to the input. NaN with fewer than two usable layers.
    """
    usable = _usable(profile)
    if len(usable) < 2:
        return float("nan")
    return float(np.log10(profile.values[usable[0]] / profile.values[usable[-1]]))


def flow_sentence(profiles: Sequence[Profile], noun: str = "Gradient") -> str:
    """What happens to the gradient on its way from the loss to the input, per line."""
    known = [p for p in profiles if np.isfinite(decades(p))]
    if not known:
        return f"{noun} cannot be followed: fewer than two layers have a value above zero"
    if len(known) == 1:
        return _single(known[0], noun)
    parts = [f"{_change(decades(p))} in {p.label}" for p in known]
    return f"From loss to input the {noun.lower()} {join(parts)}{_surprise(known)}"


def linear_sentence(profiles: Sequence[Profile], label: str) -> str:
    """How a share, or what may be negative, differs from loss to input: plain values, no ratio."""
    parts = []
    for profile in profiles:
        good = np.flatnonzero(np.isfinite(profile.values))
        if len(good) < 2:
            continue
        first, last = (float(profile.values[good[i]]) for i in (0, -1))
        if abs(last - first) < STEADY_SHARE * max(1.0, abs(last), abs(first)):
            word = f"stays near {number(first)}"
        else:
            word = f"{'falls' if first < last else 'grows'} from {number(last)} to {number(first)}"
        parts.append(f"{word} in {profile.label}")
    if not parts:
        return f"{_capital(label)} cannot be followed: fewer than two layers have a value"
    return f"From loss to input the {label} {join(parts)}"


def _single(profile: Profile, noun: str) -> str:
    usable = _usable(profile)
    first, last = profile.sites[usable[0]], profile.sites[usable[-1]]
    total = decades(profile)
    if abs(total) < STEADY_DECADES:
        return (
            f"{noun} keeps its size from {last} to {first}: "
            f"the ends differ by {abs(total):.1f} decades"
        )
    word = "falls" if total < 0 else "grows"
    share = _where(profile, usable, total)
    return f"{noun} {word} {abs(total):.1f} decades from {last} to {first}{share}"


def _where(profile: Profile, usable: np.ndarray, total: float) -> str:
    """Which stage the change happens in. The step between two layers belongs to the later one,
    for it is that layer's Jacobian which the gradient has just passed."""
    height = np.log10(profile.values[usable])
    change: dict[str, float] = {}
    for position in range(len(usable) - 1):
        stage = profile.stages[usable[position + 1]]
        change[stage] = change.get(stage, 0.0) + float(height[position] - height[position + 1])
    if len(change) < 2:
        return ""
    stage = max(change, key=lambda name: change[name] / total)
    share = change[stage] / total
    verb = "lost" if total < 0 else "gained"
    if share > 1.05:
        return f"; {stage} alone accounts for {abs(change[stage]):.1f}"
    if share > 0.85:
        return f"; nearly all of it is {verb} in {stage}"
    if share > 0.55:
        return f"; {share * 100:.0f} % of it is {verb} in {stage}"
    if share > 0.45:
        return f"; half of it is {verb} in {stage}"
    return f"; the largest part, {share * 100:.0f} %, is {verb} in {stage}"


def _change(total: float) -> str:
    if abs(total) < STEADY_DECADES:
        return f"keeps its size ({_signed(total)} decades)"
    return f"{'falls' if total < 0 else 'grows'} {abs(total):.1f} decades"


def _signed(total: float) -> str:
    digits = f"{abs(total):.1f}"
    return digits if digits == "0.0" else f"{'−' if total < 0 else '+'}{digits}"


def _surprise(profiles: Sequence[Profile]) -> str:
    """Says so where a plain net keeps its gradient better than a residual one."""
    size: dict[str, list[float]] = {}
    for profile in profiles:
        size.setdefault(profile.family, []).append(abs(decades(profile)))
    if "plain" not in size or "residual" not in size:
        return ""
    if max(size["plain"]) + 0.2 < min(size["residual"]):
        return "; against the textbook, the plain network keeps it best here"
    if max(size["plain"]) < STEADY_DECADES:
        return "; the plain network does not vanish here"
    return ""


def _usable(profile: Profile) -> np.ndarray:
    good = np.isfinite(profile.values) & (profile.values > 0)
    inside = np.flatnonzero(good & profile.trunk)
    return inside if len(inside) >= 2 else np.flatnonzero(good)


def curve_sentence(last: Mapping[str, float], name: str, better: str) -> str:
    """Which line ends best. `last` maps label to final (smoothed) value; better: "low", "high"."""
    known = {label: value for label, value in last.items() if np.isfinite(value)}
    if not known:
        return f"No {name} was logged yet"
    ordered = sorted(known.items(), key=lambda item: item[1], reverse=better == "high")
    if len(ordered) == 1:
        return f"{_capital(name)} of {ordered[0][0]} stands at {number(ordered[0][1])}"
    word = "highest" if better == "high" else "lowest"
    best = number(ordered[0][1])
    tied = [label for label, value in ordered if number(value) == best]
    if len(tied) == len(ordered):
        return f"{_capital(name)} ends the same in {join(tied)} ({best})"
    rest = join([f"{label} {number(value)}" for label, value in ordered[len(tied) :]])
    return f"{_capital(name)} ends {word} in {join(tied)} ({best}); {rest}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def heatmap_sentence(
    sites: Sequence[str], steps: np.ndarray, cells: np.ndarray, label: str, *, log: bool = True
) -> str:
    """Which layer is smallest and how the range over layers moved from first to last step.

    In decades, or as plain differences without `log`. Shapes: sites (d,), steps (s,), cells (s, d).
    """
    name = _capital(label)
    if not log:
        return _linear_map(sites, steps, cells, name)
    good = np.isfinite(cells) & (cells > 0)
    rows = np.flatnonzero(good.sum(axis=1) >= 2)
    if not len(rows):
        return f"{name} has too few values above zero to compare layers"
    middle = np.array(
        [
            np.median(np.log10(c[g])) if g.any() else np.nan
            for c, g in zip(cells.T, good.T, strict=True)
        ]
    )
    low, high = int(np.nanargmin(middle)), int(np.nanargmax(middle))
    gap = middle[high] - middle[low]
    if gap < STEADY_SHARE:
        return f"{name} is the same at every layer, within a factor {number(float(10**gap))}"
    early, late = (_spread(cells[row][good[row]]) for row in (rows[0], rows[-1]))
    text = f"{name} is smallest at {sites[low]}, {gap:.1f} decades below {sites[high]}"
    if len(rows) > 1 and abs(late - early) >= STEADY_DECADES:
        word = "widens" if late > early else "narrows"
        text += (
            f"; the spread over layers {word} from {early:.1f} to {late:.1f} decades"
            f" between steps {int(steps[rows[0]])} and {int(steps[rows[-1]])}"
        )
    return text


def _linear_map(sites: Sequence[str], steps: np.ndarray, cells: np.ndarray, name: str) -> str:
    good = np.isfinite(cells)
    rows = np.flatnonzero(good.sum(axis=1) >= 2)
    if not len(rows):
        return f"{name} has too few values to compare layers"
    middle = np.array(
        [np.median(c[g]) if g.any() else np.nan for c, g in zip(cells.T, good.T, strict=True)]
    )
    low, high = int(np.nanargmin(middle)), int(np.nanargmax(middle))
    if number(float(middle[low])) == number(float(middle[high])):
        return f"{name} is the same at every layer ({number(float(middle[low]))})"
    text = (
        f"{name} is smallest at {sites[low]} ({number(float(middle[low]))}) "
        f"and largest at {sites[high]} ({number(float(middle[high]))})"
    )
    early, late = (float(np.median(cells[row][good[row]])) for row in (rows[0], rows[-1]))
    if len(rows) > 1 and abs(late - early) >= STEADY_SHARE * max(1.0, abs(late), abs(early)):
        text += (
            f"; its median over layers goes from {number(early)} to {number(late)}"
            f" between steps {int(steps[rows[0]])} and {int(steps[rows[-1]])}"
        )
    return text


def _spread(values: np.ndarray) -> float:
    return float(np.log10(values.max() / values.min()))
