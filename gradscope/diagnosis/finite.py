"""Evidence -> the finding on numbers that are not finite: the first step and the first place.

Must never guess what made them; it names where they were seen first, forward before backward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradscope.diagnosis.evidence import Evidence, Panel
from gradscope.diagnosis.words import steps_words
from gradscope.schema import Finding

FORWARD, BACKWARD, PARAMETER, LOSS = "forward", "backward", "parameter", "loss"


@dataclass(frozen=True)
class _Sight:
    """The first window in which a table showed something not finite, and where."""

    where: str
    site: str
    first: int
    last: int
    count: float
    seen: int
    lasting: bool


def non_finite(evidence: Evidence) -> list[Finding]:
    """NaN or infinity in outputs, gradients or the loss; those that passed are only remarked."""
    sights = [
        sight
        for sight in (
            _in_panel(evidence, evidence.outputs, "nonfinite", FORWARD),
            _in_panel(evidence, evidence.outputs, "grad_nonfinite", BACKWARD),
            _in_panel(evidence, evidence.parameters, "grad_nonfinite", PARAMETER),
            _in_loss(evidence),
        )
        if sight is not None
    ]
    if not sights:
        return []
    order = (FORWARD, BACKWARD, PARAMETER, LOSS)
    earliest = min(sights, key=lambda s: (s.first, order.index(s.where)))
    if _harmless(earliest, sights):
        return [_remark(earliest, "though loss and gradients stay finite", "", 0.9)]
    lasting = any(sight.lasting for sight in sights)
    if not lasting:
        skipped = "and training went on with finite numbers"
        return [_remark(earliest, skipped, _loss_scaling(earliest), 0.8)]
    exact = earliest.where != LOSS and earliest.first == earliest.last
    return [
        Finding(
            kind="non_finite",
            severity="critical",
            site=earliest.site,
            first_step=earliest.first,
            last_step=max(sight.last for sight in sights if sight.lasting),
            sentence=f"Numbers stop being finite at step {earliest.first}, first in "
            f"{_place(earliest)}.",
            advice=_advice(earliest),
            confidence=0.98 if exact else 0.8,
            evidence={
                "where": earliest.where,
                "elements": earliest.count,
                "also": [f"{s.where}: {s.site}" for s in sights if s is not earliest],
            },
        )
    ]


def _in_panel(evidence: Evidence, panel: Panel, column: str, where: str) -> _Sight | None:
    if column not in panel.high or panel.windows == 0:
        return None
    bad = panel.high[column] > 0
    if where == PARAMETER and "grad_norm" in panel.high:
        # Between sampled steps a device's norm is all there is, and it is infinite or NaN itself.
        bad |= np.isposinf(panel.high["grad_norm"])
    windows = np.flatnonzero(bad.any(axis=1))
    if len(windows) == 0:
        return None
    row = int(windows[0])
    columns = np.flatnonzero(bad[row])
    # The backward pass runs from the loss to the input: its first site is the deepest.
    column_index = int(columns[0] if where == FORWARD else columns[-1])
    known = np.flatnonzero((np.isfinite(panel.high[column]) | bad).any(axis=1))
    return _Sight(
        where=where,
        site=evidence.name(int(panel.sites[column_index])),
        first=int(panel.first[row]),
        last=int(panel.last[windows[-1]]),
        count=float(np.nan_to_num(panel.high[column][row, column_index])),
        seen=len(windows),
        lasting=bool(windows[-1] == known[-1]),
    )


def _in_loss(evidence: Evidence) -> _Sight | None:
    loss = evidence.scalars.get("loss")
    if loss is None or len(loss.values) == 0:
        return None
    bad = np.flatnonzero(~np.isfinite(loss.values))
    if len(bad) == 0:
        return None
    return _Sight(
        where=LOSS,
        site="loss",
        first=int(loss.steps[bad[0]]),
        last=int(loss.steps[bad[-1]]),
        count=1.0,
        seen=len(bad),
        lasting=bool(bad[-1] == len(loss.values) - 1),
    )


def _harmless(earliest: _Sight, sights: list[_Sight]) -> bool:
    """Minus infinity in an attention mask never reaches the loss or a gradient."""
    return earliest.where == FORWARD and all(s.where == FORWARD for s in sights)


def _place(sight: _Sight) -> str:
    return {
        FORWARD: f"the output of {sight.site}",
        BACKWARD: f"the loss gradient at {sight.site}",
        PARAMETER: f"the gradient of {sight.site}",
        LOSS: "the loss",
    }[sight.where]


def _loss_scaling(sight: _Sight) -> str:
    if sight.where == FORWARD:
        return ""
    return "Nothing to do where a GradScaler is at work: it skips such a step and lowers its scale."


def _remark(sight: _Sight, why: str, advice: str, confidence: float) -> Finding:
    times = "once" if sight.seen == 1 else f"{sight.seen} times"
    return Finding(
        kind="non_finite",
        severity="info",
        site=sight.site,
        first_step=sight.first,
        last_step=sight.last,
        sentence=f"NaN or infinity in {_place(sight)}, seen {times} "
        f"({steps_words(sight.first, sight.last)}), {why}.",
        advice=advice or "Nothing to do if a mask of minus infinity is meant.",
        confidence=confidence,
        evidence={"where": sight.where, "elements": sight.count, "windows": sight.seen},
    )


def _advice(sight: _Sight) -> str:
    return {
        FORWARD: f"Look at {sight.site} at step {sight.first}: a logarithm or division of zero, "
        "an exponential, or float16 overflow; clamp its input or compute it in float32.",
        BACKWARD: f"Look at the operation after {sight.site}: its derivative is infinite there "
        "(square root or norm at 0, log at 0); add a small epsilon inside it.",
        PARAMETER: "Record outputs at every step (every=1) from a checkpoint before that step to "
        "find the layer; until then clip gradients or lower the learning rate.",
        LOSS: "Check that batch's data and labels for NaN, then the loss function's logarithm.",
    }[sight.where]
