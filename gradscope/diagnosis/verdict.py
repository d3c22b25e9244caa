"""Evidence -> all findings in order of weight, and findings -> one short sentence.

The rules stand in one visible tuple. Must never know how a run is stored or drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gradscope.diagnosis.evidence import Evidence, gather
from gradscope.diagnosis.finite import non_finite
from gradscope.diagnosis.flow import exploding, vanishing
from gradscope.diagnosis.training import clipping, gradient_spike, loss_course, update_ratio
from gradscope.diagnosis.units import dead_units, no_gradient
from gradscope.schema import SEVERITIES, Finding

if TYPE_CHECKING:
    from gradscope.store import StoredRun

Rule = Callable[[Evidence], list[Finding]]

RULES: tuple[Rule, ...] = (
    non_finite,
    dead_units,
    no_gradient,
    vanishing,
    exploding,
    gradient_spike,
    loss_course,
    update_ratio,
    clipping,
)
"""Every rule, causes before their consequences: findings of one severity keep this order."""

PHRASES = {
    "non_finite": "not finite from {site} on, step {first}",
    "dead_units": "dead units in {site}",
    "no_gradient": "no gradient reaches {site}",
    "vanishing": "gradient vanishes towards the input, from {site}",
    "exploding": "gradient explodes towards the input, from {site}",
    "gradient_spike": "gradient spike at step {first}",
    "divergence": "loss diverges after step {first}",
    "plateau": "loss does not move",
    "update_ratio": "updates of the wrong size in {site}",
    "clipping": "clipping acts at nearly every step",
    "underflow": "gradients would underflow in float16 at {site}",
    "overflow": "outputs would overflow in float16 at {site}",
}
"""The short form of a finding, by kind."""


def judge(evidence: Evidence, rules: Sequence[Rule] = RULES) -> tuple[Finding, ...]:
    """Apply rules to evidence; the gravest first, causes before consequences."""
    findings = [finding for rule in rules for finding in rule(evidence)]
    return tuple(sorted(findings, key=lambda f: -SEVERITIES.index(f.severity)))


def diagnose(run: StoredRun) -> tuple[Finding, ...]:
    """Findings on a recorded run, the gravest first; empty where the data say nothing.

    Reads a bounded number of rows, however long the run.
    """
    return judge(gather(run))


def verdict(findings: Sequence[Finding]) -> str:
    """One short sentence: the gravest finding and how many more there are."""
    faults = [finding for finding in findings if finding.severity != "info"]
    remarks = len(findings) - len(faults)
    if not faults:
        return f"No fault found; {_count(remarks, 'remark')}" if remarks else "No fault found"
    chief = faults[0]
    phrase = PHRASES.get(chief.kind, chief.kind.replace("_", " ") + " at {site}")
    text = phrase.format(site=chief.site, first=chief.first_step)
    more = f"; {_count(len(faults) - 1, 'more finding')}" if len(faults) > 1 else ""
    return text[0].upper() + text[1:] + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
