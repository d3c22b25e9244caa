"""A recording -> the few lines that `print(scope)` and the end of a run show.

Must never know tensors.
"""

from __future__ import annotations

from gradscope.diagnosis import diagnose, verdict
from gradscope.record.sampling import Sampling
from gradscope.record.sites import SiteList
from gradscope.schema import Finding
from gradscope.store import RunWriter, open_run

SHOWN = 3
"""Findings that a summary names."""


def findings_of(writer: RunWriter) -> tuple[Finding, ...]:
    """The diagnosis of a run as far as it is on disk."""
    return diagnose(open_run(writer.path))


def summary(
    writer: RunWriter,
    sampling: Sampling,
    sites: SiteList,
    steps: int,
    still_open: bool,
    beside: str = "",
) -> str:
    """What was recorded, where, at what cost, and the diagnosis; `beside`: what is no part of it."""
    if still_open:
        writer.flush()
    findings = findings_of(writer)
    counts = sites.counts()
    seen = ", ".join(f"{n} {kind}s" for kind, n in counts.items()) or "nothing yet"
    cost = sampling.cost()
    share = f"{100 * cost:.2g} % of the training's time" if cost == cost else "not yet known"
    lines = [
        f"GradScope {'is recording' if still_open else 'recorded'} {writer.name}: {steps} steps, "
        f"{sampling.sampled_steps} sampled in full; {seen}",
        f"  in {writer.path}, cost {share}{f'; {beside}' if beside else ''}",
        f"  {verdict(findings)}",
    ]
    notable = [f for f in findings if f.severity != "info"]
    lines += [f"  {f.severity}: {f.sentence} {f.advice}" for f in notable[:SHOWN]]
    if len(notable) > SHOWN:
        lines.append(f"  and {len(notable) - SHOWN} more: gradscope.load({str(writer.path)!r})")
    return "\n".join(lines)
