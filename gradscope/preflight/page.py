"""Plain values of a report -> one self-contained HTML page with its pictures as SVG.

Standard library only: the recording side never loads a plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from gradscope.schema import Finding

WIDTH, HEIGHT, LEFT, BOTTOM = 900, 280, 60, 30

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#59636e;--line:#d1d9e0;
--mark:#0072b2;--paper:#fff}
@media(prefers-color-scheme:dark){:root{
--ink:#e6edf3;--faint:#9198a1;--line:#3d444d;--mark:#56b4e9;--paper:#0d1117}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1rem;margin-top:2rem}svg{width:100%;height:auto}
text{fill:var(--faint);font-size:12px}pre{white-space:pre-wrap;color:var(--faint)}
.grid{stroke:var(--line)}.line{fill:none;stroke:var(--mark);stroke-width:2}.dot,.bar{fill:var(--mark)}
li{margin:.6rem 0}b{text-transform:capitalize}
"""


def page(
    model: str,
    verdict: str,
    text: str,
    findings: Sequence[Finding],
    profile: Sequence[tuple[str, float]],
    shares: Sequence[tuple[str, float]],
) -> str:
    """The page; `profile` holds (site, gradient rms) by depth, `shares` (unit, skip share)."""
    told = "".join(
        f"<li><b>{escape(f.severity)}</b>: {escape(f.sentence)}<br>{escape(f.advice)}</li>"
        for f in findings
    )
    parts = [
        f"<h1>{escape(model)}: {escape(verdict)}</h1>",
        f"<ul>{told}</ul>" if told else "",
        "<h2>Loss gradient (rms) by depth, input left, loss right</h2>",
        _profile(profile),
    ]
    if shares:
        parts += ["<h2>Share of the gradient that takes the shortcut</h2>", _bars(shares)]
    parts.append(f"<h2>In words</h2><pre>{escape(text)}</pre>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(model)}: check</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _x(i: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - 10) * (i / max(count - 1, 1))


def _profile(profile: Sequence[tuple[str, float]]) -> str:
    points = [
        (i, name, math.log10(value))
        for i, (name, value) in enumerate(profile)
        if math.isfinite(value) and value > 0
    ]
    if not points:
        return "<p>No loss gradient arrived at any output.</p>"
    low = math.floor(min(v for _, _, v in points))
    high = max(math.ceil(max(v for _, _, v in points)), low + 1)

    def y(value: float) -> float:
        return 10 + (HEIGHT - BOTTOM - 10) * (high - value) / (high - low)

    stride = max(1, (high - low) // 8)
    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y(d):.1f}" y2="{y(d):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y(d) + 4:.1f}" text-anchor="end">1e{d}</text>'
        for d in range(low, high + 1, stride)
    )
    at = [(_x(i, len(profile)), y(v), name, v) for i, name, v in points]
    line = " ".join(f"{x:.1f},{v:.1f}" for x, v, _, _ in at)
    dots = "".join(
        f'<circle class="dot" cx="{x:.1f}" cy="{v:.1f}" r="3"><title>{escape(name)}: {10**e:.3g}'
        "</title></circle>"
        for x, v, name, e in at
    )
    ends = (
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{escape(profile[0][0])}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 8}" text-anchor="end">{escape(profile[-1][0])}</text>'
    )
    return _svg(f'{grid}<polyline class="line" points="{line}"/>{dots}{ends}', "gradient by depth")


def _bars(shares: Sequence[tuple[str, float]]) -> str:
    step = (WIDTH - LEFT) / len(shares)
    tall = HEIGHT - BOTTOM - 10
    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{10 + tall * (1 - s):.1f}" '
        f'y2="{10 + tall * (1 - s):.1f}"/><text x="{LEFT - 8}" y="{14 + tall * (1 - s):.1f}" '
        f'text-anchor="end">{s:.0%}</text>'
        for s in (0.0, 0.5, 1.0)
    )
    bars = "".join(
        f'<rect class="bar" x="{LEFT + i * step + step * 0.1:.1f}" width="{step * 0.8:.1f}" '
        f'y="{10 + tall * (1 - value):.1f}" height="{tall * value:.1f}">'
        f"<title>{escape(name)}: {value:.3g}</title></rect>"
        for i, (name, value) in enumerate(shares)
        if math.isfinite(value)
    )
    return _svg(grid + bars, "skip share by unit")


def _svg(content: str, label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{content}</svg>'
