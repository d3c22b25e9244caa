"""What the passes showed -> the value that `check` returns, and its text.

Must never know how anything was measured.
"""

from __future__ import annotations

import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from gradscope.diagnosis import Attenuation
from gradscope.preflight.page import page
from gradscope.preflight.precision import HalfLoss
from gradscope.preflight.skips import SkipShare
from gradscope.schema import Finding


@dataclass(frozen=True)
class Reading:
    """One output by depth: medians over the passes; NaN where no gradient arrived."""

    site: str
    module_type: str
    grad_rms: float
    grad_norm: float
    rms: float
    dead_fraction: float


@dataclass(frozen=True)
class Report:
    """The verdict before training, with all it rests on; `print` it or `show` it."""

    model: str
    verdict: str
    findings: tuple[Finding, ...]
    profile: tuple[Reading, ...]
    attenuation: Attenuation
    skips: tuple[SkipShare, ...]
    precision: tuple[HalfLoss, ...]
    losses: tuple[float, ...]
    samples: int
    seconds: float

    def __str__(self) -> str:
        a = self.attenuation
        lines = [
            f"{self.model}: {self.verdict}",
            f"  loss {self.losses[0]:.4g}, {len(self.losses)} passes of {self.samples} samples, "
            f"{len(self.profile)} outputs, {self.seconds:.1f} s",
        ]
        if a.steps:
            lines.append(
                f"  gradient from loss to input: {a.slope:+.3f} decades per site "
                f"({a.low:+.3f} to {a.high:+.3f}), first/last {a.ratio:.2g}"
            )
        if self.skips:
            shares = sorted(self.skips, key=lambda s: s.share)
            lines.append(
                f"  skip share of {len(shares)} units: {shares[0].share:.0%} ({shares[0].unit}) "
                f"to {shares[-1].share:.0%} ({shares[-1].unit})"
            )
        if self.precision:
            worst = max(self.precision, key=lambda p: p.float16)
            lines.append(
                f"  gradient lost in half precision: float16 up to {worst.float16:.0%} "
                f"({worst.site}), bfloat16 up to {max(p.bfloat16 for p in self.precision):.0%}"
            )
        for finding in self.findings:
            lines += [f"  {finding.severity}: {finding.sentence}", f"    {finding.advice}"]
        return "\n".join(lines)

    def html(self) -> str:
        """The report as one self-contained page."""
        return page(
            self.model,
            self.verdict,
            str(self),
            self.findings,
            [(r.site, r.grad_rms) for r in self.profile],
            [(s.unit, s.share) for s in self.skips],
        )

    def show(self, path: str | Path | None = None, *, browser: bool = True) -> Path:
        """Write the page (to a temporary file unless `path`), open it, and return its path."""
        if path is None:
            folder = Path(tempfile.mkdtemp(prefix="gradscope-check-"))
            path = folder / "report.html"
        target = Path(path)
        target.write_text(self.html(), encoding="utf-8")
        if browser:
            webbrowser.open(target.resolve().as_uri())
        return target
