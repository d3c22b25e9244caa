"""Magnitude histograms of a model's tensors -> what float16 and bfloat16 would lose of them.

Must never know how the tensors came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradscope.diagnosis import thresholds as limits
from gradscope.measure import LOWEST, underflow_share
from gradscope.schema import Finding, Site

Counts = Mapping[tuple[int, int], NDArray[np.int64]]


@dataclass(frozen=True)
class HalfLoss:
    """Shares of the non-zero gradient elements at a site that turn to zero in a half type.

    `scaled`: in float16 under the best common loss scale, the one that brings the largest gradient
    just below overflow.
    """

    site: str
    float16: float
    bfloat16: float
    scaled: float


def half_losses(sites: list[Site], counts: Counts) -> tuple[HalfLoss, ...]:
    """One row per output at which a loss gradient arrived, in order of depth."""
    gradients = {site: c for (site, of), c in counts.items() if of == 1 and c.sum() > 0}
    if not gradients:
        return ()
    largest = max(int(np.flatnonzero(c)[-1]) for c in gradients.values()) + LOWEST
    shift = limits.FLOAT16_LARGEST - largest
    return tuple(
        HalfLoss(
            sites[i].name,
            underflow_share(c, "float16")[0],
            underflow_share(c, "bfloat16")[0],
            underflow_share(_shifted(c, shift), "float16")[0],
        )
        for i, c in sorted(gradients.items(), key=lambda item: sites[item[0]].depth)
    )


def _shifted(counts: NDArray[np.int64], by: int) -> NDArray[np.int64]:
    index = np.clip(np.arange(len(counts)) + by, 0, len(counts) - 1)
    return np.bincount(index, weights=counts, minlength=len(counts)).astype(np.int64)


def precision_findings(
    sites: list[Site], counts: Counts, losses: tuple[HalfLoss, ...], last: int
) -> list[Finding]:
    """Underflow of gradients and overflow of outputs, should the model train in float16."""
    return [*_underflow(losses, last), *_overflow(sites, counts, last)]


def _underflow(losses: tuple[HalfLoss, ...], last: int) -> list[Finding]:
    bad = [loss for loss in losses if loss.float16 > limits.UNDERFLOW_SHARE]
    if not bad:
        return []
    beyond = [loss for loss in bad if loss.scaled > limits.UNDERFLOW_SHARE]
    worst = max(beyond or bad, key=lambda loss: loss.scaled if beyond else loss.float16)
    lost = worst.scaled if beyond else worst.float16
    how = "under any loss scale" if beyond else "without loss scaling"
    advice = (
        "Train in bfloat16 or float32: float16 cannot hold this range of gradients."
        if beyond
        else "In float16 use torch.amp.GradScaler; bfloat16 and float32 need nothing."
    )
    return [
        Finding(
            kind="underflow",
            severity="warning" if beyond else "info",
            site=worst.site,
            first_step=0,
            last_step=last,
            sentence=f"In float16 {100 * lost:.3g} % of the gradient at {worst.site} would turn to "
            f"zero {how} ({len(beyond or bad)} of {len(losses)} sites lose more than 5 %).",
            advice=advice,
            confidence=0.9,
            evidence={"float16": worst.float16, "bfloat16": worst.bfloat16, "scaled": worst.scaled},
        )
    ]


def _overflow(sites: list[Site], counts: Counts, last: int) -> list[Finding]:
    over = []
    for (index, of), count in counts.items():
        top = np.flatnonzero(count)
        if of == 0 and len(top) and top[-1] + LOWEST > limits.FLOAT16_LARGEST:
            over.append((sites[index].depth, sites[index].name, int(top[-1]) + LOWEST))
    if not over:
        return []
    _, name, exponent = min(over)
    return [
        Finding(
            kind="overflow",
            severity="info",
            site=name,
            first_step=0,
            last_step=last,
            sentence=f"In float16 the output of {name} would overflow: it reaches 2^{exponent}, "
            "the type ends below 2^16.",
            advice="Train in bfloat16 or float32, or normalise before it.",
            confidence=0.95,
            evidence={"exponent": exponent, "sites": len(over)},
        )
    ]
